"""The line grammar of SDP (RFC 8866 §5 and §9), without loss and without opinion.

1. Bound the size, decode UTF-8, split at LF or CRLF.
2. Every line is one letter, `=`, and a value without control characters.
3. Lines before the first `m=` are the session's; each `m=` begins a media section.
4. The session opens with v=0, o=, s=, and has a t=: what makes it SDP and not something else.

`serialize()` gives every line back as it was, unknown ones included, each ended by CRLF.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from protocol.sdp.errors import OfferRefused

__all__ = [
    "MAX_BYTES",
    "MAX_MEDIA_SECTIONS",
    "Line",
    "MediaSection",
    "Section",
    "SessionDescription",
    "parse_untrusted",
    "read_sections_untrusted",
]

# Specification constants
_LINE = re.compile(r"([a-zA-Z])=([^\x00-\x08\x0a-\x1f\x7f]*)")  # byte-string, RFC 8866 §9; TAB is tolerated
_TOKEN = r"[!#$%&'*+\-.^_`{|}~A-Za-z0-9]+"
_MEDIA = re.compile(rf"({_TOKEN}) ([0-9]{{1,5}})(?:/[0-9]{{1,5}})? ({_TOKEN}(?:/{_TOKEN})*)((?: {_TOKEN})+) *")

# Implementation constants
MAX_BYTES = 64 * 1024
MAX_LINES = 2048
MAX_LINE_LENGTH = 4096
MAX_MEDIA_SECTIONS = 16


class Line(NamedTuple):
    kind: str
    value: str

    def __str__(self) -> str:
        return f"{self.kind}={self.value}"


@dataclass(frozen=True, slots=True)
class Section:
    """A run of lines with its attributes indexed: `a=name` and `a=name:value`, in order, repetitions kept."""

    lines: tuple[Line, ...]
    _index: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index: dict[str, list[str]] = {}
        for line in self.lines:
            if line.kind == "a":
                name, _, value = line.value.partition(":")
                index.setdefault(name, []).append(value)
        object.__setattr__(self, "_index", {name: tuple(values) for name, values in index.items()})

    def values(self, name: str) -> tuple[str, ...]:
        """The values of all `a=name` lines; an attribute without a value counts as the empty string."""
        return self._index.get(name, ())

    def value(self, name: str) -> str | None:
        """The value of the first `a=name` line."""
        values = self._index.get(name)
        return values[0] if values else None

    def has(self, name: str) -> bool:
        return name in self._index


@dataclass(frozen=True, slots=True)
class MediaSection(Section):
    """A section that begins with `m=media port proto fmt …`."""

    media: str = ""
    port: int = 0
    protocol: str = ""
    formats: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SessionDescription:
    session: Section
    media: tuple[MediaSection, ...]

    def lines(self) -> Iterator[Line]:
        yield from self.session.lines
        for section in self.media:
            yield from section.lines

    def serialize(self) -> str:
        """Every line as it came, each ended by CRLF."""
        return "".join(f"{line}\r\n" for line in self.lines())


def parse_untrusted(text: str | bytes) -> SessionDescription:
    """The description in a request body; raises OfferRefused (a DecodeError)."""
    session, media = read_sections_untrusted(text)
    _check_session(session.lines)
    return SessionDescription(session, media)


def read_sections_untrusted(text: str | bytes) -> tuple[Section, tuple[MediaSection, ...]]:
    """The lines of a description or of a fragment of one, by section; raises OfferRefused."""
    if len(text) > MAX_BYTES:
        raise _too_large()
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError:
            raise _not_sdp("it is not UTF-8 text") from None
    elif len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise _too_large()
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    while lines and not lines[-1].strip(" \t"):
        lines.pop()
    if not lines:
        raise OfferRefused("empty_sdp", "The SDP offer is empty.")
    if len(lines) > MAX_LINES:
        raise OfferRefused("sdp_too_long", f"The SDP has more than {MAX_LINES} lines.")
    session, *media = _split_sections([_parse_line(line) for line in lines])
    return Section(tuple(session)), tuple(_media_section(section) for section in media)


def _parse_line(text: str) -> Line:
    if len(text) > MAX_LINE_LENGTH:
        raise OfferRefused("sdp_too_long", f"The SDP has a line of more than {MAX_LINE_LENGTH} characters.")
    match = _LINE.fullmatch(text)
    if match is None:
        raise _not_sdp("every line must be a letter, “=” and a value")
    return Line(match[1], match[2])


def _split_sections(lines: list[Line]) -> list[list[Line]]:
    sections: list[list[Line]] = [[]]
    for line in lines:
        if line.kind == "m":
            sections.append([])
        sections[-1].append(line)
    if len(sections) - 1 > MAX_MEDIA_SECTIONS:
        raise OfferRefused("too_many_media_sections", f"The SDP has more than {MAX_MEDIA_SECTIONS} m= lines.", "m=")
    return sections


def _check_session(session: tuple[Line, ...]) -> None:
    kinds = [line.kind for line in session]
    # RFC 8866 §5: v=, o=, s= come in this order and first; t= follows later, after optional lines.
    if kinds[:3] != ["v", "o", "s"] or session[0].value != "0":
        raise _not_sdp("it must begin with v=0, o= and s=")
    if "t" not in kinds:
        raise _not_sdp("it has no t= line")
    if len(session[1].value.split(" ")) != 6:
        raise _not_sdp("its o= line must have six fields")


def _media_section(lines: list[Line]) -> MediaSection:
    match = _MEDIA.fullmatch(lines[0].value)
    if match is None or int(match[2]) > 65535:
        raise OfferRefused("not_sdp", "The body is not valid SDP: an m= line has the wrong form.", "m=")
    return MediaSection(tuple(lines), match[1], int(match[2]), match[3], tuple(match[4].split()))


def _not_sdp(why: str) -> OfferRefused:
    return OfferRefused("not_sdp", f"The body is not valid SDP: {why}.")


def _too_large() -> OfferRefused:
    return OfferRefused("sdp_too_large", f"The SDP is larger than {MAX_BYTES // 1024} KiB.")
