"""The whole of Antiphon on one machine, for `just up`, tests and first steps: it starts the processes and wires them up."""
