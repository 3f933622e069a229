"""A call without any set-up, for the echo in C: SRTP under keys that both sides were given.

It has of `loadgen.call.Call` what `bench.caller` needs while calls talk.
"""

from __future__ import annotations

import math

from loadgen.call import CallFigures
from loadgen.tally import AudioTally
from protocol.address import TransportAddress
from protocol.codecs import OPUS
from protocol.errors import DecodeError
from protocol.rtp import parse_rtp_untrusted, serialize_rtp
from protocol.srtp import SrtpProfile, SrtpTransport, profile_lengths
from protocol.wire import Entropy

__all__ = ["KEY_LENGTH", "PROFILE", "PresetCall"]

# Implementation constants
PROFILE = SrtpProfile.SRTP_AEAD_AES_128_GCM  # what our transceiver prefers
KEY_LENGTH = sum(profile_lengths(PROFILE))
PAYLOAD_TYPE = 111


class PresetCall:
    """`upward` is the key of what it sends, `downward` of what it hears: master key || master salt."""

    def __init__(self, number: int, figures: CallFigures, target: TransportAddress, *, entropy: Entropy) -> None:
        self.audio = AudioTally(figures.run, number, figures.frame_round_trips)
        self.talking = self.is_over = False
        self.target = target
        self.upward, self.downward = entropy(KEY_LENGTH), entropy(KEY_LENGTH)
        self._srtp = SrtpTransport(PROFILE, self.upward, self.downward)
        self._ssrc = number + 1
        self._datagrams: list[tuple[bytes, TransportAddress]] = []

    def tick(self, index: int, lateness: float, now: float) -> None:
        sequence, timestamp = self.audio.sent & 0xFFFF, index * OPUS.frame_samples & 0xFFFFFFFF
        plain = serialize_rtp(PAYLOAD_TYPE, sequence, timestamp, self._ssrc, self.audio.next_frame(now), False)
        self.audio.count_sent(lateness)
        self._datagrams.append((self._srtp.protect_rtp(plain), self.target))

    def take_datagrams(self) -> list[tuple[bytes, TransportAddress]]:
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def receive_untrusted(self, data: bytes | memoryview, source: TransportAddress, now: float) -> None:
        try:
            packet = parse_rtp_untrusted(self._srtp.unprotect_rtp_untrusted(data))
        except DecodeError:
            return
        self.audio.receive_untrusted(packet.payload, now)

    def handle_timeout(self, now: float) -> None:
        """It has no timers."""

    def next_timeout(self) -> float:
        return math.inf

    def close(self, now: float) -> None:
        self.is_over = True
