"""Several transceivers behind one command, one a core: a parent that supervises, workers that share nothing but the HTTP
address (docs/transceiver.md, ADR 19).

`place` is what a worker knows of itself and its siblings; `forward` brings requests about a call to the worker that has it;
`loads` is how full each of them is; `orders` is what the parent tells a worker; `supervisor` is the parent.
"""

from transceiver.workers.forward import Forwarder
from transceiver.workers.loads import Loads
from transceiver.workers.orders import END, follow_orders
from transceiver.workers.place import WorkerPlace, check_own_ports, shift_port, usable_cpus
from transceiver.workers.supervisor import Supervisor, WorkerFailed

__all__ = [
    "END",
    "Forwarder",
    "Loads",
    "Supervisor",
    "WorkerFailed",
    "WorkerPlace",
    "check_own_ports",
    "follow_orders",
    "shift_port",
    "usable_cpus",
]
