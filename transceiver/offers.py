"""From what an offer was understood as to what the rest of the transceiver takes."""

from __future__ import annotations

from protocol.peer import DataParameters
from protocol.sdp import NegotiatedData, OfferRefused, OfferUnsupported
from transceiver.session import EVENTS_LABEL
from transceiver.signalling import SignallingError

__all__ = ["data_parameters", "refusal"]


def refusal(error: OfferRefused) -> SignallingError:
    status = 422 if isinstance(error, OfferUnsupported) else 400
    return SignallingError(status, error.code, error.message, param=error.param)


def data_parameters(data: NegotiatedData | None, channel: int | None = None) -> DataParameters | None:
    """`channel` is the stream id of one that the client opens without asking. Raises SignallingError without a data section."""
    if data is None:
        if channel is not None:
            raise SignallingError(
                400, "no_data_channel", "dcid is given, but the offer has no data channel.", param="dcid"
            )
        return None
    return DataParameters(
        remote_sctp_port=data.remote_sctp_port,
        remote_max_message_size=data.remote_max_message_size,
        local_sctp_port=data.local_sctp_port,
        negotiated=() if channel is None else ((channel, EVENTS_LABEL),),
    )
