"""The other end of a simulated call without tasks: a backend that returns what it hears, at once."""

from __future__ import annotations

from protocol.agentlink import DataMessage
from protocol.codecs import CODECS, Codec
from transceiver.backends.base import Accepted, BackendEvent, Call, Inbox, Lost
from transceiver.media import Played

__all__ = ["EchoAttachment", "EchoBackend"]


class EchoAttachment:
    """One call; `heard` are the data messages, `frames` how much audio came."""

    takes_controllers = False
    has_room = True

    def __init__(self, backend: EchoBackend, call: Call, handle: int) -> None:
        self.call = call
        self.ended: str | None = None
        self.heard: list[str | bytes] = []
        self.frames = 0
        self._backend = backend
        self._handle = handle

    def audio_waits(self) -> None:
        if self.call.uplink is not None:
            for record in self.call.uplink.take(self._handle):
                self.frames += 1
                self.post(record)

    def channel_opened(self, channel: int, label: str, protocol: str) -> None:
        pass

    def channel_closed(self, channel: int) -> None:
        pass

    def channel_blocked(self, channel: int) -> None:
        pass

    def channel_writable(self, channel: int) -> None:
        pass

    def message(self, channel: int, data: str | bytes) -> None:
        self.heard.append(data)
        self.post(DataMessage(self._handle, channel, data))

    def played(self, played: Played) -> None:
        pass

    def end(self, reason: str) -> None:
        self.ended = reason
        self._backend.attachments.pop(self._handle, None)

    def post(self, event: BackendEvent) -> None:
        if self.ended is None:
            self._backend.inbox.post(self.call, self, event)


class EchoBackend:
    """`Backend`. `crash` and `restart` are what an agent's process may do."""

    codecs: tuple[Codec, ...] = CODECS
    name = "echo"

    def __init__(self, inbox: Inbox) -> None:
        self.inbox = inbox
        self.attachments: dict[int, EchoAttachment] = {}
        self.opened = 0
        self._running = True

    def open(self, call: Call) -> EchoAttachment | None:
        if not self._running:
            return None
        self.opened += 1
        attachment = self.attachments[self.opened] = EchoAttachment(self, call, self.opened)
        attachment.post(Accepted())
        return attachment

    def crash(self) -> None:
        self._running = False
        attachments = list(self.attachments.values())
        self.attachments.clear()
        for attachment in attachments:
            attachment.post(Lost())
            attachment.ended = "crashed"

    def restart(self) -> None:
        self._running = True
