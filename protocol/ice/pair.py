"""Candidate pairs of the full agent and their states (RFC 8445 §6.1.2).

Frozen is left out: it spares checks between components and streams, and we have one of each.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from protocol.address import Path
from protocol.fsm import Cell, Machine, Region, to

__all__ = ["Answered", "Pair", "PairState", "Sent", "Triggered", "Unanswered", "pair_priority"]


class PairState(enum.Enum):
    WAITING = "waiting"
    IN_PROGRESS = "in progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Sent:
    """A check went out."""


class Answered:
    """A check was answered with success."""


class Unanswered:
    """A check got no answer, or an error."""


class Triggered:
    """The peer's own check came along this pair (RFC 8445 §7.3.1.4)."""


_IGNORE = Cell.IGNORE

# No state waits on its own account: a check under way ends by its own deadline, waiting pairs are paced.
PAIR = Region(
    name="ice pair",
    initial=PairState.WAITING,
    events=(Sent, Answered, Unanswered, Triggered),
    rows={
        PairState.WAITING: (to(PairState.IN_PROGRESS), to(PairState.SUCCEEDED), _IGNORE, _IGNORE),
        PairState.IN_PROGRESS: (_IGNORE, to(PairState.SUCCEEDED), to(PairState.FAILED), to(PairState.WAITING)),
        # Consent checks and nominations run on pairs that have succeeded; their failure is judged by the agent.
        PairState.SUCCEEDED: (_IGNORE, _IGNORE, _IGNORE, _IGNORE),
        PairState.FAILED: (to(PairState.IN_PROGRESS), to(PairState.SUCCEEDED), _IGNORE, to(PairState.WAITING)),
    },
)


@dataclass(slots=True, eq=False)
class Pair:
    """Our one base and one remote candidate."""

    path: Path
    remote_priority: int
    nominated: bool = False  # by the peer, while it controls
    spent: bool = False  # its nomination was not answered: do not nominate it again
    machine: Machine = field(default_factory=lambda: Machine((PAIR,)))

    @property
    def state(self) -> PairState:
        return self.machine.state(PairState)


def pair_priority(controlling: int, controlled: int) -> int:
    """RFC 8445 §6.1.2.3, from the priorities of the candidates of both sides."""
    low, high = sorted((controlling, controlled))
    return (low << 32) + 2 * high + (controlling > controlled)
