"""The limits of the parsers, each with input that is just beyond it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from protocol.agentlink.framing import DATA_HEADER, MAX_DATA_BYTES, decode_binary_untrusted
from protocol.dtls.extensions.use_srtp import parse_use_srtp_untrusted
from protocol.errors import DecodeError
from protocol.ice import Candidate
from protocol.sctp.chunks import parse_causes_untrusted
from protocol.sctp.packet import MAX_CHUNKS, MAX_PACKET_LENGTH, build_packet, parse_packet_untrusted
from protocol.sctp.parameters import (
    MAX_PARAMETERS,
    ParameterType,
    build_parameter,
    parse_parameters_untrusted,
    parse_reconfig_untrusted,
)
from protocol.stun.message import parse_message_untrusted

CHUNK = bytes.fromhex("0b000004")  # COOKIE ACK, the shortest there is
CANDIDATE = "1 1 udp 1 192.0.2.1 9 typ host"


def sctp(*chunks: bytes) -> bytes:
    return build_packet(5000, 5000, 1, chunks)


def stun(kind: int, value: bytes) -> bytes:
    padded = value + bytes(-len(value) % 4)
    return struct.pack("!HHI12sHH", 0x0101, 4 + len(padded), 0x2112A442, bytes(12), kind, len(value)) + padded


def reset(streams: bytes) -> bytes:
    return build_parameter(ParameterType.OUTGOING_SSN_RESET_REQUEST, bytes(12) + streams)


def data_message(size: int) -> bytes:
    header = DATA_HEADER.pack(0x02, 1, 1, 0)
    return header + bytes(size)


CASES: list[tuple[Callable[..., object], bytes | str, bytes | str, str]] = [
    (parse_packet_untrusted, sctp(*[CHUNK] * MAX_CHUNKS), sctp(*[CHUNK] * (MAX_CHUNKS + 1)), "chunk_count"),
    (parse_packet_untrusted, sctp(CHUNK), sctp(CHUNK, b"\x0b\x00"), "chunk_length"),
    (parse_packet_untrusted, sctp(CHUNK), sctp(CHUNK, bytes(MAX_PACKET_LENGTH)), "packet_long"),
    (
        parse_parameters_untrusted,
        build_parameter(0x8008, b"") * MAX_PARAMETERS,
        build_parameter(0x8008, b"") * (MAX_PARAMETERS + 1),
        "parameter_count",
    ),
    (parse_reconfig_untrusted, reset(b"\0\1"), reset(b"\0\1\2"), "reconfig_length"),
    (parse_causes_untrusted, bytes.fromhex("000c0004"), bytes.fromhex("000c0003"), "cause_length"),
    (
        parse_message_untrusted,
        stun(0x0020, bytes.fromhex("0001 0000 00000000")),
        stun(0x0020, bytes(7)),
        "stun_attribute",
    ),
    (parse_message_untrusted, stun(0x0009, bytes.fromhex("00000401")), stun(0x0009, bytes(3)), "stun_attribute"),
    (parse_message_untrusted, stun(0x000A, bytes(4)), stun(0x000A, bytes(3)), "stun_attribute"),
    (parse_use_srtp_untrusted, bytes.fromhex("0002 0007 00"), bytes.fromhex("0003 000701 00"), "extension_malformed"),
    (Candidate.parse_untrusted, CANDIDATE + " a b" * 32, CANDIDATE + " a b" * 33, "candidate_extensions"),
    (decode_binary_untrusted, data_message(MAX_DATA_BYTES), data_message(MAX_DATA_BYTES + 1), "link_oversize"),
]


@pytest.mark.parametrize(
    ("parse", "within", "beyond", "reason"), CASES, ids=[f"{case[0].__name__}: {case[3]}" for case in CASES]
)
def test_what_is_just_within_a_limit_is_read_and_what_is_beyond_it_refused_by_its_name(
    parse: Callable[..., object], within: bytes | str, beyond: bytes | str, reason: str
):
    parse(within)
    with pytest.raises(DecodeError) as refused:
        parse(beyond)
    assert refused.value.reason == reason
