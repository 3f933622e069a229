"""BUNDLE groups (RFC 9143): which media sections ask to share one transport.

A group may name only mids of the offer, each once, and a mid may stand in one group only (RFC 9143 §7.1, §7.3).
The *tagged* section, the first of a group that is not switched off, carries the transport attributes for all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from protocol.sdp.errors import OfferRefused
from protocol.sdp.grammar import MediaSection, SessionDescription

__all__ = ["BundleGroup", "read_bundle_groups", "read_mids"]

# Specification constants
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`{|}~A-Za-z0-9]+")  # RFC 5888 §4: identification-tag is a token

# Implementation constants
MAX_MID_LENGTH = 64


@dataclass(frozen=True, slots=True)
class BundleGroup:
    mids: tuple[str, ...]
    tagged: MediaSection | None
    """None when the group is empty or all of it is switched off."""


def read_mids(description: SessionDescription) -> tuple[str | None, ...]:
    """The mid of every media section, None where it has none."""
    mids: list[str | None] = []
    for section in description.media:
        mid = section.value("mid")
        if mid is not None:
            if len(mid) > MAX_MID_LENGTH or _TOKEN.fullmatch(mid) is None:
                raise OfferRefused("invalid_mid", "The SDP has an a=mid that is no token.", "a=mid")
            if mid in mids:
                raise OfferRefused("repeated_mid", "The SDP gives two media sections the same a=mid.", "a=mid")
        mids.append(mid)
    return tuple(mids)


def read_bundle_groups(description: SessionDescription, mids: tuple[str | None, ...]) -> tuple[BundleGroup, ...]:
    sections = {mid: section for mid, section in zip(mids, description.media) if mid is not None}
    seen: set[str] = set()
    groups = []
    for value in description.session.values("group"):
        semantics, *members = value.split() or [""]
        if semantics.upper() != "BUNDLE":
            continue  # LS, FID and others (RFC 5888) say nothing about transports
        for mid in members:
            if mid not in sections:
                message = "The BUNDLE group names a mid that no media section has."
                raise OfferRefused("unknown_bundle_mid", message, "a=group:BUNDLE")
            if mid in seen:
                raise OfferRefused("repeated_bundle_mid", "The BUNDLE groups name a mid twice.", "a=group:BUNDLE")
            seen.add(mid)
        tagged = next((sections[mid] for mid in members if sections[mid].port), None)
        groups.append(BundleGroup(tuple(members), tagged))
    return tuple(groups)
