"""The last packets that we sent, to be sent again when a NACK names them (RFC 4585 §6.2.1, the sender's side).

A packet is sent again as it was, byte for byte: same SSRC, same sequence number, still protected. That is what browsers do
for Opus, and no second encryption under the same index is needed. What it cannot be used for is to multiply traffic:

1. A packet is sent again at most `MAX_RESENDS` times, and not before the last copy could have been missed: a round trip.
2. All together, `RATE` packets a second: a stream of 20 ms frames at most doubles.
"""

from __future__ import annotations

import collections
import math
from collections.abc import Iterable

__all__ = ["CAPACITY", "ResendBuffer"]

# Implementation constants
CAPACITY = 64  # packets, 1.3 s of 20 ms frames; a power of two
MAX_RESENDS = 2
RATE = 50.0
BURST = 16.0
MIN_SPACING = 0.010  # seconds between two copies, however short the round trip is said to be
UNKNOWN_ROUND_TRIP = 0.050


class ResendBuffer:
    """`keep` each packet as it leaves, in order and without holes. `counters`: resent, resend_unknown (not here any more),
    resend_refused (by the limits). `newest` is the number of the last packet; each lies in `packets` at its number modulo
    CAPACITY."""

    __slots__ = ("_resends", "_tokens", "_tokens_at", "counters", "newest", "packets")

    def __init__(self) -> None:
        self.packets: list[bytes] = [b""] * CAPACITY
        self.newest = 0
        # By sequence number: the packet, how often, when last. Numbers come round again, and then are another packet's.
        self._resends: dict[int, tuple[bytes, int, float]] = {}
        self._tokens = BURST
        self._tokens_at = -math.inf
        self.counters: collections.Counter[str] = collections.Counter()

    def keep(self, sequence: int, packet: bytes) -> None:
        self.packets[sequence & CAPACITY - 1] = packet
        self.newest = sequence

    def has_any(self, sequences: Iterable[int]) -> bool:
        """Whether one of these packets was sent, and lately."""
        return any(self._find(sequence) for sequence in sequences)

    def _find(self, sequence: int) -> bytes:
        """Empty: it is not here any more, or was never sent."""
        is_here = self.newest - sequence & 0xFFFF < CAPACITY
        return self.packets[sequence & CAPACITY - 1] if is_here else b""

    def take(self, sequences: Iterable[int], now: float, round_trip: float | None) -> list[bytes]:
        """Those of the packets named that leave again now."""
        spacing = max(MIN_SPACING, UNKNOWN_ROUND_TRIP if round_trip is None else round_trip)
        packets = []
        for sequence in sequences:
            if not (packet := self._find(sequence)):
                self.counters["resend_unknown"] += 1
            elif self._may_resend(sequence, packet, now, spacing):
                packets.append(packet)
                self.counters["resent"] += 1
            else:
                self.counters["resend_refused"] += 1
        return packets

    def _may_resend(self, sequence: int, packet: bytes, now: float, spacing: float) -> bool:
        resent, times, last = self._resends.get(sequence, (b"", 0, -math.inf))
        if resent is not packet:
            times, last = 0, -math.inf
        if times >= MAX_RESENDS or now - last < spacing:
            return False
        if now > self._tokens_at:
            self._tokens = min(BURST, self._tokens + min(now - self._tokens_at, BURST) * RATE)
            self._tokens_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        if len(self._resends) >= 2 * CAPACITY:  # some of them are not here any more
            self._resends = {known: entry for known, entry in self._resends.items() if self._find(known) is entry[0]}
        self._resends[sequence] = (packet, times + 1, now)
        return True
