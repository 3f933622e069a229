"""One call on the link to its agent: what the engine says about it, put into messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocol.agentlink import (
    CallDigit,
    CallEnd,
    CallPlayed,
    ChannelBlocked,
    ChannelClosed,
    ChannelOpen,
    ChannelWritable,
    DataMessage,
    TransceiverMessage,
    encode_data,
    encode_message,
)
from transceiver.backends.base import Call
from transceiver.media import Played

if TYPE_CHECKING:
    from transceiver.backends.agent_link import AgentLink

__all__ = ["MAX_CALL_BYTES", "MAX_CALL_CONTROL_BYTES", "REPORT_BYTES", "LinkAttachment"]

# Implementation constants, in bytes
CALL_DATA_BYTES = 64 * 1024  # of a call that wait, then its data waits with the caller
MAX_CALL_BYTES = 1024 * 1024  # of messages of one call that wait
MAX_CALL_CONTROL_BYTES = 2 * MAX_CALL_BYTES  # with the words about it, which are more important, and smaller
REPORT_BYTES = 64  # that a report takes here


class LinkAttachment:
    """One call on the link (`Attachment`). After `end`, or when the link is gone, its commands do nothing."""

    __slots__ = ("call", "ended", "handle", "link", "waiting_bytes")

    takes_controllers = True

    def __init__(self, link: AgentLink, call: Call, handle: int) -> None:
        self.link = link
        self.call = call
        self.handle = handle
        self.waiting_bytes = 0
        self.ended = False

    @property
    def has_room(self) -> bool:
        return self.ended or (self.waiting_bytes < CALL_DATA_BYTES and not self.link.is_full)

    def audio_waits(self) -> None:
        if not self.ended:
            self.link.with_audio[self] = None

    def channel_opened(self, channel: int, label: str, protocol: str) -> None:
        self._tell(ChannelOpen(self.handle, channel, label, protocol))

    def channel_closed(self, channel: int) -> None:
        self._tell(ChannelClosed(self.handle, channel))

    def channel_blocked(self, channel: int) -> None:
        self._tell(ChannelBlocked(self.handle, channel))

    def channel_writable(self, channel: int) -> None:
        self._tell(ChannelWritable(self.handle, channel))

    def message(self, channel: int, data: str | bytes) -> None:
        if not self.ended:
            self.link.put(encode_data(DataMessage(self.handle, channel, data)), self)

    def played(self, played: Played) -> None:
        if not self.ended and self.link.has_room(self, REPORT_BYTES, MAX_CALL_CONTROL_BYTES):
            self.link.reports.append((CallPlayed(self.handle, *played), self))

    def digit(self, digit: str) -> None:
        if not self.ended:
            self.link.put(encode_message(CallDigit(self.handle, digit)), self)

    def end(self, reason: str) -> None:
        if not self.ended:
            self.link.put(encode_message(CallEnd(self.handle, reason)), None)
        self.ended = True
        self.link.forget(self)

    def _tell(self, message: TransceiverMessage) -> None:
        if not self.ended:
            self.link.put(encode_message(message), self, MAX_CALL_CONTROL_BYTES)
