"""One relay worker, forked by the host of its generation: sockets and ledger are given, packets flow when it is told.

1. Everything is made ready, and Ready said.
2. Until Serve nothing is read, and the flow table not touched: it is still another's. (Whoever replaces a killed worker goes
   on at once: its generation serves already.) Then the table is taken as it is; one that cannot be understood is made anew.
3. Stop: the batch under way is finished, the ledger written, Stopped said, and the process ends. What has not been read
   waits in the sockets, which the supervisor holds.
"""

from __future__ import annotations

import mmap
import os
import secrets
import socket
import time
from contextlib import suppress
from dataclasses import dataclass

import trio

from protocol.address import format_address
from protocol.routing import KeyRing, Trunk
from relay.config import RelayConfig
from relay.core import RelayCore
from relay.flows import FlowTable
from relay.layout import LayoutError
from relay.ledger import Ledger
from relay.messages import MAX_MESSAGE, Ready, Report, Reported, Serve, Stop, Stopped, decode, send
from relay.metrics import OVERFLOWED, collect
from relay.service import serve
from relay.settings import Settings
from relay.sockets import client_options, trunk_options
from service.ready import calm_collector
from udpio import KernelSocket, UdpSocket, adopt_udp

__all__ = ["Worker", "Workplace"]


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker is given. It outlives the worker: the next one at this place gets the same."""

    index: int
    cpu: int | None
    fronts: tuple[int, ...]
    back: int
    channel: socket.socket
    ledger: int
    table: int


def open_table(descriptor: int, config: RelayConfig) -> FlowTable:
    """The flow table in that memory: the same if its bounds are, one with the same flows if they are others, or a new one."""
    idle, max_per_token = config.idle_seconds, config.max_flows_per_token
    max_flows, max_probationary = config.max_flows, config.max_probationary
    former = None
    with suppress(LayoutError, ValueError):  # nothing there yet, or what another release has left
        memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        found = FlowTable.attach(memory, max_per_token=max_per_token, idle=idle)
        if (found.max_flows, found.max_probationary) == (max_flows, max_probationary):
            return found
        former = FlowTable.attach(bytearray(memory), max_per_token=max_per_token, idle=idle)
    size = FlowTable.size(max_flows, max_probationary)
    os.ftruncate(descriptor, 0)
    os.ftruncate(descriptor, size)
    table = FlowTable.create(
        mmap.mmap(descriptor, size),
        max_flows=max_flows,
        max_probationary=max_probationary,
        max_per_token=max_per_token,
        idle=idle,
        seed=secrets.token_bytes(32) + (former.key if former else secrets.token_bytes(32)),
    )
    if former:
        table.inherit(former)
    return table


class Worker:
    """Made in the host, before the fork: what can be made ready is ready in every process that is forked for this place."""

    def __init__(self, place: Workplace, settings: Settings) -> None:
        config = settings.relay
        self._keys, self._trunk = KeyRing.parse(settings.routing), Trunk.parse(settings.routing)
        self._config = config
        self._place = place
        self._ledger = Ledger(place.ledger)
        self._core: RelayCore | None = None
        self._fronts: list[UdpSocket] = [
            adopt_udp(socket.socket(fileno=descriptor), client_options(config)) for descriptor in place.fronts
        ]
        self._back: UdpSocket = adopt_udp(socket.socket(fileno=place.back), trunk_options(config))
        names = [*(f"listen {format_address(front.address)}" for front in self._fronts), "trunk"]
        self._names = dict(zip(names, [*self._fronts, self._back], strict=True))

    def work(self, serving: bool) -> None:
        """The process. Returns when it has been told to stop."""
        if self._place.cpu is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {self._place.cpu})
        trio.run(self._run, serving)

    def close(self) -> None:
        """In the process of another worker: nothing here is ours."""
        for sock in self._names.values():
            sock.close()
        self._place.channel.close()
        self._ledger.close()
        for descriptor in (self._place.ledger, self._place.table):
            os.close(descriptor)

    async def _run(self, serving: bool) -> None:
        self._place.channel.setblocking(False)
        channel = trio.socket.from_stdlib_socket(self._place.channel)
        calm_collector()
        async with trio.open_nursery() as nursery:
            send(self._place.channel, Ready(os.getpid()))
            while True:
                if serving and self._core is None:
                    core = self._core = self._take_over()
                    nursery.start_soon(serve, core, self._fronts, self._back, self._names, self._write)
                data = await channel.recv(MAX_MESSAGE)
                message = decode(data) if data else Stop()
                if isinstance(message, Serve):
                    serving = True
                elif isinstance(message, Report):
                    self._write()
                    send(self._place.channel, Reported(message.number))
                elif isinstance(message, Stop):
                    break
            nursery.cancel_scope.cancel()
        self._write()
        send(self._place.channel, Stopped())

    def _take_over(self) -> RelayCore:
        self._ledger.take_over()
        # The kernel counts what a socket loses for all its life, also while nobody reads; the ledger has what was noted of it.
        noted = {labels: int(value) for labels, value in self._ledger.former(OVERFLOWED)}
        for name, sock in self._names.items():
            if isinstance(sock, KernelSocket):
                sock.resume_overflow(noted.get((name,), 0))
        flows = open_table(self._place.table, self._config)
        return RelayCore(self._config, self._keys, self._trunk, wall_time=time.time, flows=flows)

    def _write(self) -> None:
        if self._core is None:
            return
        counters = {name: sock.counters for name, sock in self._names.items()}
        self._ledger.write(collect(self._core, counters))
