"""What one call sends to its caller: frames on the agent's timeline, data messages, flushes; with back-pressure."""

from __future__ import annotations

import trio

from agent.events import CallEnded
from agent.outbox import Outbox
from agent.playback import Playback
from agent.statistics import Statistics
from protocol.agentlink import (
    FIRST_CONTROLLER,
    MAX_DATA_BYTES,
    MAX_FRAME_BYTES,
    CallEnd,
    CallFlush,
    DataMessage,
    MediaRecord,
    PlayedReason,
)
from protocol.codecs import Codec
from protocol.errors import DecodeError

__all__ = ["Downlink"]

new_tuple = tuple.__new__  # of MediaRecord: its own constructor takes three times as long

# Implementation constants
AHEAD_SECONDS = 5.0  # audio sent, but not reported played: then send_frame waits
DATA_BYTES = 256 * 1024  # data of one call waiting for the link: then send_message waits
MESSAGE_OVERHEAD = 64  # that each message counts besides its bytes
MAX_UNYIELDING = 8  # frames that are sent in a row without letting other tasks run
FLUSH_SECONDS = 1.0  # how long a flush waits for the report of what was played


class Downlink:
    """The link reports what was played and which channels are open; the agent's call sends."""

    def __init__(self, handle: int, codec: Codec | None, outbox: Outbox, statistics: Statistics) -> None:
        self._handle = handle
        self._codec = codec
        self._outbox = outbox
        self._statistics = statistics
        self._playback = Playback()
        self._waiting_bytes = 0
        self._unyielding = 0
        self._blocked: set[int] = set()
        self._change = trio.lowlevel.ParkingLot()
        self.channels: dict[int, str] = {}
        self.controllers: set[int] = set()
        self.ended: str | None = None

    # For the link.

    def report_played(self, rtp_time: int, reason: PlayedReason) -> None:
        self._playback.report(rtp_time, reason)
        self._change.unpark_all()

    def open_channel(self, channel: int, label: str) -> None:
        if channel >= FIRST_CONTROLLER:
            self.controllers.add(channel)
        else:
            self.channels[channel] = label

    def close_channel(self, channel: int) -> None:
        self.channels.pop(channel, None)
        self.controllers.discard(channel)
        self.unblock(channel)

    def has_channel(self, channel: int) -> bool:
        """Or controller."""
        return channel in self.channels or channel in self.controllers

    def block(self, channel: int) -> None:
        if self.has_channel(channel):
            self._blocked.add(channel)

    def unblock(self, channel: int) -> None:
        self._blocked.discard(channel)
        self._change.unpark_all()

    def close(self, reason: str) -> bool:
        """Nothing can be sent any more. False if that was so already."""
        if self.ended is not None:
            return False
        self.ended = reason
        self._outbox.take_back_media(self._handle)
        self._change.unpark_all()
        return True

    # For the agent.

    @property
    def played_ms(self) -> float:
        return self._to_ms(self._playback.played)

    @property
    def ahead_ms(self) -> float:
        return self._to_ms(self._playback.ahead)

    async def send_frame(self, payload: bytes) -> None:
        codec = self._codec
        if codec is None:
            raise ValueError("this call has no audio")
        try:
            samples = codec.count_samples_untrusted(payload)
        except DecodeError as error:
            raise ValueError(f"not a frame of {codec.name}: {error}") from None
        if not payload or len(payload) > MAX_FRAME_BYTES:
            raise ValueError(f"a frame has 1 to {MAX_FRAME_BYTES} bytes, not {len(payload)}")
        while True:
            # Also after waiting: who was cancelled by a flush must not send any more.
            await trio.lowlevel.checkpoint_if_cancelled()
            self._check()
            if self._playback.ahead <= AHEAD_SECONDS * codec.clock_rate:
                break
            await self._change.park()
            self._unyielding = 0
        self._unyielding += 1
        if self._unyielding > MAX_UNYIELDING:
            self._unyielding = 0
            await trio.lowlevel.checkpoint()
            self._check()
        self._outbox.put_media(new_tuple(MediaRecord, (self._handle, self._playback.send(samples), 0, payload)))
        self._statistics.frames_sent += 1

    async def send_message(self, data: str | bytes, channel: int | None) -> bool:
        while True:
            await trio.lowlevel.checkpoint()
            if self.send_message_nowait(data, channel):
                return True
            if not self._is_open(channel):
                return False
            await self._change.park()

    def send_message_nowait(self, data: str | bytes, channel: int | None) -> bool:
        self._check()
        to = self._main_channel() if channel is None else channel
        if to is None or not self._is_open(to) or to in self._blocked or self._waiting_bytes > DATA_BYTES:
            return False
        size = len(data.encode()) if isinstance(data, str) else len(data)
        if size > MAX_DATA_BYTES:
            raise ValueError(f"a message has at most {MAX_DATA_BYTES} bytes, not {size}")

        size += MESSAGE_OVERHEAD

        def written() -> None:
            self._waiting_bytes -= size
            self._change.unpark_all()

        self._waiting_bytes += size
        self._outbox.put_ordered(DataMessage(self._handle, to, data), written)
        self._statistics.messages_sent += 1
        return True

    async def flush(self) -> float:
        self._check()
        await trio.lowlevel.checkpoint_if_cancelled()
        taken = self._outbox.take_back_media(self._handle)
        if taken:
            self._playback.rewind(taken[0].rtp_time)
        if self._playback.ahead:
            self._playback.flush()
            self._outbox.put_urgent(CallFlush(self._handle))
            self._statistics.flushes += 1
        self._change.unpark_all()
        number = self._playback.flushes
        with trio.move_on_after(FLUSH_SECONDS):
            while self._playback.settled < number and self.ended is None:
                await self._change.park()
        return self.played_ms

    async def wait_played(self) -> float:
        while True:
            await trio.lowlevel.checkpoint()
            self._check()
            if not self._playback.ahead:
                return self.played_ms
            await self._change.park()

    def end(self, reason: str) -> None:
        """Like `close`, and the transceiver is told, after the data messages that were sent before."""
        if self.close(reason):
            self._outbox.put_ordered(CallEnd(self._handle, reason[:256]))

    def _check(self) -> None:
        if self.ended is not None:
            raise CallEnded(self.ended)

    def _is_open(self, channel: int | None) -> bool:
        return bool(self.channels) if channel is None else self.has_channel(channel)

    def _main_channel(self) -> int | None:
        """The channel that OpenAI's clients open, else the one that was opened first."""
        for channel, label in self.channels.items():
            if label == "oai-events":
                return channel
        return next(iter(self.channels), None)

    def _to_ms(self, samples: int) -> float:
        return samples * 1000 / self._codec.clock_rate if self._codec is not None else 0.0
