"""The attributes of a media section that need more than their text: direction, codecs, extensions, BUNDLE groups.

What cannot be understood here is left out, not refused: an unknown codec or header extension is a peer with more
abilities than ours. Lines whose loss would change who may talk to whom (BUNDLE, ICE, DTLS) are judged elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from protocol.sdp.grammar import MediaSection, Section

__all__ = [
    "Direction",
    "HeaderExtension",
    "PayloadFormat",
    "read_direction",
    "read_extensions",
    "read_formats",
    "read_number",
]

# Specification constants
_RTPMAP = re.compile(r"([0-9]{1,3}) ([^ /]{1,64})/([0-9]{1,6})(?:/([0-9]{1,2}))? ?")  # RFC 8866 §6.6
_EXTMAP = re.compile(r"([0-9]{1,4})(?:/(sendrecv|sendonly|recvonly|inactive))? ([^ ]{1,256})(?: .*)?")  # RFC 8285 §8
_FEEDBACK = re.compile(r"([0-9]{1,3}|\*) ([^ ].{0,63})")  # RFC 4585 §4.2
# RFC 3551 §6: static payload types need no rtpmap. Only those we carry matter here.
_STATIC = {0: ("PCMU", 8000, 1), 8: ("PCMA", 8000, 1)}
# RFC 5761 §4: with rtcp-mux, payload types 64-95 would be taken for RTCP.
_RTCP_CONFLICT = range(64, 96)

# Implementation constants
MAX_FORMATS = 128
MAX_PARAMETERS = 64


class Direction(StrEnum):
    SENDRECV = "sendrecv"
    SENDONLY = "sendonly"
    RECVONLY = "recvonly"
    INACTIVE = "inactive"

    @property
    def reversed(self) -> Direction:
        """The same flow seen from the other side (RFC 3264 §6.1)."""
        return _REVERSED.get(self, self)

    @property
    def sends(self) -> bool:
        return self in (Direction.SENDRECV, Direction.SENDONLY)

    @property
    def receives(self) -> bool:
        return self in (Direction.SENDRECV, Direction.RECVONLY)


_REVERSED = {Direction.SENDONLY: Direction.RECVONLY, Direction.RECVONLY: Direction.SENDONLY}


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """One payload type of an m= line, with its `a=rtpmap` and `a=fmtp`."""

    payload_type: int
    name: str
    clock_rate: int
    channels: int
    parameters: tuple[tuple[str, str], ...] = ()
    feedback: tuple[str, ...] = ()
    """Of `a=rtcp-fb`, those for all payload types included: `nack`, `nack pli`, `transport-cc`, …"""

    def parameter(self, name: str) -> str | None:
        return next((value for key, value in self.parameters if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class HeaderExtension:
    id: int
    uri: str
    direction: Direction


def read_number(text: str | None, maximum: int) -> int | None:
    """A decimal number up to `maximum`; None for anything else."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 20):
        return None
    value = int(text)
    return value if value <= maximum else None


def read_direction(section: Section, session: Section) -> Direction:
    """The section's own direction, else the session's (Firefox writes one there), else sendrecv (RFC 8866 §6.7)."""
    for place in (section, session):
        for direction in Direction:
            if place.has(direction.value):
                return direction
    return Direction.SENDRECV


def read_formats(section: MediaSection) -> tuple[PayloadFormat, ...]:
    """The payload types of the m= line in its order, as far as they are described and usable beside rtcp-mux."""
    maps: dict[int, tuple[str, int, int]] = {}
    for value in section.values("rtpmap"):
        match = _RTPMAP.fullmatch(value)
        if match is not None:
            maps.setdefault(int(match[1]), (match[2], int(match[3]), int(match[4] or 1)))
    parameters: dict[int, tuple[tuple[str, str], ...]] = {}
    for value in section.values("fmtp"):
        payload_type, _, text = value.partition(" ")
        number = read_number(payload_type, 127)
        if number is not None:
            parameters.setdefault(number, _read_parameters(text))
    feedback = _read_feedback(section)
    formats: dict[int, PayloadFormat] = {}
    for text in section.formats[:MAX_FORMATS]:
        number = read_number(text, 127)
        if number is None or number in _RTCP_CONFLICT or number in formats:
            continue
        mapping = maps.get(number) or _STATIC.get(number)
        if mapping is not None:
            told = (*feedback.get(str(number), ()), *feedback.get("*", ()))
            formats[number] = PayloadFormat(number, *mapping, parameters.get(number, ()), told)
    return tuple(formats.values())


def _read_feedback(section: MediaSection) -> dict[str, list[str]]:
    feedback: dict[str, list[str]] = {}
    for value in section.values("rtcp-fb")[:MAX_FORMATS]:
        if (match := _FEEDBACK.fullmatch(value)) is not None:
            feedback.setdefault(match[1], []).append(match[2].strip())
    return feedback


def _read_parameters(text: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in text.split(";")[:MAX_PARAMETERS]:
        name, _, value = part.strip().partition("=")
        if name:
            pairs.append((name, value))
    return tuple(pairs)


def read_extensions(section: MediaSection, session: Section) -> tuple[HeaderExtension, ...]:
    """The header extensions offered with an id of the one-byte form (1-14, RFC 8285 §4.2), the section's before the
    session's, one per id and one per URI."""
    found: dict[int, HeaderExtension] = {}
    uris: set[str] = set()
    for value in (*section.values("extmap"), *session.values("extmap")):
        match = _EXTMAP.fullmatch(value)
        if match is None:
            continue
        number, uri = int(match[1]), match[3]
        if 1 <= number <= 14 and number not in found and uri not in uris:
            found[number] = HeaderExtension(number, uri, Direction(match[2] or "sendrecv"))
            uris.add(uri)
    return tuple(found.values())
