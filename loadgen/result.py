"""What a run measured, as plain values: from one process, or from several put together as if they had been one.

Every figure is a sum, a maximum, a list of calls or a histogram, so that putting together loses nothing: percentiles
are taken afterwards, from histograms that were merged, never averaged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from loadgen.call import Call
from loadgen.conversing import ConversingCall
from loadgen.distribution import Histogram
from loadgen.scenario import Run
from loadgen.turns import TurnFigures
from protocol.srtp import SrtpProfile

__all__ = [
    "AUDIO_COUNTS",
    "CallResult",
    "ProcessResult",
    "Progress",
    "Result",
    "collect",
    "merge",
    "merge_progress",
    "progress_of",
]

# Implementation constants: the counters of a tally, by name
AUDIO_COUNTS = (
    "sent",
    "received",
    "early",
    "late",
    "duplicated",
    "corrupt",
    "foreign",
    "held",
    "sent_late",
    "skipped",
)
DATA_COUNTS = ("sent", "received", "refused", "corrupt")


class CallResult(msgspec.Struct, kw_only=True):
    """One call. Times in seconds; those of `reached` on the clock of the process that placed it."""

    number: int
    failure: str | None = None
    reached: dict[str, float] = {}
    """Stage of set-up → when."""
    ready: bool = False
    goodbye: bool = False
    security: str | None = None
    audio: dict[str, int] = {}
    data: dict[str, int] = {}
    slots: dict[str, int] | None = None
    """What the agent said of our audio, if it was asked."""
    longest_gap: float = 0.0
    longest_silence: float = 0.0
    turns: dict[str, int] | None = None
    """Of a conversation: asked, completed, failed."""


class ProcessResult(msgspec.Struct, kw_only=True):
    """What one process of the generator cost, and how it kept its own schedule."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    worst_lateness: float = 0.0
    datagrams_sent: int = 0
    datagrams_received: int = 0
    socket_errors: dict[str, int] = {}
    died: str | None = None
    """How it ended, if it did before it told what it had measured."""


class Result(msgspec.Struct, kw_only=True, tag=True):
    calls: list[CallResult] = []
    processes: list[ProcessResult] = []
    frame_round_trips: Histogram = msgspec.field(default_factory=Histogram)
    message_round_trips: Histogram = msgspec.field(default_factory=Histogram)
    arrival_lateness: Histogram = msgspec.field(default_factory=Histogram)
    send_lateness: Histogram = msgspec.field(default_factory=Histogram)
    receive_delay: Histogram = msgspec.field(default_factory=Histogram)
    rebind_recovery: Histogram = msgspec.field(default_factory=Histogram)
    rebindings: int = 0
    network_drops: dict[str, int] = {}
    turns: TurnFigures = msgspec.field(default_factory=TurnFigures)


_HISTOGRAMS = (
    "frame_round_trips",
    "message_round_trips",
    "arrival_lateness",
    "send_lateness",
    "receive_delay",
    "rebind_recovery",
)


class Progress(msgspec.Struct, kw_only=True, tag=True):
    """Totals at a moment of the run."""

    placed: int = 0
    talking: int = 0
    finished: int = 0
    failed: int = 0
    sent: int = 0
    received: int = 0
    late: int = 0
    sent_late: int = 0
    """By ourselves, or never."""
    longest_gap: float = 0.0
    turns_completed: int = 0
    turns_failed: int = 0
    round_trips: Histogram = msgspec.field(default_factory=Histogram)


_PROGRESS_SUMS = (
    *("placed", "talking", "finished", "failed", "sent", "received", "late", "sent_late"),
    *("turns_completed", "turns_failed"),
)


def progress_of(run: Run) -> Progress:
    calls = run.calls
    return Progress(
        placed=len(calls),
        talking=run.talking,
        finished=run.finished,
        failed=sum(call.failure is not None for call in calls),
        sent=sum(call.audio.sent for call in calls),
        received=sum(call.audio.received for call in calls),
        late=sum(call.audio.late for call in calls),
        sent_late=sum(call.audio.sent_late + call.audio.skipped for call in calls),
        longest_gap=max((call.audio.longest_gap for call in calls), default=0.0),
        turns_completed=run.turns.completed + run.turns.interrupted,
        turns_failed=sum(run.turns.failed.values()),
        round_trips=run.figures.frame_round_trips,
    )


def merge_progress(parts: Iterable[Progress]) -> Progress:
    whole = Progress()
    for part in parts:
        for name in _PROGRESS_SUMS:
            setattr(whole, name, getattr(whole, name) + getattr(part, name))
        whole.longest_gap = max(whole.longest_gap, part.longest_gap)
        whole.round_trips.merge(part.round_trips)
    return whole


def collect(run: Run) -> Result:
    """Of this process; the driver's sockets are closed."""
    driver = run.driver
    return Result(
        calls=[_call(call) for call in run.calls],
        processes=[
            ProcessResult(
                seconds=run.seconds,
                cpu_seconds=max(0.0, run.cpu_seconds),
                worst_lateness=driver.worst_lateness,
                datagrams_sent=driver.datagrams_sent,
                datagrams_received=driver.datagrams_received,
                socket_errors=dict(driver.socket_errors),
            )
        ],
        frame_round_trips=run.figures.frame_round_trips,
        message_round_trips=run.figures.message_round_trips,
        arrival_lateness=run.arrival_lateness,
        send_lateness=driver.send_lateness,
        receive_delay=driver.receive_delay,
        rebind_recovery=driver.rebind_recovery,
        rebindings=driver.rebindings,
        network_drops=dict(driver.network_drops),
        turns=run.turns,
    )


def merge(results: Iterable[Result]) -> Result:
    whole = Result()
    drops: Counter[str] = Counter()
    for result in results:
        whole.calls += result.calls
        whole.processes += result.processes
        whole.rebindings += result.rebindings
        whole.turns.merge(result.turns)
        drops.update(result.network_drops)
        for name in _HISTOGRAMS:
            getattr(whole, name).merge(getattr(result, name))
    whole.calls.sort(key=lambda call: call.number)
    whole.network_drops = dict(drops)
    return whole


def _call(call: Call) -> CallResult:
    audio, data = call.audio, call.data
    return CallResult(
        number=call.number,
        failure=call.failure,
        reached=call.reached,
        ready=call.is_ready,
        goodbye=call.ended and call.hung_up,
        security=f"{SrtpProfile(call.srtp_profile or 0).name}, {call.cipher_suite}" if call.cipher_suite else None,
        audio={name: getattr(audio, name) for name in AUDIO_COUNTS} | {"lost": audio.missing},
        data={name: getattr(data, name) for name in DATA_COUNTS} | {"lost": len(data.pending)},
        slots=call.slots,
        longest_gap=audio.longest_gap,
        longest_silence=audio.longest_silence,
        turns=call.conversation.counts() if isinstance(call, ConversingCall) else None,
    )
