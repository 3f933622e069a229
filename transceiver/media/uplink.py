"""The caller's audio on its way to the agent.

1. Packets pass the reorder buffer, which adds no delay while they come in order; what is missing is asked for
   (`take_requests`), and waited for as long as that is likely to help.
2. Redundant audio (RFC 2198) is taken apart: the copies fill the places before it that are still empty.
3. The frame behind a gap says so, and whether it holds a copy of what was lost last (in-band FEC). If that was all that
   was lost, it is not waited for longer than a packet out of order.
4. Frames wait here until the link takes them, all that have gathered at once: those too that come before an agent is there.
5. A key that the caller presses (RFC 4733) comes in the same stream: told once, when it begins.
6. At most one second of them waits: the oldest are dropped, because stale speech is useless.
"""

from __future__ import annotations

import contextlib
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from protocol.agentlink import MAX_FRAME_BYTES, MediaFlags, MediaRecord
from protocol.codecs import Codec, KeyPresses, parse_red_untrusted
from protocol.errors import DecodeError
from protocol.rtp import Frame, FrameOrigin, Gap, JitterBuffer, JitterConfig, PathEstimate, RequestConfig, RtpPacket

__all__ = ["Uplink"]

new_tuple = tuple.__new__

# Implementation constants
MAX_WAITING_SECONDS = 1.0
MAX_WAITING_FRAMES = 128  # bounds senders whose timestamps do not move
MAX_FOLLOWING_FRAMES = 64  # waiting; beyond them nobody is in a hurry

MAX_COPIES = 4  # of one packet with redundant audio; browsers send one or two
# As plain integers: an IntFlag costs ten times as much to combine.
_MARKER, _GAP = int(MediaFlags.MARKER), int(MediaFlags.GAP)
_RECOVERED, _FEC = int(MediaFlags.RECOVERED), int(MediaFlags.FEC)


class Uplink:
    """Sans-IO. `drops` counts frames by the reason for which they did not reach the agent."""

    __slots__ = (
        "_buffer",
        "_codec",
        "_event_payload_type",
        "_frames",
        "_last",
        "_lost",
        "_payload_type",
        "_presses",
        "_red_payload_type",
        "_span",
        "drops",
        "on_frame",
    )

    def __init__(
        self,
        payload_type: int,
        clock_rate: int,
        event_payload_type: int | None = None,
        *,
        red_payload_type: int | None = None,
        codec: Codec | None = None,
        nack: bool = False,
        estimate: Callable[[], PathEstimate] = PathEstimate,
    ) -> None:
        """`codec`: tells how much is lost in a gap, and what of it a copy makes good. `nack`: ask for lost packets.
        `estimate`: what is known of the path now."""
        self._payload_type = payload_type
        self._event_payload_type = event_payload_type
        self._red_payload_type = red_payload_type
        self._codec = codec
        self._presses = KeyPresses()
        self._span = int(MAX_WAITING_SECONDS * clock_rate)
        requests = RequestConfig() if nack else None
        carries_fec = codec.carries_fec_untrusted if codec is not None else None
        carries_copy = partial(_carries_copy, carries_fec, payload_type) if carries_fec is not None else None
        self._buffer = JitterBuffer(JitterConfig(clock_rate=clock_rate, requests=requests), estimate, carries_copy)
        self._frames: deque[tuple[int, int, bytes]] = deque()  # (64-bit RTP time, flags, payload)
        self._last: tuple[int, int, bytes] | None = None  # frame
        self._lost = 0  # packets of the gap before the next frame
        self.drops: Counter[str] = Counter()
        self.on_frame: Callable[[], None] | None = None  # told of what `follow` takes; it takes nothing without

    def push(self, packet: RtpPacket, now: float) -> str | None:
        """A packet that authenticated. All of the source must come here: they share their sequence numbers.

        The digit of the key press that begins with it, if one does.
        """
        if packet.payload_type == self._red_payload_type:
            self._push_redundant(packet, now)
        else:
            self._buffer.push(packet, now)
        self._pull(now)
        return self._detect(packet) if packet.payload_type == self._event_payload_type else None

    def follow(self, second: int, ssrc: int, sequence: int, timestamp: int, payload: bytes, now: float) -> bool:
        """The short way of a frame that is next in order: whether it was taken. If not, nothing has happened: `push` it.

        `second` is the packet's second byte: the marker bit and the payload type.
        """
        frames, on_frame = self._frames, self.on_frame
        if (
            on_frame is None
            or second & 0x7F != self._payload_type
            or self._lost
            or len(payload) > MAX_FRAME_BYTES
            or len(frames) >= MAX_FOLLOWING_FRAMES
        ):
            return False
        rtp_time = self._buffer.follow(ssrc, sequence, timestamp, now)
        if rtp_time < 0:
            return False
        self._last = frame = (rtp_time, second >> 7, payload)
        frames.append(frame)
        first = frames[0]
        if first is not frame and rtp_time - first[0] > self._span:
            self._trim()
        on_frame()
        return True

    def handle_timeout(self, now: float) -> None:
        if now >= self._buffer.next_timeout():
            self._pull(now)

    def next_timeout(self) -> float:
        return self._buffer.next_timeout()

    def take_requests(self, now: float) -> tuple[int, ...]:
        """The packets of the source `ssrc` to be asked for now; look again at `next_timeout`."""
        return self._buffer.take_requests(now)

    @property
    def ssrc(self) -> int:
        return self._buffer.ssrc

    @property
    def is_plain(self) -> bool:
        """Nothing is missed or held: the next packet in order goes straight through."""
        return self._buffer.is_plain

    @property
    def counters(self) -> Counter[str]:
        """What became of losses: requested, recovered, red_recovered, lost, late, …, as `JitterBuffer` says; of the lost,
        those that in-band FEC makes good (fec_available), and the rest (concealed)."""
        return self._buffer.counters

    @property
    def waiting(self) -> bool:
        return bool(self._frames)

    def take(self, handle: int) -> list[MediaRecord]:
        """Everything that waits, for the link's next message."""
        # MediaRecord's own constructor is a function in Python: it takes three times as long.
        if len(self._frames) == 1:  # nearly always
            time, flags, payload = self._frames.popleft()
            return [new_tuple(MediaRecord, (handle, time & 0xFFFFFFFF, flags, payload))]
        records = [
            new_tuple(MediaRecord, (handle, time & 0xFFFFFFFF, flags, payload)) for time, flags, payload in self._frames
        ]
        self._frames.clear()
        return records

    def clear(self) -> None:
        """Forget what waits: nobody will take it."""
        self.drops["no_agent"] += len(self._frames)
        self._frames.clear()

    def _push_redundant(self, packet: RtpPacket, now: float) -> None:
        """The copies first, the oldest at the head: each fills the place that its distance from the newest block says."""
        buffer = self._buffer
        try:
            *copies, newest = parse_red_untrusted(packet.payload, packet.payload_type)
        except DecodeError as error:
            self.drops[error.reason] += 1
            buffer.push(packet._replace(payload=b""), now)  # its place in the row is taken all the same
            return
        for distance in range(min(len(copies), MAX_COPIES), 0, -1):
            sequence, copy = packet.sequence - distance & 0xFFFF, copies[-distance]
            if copy.payload and buffer.lacks(packet.ssrc, sequence):
                timestamp = packet.timestamp - copy.timestamp_offset & 0xFFFFFFFF
                filled = RtpPacket(False, copy.payload_type, sequence, timestamp, packet.ssrc, payload=copy.payload)
                buffer.push_copy(filled, now)
        buffer.push(packet._replace(payload_type=newest.payload_type, payload=newest.payload), now)

    def _behind_gap(self, frame: Frame) -> int:
        """The flags of the frame behind a gap."""
        packets, self._lost = self._lost, 0
        counters, codec = self._buffer.counters, self._codec
        lost, copied = packets, 0
        if codec is not None and self._last is not None:
            time, _, payload = self._last
            with contextlib.suppress(DecodeError):  # the agent, who has a decoder, will judge the frames
                ticks = frame.rtp_time - time - codec.count_samples_untrusted(payload)
                if ticks <= 0:
                    counters["padding_lost"] += packets
                    return 0
                # Of a silence (DTX) that ended in the gap, no more can be missing than there were packets.
                lost = min(packets, -(-ticks // codec.frame_samples))
                if codec.carries_fec_untrusted is not None:
                    copied = int(codec.carries_fec_untrusted(frame.payload))
        self.drops["lost"] += lost
        counters["fec_available"] += copied
        counters["concealed"] += lost - copied
        return _GAP | _FEC if copied else _GAP

    def _detect(self, packet: RtpPacket) -> str | None:
        try:
            event = self._presses.detect_untrusted(packet.payload, packet.timestamp)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return None
        return event.digit if event is not None else None

    def _pull(self, now: float) -> None:
        frames = self._frames
        while (item := self._buffer.pop(now)) is not None:
            if isinstance(item, Gap):
                self._lost += item.packets
                continue
            if item.payload_type != self._payload_type:
                if item.payload_type != self._event_payload_type:  # comfort noise
                    self.drops["payload_type"] += 1
                continue
            if len(item.payload) > MAX_FRAME_BYTES:
                self.drops["oversize"] += 1
                continue
            flags = _MARKER if item.marker else 0
            if self._lost:
                flags |= self._behind_gap(item)
            if item.origin != FrameOrigin.SENT:
                flags |= _RECOVERED
            self._last = frame = (item.rtp_time, flags, item.payload)
            frames.append(frame)
            self._trim()

    def _trim(self) -> None:
        frames = self._frames
        while frames[-1][0] - frames[0][0] > self._span or len(frames) > MAX_WAITING_FRAMES:
            frames.popleft()
            self.drops["stale"] += 1
            time, kept, payload = frames[0]
            frames[0] = (time, kept | MediaFlags.GAP, payload)


def _carries_copy(carries_fec_untrusted: Callable[[bytes], bool], payload_type: int, packet: RtpPacket) -> bool:
    """Whether a packet is audio with a copy of the audio before it. No method: a call that ended shall not wait for the
    collector of cycles."""
    if packet.payload_type != payload_type:
        return False
    try:
        return carries_fec_untrusted(packet.payload)
    except DecodeError:
        return False
