"""A call bridged to a Realtime service that is reached by WebSocket: docs/adr/0027, docs/agent.md."""
