"""What one side brings to a description, and what two descriptions settle between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from protocol.codecs import CODECS, Codec
from protocol.dtls.fingerprint import Fingerprint
from protocol.ice.candidate import Candidate
from protocol.ice.credentials import IceCredentials
from protocol.sdp.attributes import Direction

__all__ = [
    "Answer",
    "AnsweredSection",
    "Capabilities",
    "Negotiated",
    "NegotiatedAudio",
    "NegotiatedData",
    "Redundancy",
    "Role",
    "Use",
]

Role = Literal["server", "client"]
"""In the DTLS handshake."""
Redundancy = Literal["decline", "accept", "prefer"]
"""`accept` lists it behind the codec: understood, but browsers send none. `prefer` lists it first: browsers send it."""
Use = Literal["audio", "data", "kept", "rejected"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What our side brings to a description; everything random in it is drawn by the caller."""

    ice: IceCredentials
    fingerprint: Fingerprint
    session_id: int
    """Of our `o=` line: the same in all descriptions of a session."""
    ssrc: int
    cname: str
    candidates: tuple[Candidate, ...] = ()
    setup: Literal["passive", "active"] = "passive"
    """The DTLS role we take when the peer leaves the choice to us."""
    ice_lite: bool = True
    tls_id: str | None = None
    """Our name of the DTLS association, told to a peer that names it too (RFC 8842 §5)."""
    session_version: int = 1
    """Of our `o=` line: one more in each description (RFC 3264 §8)."""
    stream_id: str = "antiphon"
    track_id: str = "audio"
    """Of `a=msid`: browsers hand a track to the page with the streams named there."""
    direction: Direction = Direction.SENDRECV
    codecs: tuple[Codec, ...] = CODECS
    telephone_event: bool = True
    extensions: tuple[str, ...] = ()
    """URIs of the RTP header extensions we use, beside that of `transport_cc`."""
    nack: bool = False
    """Lost packets are asked for, and sent again (`a=rtcp-fb nack`)."""
    transport_cc: bool = False
    """We report the arrival of each packet (transport-wide congestion control)."""
    red: Redundancy = "decline"
    """Whether we take redundant audio (RFC 2198), and want it to be sent."""
    sctp_port: int = 5000
    max_message_size: int = 262_144


@dataclass(frozen=True, slots=True)
class NegotiatedAudio:
    """One audio stream each way, seen from our side."""

    mid: str | None
    codec: Codec
    payload_type: int
    telephone_event_payload_type: int | None
    telephone_event_clock_rate: int | None
    direction: Direction
    """`sendonly` means that we send."""
    extensions: dict[str, int]
    rtcp_rsize: bool
    remote_parameters: tuple[tuple[str, str], ...]
    """The peer's `a=fmtp`: what it asks to be sent (stereo, useinbandfec, usedtx, …)."""
    maxptime: int | None
    """The longest packet the peer takes, in milliseconds."""
    nack: bool = False
    """Both sides said `nack` of the codec."""
    transport_cc_id: int | None = None
    """The header extension with transport-wide sequence numbers, if feedback about them was agreed."""
    red_payload_type: int | None = None
    """Under which redundant audio may come."""
    red_first: bool = False
    """It stands before the codec: who reads this as an answer should send it."""


@dataclass(frozen=True, slots=True)
class NegotiatedData:
    mid: str | None
    local_sctp_port: int
    remote_sctp_port: int
    remote_max_message_size: int
    """The largest message the peer takes; 0 means any size (RFC 8841 §6.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Negotiated:
    """What both descriptions together settle."""

    audio: NegotiatedAudio | None
    data: NegotiatedData | None
    remote_ice: IceCredentials
    remote_fingerprints: tuple[Fingerprint, ...]
    remote_candidates: tuple[Candidate, ...]
    remote_ice_lite: bool
    remote_tls_id: str | None = None
    role: Role
    """Ours in the DTLS handshake."""


class AnsweredSection(NamedTuple):
    """What became of one m= line."""

    media: str
    mid: str | None
    use: Use


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Negotiated):
    sections: tuple[AnsweredSection, ...]
    """One for each m= line of the offer, in order."""
    sdp: str
    """Ends in CRLF: some libwebrtc builds reject an unterminated last line."""
