"""The sockets of a relay. The supervisor opens them all and keeps them for its life; workers come and go.

Each worker has one socket for each listen address, all in the kernel's SO_REUSEPORT group of that address, and a trunk
socket of its own. The group never changes while the relay lives: no flow is ever given to another worker, and what
arrives while a worker is away waits in its sockets.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace

from protocol.address import format_address, pack_address
from relay.config import RelayConfig
from service.addresses import parse_host_port, to_host_port
from service.listening import naming
from udpio import SocketOptions, bind_udp

__all__ = [
    "CLIENT_SLOT",
    "TRUNK_SLOT",
    "WorkerSockets",
    "client_options",
    "open_sockets",
    "trunk_options",
    "usable_cpus",
]

# Implementation constants
CLIENT_SLOT = 2048  # no protocol of WebRTC needs more than 1500; what is longer is dropped
TRUNK_SLOT = 9216  # a jumbo frame: a bundle is never longer than the peer's MTU


@dataclass(frozen=True, slots=True)
class WorkerSockets:
    """One worker's; `fronts` in the order of `relay.listen`."""

    fronts: tuple[socket.socket, ...]
    back: socket.socket

    @property
    def listen(self) -> list[str]:
        return [_bound(front) for front in self.fronts]

    @property
    def trunk(self) -> str:
        return _bound(self.back)

    def close(self) -> None:
        for sock in (*self.fronts, self.back):
            sock.close()


def client_options(config: RelayConfig) -> SocketOptions:
    return SocketOptions(
        batch_size=config.batch_size,
        slot_size=CLIENT_SLOT,
        receive_buffer=config.receive_buffer,
        send_buffer=config.send_buffer,
        reuse_port=config.reuse_port,
    )


def trunk_options(config: RelayConfig) -> SocketOptions:
    return replace(client_options(config), slot_size=TRUNK_SLOT, reuse_port=False)


def usable_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def open_sockets(config: RelayConfig) -> list[WorkerSockets]:
    """For every worker. Raises CannotListen, and leaves nothing open then."""
    workers = config.workers or len(usable_cpus())
    options = replace(client_options(config), reuse_port=config.reuse_port or workers > 1)
    opened: list[WorkerSockets] = []
    fronts: list[socket.socket] = []
    addresses = list(config.listen)
    try:
        for index in range(workers):
            for address in addresses:
                with naming(address):
                    fronts.append(bind_udp(*parse_host_port(address), options))
            host, port = parse_host_port(config.trunk)
            trunk = to_host_port(host, port + index if port else 0)
            with naming(trunk):
                back = bind_udp(*parse_host_port(trunk), trunk_options(config))
            opened.append(WorkerSockets(tuple(fronts), back))
            fronts = []
            addresses = opened[0].listen  # a port that the kernel chose is the same for all
    except BaseException:
        for sock in fronts:
            sock.close()
        for sockets in opened:
            sockets.close()
        raise
    return opened


def _bound(sock: socket.socket) -> str:
    return format_address(pack_address(*sock.getsockname()[:2]))
