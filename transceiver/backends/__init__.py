"""Backends: what answers a call. Today the agent link alone."""
