"""Backends: what answers a call. The links to agents, and an echo in the process itself; `pool.BACKENDS` names them."""
