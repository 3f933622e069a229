"""Audio between a caller and an agent: order restored on the way up, pace given on the way down."""

from transceiver.media.downlink import PACE_SECONDS, Downlink, OutgoingFrame, Played
from transceiver.media.uplink import Uplink

__all__ = ["PACE_SECONDS", "Downlink", "OutgoingFrame", "Played", "Uplink"]
