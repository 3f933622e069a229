"""G.711 µ-law and A-law in RTP (RFC 3551 §4.5.14), one octet a sample; RFC 7874 §3 makes both mandatory for WebRTC."""

from __future__ import annotations

from protocol.codecs.codec import Codec

__all__ = ["PCMA", "PCMU", "count_g711_samples_untrusted"]

FRAME_SAMPLES = 160


def count_g711_samples_untrusted(payload: bytes) -> int:
    """Eight bits a sample: any payload is valid."""
    return len(payload)


PCMU = Codec(
    name="PCMU",
    clock_rate=8000,
    channels=1,
    frame_samples=FRAME_SAMPLES,
    static_payload_type=0,
    silence=b"\xff" * FRAME_SAMPLES,
    format_parameters=None,
    count_samples_untrusted=count_g711_samples_untrusted,
)

PCMA = Codec(
    name="PCMA",
    clock_rate=8000,
    channels=1,
    frame_samples=FRAME_SAMPLES,
    static_payload_type=8,
    silence=b"\xd5" * FRAME_SAMPLES,
    format_parameters=None,
    count_samples_untrusted=count_g711_samples_untrusted,
)
