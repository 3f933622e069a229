# ruff: noqa: ANN401  (what is in JSON is anything)
"""A session of the Realtime API and its client, in virtual time; everything it sends is held against `openai`'s own types."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from agent.realtime.orders import Generate, Order, SendEvent
from agent.realtime.session import RealtimeSession

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)


class Client:
    """What one client sees; orders to the world around the session lie in `orders`."""

    def __init__(self, seed: int = 1, *, plays: bool = True) -> None:
        self.now = 100.0
        self.session = RealtimeSession(entropy=random.Random(seed).randbytes, plays=plays)
        self.events: list[dict[str, Any]] = []
        self.private: list[tuple[int, dict[str, Any]]] = []
        self.orders: list[Order] = []
        self._numbers = itertools.count()
        self.session.start()
        self.take()

    def take(self) -> list[dict[str, Any]]:
        """The events since the last time."""
        news = []
        for output in self.session.poll():
            if not isinstance(output, SendEvent):
                self.orders.append(output)
                continue
            OFFICIAL.validate_json(output.data, strict=True)
            event = json.loads(output.data)
            assert event["event_id"].startswith("event_")
            news.append(event)
            if output.client is not None:
                self.private.append((output.client, event))
        self.events += news
        return news

    def send(self, kind: str, **fields: Any) -> list[dict[str, Any]]:
        return self.send_raw(json.dumps({"type": kind, "event_id": f"ours_{next(self._numbers)}", **fields}))

    def send_raw(self, data: str | bytes) -> list[dict[str, Any]]:
        self.session.receive_untrusted(data, self.now)
        return self.take()

    def configure(self, **session: Any) -> dict[str, Any]:
        (event,) = self.send("session.update", session={"type": "realtime", **session})
        assert event["type"] == "session.updated", event
        return event["session"]

    def order(self, kind: type) -> Any:
        """The last order of that kind."""
        return next(order for order in reversed(self.orders) if isinstance(order, kind))

    def count(self, kind: type) -> int:
        return sum(isinstance(order, kind) for order in self.orders)

    def turn(self, milliseconds: float = 1000.0) -> list[dict[str, Any]]:
        """The caller speaks for so long."""
        start = self.session._heard_ms
        self.session.heard(400.0)
        self.session.speech_began(start + 400.0, self.now)
        self.session.heard(milliseconds)
        self.session.speech_ended(start + 400.0 + milliseconds, self.now)
        return self.take()

    @property
    def response_id(self) -> str:
        return self.order(Generate).plan.response_id


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]
