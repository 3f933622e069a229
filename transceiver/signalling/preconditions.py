"""If-Match (RFC 9110 §13.1.1), as WHIP demands it of whoever changes the ICE session (RFC 9725 §4.3.1)."""

from __future__ import annotations

import re

from transceiver.signalling.errors import SignallingError

__all__ = ["check_if_match"]

_ENTITY_TAG = re.compile(r'\s*(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"\s*')


def check_if_match(header: str | None, etag: str) -> None:
    """Raises SignallingError: 428 without the header, 412 if it names other tags than `etag`. Weak tags never match."""
    if header is None:
        message = "If-Match must name the ICE session: the ETag of the answer, or * for a restart."
        raise SignallingError(428, "precondition_required", message, param="If-Match")
    if header.strip() == "*":
        return
    tags = header.split(",")  # no tag of ours has a comma in it
    if not all(_ENTITY_TAG.fullmatch(tag) for tag in tags) or etag not in (tag.strip() for tag in tags):
        message = "The ICE session has been restarted since: If-Match names another one."
        raise SignallingError(412, "precondition_failed", message, param="If-Match")
