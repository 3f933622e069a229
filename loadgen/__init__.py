"""The load generator: real calls through a relay, on the protocol cores alone, and what became of every frame."""
