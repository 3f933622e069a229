"""Fragments of a description about ICE alone: application/trickle-ice-sdpfrag (RFC 8840 §9, RFC 9725 §4.3).

    a=ice-options:trickle
    a=group:BUNDLE 0 1
    m=audio 9 UDP/TLS/RTP/SAVPF 111
    a=mid:0
    a=ice-ufrag:ysXw
    a=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k
    a=candidate:…
    a=end-of-candidates

A client trickles candidates with it, or, under new credentials, restarts. All sections of a call share one transport, so a
fragment has one ufrag and one password, wherever they stand and however often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.errors import DecodeError
from protocol.ice.candidate import Candidate
from protocol.ice.credentials import IceCredentials
from protocol.sdp.errors import OfferRefused
from protocol.sdp.grammar import MediaSection, Section, read_sections_untrusted
from protocol.sdp.transport import MAX_CANDIDATES, read_candidates
from protocol.sdp.write import candidate_lines, join_lines

__all__ = ["FRAGMENT_TYPE", "IceFragment", "parse_fragment_untrusted", "write_fragment"]

# Specification constants
FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
_PSEUDO_MEDIA = "m=audio 9 RTP/AVP 0"  # RFC 8840 §4.4: where the m= line itself does not matter


@dataclass(frozen=True, slots=True)
class IceFragment:
    ice: IceCredentials | None
    """None: the fragment names none, and means the ICE session that the request is conditional on."""
    candidates: tuple[Candidate, ...]
    """Those a UDP datagram can be sent to; the others are left out silently (RFC 9725 §4.3.2)."""
    end_of_candidates: bool
    trickle: bool
    """Whether `trickle` is among its a=ice-options."""
    bundle: str | None
    """The value of its a=group:BUNDLE, to be repeated in an answer."""
    media: MediaSection | None
    """Its first m= line: the offerer's tagged section."""


def parse_fragment_untrusted(text: str | bytes) -> IceFragment:
    """The fragment in a request body; raises OfferRefused (a DecodeError)."""
    session, media = read_sections_untrusted(text)
    places = (session, *media)
    values = [value for place in places for value in place.values("candidate")]
    if len(values) > MAX_CANDIDATES:
        message = f"The fragment has more than {MAX_CANDIDATES} candidates."
        raise OfferRefused("too_many_candidates", message, "a=candidate")
    groups = [value for value in session.values("group") if value.startswith("BUNDLE ")]
    return IceFragment(
        ice=_read_ice(places),
        candidates=tuple(read_candidates(values)),
        end_of_candidates=any(place.has("end-of-candidates") for place in places),
        trickle=any("trickle" in value.split() for place in places for value in place.values("ice-options")),
        bundle=groups[0] if groups else None,
        media=media[0] if media else None,
    )


def write_fragment(request: IceFragment, ice: IceCredentials, candidates: Sequence[Candidate]) -> str:
    """Our half of a restart: what an ICE-lite agent answers to `request`."""
    lines = ["a=ice-lite"]
    if request.trickle:
        lines.append("a=ice-options:trickle")
    if request.bundle is not None:
        lines.append(f"a=group:{request.bundle}")
    if request.media is None:
        lines.append(_PSEUDO_MEDIA)
    else:
        lines.append(str(request.media.lines[0]))
        lines += [f"a=mid:{mid}" for mid in request.media.values("mid")[:1]]
    lines += [f"a=ice-ufrag:{ice.ufrag}", f"a=ice-pwd:{ice.pwd}", *candidate_lines(candidates)]
    return join_lines(lines)


def _read_ice(places: Sequence[Section]) -> IceCredentials | None:
    ufrags = {value for place in places for value in place.values("ice-ufrag")}
    pwds = {value for place in places for value in place.values("ice-pwd")}
    if not ufrags and not pwds:
        return None
    if len(ufrags) != 1 or len(pwds) != 1:
        message = "The fragment must have one a=ice-ufrag and one a=ice-pwd, the same in all its sections."
        raise OfferRefused("invalid_ice_credentials", message, "a=ice-ufrag")
    try:
        return IceCredentials.parse_untrusted(ufrags.pop(), pwds.pop())
    except DecodeError as error:
        line = "a=ice-ufrag" if error.reason == "ice_ufrag" else "a=ice-pwd"
        message = f"The {line} of the fragment has the wrong form."
        raise OfferRefused("invalid_ice_credentials", message, line) from None
