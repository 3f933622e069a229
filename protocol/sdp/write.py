"""The lines of our own descriptions, in the order that public captures of the Realtime service show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from protocol.codecs import TELEPHONE_EVENT, TELEPHONE_EVENT_RANGE, Codec
from protocol.ice.candidate import Candidate
from protocol.sdp.attributes import Direction, HeaderExtension
from protocol.sdp.grammar import MediaSection
from protocol.sdp.negotiation import Capabilities

__all__ = [
    "NACK",
    "RED",
    "TRANSPORT_CC",
    "TRANSPORT_CC_URI",
    "audio_lines",
    "candidate_lines",
    "codec_lines",
    "data_lines",
    "dtls_lines",
    "event_lines",
    "join_lines",
    "kept_lines",
    "red_lines",
    "rejected_lines",
    "session_lines",
]

# Specification constants
NO_ADDRESS = "c=IN IP4 0.0.0.0"
NACK, TRANSPORT_CC = "nack", "transport-cc"  # of a=rtcp-fb
TRANSPORT_CC_URI = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
RED = "red"
DISCARD_PORT = 9  # RFC 9429 §5.2.1: the port of a section whose address is ICE's business


def join_lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\r\n" for line in lines)


def session_lines(
    capabilities: Capabilities,
    group: Sequence[str],
    *,
    extmap_allow_mixed: bool = False,
    trickle: bool = False,
) -> list[str]:
    lines = [
        "v=0",
        f"o=- {capabilities.session_id} {capabilities.session_version} IN IP4 0.0.0.0",
        "s=-",
        "t=0 0",
        "a=msid-semantic:WMS *",
        f"a=fingerprint:{capabilities.fingerprint}",
    ]
    if capabilities.ice_lite:
        lines.append("a=ice-lite")
    if trickle:
        lines.append("a=ice-options:trickle")
    if extmap_allow_mixed:
        lines.append("a=extmap-allow-mixed")
    if group:
        lines.append(f"a=group:BUNDLE {' '.join(group)}")
    return lines


def dtls_lines(setup: str, tls_id: str | None = None) -> list[str]:
    """What a section says of the DTLS association; its name, if any, stands in the tagged section only."""
    return [f"a=setup:{setup}"] if tls_id is None else [f"a=setup:{setup}", f"a=tls-id:{tls_id}"]


def audio_lines(
    capabilities: Capabilities,
    mid: str | None,
    protocol: str,
    dtls: Sequence[str],
    candidates: Sequence[Candidate],
    *,
    formats: Mapping[int, Sequence[str]],
    direction: Direction,
    rtcp_rsize: bool,
    extmap_allow_mixed: bool = False,
    extensions: Iterable[HeaderExtension],
) -> list[str]:
    """`formats`: the payload types in order, each with the lines that describe it. `dtls`: see `dtls_lines`."""
    lines = [
        f"m=audio {DISCARD_PORT} {protocol} {' '.join(map(str, formats))}",
        NO_ADDRESS,
        *dtls,
        *_mid_lines(mid),
        *_ice_lines(capabilities),
        "a=rtcp-mux",
    ]
    if rtcp_rsize:
        lines.append("a=rtcp-rsize")
    if extmap_allow_mixed:
        lines.append("a=extmap-allow-mixed")
    lines += [_extension_line(extension) for extension in extensions]
    for described in formats.values():
        lines += described
    if direction.sends:
        msid = f"{capabilities.stream_id} {capabilities.track_id}"
        lines += [
            f"a=ssrc:{capabilities.ssrc} cname:{capabilities.cname}",
            f"a=ssrc:{capabilities.ssrc} msid:{msid}",
            f"a=msid:{msid}",
        ]
    lines.append(f"a={direction.value}")
    return lines + candidate_lines(candidates)


def data_lines(
    capabilities: Capabilities, mid: str | None, protocol: str, dtls: Sequence[str], candidates: Sequence[Candidate]
) -> list[str]:
    return [
        f"m=application {DISCARD_PORT} {protocol} webrtc-datachannel",
        NO_ADDRESS,
        *dtls,
        *_mid_lines(mid),
        "a=sendrecv",
        f"a=sctp-port:{capabilities.sctp_port}",
        f"a=max-message-size:{capabilities.max_message_size}",
        *_ice_lines(capabilities),
        *candidate_lines(candidates),
    ]


def kept_lines(
    capabilities: Capabilities,
    media: MediaSection,
    mid: str | None,
    dtls: Sequence[str],
    candidates: Sequence[Candidate],
) -> list[str]:
    """An RTP section that carries nothing but the transport of its group: its first format, inactive."""
    first = media.formats[0]
    described = (f"a={name}:{value}" for name in ("rtpmap", "fmtp") for value in media.values(name))
    return [
        f"m={media.media} {DISCARD_PORT} {media.protocol} {first}",
        NO_ADDRESS,
        *dtls,
        *_mid_lines(mid),
        *_ice_lines(capabilities),
        "a=rtcp-mux",
        *(line for line in described if line.partition(":")[2].partition(" ")[0] == first),
        "a=inactive",
        *candidate_lines(candidates),
    ]


def rejected_lines(media: MediaSection, mid: str | None) -> list[str]:
    """A section switched off in its place: port 0, the rest of the m= line repeated (RFC 3264 §6)."""
    return [
        f"m={media.media} 0 {media.protocol} {' '.join(media.formats)}",
        NO_ADDRESS,
        *_mid_lines(mid),
        "a=inactive",
    ]


def codec_lines(codec: Codec, payload_type: int, feedback: Iterable[str] = ()) -> list[str]:
    lines = [f"a=rtpmap:{payload_type} {codec.encoding}"]
    lines += [f"a=rtcp-fb:{payload_type} {kind}" for kind in feedback]
    if codec.format_parameters is not None:
        lines.append(f"a=fmtp:{payload_type} {codec.format_parameters}")
    return lines


def red_lines(codec: Codec, payload_type: int, codec_payload_type: int) -> list[str]:
    """Redundant audio (RFC 2198 §5): a payload of the codec, and one before it."""
    channels = f"/{codec.channels}" if codec.channels > 1 else ""
    return [
        f"a=rtpmap:{payload_type} {RED}/{codec.clock_rate}{channels}",
        f"a=fmtp:{payload_type} {codec_payload_type}/{codec_payload_type}",
    ]


def event_lines(payload_type: int, clock_rate: int) -> list[str]:
    return [
        f"a=rtpmap:{payload_type} {TELEPHONE_EVENT}/{clock_rate}",
        f"a=fmtp:{payload_type} {TELEPHONE_EVENT_RANGE}",
    ]


def _mid_lines(mid: str | None) -> list[str]:
    return [] if mid is None else [f"a=mid:{mid}"]


def _ice_lines(capabilities: Capabilities) -> list[str]:
    return [f"a=ice-ufrag:{capabilities.ice.ufrag}", f"a=ice-pwd:{capabilities.ice.pwd}"]


def _extension_line(extension: HeaderExtension) -> str:
    suffix = "" if extension.direction == Direction.SENDRECV else f"/{extension.direction.value}"
    return f"a=extmap:{extension.id}{suffix} {extension.uri}"


def candidate_lines(candidates: Sequence[Candidate]) -> list[str]:
    if not candidates:
        return []
    # We never trickle: what stands here is all there is (RFC 8840 §4.2).
    return [*(f"a=candidate:{candidate.serialize()}" for candidate in candidates), "a=end-of-candidates"]
