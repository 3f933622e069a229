"""A further offer in a call that lives (RFC 3264 §8, RFC 9429 §5.3): what may change, and what has to stay.

1. The m= lines stay in number and order; new ones come behind them. One in use keeps its medium and its mid, one that was
   rejected may be used for something else.
2. Free to change: directions, candidates, sections that we do not take, and whether there is a data section. Audio that goes
   may come back; a call that began without audio has no SRTP keys and stays so: such sections are rejected in their place.
3. ICE: new credentials, both of them, are a restart (RFC 8839 §4.4.1.1.1).
4. The DTLS association lives on. A changed fingerprint, role or tls-id would ask for another (RFC 8842 §5.1); we refuse it.
5. Payload types keep their meaning (RFC 3264 §8.3.2), and the SCTP association its port.

What is refused changes nothing: the call goes on as agreed before. The answer is written like the first, the version in its
`o=` line one higher.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocol.dtls.fingerprint import Fingerprint
from protocol.ice.credentials import IceCredentials
from protocol.sdp.answer import answer
from protocol.sdp.errors import OfferRefused, OfferUnsupported
from protocol.sdp.negotiation import Answer, AnsweredSection, Capabilities, NegotiatedAudio, NegotiatedData, Role
from protocol.sdp.offer import AudioOffer, Offer, OfferedSection

__all__ = ["Agreement", "answer_again"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """What offer and answer have settled so far, as much of it as the next offer has to fit. A call keeps one: it is small."""

    capabilities: Capabilities
    """Those of the last answer, with its version and the ICE credentials in force."""
    sections: tuple[AnsweredSection, ...]
    audio: NegotiatedAudio | None
    """The call's stream; it is remembered while no section carries it."""
    data: NegotiatedData | None
    remote_ice: IceCredentials
    remote_fingerprints: tuple[Fingerprint, ...]
    remote_tls_id: str | None
    role: Role

    @classmethod
    def reached(cls, capabilities: Capabilities, answered: Answer) -> Agreement:
        """By the first answer of a call."""
        if answered.remote_tls_id is None:  # then nobody will ask for ours
            capabilities = replace(capabilities, tls_id=None)
        return cls(
            capabilities,
            answered.sections,
            answered.audio,
            answered.data,
            answered.remote_ice,
            answered.remote_fingerprints,
            answered.remote_tls_id,
            answered.role,
        )

    def restarted(self, local: IceCredentials, remote: IceCredentials) -> Agreement:
        """With the ICE credentials that a restart outside of offer and answer has brought."""
        return replace(self, capabilities=replace(self.capabilities, ice=local), remote_ice=remote)


def answer_again(offer: Offer, agreement: Agreement, fresh: IceCredentials) -> tuple[Answer, Agreement]:
    """The answer, and the agreement from now on; raises OfferRefused when the call cannot follow.

    `fresh` are the credentials that we take if the offer restarts ICE: then the new agreement's `remote_ice` differs.
    """
    _check_sections(offer, agreement)
    offer = _narrow(offer, agreement)
    capabilities = replace(
        agreement.capabilities,
        session_version=agreement.capabilities.session_version + 1,
        setup="passive" if agreement.role == "server" else "active",
    )
    answered = answer(offer, capabilities)
    _check_association(answered, agreement)
    _check_streams(offer, answered, agreement)
    if _restarts(answered.remote_ice, agreement.remote_ice):
        capabilities = replace(capabilities, ice=fresh)
        answered = answer(offer, capabilities)
    return answered, replace(
        agreement,
        capabilities=capabilities,
        sections=answered.sections,
        audio=answered.audio or agreement.audio,
        data=answered.data,
        remote_ice=answered.remote_ice,
        remote_tls_id=answered.remote_tls_id or agreement.remote_tls_id,
    )


def _check_sections(offer: Offer, agreement: Agreement) -> None:
    if len(offer.sections) < len(agreement.sections):
        message = "The SDP offer has fewer m= lines than the one before; they may only grow in number."
        raise OfferRefused("fewer_media_sections", message, "m=")
    for offered, agreed in zip(offer.sections, agreement.sections, strict=False):
        same = offered.media.media == agreed.media and (offered.mid == agreed.mid or not _is_on(offered))
        if agreed.use != "rejected" and not same:
            message = "An m= line in use has another medium or a=mid than before; their order must stay."
            raise OfferRefused("media_section_changed", message, "m=")


def _is_on(section: OfferedSection) -> bool:
    return section.media.port != 0 or section.media.has("bundle-only")


def _narrow(offer: Offer, agreement: Agreement) -> Offer:
    """The offer without what the call cannot take: a second audio or data section beside those in use, audio in a call that
    has none, formats other than those in use."""
    used = {agreed.use: index for index, agreed in enumerate(agreement.sections)}
    audio = _in_use(offer, used.get("audio"))
    data = _in_use(offer, used.get("data"))
    sections = []
    for section in offer.sections:
        offered, stream = section.audio, agreement.audio
        if stream is None or (audio is not None and audio is not section):
            offered = None
        elif offered is not None:
            offered = _only_agreed_formats(offered, stream)
        channel = section.data if data is None or data is section else None
        transport = section.transport if offered is not None or channel is not None else None
        sections.append(replace(section, audio=offered, data=channel, transport=transport))
    return replace(offer, sections=tuple(sections))


def _in_use(offer: Offer, index: int | None) -> OfferedSection | None:
    """The section that carried the stream before, if it is still on."""
    section = offer.sections[index] if index is not None else None
    return section if section is not None and section.transport is not None else None


def _only_agreed_formats(offered: AudioOffer, stream: NegotiatedAudio) -> AudioOffer:
    types = (stream.payload_type, stream.telephone_event_payload_type, stream.red_payload_type)
    return replace(offered, formats=tuple(item for item in offered.formats if item.payload_type in types))


def _check_association(answered: Answer, agreement: Agreement) -> None:
    why, param = "", "a=fingerprint"
    if set(answered.remote_fingerprints) != set(agreement.remote_fingerprints):
        why = "another certificate fingerprint"
    elif answered.role != agreement.role:
        why, param = "the other DTLS role", "a=setup"
    elif answered.remote_tls_id not in (None, agreement.remote_tls_id):
        why, param = "another a=tls-id", "a=tls-id"
    if why:
        message = f"The SDP offer has {why}, which asks for a new DTLS association; make a new call for that."
        raise OfferUnsupported("new_dtls_association", message, param)


def _check_streams(offer: Offer, answered: Answer, agreement: Agreement) -> None:
    audio_is_offered = any(section.audio is not None for section in offer.sections)
    same_codec = answered.audio is None or agreement.audio is None or answered.audio.codec is agreement.audio.codec
    if not same_codec or (audio_is_offered and answered.audio is None):
        message = "The codec and payload type in use must stay in the SDP offer."
        raise OfferUnsupported("codec_changed", message, "a=rtpmap")
    if answered.data is not None and agreement.data is not None:
        before, now = agreement.data, answered.data
        if now.remote_sctp_port != before.remote_sctp_port:
            raise OfferUnsupported("data_channel_changed", "The a=sctp-port in use must stay.", "a=sctp-port")
        if now.remote_max_message_size != before.remote_max_message_size:
            message = "The a=max-message-size in use must stay."
            raise OfferUnsupported("data_channel_changed", message, "a=max-message-size")


def _restarts(offered: IceCredentials, agreed: IceCredentials) -> bool:
    if offered == agreed:
        return False
    if offered.ufrag == agreed.ufrag or offered.pwd == agreed.pwd:
        message = "An ICE restart changes both a=ice-ufrag and a=ice-pwd."
        raise OfferRefused("invalid_ice_restart", message, "a=ice-ufrag")
    return True
