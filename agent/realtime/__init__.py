"""The OpenAI Realtime API, server side: the session engine, without I/O, model or audio codec."""
