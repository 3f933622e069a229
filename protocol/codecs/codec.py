"""What a codec is to an edge that never transcodes: names, rates, the length of a frame, and a frame of silence.

The registry is an explicit tuple in the package `__init__`: a new codec is one file and one entry there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["FRAME_SECONDS", "Codec"]

FRAME_SECONDS = 0.02
"""The packet time every browser uses, and ours: 20 ms."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A codec as SDP and RTP see it. `name` has the IANA spelling; names compare case-insensitively (RFC 8866 §6.6)."""

    name: str
    clock_rate: int
    channels: int
    frame_samples: int
    """RTP clock ticks of a 20 ms frame."""
    static_payload_type: int | None
    silence: bytes = field(repr=False)
    """One 20 ms frame of silence, ready to be sent."""
    format_parameters: str | None
    """Our own `a=fmtp` parameters: what we ask the peer to send us."""
    count_samples_untrusted: Callable[[bytes], int] = field(repr=False, compare=False)
    """RTP clock ticks of audio in a received payload; raises DecodeError when it is no payload of this codec."""

    carries_fec_untrusted: Callable[[bytes], bool] | None = field(default=None, repr=False, compare=False)
    """Whether a received payload holds a copy of the audio before it; raises DecodeError. None: a codec without such."""

    @property
    def encoding(self) -> str:
        """The value of `a=rtpmap` after the payload type (a channel count of 1 is left out, RFC 8866 §6.6)."""
        suffix = f"/{self.channels}" if self.channels > 1 else ""
        return f"{self.name}/{self.clock_rate}{suffix}"

    def matches(self, name: str, clock_rate: int, channels: int) -> bool:
        """Whether an offered `a=rtpmap` names this codec; werift and GStreamer write `OPUS`."""
        return (name.lower(), clock_rate, channels) == (self.name.lower(), self.clock_rate, self.channels)
