"""The answer to an offer: a pure function of the offer and of what we can do (RFC 3264 §6, RFC 9429 §5.3).

1. Take the first audio section with a codec we carry; its codec is the first such in the offerer's own order.
2. Take the first data-channel section that shares the transport of that audio.
3. Everything else is rejected in its place with port 0: unknown media, video, second audio, sections outside the bundle.
4. The transport is that of the first accepted section of the BUNDLE group (RFC 9143 §7.3), for all of them. The
   section the offerer tagged cannot be rejected while others of its group live (§7.3.3; Chromium with max-bundle
   drops them all): one that we do not take is kept, inactive.
5. Offered active we are the DTLS server, offered passive the client; offered actpass, what `Capabilities.setup` says
   (RFC 5763 §5).

Nothing is accepted that is not used: of rtcp-fb, RED and header extensions only what `Capabilities` names. What is
accepted stands in the answer only if it stood in the offer: those, rtcp-rsize, extmap-allow-mixed, ice-options, tls-id.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from protocol.codecs import TELEPHONE_EVENT, Codec
from protocol.sdp.attributes import Direction, HeaderExtension, PayloadFormat
from protocol.sdp.errors import OfferUnsupported
from protocol.sdp.negotiation import Answer, AnsweredSection, Capabilities, NegotiatedAudio, NegotiatedData, Role, Use
from protocol.sdp.offer import AUDIO_PROTOCOLS, AudioOffer, Offer, OfferedSection
from protocol.sdp.transport import Transport, read_transport
from protocol.sdp.write import (
    NACK,
    RED,
    TRANSPORT_CC,
    TRANSPORT_CC_URI,
    audio_lines,
    codec_lines,
    data_lines,
    dtls_lines,
    event_lines,
    join_lines,
    kept_lines,
    red_lines,
    rejected_lines,
    session_lines,
)

__all__ = ["answer", "negotiate_audio"]


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which sections of the offer are taken. At least one is."""

    audio: OfferedSection | None
    negotiated: NegotiatedAudio | None
    data: OfferedSection | None
    kept: OfferedSection | None
    """The offerer's tagged section, if it is neither of the above and must live for their sake."""
    tagged: OfferedSection
    """The section of ours whose transport carries all."""
    transport: Transport
    group: tuple[str, ...]
    """The mids of the answer's BUNDLE group; empty when the offer had none."""

    def use_of(self, section: OfferedSection) -> Use:
        if section is self.audio:
            return "audio"
        if section is self.data:
            return "data"
        return "kept" if section is self.kept else "rejected"


def answer(offer: Offer, capabilities: Capabilities) -> Answer:
    """The answer; raises OfferRefused when nothing of the offer can be taken."""
    if offer.ice_lite and capabilities.ice_lite:
        message = "The offerer is ICE-lite and so are we: nobody would send connectivity checks."
        raise OfferUnsupported("ice_lite_offer", message, "a=ice-lite")
    choice = _choose(offer, capabilities)
    data = None
    if choice.data is not None and choice.data.data is not None:
        remote = choice.data.data
        data = NegotiatedData(choice.data.mid, capabilities.sctp_port, remote.sctp_port, remote.max_message_size)
    role = _choose_role(choice.transport.setup, capabilities)
    return Answer(
        audio=choice.negotiated,
        data=data,
        remote_ice=choice.transport.ice,
        remote_fingerprints=choice.transport.fingerprints,
        remote_candidates=choice.transport.candidates,
        remote_ice_lite=offer.ice_lite,
        remote_tls_id=choice.transport.tls_id,
        role=role,
        sections=tuple(AnsweredSection(sys.intern(s.media.media), s.mid, choice.use_of(s)) for s in offer.sections),
        sdp=_write(offer, capabilities, choice, "active" if role == "client" else "passive"),
    )


def _choose_role(offered_setup: str, capabilities: Capabilities) -> Role:
    if offered_setup == "actpass":
        return "client" if capabilities.setup == "active" else "server"
    return "client" if offered_setup == "passive" else "server"


def _choose(offer: Offer, capabilities: Capabilities) -> _Choice:
    audio, negotiated = _choose_audio(offer, capabilities)
    data = _choose_data(offer, audio)
    kept = _choose_kept(offer, audio, data)
    alive = [section for section in (kept, audio, data) if section is not None]
    group: tuple[str, ...] = ()
    if alive and alive[0].bundle is not None:
        by_mid = {section.mid: section for section in alive}
        group = tuple(mid for mid in offer.bundles[alive[0].bundle].mids if mid in by_mid)
        alive = [by_mid[mid] for mid in group]
    if not alive:  # read_offer and _choose_audio leave no such offer
        raise OfferUnsupported(
            "no_audio_or_data", "The SDP offer has neither audio nor a data channel we can take.", "m="
        )
    tagged = alive[0]
    transport = tagged.transport or read_transport((tagged.media, offer.description.session))
    return _Choice(audio, negotiated, data, kept, tagged, transport, group)


def _choose_kept(offer: Offer, audio: OfferedSection | None, data: OfferedSection | None) -> OfferedSection | None:
    bundle = next((section.bundle for section in (audio, data) if section is not None), None)
    media = offer.bundles[bundle].tagged if bundle is not None else None
    tagged = next((section for section in offer.sections if section.media is media), None)
    if tagged is None or tagged is audio or tagged is data:
        return None
    can_be_kept = tagged.media.protocol in AUDIO_PROTOCOLS and tagged.media.has("rtcp-mux")
    return tagged if can_be_kept else None


def _choose_audio(offer: Offer, capabilities: Capabilities) -> tuple[OfferedSection | None, NegotiatedAudio | None]:
    offered = False
    for section in offer.sections:
        if section.audio is not None:
            offered = True
            audio = negotiate_audio(section.mid, section.audio, capabilities)
            if audio is not None:
                return section, audio
    if offered and all(section.data is None for section in offer.sections):
        names = ", ".join(codec.name for codec in capabilities.codecs)
        raise OfferUnsupported("no_common_codec", f"The SDP offer has none of the audio codecs {names}.", "a=rtpmap")
    return None, None


def negotiate_audio(mid: str | None, offered: AudioOffer, capabilities: Capabilities) -> NegotiatedAudio | None:
    """The audio we and the peer have in common; None without a common codec."""
    for payload_format in offered.formats:
        for codec in capabilities.codecs:
            if codec.matches(payload_format.name, payload_format.clock_rate, payload_format.channels):
                event = _choose_telephone_event(offered.formats, codec) if capabilities.telephone_event else None
                red = _choose_red(offered.formats, payload_format) if capabilities.red != "decline" else None
                extensions = _common_extensions(offered, capabilities, payload_format)
                return NegotiatedAudio(
                    mid=mid,
                    codec=codec,
                    payload_type=payload_format.payload_type,
                    telephone_event_payload_type=event.payload_type if event is not None else None,
                    telephone_event_clock_rate=event.clock_rate if event is not None else None,
                    direction=_meet(offered.direction.reversed, capabilities.direction),
                    extensions=extensions,
                    rtcp_rsize=offered.rtcp_rsize,
                    remote_parameters=payload_format.parameters,
                    maxptime=offered.maxptime,
                    nack=capabilities.nack and NACK in payload_format.feedback,
                    transport_cc_id=extensions.get(TRANSPORT_CC_URI) if capabilities.transport_cc else None,
                    red_payload_type=red.payload_type if red is not None else None,
                    red_first=red is not None and offered.formats.index(red) < offered.formats.index(payload_format),
                )
    return None


def _choose_telephone_event(formats: tuple[PayloadFormat, ...], codec: Codec) -> PayloadFormat | None:
    """The one at the codec's clock rate if there is one (RFC 7874 §3); Firefox offers 8 kHz beside Opus, and means it."""
    events = [item for item in formats if item.name.lower() == TELEPHONE_EVENT and item.channels == 1]
    return min(events, key=lambda item: item.clock_rate != codec.clock_rate, default=None)


def _choose_red(formats: tuple[PayloadFormat, ...], codec: PayloadFormat) -> PayloadFormat | None:
    """Redundant audio of this codec and nothing else: `a=fmtp:63 111/111` (RFC 2198 §5)."""
    for item in formats:
        if (item.name.lower(), item.clock_rate, item.channels) == (RED, codec.clock_rate, codec.channels):
            kinds = {kind for name, _ in item.parameters for kind in name.split("/")}
            if kinds == {str(codec.payload_type)}:
                return item
    return None


def _common_extensions(offered: AudioOffer, capabilities: Capabilities, codec: PayloadFormat) -> dict[str, int]:
    """URI → id, as offered."""
    uris = set(capabilities.extensions)
    if capabilities.transport_cc and TRANSPORT_CC in codec.feedback:
        uris.add(TRANSPORT_CC_URI)
    return {extension.uri: extension.id for extension in offered.extensions if extension.uri in uris}


def _answered_extensions(offered: AudioOffer, negotiated: NegotiatedAudio) -> list[HeaderExtension]:
    """With the ids as offered and the directions seen from our side (RFC 8285 §6)."""
    return [
        replace(extension, direction=extension.direction.reversed)
        for extension in offered.extensions
        if extension.uri in negotiated.extensions
    ]


def _meet(first: Direction, second: Direction) -> Direction:
    sends, receives = first.sends and second.sends, first.receives and second.receives
    if sends:
        return Direction.SENDRECV if receives else Direction.SENDONLY
    return Direction.RECVONLY if receives else Direction.INACTIVE


def _choose_data(offer: Offer, audio: OfferedSection | None) -> OfferedSection | None:
    for section in offer.sections:
        shares = audio is None or (section.bundle is not None and section.bundle == audio.bundle)
        if section.data is not None and shares:
            return section
    return None


def _write(offer: Offer, capabilities: Capabilities, choice: _Choice, setup: str) -> str:
    lines = session_lines(
        capabilities,
        choice.group,
        extmap_allow_mixed=offer.extmap_allow_mixed,
        trickle=choice.transport.trickle,
    )
    # RFC 8842 §5.3: the name of the association is answered only if it was offered.
    tls_id = capabilities.tls_id if choice.transport.tls_id is not None else None
    for section in offer.sections:
        protocol = section.media.protocol
        # RFC 9143 §7.3: candidates stand in the tagged section only, and so does the name of the DTLS association.
        candidates = capabilities.candidates if section is choice.tagged else ()
        dtls = dtls_lines(setup, tls_id if section is choice.tagged else None)
        if section is choice.audio and section.audio is not None and choice.negotiated is not None:
            lines += audio_lines(
                capabilities,
                section.mid,
                protocol,
                dtls,
                candidates,
                formats=_describe(choice.negotiated, capabilities),
                direction=choice.negotiated.direction,
                rtcp_rsize=choice.negotiated.rtcp_rsize,
                extmap_allow_mixed=section.audio.extmap_allow_mixed,
                extensions=_answered_extensions(section.audio, choice.negotiated),
            )
        elif section is choice.data:
            lines += data_lines(capabilities, section.mid, protocol, dtls, candidates)
        elif section is choice.kept:
            lines += kept_lines(capabilities, section.media, section.mid, dtls, candidates)
        else:
            lines += rejected_lines(section.media, section.mid)
    return join_lines(lines)


def _describe(audio: NegotiatedAudio, capabilities: Capabilities) -> dict[int, list[str]]:
    """One codec only, so that the peer cannot change it in mid-call, redundancy of it, and the digits beside it."""
    feedback = [NACK] if audio.nack else []
    if audio.transport_cc_id is not None:
        feedback.append(TRANSPORT_CC)
    formats = {audio.payload_type: codec_lines(audio.codec, audio.payload_type, feedback)}
    if audio.red_payload_type is not None:
        red = {audio.red_payload_type: red_lines(audio.codec, audio.red_payload_type, audio.payload_type)}
        formats = red | formats if capabilities.red == "prefer" else formats | red
    if audio.telephone_event_payload_type is not None and audio.telephone_event_clock_rate is not None:
        formats[audio.telephone_event_payload_type] = event_lines(
            audio.telephone_event_payload_type, audio.telephone_event_clock_rate
        )
    return formats
