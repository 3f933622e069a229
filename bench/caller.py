"""Callers of a measurement, in a process of their own: the calls of the load generator, and CPU and memory of who serves them.

`python -m bench.caller '{"url": …, "calls": …, "seconds": …, "pids": {…}}'` prints one line of JSON.

1. Memory of the servers, before. 2. Calls come; when all of them talk, and a moment has passed, the window begins. 3. CPU and
frames are read at its beginning and at its end; memory at its end. 4. The calls hang up. Without a window: CPU
from before the first call until after the last, when all is over.
"""

from __future__ import annotations

import resource
import sys

import msgspec
import trio

from bench.accounts import ProcessAccounts
from loadgen.driver import Driver
from loadgen.options import parse_options
from loadgen.report import summarize
from loadgen.scenario import Run, place_calls

__all__ = ["Order", "Outcome"]

# Implementation constants, seconds
SETTLE = 0.5  # after the last call began to talk
SPARE = 0.5  # for which calls talk on after the window
POLL = 0.01
AFTER = 1.3  # for the servers to be done with calls that ended: ours linger for a second
LIMIT = 20.0  # for all calls to talk


class Order(msgspec.Struct, kw_only=True, frozen=True):
    url: str
    calls: int
    rate: float
    pids: dict[str, int]
    seconds: float
    """Of the window; 0: no window, calls end as soon as they have talked for `talk`."""
    talk: float = 0.0


class Outcome(msgspec.Struct, kw_only=True):
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    window: float = 0.0
    """Seconds that it really took."""
    frames_sent: int = 0
    """In the window, as the next."""
    frames_received: int = 0
    cpu: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds of CPU in the window, by process; `caller` is this one."""
    cpu_whole: dict[str, float] = msgspec.field(default_factory=dict)
    """From before the first call until after the last."""
    resident_before: dict[str, int] = msgspec.field(default_factory=dict)
    resident: dict[str, int] = msgspec.field(default_factory=dict)
    frames_late: int = 0
    frames_skipped: int = 0
    frames_lost: int = 0


class Watch:
    """CPU of the servers and of ourselves."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._accounts = {name: ProcessAccounts(pid) for name, pid in pids.items()}

    def cpu(self) -> dict[str, float]:
        own = resource.getrusage(resource.RUSAGE_SELF)
        seconds = {name: account.cpu_ns() / 1e9 for name, account in self._accounts.items()}
        return seconds | {"caller": own.ru_utime + own.ru_stime}

    def resident(self) -> dict[str, int]:
        return {name: account.resident_bytes() for name, account in self._accounts.items()}


async def place(order: Order) -> Outcome:
    talk = order.talk or order.calls / order.rate + SETTLE + order.seconds + SPARE
    arguments = {"--calls": order.calls, "--rate": order.rate, "--seconds": talk, "--url": order.url}
    run = Run(parse_options([str(part) for pair in arguments.items() for part in pair]), Driver())
    watch, outcome = Watch(order.pids), Outcome()
    outcome.resident_before = watch.resident()
    before = watch.cpu()
    async with trio.open_nursery() as nursery:
        if order.seconds:
            nursery.start_soon(observe, run, order, watch, outcome)
        await place_calls(run, order.url)
        nursery.cancel_scope.cancel()  # no window, if not all calls came to talk
    if not order.seconds:
        await trio.sleep(AFTER)
    outcome.cpu_whole = difference(watch.cpu(), before)
    summary = summarize(run)
    outcome.failures = summary.calls["failures"]
    outcome.frames_late = summary.generator["frames_sent_late"]
    outcome.frames_skipped = summary.generator["frames_skipped"]
    outcome.frames_lost = summary.audio["lost"]
    return outcome


async def observe(run: Run, order: Order, watch: Watch, outcome: Outcome) -> None:
    with trio.move_on_after(LIMIT) as limit:
        while run.talking < order.calls:  # noqa: ASYNC110 - looking on must change nothing in the calls
            await trio.sleep(POLL)
    if limit.cancelled_caught:
        return
    await trio.sleep(SETTLE)
    cpu, sent, received, began = watch.cpu(), *frames(run), trio.current_time()
    await trio.sleep(order.seconds)
    outcome.cpu = difference(watch.cpu(), cpu)
    outcome.window = trio.current_time() - began
    sent_after, received_after = frames(run)
    outcome.frames_sent, outcome.frames_received = sent_after - sent, received_after - received
    outcome.resident = watch.resident()
    if run.talking < order.calls:
        outcome.window = 0.0


def frames(run: Run) -> tuple[int, int]:
    return sum(call.audio.sent for call in run.calls), sum(call.audio.received for call in run.calls)


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in after.items()}


def main() -> int:
    order = msgspec.json.decode(sys.argv[1], type=Order)
    outcome = trio.run(place, order)
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
