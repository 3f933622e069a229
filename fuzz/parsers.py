"""Parsers without a state. Where there is a writer, what it writes must be read as the same again; where two parsers
read the same thing, they must agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fuzz.target import Target, promise, refused, seeded, tagged
from protocol.address import pack_address
from protocol.agentlink import (
    DataMessage,
    PlayedReports,
    decode_agent_message_untrusted,
    decode_binary_untrusted,
    decode_transceiver_message_untrusted,
    encode_data,
    encode_media,
    encode_played,
)
from protocol.codecs.opus import carries_opus_fec_untrusted, count_opus_samples_untrusted
from protocol.codecs.red import parse_red_untrusted
from protocol.codecs.telephone_event import parse_telephone_event_untrusted
from protocol.dtls import Fingerprint
from protocol.dtls.alerts import parse_alert_untrusted
from protocol.dtls.certificates import public_key_untrusted, subject_public_key_info_untrusted
from protocol.dtls.fragments import parse_fragments_untrusted
from protocol.dtls.messages import PARSERS, Message
from protocol.dtls.record12 import pack_record, split_records_untrusted
from protocol.dtls.registry import HandshakeType
from protocol.errors import DecodeError
from protocol.ice import Candidate, IceCredentials
from protocol.routing import (
    DATAGRAM_OVERHEAD,
    KeyRing,
    RoutingConfig,
    Trunk,
    TrunkKind,
    announce,
    hello,
    read_announcement_untrusted,
    read_hello_untrusted,
)
from protocol.rtp import parse_rtp_untrusted
from protocol.rtp.rtcp import Feedback, read_nack_untrusted, read_transport_feedback_untrusted, write_nack
from protocol.rtp.rtcp.compound import parse_rtcp_untrusted, serialize_rtcp
from protocol.sctp.chunks import (
    parse_causes_untrusted,
    parse_data_untrusted,
    parse_forward_tsn_untrusted,
    parse_sack_untrusted,
)
from protocol.sctp.dcep import parse_dcep_untrusted
from protocol.sctp.packet import build_packet, parse_packet_untrusted
from protocol.sctp.parameters import parse_init_untrusted, parse_reconfig_untrusted
from protocol.sdp import Capabilities, answer, parse_fragment_untrusted, parse_untrusted, read_offer, write_fragment
from protocol.stun.binding import scan_binding_untrusted
from protocol.stun.message import parse_message_untrusted
from protocol.stun.peek import peek_username_untrusted

__all__ = ["PARSER_TARGETS"]

T = TypeVar("T")
R = TypeVar("R")

_ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,))
_KEYS, _TRUNK = KeyRing.parse(_ROUTING), Trunk.parse(_ROUTING)
_OURS = pack_address("127.0.0.1", 4000)


def _or_none(parse: Callable[[T], R], data: T) -> R | None:
    try:
        return parse(data)
    except DecodeError:
        return None


def _stun(data: bytes) -> None:
    message = _or_none(parse_message_untrusted, data)
    binding = _or_none(scan_binding_untrusted, data)
    if binding is None:
        return
    username = getattr(binding, "username", None)
    peeked = _or_none(peek_username_untrusted, data)
    promise(
        username is None or peeked in (None, username), "the relay would read another USERNAME than the transceiver"
    )
    if message is not None:
        bytes(message)


_SEALED = _KEYS.seal(_OURS, incarnation=1, wall_time=1.8e9, entropy=seeded()).encode()


def _token(data: bytes) -> None:
    """As it came; and ours, with one character changed."""
    text = data[:48]
    promise(_or_none(_KEYS.open_untrusted, text) is None or text == _SEALED, "a token was forged")
    if len(data) >= 2:
        at = data[0] % len(_SEALED)
        changed = _SEALED[:at] + data[1:2] + _SEALED[at + 1 :]
        promise(changed == _SEALED or _or_none(_KEYS.open_untrusted, changed) is None, "a changed token was opened")


def _trunk(data: bytes) -> None:
    refused(_TRUNK.decode_untrusted)(data)
    datagram = tagged(_TRUNK, data)
    try:
        kind = _TRUNK.open_untrusted(datagram).kind
        if kind is TrunkKind.HELLO:
            promise(
                hello(_TRUNK, read_hello_untrusted(datagram))[DATAGRAM_OVERHEAD:] == datagram[DATAGRAM_OVERHEAD:],
                "hello",
            )
            return
        if kind is TrunkKind.ANNOUNCE:
            boot, ingress, clients = read_announcement_untrusted(datagram)
            for part in announce(_TRUNK, boot, ingress, clients, 65507):
                promise(part == datagram, "announcement")
            return
        frames = _TRUNK.decode_untrusted(datagram)
    except DecodeError:
        return
    written = _TRUNK.encode(frames, 65507)
    again = [frame for datagram in written for frame in _TRUNK.decode_untrusted(datagram)]
    promise(
        [tuple(map(bytes, frame[::2])) for frame in again] == [tuple(map(bytes, frame[::2])) for frame in frames],
        "trunk",
    )


def _records(data: bytes) -> None:
    records, rest = split_records_untrusted(data)
    written = b"".join(pack_record(record.content_type, record.number, record.fragment) for record in records)
    again, none = split_records_untrusted(written)
    promise(again == records and none == "", "records")
    promise(bool(rest) or len(written) == len(data), "bytes were passed over without a word")
    for record in records:
        refused(parse_fragments_untrusted)(record.fragment)
        refused(parse_alert_untrusted)(record.fragment)


def _handshake_message(parse: Callable[[bytes], Message]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        try:
            message = parse(data)
        except DecodeError:
            return
        promise(parse(message.encode()) == message, "what we write is read as something else")

    return run


def _certificate_key(data: bytes) -> None:
    refused(subject_public_key_info_untrusted)(data)
    refused(public_key_untrusted)(data)


def _rtp(data: bytes) -> None:
    try:
        packet = parse_rtp_untrusted(data)
    except DecodeError:
        return
    promise(parse_rtp_untrusted(packet.serialize()) == packet, "rtp")


def _rtcp(data: bytes) -> None:
    try:
        packets = parse_rtcp_untrusted(data)
    except DecodeError:
        return
    promise(parse_rtcp_untrusted(serialize_rtcp(packets)) == packets, "rtcp")
    for information in (data, *(packet.information for packet in packets if isinstance(packet, Feedback))):
        _feedback(information)


def _feedback(information: bytes) -> None:
    named = _or_none(read_nack_untrusted, information)
    if named is not None:
        promise(set(read_nack_untrusted(write_nack(named))) <= set(named), "a packet was named that is not")
    told = _or_none(read_transport_feedback_untrusted, information)
    if told is not None:
        promise(read_transport_feedback_untrusted(told.information()) == told, "transport-wide feedback")


def _red(data: bytes) -> None:
    try:
        blocks = parse_red_untrusted(data, 63)
    except DecodeError:
        return
    promise(sum(len(block.payload) for block in blocks) <= len(data), "more came out than went in")


def _payloads(data: bytes) -> None:
    """What stands inside an RTP packet."""
    refused(count_opus_samples_untrusted)(data)
    refused(carries_opus_fec_untrusted)(data)
    refused(parse_telephone_event_untrusted)(data)


def _sctp(data: bytes) -> None:
    """A packet as it came; and these bytes as chunks behind a header that is right, each read as what it says it is."""
    refused(parse_packet_untrusted)(data)
    try:
        chunks = parse_packet_untrusted(build_packet(5000, 5000, 7, [data])).chunks
    except DecodeError:
        return
    for chunk in chunks:
        _or_none(parse_data_untrusted, chunk)
        for parse in (parse_sack_untrusted, parse_forward_tsn_untrusted, parse_causes_untrusted, parse_init_untrusted):
            refused(parse)(chunk.value)
        refused(parse_reconfig_untrusted)(chunk.value)


_CAPABILITIES = Capabilities(
    ice=IceCredentials("o" * 48, "p" * 32),
    fingerprint=Fingerprint("sha-256", bytes(32)),
    session_id=1,
    ssrc=1,
    cname="c",
)


def _sdp(data: bytes) -> None:
    try:
        description = parse_untrusted(data)
        promise(parse_untrusted(description.serialize()) == description, "sdp")
        answered = answer(read_offer(description), _CAPABILITIES)
    except DecodeError:
        return
    parse_untrusted(answered.sdp)  # our own answer must be SDP


def _sdp_fragment(data: bytes) -> None:
    try:
        fragment = parse_fragment_untrusted(data)
    except DecodeError:
        return
    answered = parse_fragment_untrusted(write_fragment(fragment, _CAPABILITIES.ice, fragment.candidates))
    promise(answered.ice == _CAPABILITIES.ice, "our answer is read as something else")


def _sdp_values(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    refused(lambda _: Candidate.parse_untrusted(text))(data)
    ufrag, _, pwd = text.partition(" ")
    refused(lambda _: IceCredentials.parse_untrusted(ufrag, pwd))(data)


def _agent_link(data: bytes) -> None:
    content = _or_none(decode_binary_untrusted, data)
    if isinstance(content, DataMessage):
        written = [encode_data(content)]
    elif isinstance(content, PlayedReports):
        written = encode_played(content.reports)
    else:
        written = encode_media(content or ())
    if content:
        promise(
            [decode_binary_untrusted(message) for message in written] == [content], "our own message reads differently"
        )
    refused(decode_agent_message_untrusted)(data)
    refused(decode_transceiver_message_untrusted)(data)


PARSER_TARGETS: tuple[Target, ...] = (
    Target("stun", _stun, 1100),
    Target("token", _token, 64),
    Target("trunk", _trunk, 1500),
    Target("dtls-records", _records, 1500),
    *(
        Target(f"dtls-{HandshakeType(kind).name.lower().replace('_', '-')}", _handshake_message(parse), 600)
        for kind, parse in PARSERS.items()
    ),
    Target("certificate-key", _certificate_key, 1000),
    Target("rtp", _rtp, 400),
    Target("rtcp", _rtcp, 400),
    Target("red", _red, 600),
    Target("payloads", _payloads, 400),
    Target("sctp", _sctp, 1200),
    Target("dcep", refused(parse_dcep_untrusted), 300),
    Target("sdp", _sdp, 6000),
    Target("sdp-fragment", _sdp_fragment, 2000),
    Target("sdp-values", _sdp_values, 300),
    Target("agent-link", _agent_link, 400),
)
