"""What a session of the OpenAI Realtime API is configured by: one schema for whoever takes a session (signalling) and whoever
serves it (agents), so that what the one accepts the other does."""
