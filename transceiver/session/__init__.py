"""One call: its state machine, and what the machine's effects do."""
