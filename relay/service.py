"""The packet loops of one relay worker and the tree of their tasks.

    serve ├ pump                     all sockets, see relay.pump
          │   or, on a system without recvmmsg:
          ├ front × listen address   clients → core → trunk
          ├ back                     trunk → core → clients
          └ sweeper                  expiry; what the kernel refused, and forgeries in numbers, go into the log, at most once
                                     in ten seconds

A loop receives, lets the core decide, and sends, without an await in between; after BUDGET batches it yields to the
other direction. So whoever cancels `serve` stops it at a batch boundary: what was received has been sent, and what has
not been received waits in the sockets for the next reader.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import trio

from relay.core import RelayCore
from relay.pump import pump
from service.alarms import ALARM_SECONDS, DropAlarm
from service.logs import get_logger
from udpio import BatchSocket, KernelSocket, UdpSocket

__all__ = ["serve"]

BUDGET = 8
SWEEP_SECONDS = 1.0

ROUTING_KEYS = "routing.keys here and at the transceivers differ, or somebody makes tokens up"
ALARMING = {
    "token_forged": ROUTING_KEYS,
    "token_unknown_key": ROUTING_KEYS,
    "trunk_forged": "routing.trunk_keys here and at a transceiver differ",
    "trunk_source": "who speaks on the trunk is outside routing.prefix",
}
"""By the reasons of `FlowRules.drops`."""

log = get_logger()


async def serve(
    core: RelayCore,
    fronts: Sequence[UdpSocket],
    back: UdpSocket,
    names: Mapping[str, UdpSocket],
    tick: Callable[[], None],
) -> None:
    """Until cancelled. `names` are for the log; `tick` is called once a second."""
    async with trio.open_nursery() as nursery:
        in_arenas = [front for front in fronts if isinstance(front, BatchSocket)]
        if isinstance(back, BatchSocket) and len(in_arenas) == len(fronts):
            nursery.start_soon(pump, core, in_arenas, back, core.config.latency_budget_us / 1e6)
        else:
            for ingress, front in enumerate(fronts):
                nursery.start_soon(_front, core, front, ingress, back)
            nursery.start_soon(_back, core, back, fronts)
        nursery.start_soon(_sweep, core, names, tick)


async def _front(core: RelayCore, front: UdpSocket, ingress: int, back: UdpSocket) -> None:
    now = time.monotonic  # the same for all who ever share the flow table; trio's clock begins anew in each process
    while True:
        await front.wait_readable()
        for _ in range(BUDGET):
            batch = front.receive_batch()
            if not batch:
                break
            for datagram in core.receive_clients_untrusted(batch, ingress, now()):
                if not back.send_batch([datagram]):
                    core.count_refused(up=_frames(datagram[0]))


def _frames(datagram: bytes | memoryview) -> int:
    """In a trunk datagram of ours."""
    return datagram[4] << 8 | datagram[5]


async def _back(core: RelayCore, back: UdpSocket, fronts: Sequence[UdpSocket]) -> None:
    now = time.monotonic  # the same for all who ever share the flow table; trio's clock begins anew in each process
    while True:
        await back.wait_readable()
        for _ in range(BUDGET):
            batch = back.receive_batch()
            if not batch:
                break
            for front, datagrams in zip(fronts, core.receive_trunk_untrusted(batch, now()), strict=True):
                if datagrams and (sent := front.send_batch(datagrams)) < len(datagrams):
                    core.count_refused(down=len(datagrams) - sent)
            if core.greeter.waiting:
                back.send_batch(core.greeter.take())


async def _sweep(core: RelayCore, sockets: Mapping[str, UdpSocket], tick: Callable[[], None]) -> None:
    logged: Counter[str] = Counter()
    log_at = time.monotonic() + ALARM_SECONDS
    alarm = DropAlarm(core.drops, ALARMING)
    while True:
        await trio.sleep(SWEEP_SECONDS)
        now = time.monotonic()
        for sock in sockets.values():
            if isinstance(sock, KernelSocket):
                sock.ask_overflow()
        core.handle_timeout(now)
        while core.next_timeout() <= now:  # a large table is looked through in slices
            await trio.lowlevel.checkpoint()
            core.handle_timeout(now)
        tick()
        if now >= log_at:
            log_at = now + ALARM_SECONDS
            alarm.look()
            refused = Counter(
                {
                    f"{name} {word}": value
                    for name, sock in sockets.items()
                    for counted in (sock.counters.send_errors, sock.counters.receive_errors)
                    for word, value in counted.items()
                }
            )
            if news := refused - logged:
                log.warning("the kernel refused datagrams", refused=dict(news))
            logged = refused
