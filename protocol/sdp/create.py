"""The offerer's half, for our own load generator: write an offer, read the answer to it.

Thin on purpose: one audio section, one data section, one transport. An answer that would need more is refused.
"""

from __future__ import annotations

from protocol.codecs import OPUS
from protocol.errors import DecodeError
from protocol.sdp.answer import negotiate_audio
from protocol.sdp.attributes import Direction, HeaderExtension
from protocol.sdp.grammar import SessionDescription
from protocol.sdp.negotiation import Capabilities, Negotiated, NegotiatedData, Role
from protocol.sdp.offer import read_offer
from protocol.sdp.write import (
    NACK,
    TRANSPORT_CC,
    TRANSPORT_CC_URI,
    audio_lines,
    codec_lines,
    data_lines,
    dtls_lines,
    event_lines,
    join_lines,
    red_lines,
    session_lines,
)

__all__ = ["create_offer", "read_answer"]

# Implementation constants
AUDIO_MID, DATA_MID = "0", "1"
AUDIO_PROTOCOL, DATA_PROTOCOL = "UDP/TLS/RTP/SAVPF", "UDP/DTLS/SCTP"
FIRST_DYNAMIC_PAYLOAD_TYPE = 111
RED_PAYLOAD_TYPE = 63  # this, and the next two, are the same as Chromium's
TRANSPORT_CC_ID = 3
EVENT_PAYLOAD_TYPES = {48_000: 110, 8000: 126}


def create_offer(capabilities: Capabilities, *, audio: bool = True, data: bool = True) -> str:
    """An offer of audio, of a data channel, or of both bundled; `capabilities.setup` is left to the answerer."""
    mids = [mid for mid, wanted in ((AUDIO_MID, audio), (DATA_MID, data)) if wanted]
    lines = session_lines(capabilities, mids)
    if audio:
        lines += audio_lines(
            capabilities,
            AUDIO_MID,
            AUDIO_PROTOCOL,
            dtls_lines("actpass"),
            capabilities.candidates,
            formats=_offered_formats(capabilities),
            direction=capabilities.direction,
            rtcp_rsize=True,
            extensions=_offered_extensions(capabilities),
        )
    if data:
        candidates = () if audio else capabilities.candidates
        lines += data_lines(capabilities, DATA_MID, DATA_PROTOCOL, dtls_lines("actpass"), candidates)
    return join_lines(lines)


def _offered_extensions(capabilities: Capabilities) -> list[HeaderExtension]:
    if not capabilities.transport_cc:
        return []
    return [HeaderExtension(TRANSPORT_CC_ID, TRANSPORT_CC_URI, Direction.SENDRECV)]


def _offered_formats(capabilities: Capabilities) -> dict[int, list[str]]:
    formats: dict[int, list[str]] = {}
    feedback = [
        kind for kind, wanted in ((NACK, capabilities.nack), (TRANSPORT_CC, capabilities.transport_cc)) if wanted
    ]
    dynamic = FIRST_DYNAMIC_PAYLOAD_TYPE
    for codec in capabilities.codecs:
        if codec.static_payload_type is None:
            formats[dynamic] = codec_lines(codec, dynamic, feedback)
            if codec is OPUS and capabilities.red != "decline":
                red = {RED_PAYLOAD_TYPE: red_lines(codec, RED_PAYLOAD_TYPE, dynamic)}
                formats = red | formats if capabilities.red == "prefer" else formats | red
            dynamic += 1
        else:
            formats[codec.static_payload_type] = codec_lines(codec, codec.static_payload_type, feedback)
    if capabilities.telephone_event:
        for clock_rate in dict.fromkeys(codec.clock_rate for codec in capabilities.codecs):
            payload_type = EVENT_PAYLOAD_TYPES[clock_rate]
            formats[payload_type] = event_lines(payload_type, clock_rate)
    return formats


def read_answer(description: SessionDescription, capabilities: Capabilities) -> Negotiated:
    """What an answer to `create_offer(capabilities)` settles; raises DecodeError if it is none."""
    answered = read_offer(description)  # the same lines and the same faults
    audio_section = next((section for section in answered.sections if section.audio is not None), None)
    data_section = next((section for section in answered.sections if section.data is not None), None)
    audio = data = None
    if audio_section is not None and audio_section.audio is not None:
        audio = negotiate_audio(audio_section.mid, audio_section.audio, capabilities)
        if audio is None or audio_section.mid != AUDIO_MID:
            raise DecodeError("invalid_answer", "audio we did not offer")
    if data_section is not None and data_section.data is not None:
        if data_section.mid != DATA_MID or (audio_section and data_section.bundle is None):
            raise DecodeError("invalid_answer", "a data channel we did not offer")
        remote = data_section.data
        data = NegotiatedData(DATA_MID, capabilities.sctp_port, remote.sctp_port, remote.max_message_size)
    carrier = audio_section or data_section
    if carrier is None or carrier.transport is None:  # read_offer has refused this
        raise DecodeError("invalid_answer", "neither audio nor a data channel")
    transport = carrier.transport
    if transport.setup == "actpass":  # RFC 5763 §5: the answerer has to decide
        raise DecodeError("invalid_answer", "a=setup:actpass")
    role: Role = "client" if transport.setup == "passive" else "server"
    return Negotiated(
        audio=audio,
        data=data,
        remote_ice=transport.ice,
        remote_fingerprints=transport.fingerprints,
        remote_candidates=transport.candidates,
        remote_ice_lite=answered.ice_lite,
        remote_tls_id=transport.tls_id,
        role=role,
    )
