"""The typed view of an offer, and every reason to refuse one that lies in the offer itself (RFC 9429 §5.3).

1. mids and BUNDLE groups: known, not repeated.
2. Each media section: is it audio over DTLS-SRTP or a data channel, is it switched on, what does it say.
3. At least one section that we could take.
4. For each of those: ICE credentials, fingerprint, setup; audio with rtcp-mux.

Which of them are taken is `answer()`'s decision, for it needs our capabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.sdp.attributes import (
    Direction,
    HeaderExtension,
    PayloadFormat,
    read_direction,
    read_extensions,
    read_formats,
    read_number,
)
from protocol.sdp.bundle import BundleGroup, read_bundle_groups, read_mids
from protocol.sdp.errors import OfferRefused, OfferUnsupported
from protocol.sdp.grammar import MediaSection, Section, SessionDescription
from protocol.sdp.transport import Transport, check_candidate_count, read_transport

__all__ = [
    "AUDIO_PROTOCOLS",
    "AudioOffer",
    "DataOffer",
    "Offer",
    "OfferedSection",
    "read_audio",
    "read_data",
    "read_offer",
]

# Specification constants
# RFC 9429 §5.1.2: all of these mean DTLS-SRTP; the answer repeats the one offered.
AUDIO_PROTOCOLS = frozenset(
    f"{transport}{profile}"
    for transport in ("UDP/TLS/", "TCP/DTLS/", "")
    for profile in ("RTP/SAVPF", "RTP/SAVP", "RTP/AVPF", "RTP/AVP")
    if not (transport and "/AVP" in profile)
)
DATA_PROTOCOLS = frozenset(("UDP/DTLS/SCTP", "TCP/DTLS/SCTP"))  # RFC 8841 §4
DATA_FORMAT = "webrtc-datachannel"
DEFAULT_SCTP_PORT = 5000  # what every implementation sends; RFC 8841 demands the attribute
DEFAULT_MAX_MESSAGE_SIZE = 64 * 1024  # RFC 8841 §6.1, when the attribute is absent


@dataclass(frozen=True, slots=True)
class AudioOffer:
    formats: tuple[PayloadFormat, ...]
    direction: Direction
    """As the offerer wrote it: `sendonly` means that it sends."""
    extensions: tuple[HeaderExtension, ...]
    rtcp_rsize: bool
    extmap_allow_mixed: bool
    """In this section; `Offer.extmap_allow_mixed` is the session's (RFC 8285 §6)."""
    ptime: int | None
    maxptime: int | None


@dataclass(frozen=True, slots=True)
class DataOffer:
    sctp_port: int
    max_message_size: int
    """What the offerer is ready to receive in one message, in bytes; 0 means any size (RFC 8841 §6.1)."""


@dataclass(frozen=True, slots=True)
class OfferedSection:
    media: MediaSection
    mid: str | None
    bundle: int | None
    """Index of its BUNDLE group in `Offer.bundles`."""
    audio: AudioOffer | None = None
    data: DataOffer | None = None
    transport: Transport | None = None
    """Set exactly when `audio` or `data` is."""


@dataclass(frozen=True, slots=True)
class Offer:
    description: SessionDescription
    sections: tuple[OfferedSection, ...]
    """One for each m= line, in order; those with neither audio nor data must be rejected."""
    bundles: tuple[BundleGroup, ...]
    ice_lite: bool
    extmap_allow_mixed: bool


def read_offer(description: SessionDescription) -> Offer:
    """The typed view; raises OfferRefused when no answer could be right."""
    check_candidate_count(description)
    mids = read_mids(description)
    bundles = read_bundle_groups(description, mids)
    group_of = {mid: index for index, group in enumerate(bundles) for mid in group.mids}
    sections = []
    for media, mid in zip(description.media, mids):
        bundle = group_of.get(mid) if mid is not None else None
        tagged = bundles[bundle].tagged if bundle is not None else None
        sections.append(_read_section(media, mid, bundle, tagged, description.session))
    if all(section.transport is None for section in sections):
        message = "The SDP offer has neither audio (DTLS-SRTP) nor a data channel that is switched on."
        raise OfferUnsupported("no_audio_or_data", message, "m=")
    return Offer(
        description,
        tuple(sections),
        bundles,
        ice_lite=description.session.has("ice-lite"),
        extmap_allow_mixed=description.session.has("extmap-allow-mixed"),
    )


def _read_section(
    media: MediaSection, mid: str | None, bundle: int | None, tagged: MediaSection | None, session: Section
) -> OfferedSection:
    # RFC 9143 §6: port 0 means switched off, except for a bundle-only section of a group that is on.
    bundle_only = media.port == 0 and media.has("bundle-only") and tagged is not None
    if media.port == 0 and not bundle_only:
        return OfferedSection(media, mid, bundle)
    places: list[Section] = [media, session]
    if tagged is not None:
        places.append(tagged)
    if media.media == "audio" and media.protocol in AUDIO_PROTOCOLS:
        transport = read_transport(places)
        if not any(_shares_port_with_rtcp(place) for place in (media, tagged) if place is not None):
            message = "The audio section of the SDP offer has no a=rtcp-mux; RTP and RTCP must share one port."
            raise OfferUnsupported("no_rtcp_mux", message, "a=rtcp-mux")
        return OfferedSection(media, mid, bundle, audio=read_audio(media, session), transport=transport)
    if media.media == "application" and media.protocol in DATA_PROTOCOLS and DATA_FORMAT in media.formats:
        return OfferedSection(media, mid, bundle, data=read_data(media), transport=read_transport(places))
    return OfferedSection(media, mid, bundle)


def _shares_port_with_rtcp(section: Section) -> bool:
    """RFC 9143 §7.1.3: a bundled section may leave rtcp-mux to the tagged one. RFC 8858 §3: rtcp-mux-only says it too."""
    return section.has("rtcp-mux") or section.has("rtcp-mux-only")


def read_audio(media: MediaSection, session: Section) -> AudioOffer:
    return AudioOffer(
        formats=read_formats(media),
        direction=read_direction(media, session),
        extensions=read_extensions(media, session),
        rtcp_rsize=media.has("rtcp-rsize"),
        extmap_allow_mixed=media.has("extmap-allow-mixed"),
        ptime=read_number(media.value("ptime"), 1000),
        maxptime=read_number(media.value("maxptime"), 1000),
    )


def read_data(media: MediaSection) -> DataOffer:
    port = read_number(media.value("sctp-port"), 65535) if media.has("sctp-port") else DEFAULT_SCTP_PORT
    if not port:
        raise OfferRefused("invalid_sctp_port", "The a=sctp-port must be 1 to 65535.", "a=sctp-port")
    size = DEFAULT_MAX_MESSAGE_SIZE
    if media.has("max-message-size"):
        number = read_number(media.value("max-message-size"), 2**64 - 1)
        if number is None:
            message = "The a=max-message-size must be a number of bytes."
            raise OfferRefused("invalid_max_message_size", message, "a=max-message-size")
        size = number
    return DataOffer(port, size)
