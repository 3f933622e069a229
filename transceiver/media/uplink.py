"""The caller's audio on its way to the agent.

1. Packets pass the reorder buffer, which adds no delay while they come in order.
2. Frames wait here until the link takes them, all that have gathered at once.
3. At most one second of them waits: the oldest are dropped, because stale speech is useless.
"""

from __future__ import annotations

from collections import Counter, deque

from protocol.agentlink import MAX_FRAME_BYTES, MediaFlags, MediaRecord
from protocol.rtp import Gap, JitterBuffer, JitterConfig, RtpPacket

__all__ = ["Uplink"]

# Implementation constants
MAX_WAITING_SECONDS = 1.0
MAX_WAITING_FRAMES = 128  # bounds senders whose timestamps do not move


class Uplink:
    """Sans-IO. `drops` counts frames by the reason for which they did not reach the agent."""

    __slots__ = ("_buffer", "_frames", "_gap", "_payload_type", "_span", "drops", "frames_received")

    def __init__(self, payload_type: int, clock_rate: int) -> None:
        self._payload_type = payload_type
        self._span = int(MAX_WAITING_SECONDS * clock_rate)
        self._buffer = JitterBuffer(JitterConfig(clock_rate=clock_rate))
        self._frames: deque[tuple[int, int, bytes]] = deque()  # (64-bit RTP time, flags, payload)
        self._gap = False
        self.drops: Counter[str] = Counter()
        self.frames_received = 0

    def push(self, packet: RtpPacket, now: float) -> None:
        """A packet that authenticated. All of the source must come here: they share their sequence numbers."""
        self._buffer.push(packet, now)
        self._pull(now)

    def handle_timeout(self, now: float) -> None:
        if now >= self._buffer.next_timeout():
            self._pull(now)

    def next_timeout(self) -> float:
        return self._buffer.next_timeout()

    @property
    def waiting(self) -> bool:
        return bool(self._frames)

    def take(self, handle: int) -> list[MediaRecord]:
        """Everything that waits, for the link's next message."""
        records = [MediaRecord(handle, time & 0xFFFFFFFF, flags, payload) for time, flags, payload in self._frames]
        self._frames.clear()
        return records

    def clear(self) -> None:
        """Forget what waits: nobody will take it."""
        self.drops["no_agent"] += len(self._frames)
        self._frames.clear()

    def _pull(self, now: float) -> None:
        frames = self._frames
        while (item := self._buffer.pop(now)) is not None:
            if isinstance(item, Gap):
                self._gap = True
                self.drops["lost"] += item.packets
                continue
            if item.payload_type != self._payload_type:  # telephone events, comfort noise
                self.drops["payload_type"] += 1
                continue
            if len(item.payload) > MAX_FRAME_BYTES:
                self.drops["oversize"] += 1
                continue
            flags = (MediaFlags.MARKER if item.marker else 0) | (MediaFlags.GAP if self._gap else 0)
            self._gap = False
            self.frames_received += 1
            frames.append((item.rtp_time, int(flags), item.payload))
            while item.rtp_time - frames[0][0] > self._span or len(frames) > MAX_WAITING_FRAMES:
                frames.popleft()
                self.drops["stale"] += 1
                time, kept, payload = frames[0]
                frames[0] = (time, kept | MediaFlags.GAP, payload)
