"""What `bench.caller` is told and what it answers, as lines of JSON."""

from __future__ import annotations

import msgspec

__all__ = ["Closed", "Opened", "Order", "Talked", "Usage", "difference"]


class Order(msgspec.Struct, kw_only=True, frozen=True):
    """What to do is what is set of `preset`, `target`, `calls`, `seconds` and `close`."""

    preset: int = 0
    """Make so many calls that need no set-up; their table is the answer."""
    target: str = ""
    """Where those calls send to."""
    calls: int = 0
    """Open so many at `url`, `rate` a second."""
    url: str = ""
    rate: float = 0.0
    seconds: float = 0.0
    """Let all calls talk for so long."""
    close: bool = False
    pids: dict[str, int] = msgspec.field(default_factory=dict)
    """Of the servers to look at."""


class Usage(msgspec.Struct, kw_only=True):
    """CPU seconds of a process and its descendants."""

    cpu: float
    own: float
    """The part in their own code, not in the kernel's."""
    waited: float = 0.0
    """Seconds in which their threads could have run and others had the CPU."""


class Opened(msgspec.Struct, kw_only=True):
    failures: dict[str, int]
    usage: dict[str, Usage]
    """By process, from before the first call until after the last was set up; `caller` is the callers' own."""
    resident_before: dict[str, int]
    resident: dict[str, int]
    first_media_ms: list[float]
    """Of each call: from its POST until a frame of it has come back."""
    answer_ms: list[float]
    """From its POST until the answer was there."""


class Talked(msgspec.Struct, kw_only=True):
    """`seconds`, `usage`, `sent`, `received` and `late` are of the window."""

    calls: int
    seconds: float
    usage: dict[str, Usage]
    resident: dict[str, int]
    sent: int
    received: int
    late: int
    """Sent too late by the callers themselves."""
    lost: int
    """Of all that was sent, before the window too: did not come back, or too late."""
    checked: int
    """Frames of every tenth call, before the window too, that came back byte for byte as they were sent."""
    to_check: int


class Closed(msgspec.Struct, kw_only=True):
    usage: dict[str, Usage]
    resident: dict[str, int]


def difference(after: dict[str, Usage], before: dict[str, Usage]) -> dict[str, Usage]:
    return {
        name: Usage(
            cpu=used.cpu - before[name].cpu,
            own=used.own - before[name].own,
            waited=used.waited - before[name].waited,
        )
        for name, used in after.items()
    }
