"""What a description says of one transport: ICE credentials and candidates, certificate fingerprints, DTLS role.

Each attribute is looked for in the media section, then in the session (Firefox writes its fingerprint there), then in
the tagged section of the BUNDLE group (a bundle-only section has none of its own): RFC 8839 §5, RFC 8122 §5, RFC 9143 §7.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from protocol.dtls.fingerprint import Fingerprint
from protocol.errors import DecodeError
from protocol.ice.candidate import Candidate
from protocol.ice.credentials import IceCredentials
from protocol.sdp.errors import OfferRefused, OfferUnsupported
from protocol.sdp.grammar import Section, SessionDescription

__all__ = ["Transport", "check_candidate_count", "read_candidates", "read_transport"]

# Specification constants
_SETUPS = ("active", "passive", "actpass", "holdconn")  # RFC 4145 §4
_DEFAULT_SETUP = "active"  # RFC 4145 §4: the default of an offer
_TLS_ID = re.compile(r"[A-Za-z0-9+/\-_]{20,255}")  # RFC 8842 §4
_OPTION = re.compile(r"[A-Za-z0-9+/]+")  # RFC 8839 §5.6: ice-options are ice-chars; libdatachannel puts commas between

# Implementation constants
MAX_CANDIDATES = 100
MAX_FINGERPRINTS = 8


@dataclass(frozen=True, slots=True)
class Transport:
    ice: IceCredentials
    fingerprints: tuple[Fingerprint, ...]
    setup: str
    candidates: tuple[Candidate, ...]
    """Those a UDP datagram can be sent to; `.local`, TCP, RTCP and unreadable ones are left out (RFC 8839 §5.1)."""
    tls_id: str | None = None
    """Names the DTLS association (RFC 8842 §4); most peers know it by the fingerprint alone."""
    trickle: bool = False
    """More candidates may follow (RFC 8840 §4.1)."""


def check_candidate_count(description: SessionDescription) -> None:
    count = len(description.session.values("candidate"))
    count += sum(len(section.values("candidate")) for section in description.media)
    if count > MAX_CANDIDATES:
        message = f"The SDP has more than {MAX_CANDIDATES} candidates."
        raise OfferRefused("too_many_candidates", message, "a=candidate")


def read_transport(places: Sequence[Section]) -> Transport:
    """`places` in order of precedence, the media section first."""
    return Transport(
        ice=_read_ice(places),
        fingerprints=_read_fingerprints(places),
        setup=_read_setup(places),
        candidates=tuple(read_candidates(_all(places, "candidate"))),
        tls_id=_read_tls_id(places),
        trickle=any("trickle" in _OPTION.findall(options) for options in _all(places, "ice-options")),
    )


def _all(places: Sequence[Section], name: str) -> tuple[str, ...]:
    """All values of an attribute in the first place that has it."""
    return next((place.values(name) for place in places if place.has(name)), ())


def _read_ice(places: Sequence[Section]) -> IceCredentials:
    ufrag, pwd = _all(places, "ice-ufrag"), _all(places, "ice-pwd")
    if not ufrag:
        raise OfferRefused("no_ice_ufrag", "The SDP offer has no a=ice-ufrag.", "a=ice-ufrag")
    if not pwd:
        raise OfferRefused("no_ice_pwd", "The SDP offer has no a=ice-pwd.", "a=ice-pwd")
    try:
        return IceCredentials.parse_untrusted(ufrag[0], pwd[0])
    except DecodeError as error:
        if error.reason == "ice_ufrag":
            message = "The a=ice-ufrag must be 4 to 256 letters, digits, “+” or “/”."
            raise OfferRefused("invalid_ice_ufrag", message, "a=ice-ufrag") from None
        message = "The a=ice-pwd must be 22 to 256 letters, digits, “+” or “/”."
        raise OfferRefused("invalid_ice_pwd", message, "a=ice-pwd") from None


def _read_fingerprints(places: Sequence[Section]) -> tuple[Fingerprint, ...]:
    """All fingerprints strong enough; the certificate must match one of them (RFC 8122 §5)."""
    values = _all(places, "fingerprint")
    if not values:
        raise OfferRefused("no_fingerprint", "The SDP offer has no a=fingerprint.", "a=fingerprint")
    if len(values) > MAX_FINGERPRINTS:
        message = f"The SDP offer has more than {MAX_FINGERPRINTS} fingerprints."
        raise OfferRefused("too_many_fingerprints", message, "a=fingerprint")
    fingerprints = []
    for value in values:
        try:
            fingerprints.append(Fingerprint.parse_untrusted(value))
        except DecodeError as error:
            if error.reason != "fingerprint_algorithm":
                message = "An a=fingerprint is not a hash name and a hash of its length in hexadecimal pairs."
                raise OfferRefused("invalid_fingerprint", message, "a=fingerprint") from None
    if not fingerprints:
        message = "The SDP offer has only weak or unknown fingerprints; sha-256, sha-384 or sha-512 is needed."
        raise OfferUnsupported("weak_fingerprint", message, "a=fingerprint")
    return tuple(fingerprints)


def _read_setup(places: Sequence[Section]) -> str:
    values = _all(places, "setup")
    setup = values[0] if values else _DEFAULT_SETUP
    if setup not in _SETUPS:
        message = "The a=setup must be actpass, active or passive."
        raise OfferRefused("invalid_setup", message, "a=setup")
    if setup == "holdconn":  # RFC 8842 §5.1 forbids it
        raise OfferRefused("invalid_setup", "The a=setup must not be holdconn.", "a=setup")
    return setup


def _read_tls_id(places: Sequence[Section]) -> str | None:
    values = _all(places, "tls-id")
    if not values:
        return None
    if _TLS_ID.fullmatch(values[0]) is None:
        message = "The a=tls-id must be 20 to 255 letters, digits, “+”, “/”, “-” or “_”."
        raise OfferRefused("invalid_tls_id", message, "a=tls-id")
    return values[0]


def read_candidates(values: Iterable[str]) -> Iterable[Candidate]:
    for value in values:
        try:
            candidate = Candidate.parse_untrusted(value)
        except DecodeError:
            continue
        if candidate.usable:
            yield candidate
