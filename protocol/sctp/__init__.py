"""SCTP associations and data channels, sans I/O (RFC 9260, 8261, 8831, 8832, 6525, 3758)."""

from __future__ import annotations

from protocol.sctp.association import Association
from protocol.sctp.config import SctpConfig
from protocol.sctp.events import (
    AssociationClosed,
    AssociationUp,
    ChannelClosed,
    ChannelLimit,
    ChannelMessage,
    ChannelOpened,
    ChannelOverrun,
    ChannelWritable,
    MessageTooLarge,
    Output,
    Packet,
    UnknownChannel,
)
from protocol.sctp.states import AssociationState

__all__ = [
    "Association",
    "AssociationClosed",
    "AssociationState",
    "AssociationUp",
    "ChannelClosed",
    "ChannelLimit",
    "ChannelMessage",
    "ChannelOpened",
    "ChannelOverrun",
    "ChannelWritable",
    "MessageTooLarge",
    "Output",
    "Packet",
    "SctpConfig",
    "UnknownChannel",
]
