"""Agents inside the transceiver's own process, named in `agents` by a word instead of an address.

`internal:echo` sends the caller's audio and messages back. It is for trying a transceiver without an agent, and for
measuring one: it stands where a link to an agent stands and is given nothing that a link is not given. `internal:meter`
also tells a caller that asks how well his audio came, as the agent `meter` does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import trio

from protocol.agentlink import METER_QUESTION, DataMessage, MediaFlags, MediaRecord, SlotTally
from transceiver.backends.base import Accepted, Call, Inbox, MediaFrame
from transceiver.media import Played

__all__ = ["EchoAgent", "EchoAttachment"]

METER = "internal:meter"
# As plain integers: an IntFlag costs ten times as much to combine.
_GAP, _RECOVERED, _FEC = int(MediaFlags.GAP), int(MediaFlags.RECOVERED), int(MediaFlags.FEC)


class EchoAttachment:
    """One call. What does not concern an echo is passed over."""

    __slots__ = ("_agent", "_slots", "call")

    def __init__(self, agent: EchoAgent, call: Call) -> None:
        self._agent = agent
        self._slots = SlotTally(call.codec.clock_rate) if agent.meters and call.codec is not None else None
        self.call = call

    @property
    def has_room(self) -> bool:
        return True

    def audio_waits(self) -> None:
        self._agent.with_audio[self] = None

    def channel_opened(self, channel: int, label: str, protocol: str) -> None:
        pass

    def channel_closed(self, channel: int) -> None:
        pass

    def channel_blocked(self, channel: int) -> None:
        pass

    def channel_writable(self, channel: int) -> None:
        pass

    def message(self, channel: int, data: str | bytes) -> None:
        if data == METER_QUESTION and self._slots is not None:
            data = self._slots.answer()
        self._agent.inbox.post(self.call, self, DataMessage(0, channel, data))

    def measure(self, records: list[MediaRecord], now: float) -> None:
        slots = self._slots
        if slots is None:
            return
        for _, rtp_time, flags, _ in records:
            slots.add(rtp_time, now, gap=bool(flags & _GAP), fec=bool(flags & _FEC), recovered=bool(flags & _RECOVERED))

    def played(self, played: Played) -> None:
        pass

    def digit(self, digit: str) -> None:
        pass

    def end(self, reason: str) -> None:
        self._agent.forget(self)


class EchoAgent:
    """As a link to an agent, to `AgentPool`: always up."""

    def __init__(self, url: str, identity: str, inbox: Inbox, on_up: Callable[[], None], _gather: float = 0.0) -> None:
        self.url = url
        self.inbox = inbox
        self.meters = url == METER
        self.agent = "meter" if self.meters else "echo"
        self.also: tuple[str, ...] = ()
        self.codecs: tuple[str, ...] = ()  # any
        self.connected = self.is_usable = True
        self.connects = 1
        self.drops: Counter[str] = Counter()
        self.with_audio: dict[EchoAttachment, None] = {}
        self._attachments: set[EchoAttachment] = set()
        self._on_up = on_up

    @property
    def calls(self) -> int:
        return len(self._attachments)

    def open(self, call: Call) -> EchoAttachment:
        attachment = EchoAttachment(self, call)
        self._attachments.add(attachment)
        self.inbox.post(call, attachment, Accepted())
        return attachment

    def forget(self, attachment: EchoAttachment) -> None:
        self._attachments.discard(attachment)
        self.with_audio.pop(attachment, None)

    def flush(self) -> None:
        """A turn of the engine is over: give back what it brought."""
        if not self.with_audio:
            return
        frames: list[MediaFrame] = []
        now = trio.current_time() if self.meters else 0.0
        for attachment in self.with_audio:
            call = attachment.call
            uplink = call.uplink
            if uplink is not None:
                records = uplink.take(0)
                if self.meters:
                    attachment.measure(records, now)
                frames += [(call, attachment, record) for record in records]
        self.with_audio.clear()
        self.inbox.post_media(frames)

    def drain(self) -> None:
        pass

    async def wait_written(self) -> None:
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        self._on_up()
        await trio.sleep_forever()
