"""Whether there is a service: the table's states, their clocks, how long the next attempt waits."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from agent.upstream.tables import ConnectLate, Contact, Lost, new_contact_machine
from protocol.fsm import Deadline
from protocol.wire import Entropy

__all__ = ["LOST", "WHAT_IS_LOST", "Failure", "Reach"]

LOST = {
    "refused": "The model's server refused the connection",
    "unreachable": "The model's server cannot be reached",
    "late": "The model's server did not answer in time",
    "closed": "The model's server closed the connection",
    "stalled": "The model's server stalled",
    "flooded": "The model's server sent an event that is too large",
    "failed": "The connection to the model's server failed",
}
"""What a failure's word means to a client."""
WHAT_IS_LOST = (
    " The conversation goes on from its words: earlier sound, an answer in progress and events under way are lost."
)

# Implementation constants
RETRY_FIRST, RETRY_LONGEST = 0.5, 8.0  # seconds
PROVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no service: a word for metrics and the end of a call, and what is known besides, for the client to read."""

    word: str
    detail: str = ""
    retry_after: float = 0.0
    """Seconds that the service asked for."""


class Reach:
    """One call's contact with the service."""

    def __init__(self, connect_seconds: float, give_up_seconds: float, entropy: Entropy, now: float) -> None:
        self.failure = Failure("failed")
        """The last one."""
        self._entropy = entropy
        self._give_up_seconds = give_up_seconds
        self._seconds = {"connect": connect_seconds, "prove": PROVE_SECONDS, "give_up": give_up_seconds}
        self._backoff = RETRY_FIRST
        self._machine = new_contact_machine()
        self._due: dict[Deadline, float] = {}
        self.next_timeout = math.inf
        self._wind(now)

    @property
    def is_up(self) -> bool:
        """Something may be heard of the present connection, or of the attempt."""
        return self._machine.state(Contact) not in (Contact.WAITING, Contact.GONE)

    @property
    def has_lasted(self) -> bool:
        return self._machine.state(Contact) is Contact.OPEN

    def fire(self, event: object, now: float) -> tuple[enum.Enum, ...]:
        effects = self._machine.fire(event)
        if self.has_lasted:
            self._backoff = RETRY_FIRST
        self._wind(now)
        return effects

    def lose(self, failure: Failure, now: float) -> tuple[enum.Enum, ...]:
        """It is over, or there was none."""
        return self._lose(failure, Lost(), now)

    def expire(self, now: float) -> tuple[enum.Enum, ...]:
        """Fire the deadline that is due longest, if one is (`next_timeout`)."""
        deadline = min(self._due, key=self._due.__getitem__)
        event = deadline.event()
        return self._lose(Failure("late"), event, now) if isinstance(event, ConnectLate) else self.fire(event, now)

    def _lose(self, failure: Failure, event: object, now: float) -> tuple[enum.Enum, ...]:
        if self.is_up:
            self.failure = failure
            jitter = 0.75 + self._entropy(1)[0] / 512
            self._seconds["retry"] = max(self._backoff * jitter, min(failure.retry_after, self._give_up_seconds))
            self._backoff = min(self._backoff * 2, RETRY_LONGEST)
        return self.fire(event, now)

    def _wind(self, now: float) -> None:
        """A clock starts when its state is entered; staying does not wind it."""
        deadlines = [deadline for _, deadline in self._machine.deadlines()]
        self._due = {
            deadline: self._due.get(deadline, now + self._seconds.get(deadline.timeout, 0.0)) for deadline in deadlines
        }
        self.next_timeout = min(self._due.values(), default=math.inf)
