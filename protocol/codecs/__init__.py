"""The audio codecs the edge carries. To add one: a file with a `Codec`, and its entry in `CODECS`."""

from __future__ import annotations

from protocol.codecs.codec import FRAME_SECONDS, Codec
from protocol.codecs.g711 import PCMA, PCMU
from protocol.codecs.opus import OPUS
from protocol.codecs.red import RedBlock, RedWriter, parse_red_untrusted
from protocol.codecs.telephone_event import (
    TELEPHONE_EVENT,
    TELEPHONE_EVENT_RANGE,
    KeyPresses,
    TelephoneEvent,
    parse_telephone_event_untrusted,
)

__all__ = [
    "CODECS",
    "FRAME_SECONDS",
    "OPUS",
    "PCMA",
    "PCMU",
    "TELEPHONE_EVENT",
    "TELEPHONE_EVENT_RANGE",
    "Codec",
    "KeyPresses",
    "RedBlock",
    "RedWriter",
    "TelephoneEvent",
    "codec_by_name",
    "parse_red_untrusted",
    "parse_telephone_event_untrusted",
]

CODECS: tuple[Codec, ...] = (OPUS, PCMU, PCMA)
"""In our order of preference; used when we offer (an answer follows the order of the offer)."""


def codec_by_name(name: str) -> Codec | None:
    """The codec with this name, in any case; None when we do not carry it."""
    lowered = name.lower()
    return next((codec for codec in CODECS if codec.name.lower() == lowered), None)
