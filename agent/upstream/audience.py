"""What a bridge knows of those who hear it: who said what, and what a controller that attaches is told first."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from agent.upstream.events import EventMaker, fits_channel

__all__ = ["Audience"]

# Implementation constants
MAX_REMEMBERED = 512  # events of clients that the service might still refuse


class Audience:
    """Clients are numbers: 0 the caller's, else a controller's channel."""

    def __init__(self, events: EventMaker) -> None:
        self._events = events
        self._senders: OrderedDict[str, int] = OrderedDict()
        self._session: dict[str, Any] | None = None

    def spoke(self, event_id: str | None, client: int) -> None:
        """An event with that id goes to the service."""
        if event_id is None:
            return
        self._senders[event_id] = client
        self._senders.move_to_end(event_id)
        if len(self._senders) > MAX_REMEMBERED:
            self._senders.popitem(last=False)

    def sender_of(self, event_id: str | None) -> int | None:
        """Whom an error about that event concerns; None: all, for nobody is known."""
        return self._senders.get(event_id) if event_id is not None else None

    def was_told(self, session: dict[str, Any]) -> None:
        """What the session is, as clients see it."""
        self._session = session or self._session  # what tells of none tells nothing

    def greeting(self) -> str | None:
        """`session.created` for one who attaches; None while the service has told nothing yet, and will tell everybody."""
        if self._session is None:
            return None
        text = self._events.tell("session.created", session=self._session)
        return text if fits_channel(text) else None
