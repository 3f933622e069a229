"""Parameters: the TLVs inside INIT, INIT ACK (RFC 9260 §3.2.1, §3.3.2) and RE-CONFIG (RFC 6525 §4).

The two highest bits of an unknown parameter type say whether to go on after it and whether to report it, as with
chunk types. Parameters that we know and need nothing of (addresses, ECN, AUTH) are skipped without a report.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, field

from protocol.errors import DecodeError
from protocol.sctp.chunks import ChunkType
from protocol.sctp.packet import build_chunk
from protocol.wire import Reader

__all__ = [
    "Init",
    "OtherReset",
    "OutgoingReset",
    "ParameterType",
    "ResetResponse",
    "ResetResult",
    "build_init",
    "build_parameter",
    "build_reconfig",
    "parse_init_untrusted",
    "parse_parameters_untrusted",
    "parse_reconfig_untrusted",
]


# Specification constants
class ParameterType(enum.IntEnum):
    """https://www.iana.org/assignments/sctp-parameters: chunk parameter types."""

    HEARTBEAT_INFO = 1
    IPV4_ADDRESS = 5
    IPV6_ADDRESS = 6
    STATE_COOKIE = 7
    UNRECOGNIZED_PARAMETER = 8
    COOKIE_PRESERVATIVE = 9
    HOST_NAME_ADDRESS = 11
    SUPPORTED_ADDRESS_TYPES = 12
    OUTGOING_SSN_RESET_REQUEST = 13
    INCOMING_SSN_RESET_REQUEST = 14
    SSN_TSN_RESET_REQUEST = 15
    RECONFIGURATION_RESPONSE = 16
    ADD_OUTGOING_STREAMS_REQUEST = 17
    ADD_INCOMING_STREAMS_REQUEST = 18
    ECN_CAPABLE = 0x8000
    ZERO_CHECKSUM_ACCEPTABLE = 0x8001  # RFC 9653; never offered by us, so no peer may use it towards us
    RANDOM = 0x8002
    CHUNK_LIST = 0x8003
    REQUESTED_HMAC = 0x8004
    SUPPORTED_EXTENSIONS = 0x8008  # RFC 5061 §4.2.7
    FORWARD_TSN_SUPPORTED = 0xC000  # RFC 3758 §3.1


class ResetResult(enum.IntEnum):
    """RFC 6525 §4.4."""

    NOTHING_TO_DO = 0
    PERFORMED = 1
    DENIED = 2
    WRONG_SSN = 3
    REQUEST_IN_PROGRESS = 4
    BAD_SEQUENCE_NUMBER = 5
    IN_PROGRESS = 6


ACTION_SKIP = 0x8000
ACTION_REPORT = 0x4000

# Implementation constants
MAX_PARAMETERS = 128

_INIT = struct.Struct("!LLHHL")
_KNOWN = frozenset(ParameterType)
_REQUESTS = frozenset(
    {
        ParameterType.INCOMING_SSN_RESET_REQUEST,
        ParameterType.SSN_TSN_RESET_REQUEST,
        ParameterType.ADD_OUTGOING_STREAMS_REQUEST,
        ParameterType.ADD_INCOMING_STREAMS_REQUEST,
    }
)


@dataclass(frozen=True, slots=True)
class Init:
    """INIT and INIT ACK, which differ only in their chunk type and in the cookie."""

    tag: int
    window: int
    outbound_streams: int
    inbound_streams: int
    tsn: int
    cookie: bytes | None = None
    extensions: frozenset[int] = frozenset()  # chunk types
    forward_tsn: bool = False
    unrecognized: tuple[bytes, ...] = field(default=())  # whole parameters, to be reported


@dataclass(frozen=True, slots=True)
class OutgoingReset:
    """The peer resets streams that it sends on; an empty list means all."""

    sequence: int
    response_sequence: int
    last_tsn: int
    streams: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ResetResponse:
    sequence: int
    result: int


@dataclass(frozen=True, slots=True)
class OtherReset:
    """A re-configuration request of a kind that we deny."""

    kind: int
    sequence: int


def parse_parameters_untrusted(value: bytes) -> list[tuple[int, bytes]]:
    parameters: list[tuple[int, bytes]] = []
    reader = Reader(value)
    while reader.remaining:
        kind, length = reader.u16(), reader.u16()
        if length < 4:
            raise DecodeError("parameter_length")
        if len(parameters) == MAX_PARAMETERS:
            raise DecodeError("parameter_count")
        parameters.append((kind, reader.take(length - 4)))
        reader.skip(min(-length & 3, reader.remaining))
    return parameters


def build_parameter(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("!HH", kind, length) + value + bytes(-length & 3)


def parse_init_untrusted(value: bytes) -> Init:
    """The value of an INIT or INIT ACK chunk."""
    if len(value) < _INIT.size:
        raise DecodeError("init_short")
    tag, window, outbound_streams, inbound_streams, tsn = _INIT.unpack_from(value)
    # §3.3.2: a zero tag or no streams: the packet is discarded.
    if not tag:
        raise DecodeError("init_tag")
    if not outbound_streams or not inbound_streams:
        raise DecodeError("init_streams")
    cookie: bytes | None = None
    extensions: frozenset[int] = frozenset()
    forward_tsn = False
    unrecognized: list[bytes] = []
    for kind, content in parse_parameters_untrusted(value[_INIT.size :]):
        if kind == ParameterType.STATE_COOKIE:
            cookie = content
        elif kind == ParameterType.SUPPORTED_EXTENSIONS:
            extensions = frozenset(content)
        elif kind == ParameterType.FORWARD_TSN_SUPPORTED:
            forward_tsn = True
        elif kind not in _KNOWN:
            if kind & ACTION_REPORT:
                unrecognized.append(build_parameter(kind, content))
            if not kind & ACTION_SKIP:
                break
    return Init(
        tag, window, outbound_streams, inbound_streams, tsn, cookie, extensions, forward_tsn, tuple(unrecognized)
    )


def build_init(kind: int, init: Init) -> bytes:
    value = _INIT.pack(init.tag, init.window, init.outbound_streams, init.inbound_streams, init.tsn)
    if init.forward_tsn:
        value += build_parameter(ParameterType.FORWARD_TSN_SUPPORTED, b"")
    if init.extensions:
        value += build_parameter(ParameterType.SUPPORTED_EXTENSIONS, bytes(sorted(init.extensions)))
    if init.cookie is not None:
        value += build_parameter(ParameterType.STATE_COOKIE, init.cookie)
    for parameter in init.unrecognized:
        value += build_parameter(ParameterType.UNRECOGNIZED_PARAMETER, parameter)
    return build_chunk(kind, 0, value)


def parse_reconfig_untrusted(value: bytes) -> list[OutgoingReset | ResetResponse | OtherReset]:
    """The parameters of a RE-CONFIG chunk (one or two, RFC 6525 §3.1); unknown kinds are left out."""
    parsed: list[OutgoingReset | ResetResponse | OtherReset] = []
    parameters = parse_parameters_untrusted(value)
    if not 1 <= len(parameters) <= 2:
        raise DecodeError("reconfig_parameters")
    for kind, content in parameters:
        reader = Reader(content)
        if kind == ParameterType.OUTGOING_SSN_RESET_REQUEST:
            sequence, response_sequence, last_tsn = reader.u32(), reader.u32(), reader.u32()
            if reader.remaining % 2:
                raise DecodeError("reconfig_length")
            streams = tuple(reader.u16() for _ in range(reader.remaining // 2))
            parsed.append(OutgoingReset(sequence, response_sequence, last_tsn, streams))
        elif kind == ParameterType.RECONFIGURATION_RESPONSE:
            parsed.append(ResetResponse(reader.u32(), reader.u32()))
        elif kind in _REQUESTS:
            parsed.append(OtherReset(kind, reader.u32()))
    return parsed


def build_reconfig(*parameters: OutgoingReset | ResetResponse) -> bytes:
    value = b""
    for parameter in parameters:
        match parameter:
            case OutgoingReset(sequence, response_sequence, last_tsn, streams):
                content = struct.pack(f"!LLL{len(streams)}H", sequence, response_sequence, last_tsn, *streams)
                value += build_parameter(ParameterType.OUTGOING_SSN_RESET_REQUEST, content)
            case ResetResponse(sequence, result):
                content = struct.pack("!LL", sequence, result)
                value += build_parameter(ParameterType.RECONFIGURATION_RESPONSE, content)
    return build_chunk(ChunkType.RE_CONFIG, 0, value)
