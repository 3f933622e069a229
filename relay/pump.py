"""The packet pump of a relay worker: one loop over all its sockets, in the thread of trio.

    wait (trio) ──▶ turn: each socket that is readable, at most BUDGET batches or PACKETS, then the next one
       ▲              │ left something ──▶ another turn
       │              │ much is coming  ──▶ sleep for the latency budget, another turn
       │              │ some is coming  ──▶ wait in the epoll itself, another turn
       └──────────────┘ else

Sockets are watched by an epoll of our own, which trio waits for as one. While something comes at least every STINT seconds,
trio is not asked for so long: waiting through it costs some 6 µs more than in the epoll. In that time the worker's other
tasks (control channel, expiry, ledger) wait, and nothing else does. A thread for the pump would spare them the wait, but then
whatever changes the table would need a lock.

Cancelling stops it between two turns: what was received has been sent, and what has not been received stays in the sockets.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

import trio

from relay.core import RelayCore
from udpio import BatchSocket, SendRing
from udpio.tick import Tick

__all__ = ["pump"]

# Implementation constants

BUDGET = 8  # batches of one socket before the next one has its turn
PACKETS = 2048  # the same in packets: a trunk datagram carries many
STINT = 0.005  # seconds


async def pump(core: RelayCore, fronts: Sequence[BatchSocket], back: BatchSocket, budget: float) -> None:
    """Until cancelled, or until a socket is closed. `budget`: seconds, see udpio.tick."""
    with select.epoll() as ready:
        turns: dict[int, Callable[[], int]] = {}
        for ingress, front in enumerate(fronts):
            ready.register(front.fileno(), select.EPOLLIN)
            turns[front.fileno()] = _front(core, front, ingress, back)
        ready.register(back.fileno(), select.EPOLLIN)
        turns[back.fileno()] = _back(core, back, fronts)
        most = len(turns)
        tick, poll, now = Tick(budget), ready.poll, time.monotonic
        while True:
            await trio.lowlevel.wait_readable(ready)  # always lets other tasks run, and is where this one is cancelled
            until = now() + STINT
            timeout = 0.0
            while True:
                packets, left = 0, False
                for fd, _ in poll(timeout, most):
                    took = turns[fd]()
                    packets += abs(took)
                    left = left or took < 0
                at = now()
                sleeps = tick.next_sleep(packets, at)
                if at >= until:
                    break
                timeout = 0.0
                if left:
                    continue
                if sleeps:
                    time.sleep(budget)  # noqa: ASYNC251 - meant: shorter than a turn through trio
                elif tick.rate * STINT >= 1:
                    timeout = until - at
                else:
                    break


def _front(core: RelayCore, front: BatchSocket, ingress: int, back: BatchSocket) -> Callable[[], int]:
    """One turn of a listen address: how many packets it took, as a negative number if there may be more."""
    uplink = core.uplink(front.arena, ingress, back.family)
    forward, ring, receive, send = uplink.forward_untrusted, uplink.ring, front.receive, back.send
    full, now = front.batch_size, time.monotonic

    def turn() -> int:
        packets = 0
        for _ in range(BUDGET):
            count = receive()
            if count:
                packets += count
                datagrams = forward(count, now())
                if datagrams and send(ring, datagrams) < datagrams:
                    uplink.count_refused()
            if count < full:
                return packets
        return -packets

    return turn


def _back(core: RelayCore, back: BatchSocket, fronts: Sequence[BatchSocket]) -> Callable[[], int]:
    downlink = core.downlink(back.arena)
    forward, receive, greeter = downlink.forward_untrusted, back.receive, core.greeter
    sends: list[Callable[[SendRing, int], int]] = [front.send for front in fronts]
    full, now = back.batch_size, time.monotonic

    def turn() -> int:
        packets = 0
        for _ in range(BUDGET):
            count = receive()
            if count:
                for ingress, ring, datagrams in forward(count, now()):
                    packets += datagrams
                    if (sent := sends[ingress](ring, datagrams)) < datagrams:
                        core.count_refused(down=datagrams - sent)
                if greeter.waiting:
                    back.send_batch(greeter.take())
            if count < full:
                return packets
            if packets >= PACKETS:
                break
        return -packets

    return turn
