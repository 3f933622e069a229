"""SRTP where the packet lies: the same bytes as by copies, and nothing outside the packet's own room."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError, LocalError
from protocol.srtp import RTCP_TRAILER, RTP_TRAILER, SrtpLibrary, SrtpProfile, SrtpTransport, library_named
from protocol.srtp.profiles import profile_lengths

CANARY = 0xA5
PROFILES = list(SrtpProfile)
each_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


def pair(profile: int) -> tuple[SrtpTransport, SrtpTransport]:
    one, other = (bytes((label,)) * sum(profile_lengths(profile)) for label in (1, 2))
    return SrtpTransport(profile, one, other), SrtpTransport(profile, other, one)


def rtp(sequence: int, payload: bytes) -> bytes:
    return struct.pack("!BBHII", 0x80, 111, sequence, sequence * 960, 7) + payload


def report() -> bytes:
    return struct.pack("!BBHI", 0x80, 201, 1, 7)


@each_profile
@settings(max_examples=25, deadline=None, derandomize=True)
@given(payload=st.binary(max_size=400), before=st.integers(0, 33))
def test_what_is_written_stays_within_the_packet_and_its_trailer(
    profile: SrtpProfile, way: SrtpLibrary, payload: bytes, before: int
):
    for trailer, packet, names in (
        (RTP_TRAILER, rtp(1, payload), ("protect_rtp", "unprotect_rtp")),
        (RTCP_TRAILER, report(), ("protect_rtcp", "unprotect_rtcp")),
    ):
        sender, receiver = pair(profile)
        twin, _ = pair(profile)
        arena = way.arena(bytearray([CANARY]) * (before + len(packet) + trailer + 40))
        arena.view[before : before + len(packet)] = packet
        length = getattr(sender, names[0] + "_in_place")(arena, before, len(packet))
        protected = bytes(arena.view[before : before + length])
        assert protected == getattr(twin, names[0])(packet)
        around = bytes(arena.view[:before]) + bytes(arena.view[before + len(packet) + trailer :])
        assert around == bytes([CANARY]) * len(around)
        untouched = bytes(arena.view[before + length :])
        assert getattr(receiver, names[1] + "_in_place_untrusted")(arena, before, length) == len(packet)
        assert bytes(arena.view[before : before + len(packet)]) == packet
        assert bytes(arena.view[before + length :]) == untouched


@each_profile
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(lambda tail: rtp(9, tail))))
def test_no_bytes_from_the_network_make_it_write_outside_them(profile: SrtpProfile, way: SrtpLibrary, data: bytes):
    _, receiver = pair(profile)
    arena = way.arena(bytearray([CANARY]) * (len(data) + 2 * 24))
    for open_untrusted in (receiver.unprotect_rtp_in_place_untrusted, receiver.unprotect_rtcp_in_place_untrusted):
        arena.view[24 : 24 + len(data)] = data
        with pytest.raises(DecodeError):
            open_untrusted(arena, 24, len(data))
        assert bytes(arena.view[:24]) == bytes(arena.view[24 + len(data) :]) == bytes([CANARY]) * 24


@each_profile
def test_a_packet_that_does_not_lie_in_the_arena_with_room_behind_it_is_refused(profile: SrtpProfile, way: SrtpLibrary):
    sender, receiver = pair(profile)
    packet = rtp(1, bytes(20))
    arena = way.arena(bytearray(packet) + bytearray(RTP_TRAILER))
    for offset, length in ((1, 32), (-1, 32), (0, 33), (0, -1), (1 << 40, 32)):
        with pytest.raises(LocalError):
            sender.protect_rtp_in_place(arena, offset, length)
        with pytest.raises(LocalError):
            sender.protect_rtcp_in_place(arena, offset, length)
    for offset, length in ((17, 32), (-1, 32), (0, 49), (0, -1)):
        with pytest.raises(LocalError):
            receiver.unprotect_rtp_in_place_untrusted(arena, offset, length)
    assert bytes(arena.view[:32]) == packet
    sender.protect_rtp_in_place(arena, 0, 32)


def test_an_arena_must_be_writable(way: SrtpLibrary):
    with pytest.raises((BufferError, TypeError)):
        way.arena(memoryview(b"packet"))


def test_a_way_that_there_is_not_is_named():
    assert library_named() is library_named("in place")
    with pytest.raises(ValueError, match="spoon"):
        library_named("spoon")
