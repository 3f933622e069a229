"""One relay worker, forked by the host of its generation: sockets and ledger are given, packets flow when it is told.

1. Everything is made ready, and Ready said.
2. Until Serve nothing is read. (Whoever replaces a killed worker reads at once: its generation serves already.)
3. Stop: the batch under way is finished, the ledger written, Stopped said, and the process ends. What has not been read
   waits in the sockets, which the supervisor holds.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass

import trio

from protocol.address import format_address
from protocol.routing import KeyRing, Trunk
from relay.core import RelayCore
from relay.ledger import Ledger
from relay.messages import MAX_MESSAGE, Ready, Report, Reported, Serve, Stop, Stopped, decode, send
from relay.metrics import collect
from relay.service import serve
from relay.settings import Settings
from relay.sockets import client_options, trunk_options
from service.ready import calm_collector
from udpio import UdpSocket, adopt_udp

__all__ = ["Workplace", "work"]


@dataclass(frozen=True, slots=True)
class Workplace:
    """What a worker is given. It outlives the worker: the next one at this place gets the same."""

    index: int
    cpu: int | None
    fronts: tuple[int, ...]
    back: int
    channel: socket.socket
    ledger: int


def work(place: Workplace, settings: Settings, serving: bool) -> None:
    """The process. Returns when it has been told to stop."""
    if place.cpu is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {place.cpu})
    trio.run(_Worker(place, settings).run, serving)


class _Worker:
    def __init__(self, place: Workplace, settings: Settings) -> None:
        config = settings.relay
        keys, trunk = KeyRing.parse(settings.routing), Trunk.parse(settings.routing)
        self._place = place
        self._ledger = Ledger(place.ledger)
        self._core = RelayCore(config, keys, trunk, wall_time=time.time)
        self._fronts: list[UdpSocket] = [
            adopt_udp(socket.socket(fileno=descriptor), client_options(config)) for descriptor in place.fronts
        ]
        self._back: UdpSocket = adopt_udp(socket.socket(fileno=place.back), trunk_options(config))
        names = [*(f"listen {format_address(front.address)}" for front in self._fronts), "trunk"]
        self._names = dict(zip(names, [*self._fronts, self._back], strict=True))

    async def run(self, serving: bool) -> None:
        self._place.channel.setblocking(False)
        channel = trio.socket.from_stdlib_socket(self._place.channel)
        calm_collector()
        async with trio.open_nursery() as nursery:
            send(self._place.channel, Ready(os.getpid()))
            started = False
            while True:
                if serving and not started:
                    started = True
                    self._ledger.take_over()
                    nursery.start_soon(serve, self._core, self._fronts, self._back, self._names, self._write)
                data = await channel.recv(MAX_MESSAGE)
                message = decode(data) if data else Stop()
                if isinstance(message, Serve):
                    serving = True
                elif isinstance(message, Report):
                    if started:
                        self._write()
                    send(self._place.channel, Reported(message.number))
                elif isinstance(message, Stop):
                    break
            nursery.cancel_scope.cancel()
        if started:
            self._write()
        send(self._place.channel, Stopped())

    def _write(self) -> None:
        counters = {name: sock.counters for name, sock in self._names.items()}
        self._ledger.write(collect(self._core, counters))
