"""The codecs and the state table by themselves."""

from __future__ import annotations

import base64
import enum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError
from protocol.fsm import Cell, Machine, To
from protocol.sctp import AssociationState
from protocol.sctp.chunks import (
    ChunkType,
    Data,
    Sack,
    build_data,
    build_sack,
    parse_causes_untrusted,
    parse_data_untrusted,
    parse_forward_tsn_untrusted,
    parse_sack_untrusted,
    parse_shutdown_untrusted,
)
from protocol.sctp.dcep import parse_dcep_untrusted
from protocol.sctp.packet import ParsedPacket, RawChunk, build_chunk, build_packet, parse_packet_untrusted
from protocol.sctp.parameters import (
    Init,
    OutgoingReset,
    ResetResponse,
    build_init,
    build_reconfig,
    parse_init_untrusted,
    parse_parameters_untrusted,
    parse_reconfig_untrusted,
)
from protocol.sctp.serial import unwrap_ssn, unwrap_tsn
from protocol.sctp.states import REGION

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)
U32 = st.integers(0, 2**32 - 1)
U16 = st.integers(0, 2**16 - 1)


@pytest.mark.parametrize(
    "parse",
    [
        parse_packet_untrusted,
        parse_sack_untrusted,
        parse_init_untrusted,
        parse_parameters_untrusted,
        parse_reconfig_untrusted,
        parse_forward_tsn_untrusted,
        parse_shutdown_untrusted,
        parse_causes_untrusted,
        parse_dcep_untrusted,
    ],
)
@SETTINGS
@given(data=st.binary(max_size=120))
def test_any_bytes_give_a_value_or_a_decode_error(parse: object, data: bytes):
    try:
        parse(data)  # type: ignore[operator]
    except DecodeError as error:
        assert error.reason.isidentifier()


@SETTINGS
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60)), min_size=1, max_size=9))
def test_what_is_built_is_parsed(chunks: list[tuple[int, int, bytes]]):
    packet = build_packet(1, 2, 3, [build_chunk(*chunk) for chunk in chunks])
    assert len(packet) % 4 == 0
    parsed = parse_packet_untrusted(packet)
    assert parsed == ParsedPacket(1, 2, 3, [RawChunk(*chunk) for chunk in chunks])


@SETTINGS
@given(data=st.binary(min_size=1, max_size=40), position=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_is_seen(data: bytes, position: int, bit: int):
    packet = bytearray(build_packet(5000, 5000, 77, [build_chunk(0, 3, data)]))
    packet[position % len(packet)] ^= 1 << bit
    with pytest.raises(DecodeError) as error:
        parse_packet_untrusted(bytes(packet))
    assert error.value.reason == "packet_checksum"


@pytest.mark.parametrize("length", [0, 3, 9, 65535])
def test_a_wrong_chunk_length_drops_the_whole_packet(length: int):
    bad = b"\0\3" + length.to_bytes(2, "big") + b"data"
    for chunks in ([bad], [build_chunk(11, 0, b""), bad]):
        with pytest.raises(DecodeError, match="chunk_length"):
            parse_packet_untrusted(build_packet(5000, 5000, 1, chunks))


def test_missing_padding_at_the_end_is_forgiven():
    packet = build_packet(5000, 5000, 1, [b"\0\3\0\x05!"])
    assert parse_packet_untrusted(packet).chunks == [RawChunk(0, 3, b"!")]


@SETTINGS
@given(st.integers(0, 15), U32, U16, U16, U32, st.binary(max_size=30))
def test_data_survives_the_wire(flags: int, tsn: int, stream: int, ssn: int, ppid: int, payload: bytes):
    (chunk,) = parse_packet_untrusted(
        build_packet(1, 2, 3, [build_data(flags, tsn, stream, ssn, ppid, payload)])
    ).chunks
    assert parse_data_untrusted(chunk) == Data(flags, tsn, stream, ssn, ppid, payload)


@SETTINGS
@given(U32, U32, st.lists(st.tuples(U16, U16), max_size=5), st.lists(U32, max_size=5))
def test_sack_survives_the_wire(tsn: int, window: int, gaps: list[tuple[int, int]], duplicates: list[int]):
    sack = Sack(tsn, window, tuple(gaps), tuple(duplicates))
    assert parse_sack_untrusted(build_sack(sack)[4:]) == sack


@SETTINGS
@given(U32.filter(bool), U32, U16.filter(bool), U16.filter(bool), U32, st.none() | st.binary(min_size=1, max_size=50))
def test_init_survives_the_wire(tag: int, window: int, out: int, into: int, tsn: int, cookie: bytes | None):
    init = Init(tag, window, out, into, tsn, cookie, frozenset({130, 192}), True)
    (chunk,) = parse_packet_untrusted(build_packet(1, 2, 0, [build_init(ChunkType.INIT, init)])).chunks
    assert parse_init_untrusted(chunk.value) == init


def test_reconfig_survives_the_wire():
    parameters = (OutgoingReset(1, 2, 3, (4, 5, 6)), ResetResponse(7, 1))
    (chunk,) = parse_packet_untrusted(build_packet(1, 2, 3, [build_reconfig(*parameters)])).chunks
    assert tuple(parse_reconfig_untrusted(chunk.value)) == parameters


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (bytes(16), "init_tag"),
        (b"\0\0\0\1" + bytes(12), "init_streams"),
        (b"\0\0\0\1\0\0\0\1\0\1\0\0\0\0\0\1", "init_streams"),
        (bytes(15), "init_short"),
        (b"\0\0\0\1\0\0\0\1\0\1\0\1\0\0\0\1\0\7\0\3", "parameter_length"),
        (b"\0\0\0\1\0\0\0\1\0\1\0\1\0\0\0\1\0\7\0\x09", "truncated"),
    ],
)
def test_an_init_that_cannot_be(value: bytes, reason: str):
    with pytest.raises(DecodeError) as error:
        parse_init_untrusted(value)
    assert error.value.reason == reason


def test_the_init_of_chromium_156_is_understood():
    """From its a=sctp-init: no zero checksum, FORWARD TSN, RE-CONFIG."""
    chunk = base64.b64decode("AQAAHh/NKJoAUAAA/////3AF76XAAAAEgAgABoLA")
    (raw,) = parse_packet_untrusted(build_packet(5000, 5000, 0, [chunk + bytes(-len(chunk) % 4)])).chunks
    assert parse_init_untrusted(raw.value) == Init(
        0x1FCD289A, 5 * 1024 * 1024, 65535, 65535, 0x7005EFA5, extensions=frozenset({130, 192}), forward_tsn=True
    )


@SETTINGS
@given(st.integers(-(2**40), 2**40), st.integers(-(2**31), 2**31 - 1), st.integers(-(2**15), 2**15 - 1))
def test_serial_numbers_unwrap_to_the_nearest(reference: int, far: int, near: int):
    assert unwrap_tsn((reference + far) % 2**32, reference) == reference + far
    assert unwrap_ssn((reference + near) % 2**16, reference) == reference + near


def test_the_checksum_is_crc32c_little_endian():
    packet = build_packet(5000, 5000, 0x01020304, [b"\x0b\0\0\4"])
    crc = 0xFFFFFFFF
    for byte in packet[:8] + bytes(4) + packet[12:]:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert packet[8:12] == (crc ^ 0xFFFFFFFF).to_bytes(4, "little")


# The table


def reachable() -> set[enum.Enum]:
    seen: set[enum.Enum] = {REGION.initial}
    todo = [REGION.initial]
    while todo:
        for cell in REGION.rows[todo.pop()]:
            if isinstance(cell, To) and cell.state not in seen:
                seen.add(cell.state)
                todo.append(cell.state)
    return seen


def test_every_state_is_reached_and_every_state_can_end():
    assert reachable() == set(AssociationState)
    for state, row in REGION.rows.items():
        ends = [cell for cell in row if isinstance(cell, To) and cell.state is AssociationState.DEAD]
        assert ends or state is AssociationState.DEAD


def test_nothing_leads_out_of_dead():
    assert set(REGION.rows[AssociationState.DEAD]) == {Cell.IGNORE}


def test_every_event_of_the_network_may_come_in_every_state():
    """ILLEGAL is for our own events only: what a peer sends must never raise."""
    ours = {"Drained", "GuardExpired"}
    for state in AssociationState:
        for event in REGION.events:
            if event.__name__ not in ours:
                assert REGION.cell(state, event) is not Cell.ILLEGAL


def test_the_machine_is_buried_once():
    machine = Machine((REGION,))
    names = {event.__name__: event for event in REGION.events}
    effects = [e for name in ("Associate", "Failed", "Failed", "Aborted") for e in machine.fire(names[name]())]
    assert [effect.name for effect in effects] == ["SEND_INIT", "BURY"]
