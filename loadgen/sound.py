"""Whether a frame is to be heard, without decoding it: one is looked at from time to time, not thousands a second decoded.

Opus speech is SILK, alone or with CELT above it; such a frame begins with the encoder's own verdict, a bit of voice activity
for each 20 ms (RFC 6716 §4.2.3; they have the probability ½, so they stand in the first byte as they are). Of what has no
such bit, CELT alone, a few bytes are silence. G.711 is heard when a sample of it is.
"""

from __future__ import annotations

__all__ = ["is_sound_untrusted"]

# Specification constants (RFC 6716 §3.1)
FIRST_CELT_CONFIG, FIRST_HYBRID_CONFIG = 16, 12

# Implementation constants
SILENT_BYTES = 8
SILENT_STEPS = 8  # of a sample's logarithmic scale above nothing: 30 of 32767


def is_sound_untrusted(codec: str, payload: bytes) -> bool:
    """`codec`: opus, PCMU or PCMA; any payload will do."""
    if codec != "opus":
        # The code of the quietest sample is all ones but for its sign (µ-law), or 0x55 with it (A-law).
        quiet = 0x7F if codec == "PCMU" else 0x55
        return any((sample ^ quiet) & 0x7F > SILENT_STEPS for sample in payload)
    if len(payload) < 2:
        return False
    config, more_frames = payload[0] >> 3, payload[0] & 3
    if config >= FIRST_CELT_CONFIG or more_frames:
        return len(payload) > SILENT_BYTES
    verdicts = 1 if config >= FIRST_HYBRID_CONFIG else (1, 1, 2, 3)[config & 3]
    return payload[1] >> 8 - verdicts != 0
