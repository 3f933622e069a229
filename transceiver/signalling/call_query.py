"""What a call's query and credentials add to its body: `?model=`, `?dcid=`, the session of a client secret."""

from __future__ import annotations

import re
from dataclasses import replace

from starlette.datastructures import QueryParams

from protocol.sctp import SctpConfig
from transceiver.signalling.calls import CallRequest
from transceiver.signalling.errors import SignallingError
from transceiver.signalling.permits import Permit
from transceiver.signalling.sessions import join_sessions

__all__ = ["complete_request"]

# Implementation constants
MAX_MODEL = 256
STREAMS = SctpConfig().streams  # as many has Chromium
_NUMBER = re.compile(r"[0-9]{1,5}")


def complete_request(request: CallRequest, permit: Permit, query: QueryParams) -> CallRequest:
    """Raises SignallingError."""
    session = join_sessions(permit.session, request.session, _model(query))
    return replace(request, session=session, permit=permit, channel=_channel(query))


def _model(query: QueryParams) -> str | None:
    model = query.get("model", "")
    if len(model) > MAX_MODEL or not model.isprintable():
        raise SignallingError(
            400, "invalid_model", f"A model's name has {MAX_MODEL} characters at most.", param="model"
        )
    return model or None


def _channel(query: QueryParams) -> int | None:
    given = query.getlist("dcid")
    if not given:
        return None
    if len(given) > 1 or not _NUMBER.fullmatch(given[0]) or int(given[0]) >= STREAMS:
        message = f"dcid is the stream id of a data channel, a number from 0 to {STREAMS - 1}."
        raise SignallingError(400, "invalid_dcid", message, param="dcid")
    return int(given[0])
