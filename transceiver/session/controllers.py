"""The controllers of a call: those who have attached to it from the side, by a WebSocket of signalling's.

1. To the agent a controller is one more channel, with a number that no data channel has. It is introduced when an agent takes
   the call, and anew when another one does; what it says before waits, a little.
2. What the agent says to it waits in its own queue. A controller that takes it too slowly is cut, and counted: neither the
   agent nor the caller wait for it.
3. When the call ends all of them are told why.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from protocol.agentlink import FIRST_CONTROLLER, LAST_CHANNEL
from transceiver.backends.base import Attachment

__all__ = ["TOO_SLOW", "Controller", "Controllers"]

# Specification constants
LABEL = "sideband"
TOO_SLOW = "too_slow"
"""Why a controller was cut."""

# Implementation constants
MAX_CONTROLLERS = 8  # of one call
MAX_WAITING_BYTES = 1024 * 1024  # of messages that a controller does not take
MAX_EARLY_BYTES = 256 * 1024  # of all controllers', before an agent is there
MESSAGE_OVERHEAD = 64  # what a message costs besides its bytes


class Controller:
    """One of them, as its WebSocket sees it."""

    __slots__ = ("_controllers", "closed", "number", "on_news", "waiting", "waiting_bytes")

    def __init__(self, controllers: Controllers, number: int) -> None:
        self._controllers = controllers
        self.number = number
        self.waiting: deque[str | bytes] = deque()
        self.waiting_bytes = 0
        self.closed: str | None = None
        """Why nothing comes any more; what waits may still be taken, unless it is TOO_SLOW."""
        self.on_news: Callable[[], None] = _nothing

    @property
    def is_cut(self) -> bool:
        return self.closed == TOO_SLOW

    @property
    def may_speak(self) -> bool:
        """Else the agent takes messages too slowly: say the next one later."""
        return self._controllers.may_speak

    def say(self, data: str | bytes) -> None:
        """To the agent."""
        if self.closed is None:
            self._controllers.receive(self.number, data)

    def take(self) -> str | bytes | None:
        """What the agent said."""
        if not self.waiting:
            return None
        data = self.waiting.popleft()
        self.waiting_bytes -= len(data) + MESSAGE_OVERHEAD
        return data

    def leave(self) -> None:
        self._controllers.remove(self)

    def put(self, data: str | bytes) -> bool:
        """False: it is too slow."""
        self.waiting_bytes += len(data) + MESSAGE_OVERHEAD
        if self.waiting_bytes > MAX_WAITING_BYTES:
            return False
        self.waiting.append(data)
        self.on_news()
        return True

    def close(self, reason: str) -> None:
        if self.closed is None:
            self.closed = reason
            self.on_news()


class Controllers:
    __slots__ = ("_attachment", "_drops", "_early", "_early_bytes", "_next", "_present")

    def __init__(self, drops: Counter[str]) -> None:
        self._attachment: Attachment | None = None
        self._present: dict[int, Controller] = {}
        self._next = FIRST_CONTROLLER
        self._early: list[tuple[int, str | bytes]] = []
        self._early_bytes = 0
        self._drops = drops

    def __len__(self) -> int:
        return len(self._present)

    # Those who come and go

    def add(self) -> Controller | None:
        """None: there are as many as may be."""
        if len(self._present) >= MAX_CONTROLLERS:
            return None
        while self._next in self._present:
            self._advance()
        controller = self._present[self._next] = Controller(self, self._next)
        self._advance()
        if self._attachment is not None:
            self._attachment.channel_opened(controller.number, LABEL, "")
        return controller

    def remove(self, controller: Controller) -> None:
        if self._present.pop(controller.number, None) is not None and self._attachment is not None:
            self._attachment.channel_closed(controller.number)

    def close(self, reason: str) -> None:
        """The call has ended."""
        for controller in self._present.values():
            controller.close(reason)
        self._present.clear()

    @property
    def may_speak(self) -> bool:
        return self._attachment is None or self._attachment.has_room

    def receive(self, number: int, data: str | bytes) -> None:
        """From one of them."""
        if self._attachment is not None:
            self._attachment.message(number, data)
        elif self._early_bytes + len(data) + MESSAGE_OVERHEAD > MAX_EARLY_BYTES:
            self._drops["controller_too_early"] += 1
        else:
            self._early_bytes += len(data) + MESSAGE_OVERHEAD
            self._early.append((number, data))

    # The agent

    def attach(self, attachment: Attachment) -> None:
        self._attachment = attachment
        for number in self._present:
            attachment.channel_opened(number, LABEL, "")
        early, self._early, self._early_bytes = self._early, [], 0
        for number, data in early:
            if number in self._present:
                attachment.message(number, data)

    def detach(self) -> None:
        self._attachment = None

    def send(self, number: int, data: str | bytes) -> None:
        """A message from the agent."""
        controller = self._present.get(number)
        if controller is None:  # usual for a moment after it has left
            self._drops["unknown_controller"] += 1
        elif not controller.put(data):
            self._drops["controller_slow"] += 1
            self.remove(controller)
            controller.close(TOO_SLOW)

    def _advance(self) -> None:
        self._next = self._next + 1 if self._next < LAST_CHANNEL else FIRST_CONTROLLER


def _nothing() -> None:
    pass
