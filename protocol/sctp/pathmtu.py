"""How large a packet the path takes, found without ICMP (RFC 8831 §5, RFC 8899).

1. Until the path has shown more, packets are small enough for one that takes 600 bytes of IP.
2. A probe is a HEARTBEAT as long as the largest packet; its answer, which is as long, raises the size at once. (RFC 8899
   would fill the packet with a PAD chunk; a long HEARTBEAT is understood by peers that know nothing of PAD.)
3. A probe without answer says nothing about the peer and is not counted against it. It is repeated a few times, later
   seldom.
4. Timeouts in a row without a word from the peer may be a black hole: back to the small size, and probe again. DATA chunks
   that are on their way keep their size, for a TSN cannot be cut in two.
"""

from __future__ import annotations

import hmac
import math

from protocol.sctp.chunks import ChunkType
from protocol.sctp.config import SctpConfig
from protocol.sctp.packet import CHUNK_HEADER_LENGTH, COMMON_HEADER_LENGTH, build_chunk
from protocol.sctp.parameters import ParameterType, build_parameter
from protocol.wire import Entropy

__all__ = ["BLACK_HOLE_TIMEOUTS", "PathMtu"]

# Implementation constants
BLACK_HOLE_TIMEOUTS = 3  # T3 in a row
QUICK_PROBES = 5  # each after twice the time
SLOW_INTERVAL = 60.0  # seconds between probes after those
NONCE_LENGTH = 8


class PathMtu:
    __slots__ = ("_base", "_entropy", "_information", "_longest", "_sent_at", "_tries", "deadline", "size")

    def __init__(self, config: SctpConfig, entropy: Entropy) -> None:
        self._longest = config.max_packet_size
        self._base = min(config.base_packet_size, config.max_packet_size)
        self._entropy = entropy
        self._information = b""  # of the last probe, whole
        self._sent_at = 0.0
        self._tries = 0
        self.size = self._base  # bytes of an SCTP packet
        self.deadline = math.inf

    def start(self, now: float) -> None:
        """Probe with the next timeout, which has come."""
        if self._base < self._longest:
            self.deadline = now

    def stop(self) -> None:
        self.deadline = math.inf

    def probe(self, now: float, timeout: float) -> bytes:
        """The HEARTBEAT chunk to send, in a packet of its own. `timeout` is the present one of T3, in seconds."""
        length = (self._longest - COMMON_HEADER_LENGTH - 2 * CHUNK_HEADER_LENGTH) & ~3
        nonce = self._entropy(NONCE_LENGTH)
        self._information = build_parameter(ParameterType.HEARTBEAT_INFO, nonce.ljust(length, b"\0"))
        self._sent_at = now
        self.deadline = now + (timeout * 2**self._tries if self._tries < QUICK_PROBES else SLOW_INTERVAL)
        self._tries += 1
        return build_chunk(ChunkType.HEARTBEAT, 0, self._information)

    def answered(self, value: bytes, now: float) -> float | None:
        """The round trip in seconds if this HEARTBEAT ACK answers the last probe."""
        if not self._information or not hmac.compare_digest(self._information, value):
            return None
        self._information = b""
        self._tries = 0
        self.size = self._longest
        self.deadline = math.inf
        return now - self._sent_at

    def fall_back(self, now: float) -> bool:
        """True if that changes the size."""
        if self.size == self._base:
            return False
        self.size = self._base
        self.deadline = now
        return True
