"""What a peer is told and what it gives out."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from protocol.address import Path
from protocol.ice import ConsentLate, ConsentRestored, PathSelected, RestartCompleted, SendTo
from protocol.rtp import RtpPacket
from protocol.sctp import ChannelClosed, ChannelMessage, ChannelOpened, ChannelOverrun, ChannelWritable

__all__ = [
    "AudioParameters",
    "AudioReceived",
    "CircuitBroken",
    "DataChannelsClosed",
    "DataParameters",
    "DtlsConnected",
    "PeerClosed",
    "PeerEvent",
    "PeerOutput",
    "PeerStatistics",
    "TransportFailed",
]


@dataclass(frozen=True, slots=True)
class AudioParameters:
    """The negotiated audio stream; `ssrc` and `cname` are ours, the payload types go for both directions."""

    payload_type: int
    clock_rate: int
    ssrc: int
    cname: str
    telephone_event_payload_type: int | None = None
    ntp_epoch: int = 0
    """The NTP time at which `now` is 0: what our sender reports tell."""
    reduced_size: bool = False
    """RTCP of ours need not be compound (a=rtcp-rsize)."""
    send_red_as: int | None = None
    """Send redundant audio (RFC 2198), under this payload type."""
    transport_cc_id: int | None = None
    """The header extension with transport-wide sequence numbers; feedback about them is sent."""
    request: bool = True
    """Ask for packets that were lost, whether NACKs were agreed on or not: both browsers resend Opus all the same."""
    resend: bool = False
    """Keep what was sent for a second, and send it again when a NACK names it."""


@dataclass(frozen=True, slots=True)
class DataParameters:
    """The peer's a=sctp-port and a=max-message-size (0: no limit)."""

    remote_sctp_port: int = 5000
    remote_max_message_size: int = 65536
    local_sctp_port: int = 5000
    negotiated: tuple[tuple[int, str], ...] = ()
    """Stream id and label of channels that both sides open by themselves: they are open as soon as the association is."""


@dataclass(frozen=True, slots=True)
class DtlsConnected:
    srtp_profile: int
    cipher_suite: str
    version: str


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """The other side ended the association (close_notify); `reason` is a word fit for a metric label."""

    reason: str


@dataclass(frozen=True, slots=True)
class TransportFailed:
    """The association is dead by a fault: handshake, fingerprint, alert, ICE."""

    reason: str


@dataclass(frozen=True, slots=True)
class DataChannelsClosed:
    """The SCTP association ended; audio goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class CircuitBroken:
    """No audio is sent any more, to protect the network (RFC 8083); the value of a `protocol.rtp.Trip` says why."""

    reason: str


@dataclass(frozen=True, slots=True)
class AudioReceived:
    """One authenticated RTP packet, of any payload type, in the order of arrival."""

    packet: RtpPacket


@dataclass(frozen=True, slots=True)
class PeerStatistics:
    """A snapshot. Times in seconds; `round_trip_time` by RTCP, else by our own checks, else None."""

    round_trip_time: float | None
    jitter: float | None
    packets_received: int
    bytes_received: int
    packets_lost: int
    packets_sent: int
    bytes_sent: int
    remote_fraction_lost: float | None
    drops: Counter[str]
    rtcp: Counter[str]
    """What RTCP told: feedback by kind, sources that ended; and what we answered: NACKs sent, packets resent."""
    srtp_profile: int | None
    cipher_suite: str | None
    path: Path | None


PeerEvent: TypeAlias = (
    PathSelected
    | RestartCompleted
    | ConsentLate
    | ConsentRestored
    | DtlsConnected
    | PeerClosed
    | TransportFailed
    | DataChannelsClosed
    | CircuitBroken
    | AudioReceived
    | ChannelOpened
    | ChannelMessage
    | ChannelOverrun
    | ChannelWritable
    | ChannelClosed
)
PeerOutput: TypeAlias = SendTo | PeerEvent
