"""SRTP as peers meet it: both directions, every profile, forged, replayed, reordered and wrapped packets."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import pylibsrtp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError, LocalError
from protocol.srtp import (
    MAX_PLAIN_LENGTH,
    MAX_SOURCES,
    SERVER_PREFERENCE,
    SrtpProfile,
    SrtpTransport,
    profile_lengths,
)
from protocol.srtp.transport import _REASONS, MAX_RTCP_PACKETS, MAX_RTP_PACKETS

SSRC = 0x11223344
PROFILES = list(SrtpProfile)
TAG_LENGTH = {1: 10, 7: 16, 8: 16}
each_profile = pytest.mark.parametrize("profile", PROFILES, ids=lambda profile: profile.name)


def key_material(profile: int, label: bytes) -> bytes:
    return hashlib.shake_256(label).digest(sum(profile_lengths(profile)))


def pair(profile: int, **options: int) -> tuple[SrtpTransport, SrtpTransport]:
    client, server = key_material(profile, b"client"), key_material(profile, b"server")
    return SrtpTransport(profile, client, server, **options), SrtpTransport(profile, server, client, **options)


def rtp(sequence: int, payload: bytes = b"frame" * 16, ssrc: int = SSRC) -> bytes:
    return struct.pack("!BBHII", 0x80, 111, sequence & 0xFFFF, sequence * 960 & 0xFFFFFFFF, ssrc) + payload


def receiver_report(ssrc: int = SSRC) -> bytes:
    return struct.pack("!BBHI", 0x80, 201, 1, ssrc)


def reason(unprotect: Callable[[bytes], bytes], data: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        unprotect(data)
    return caught.value.reason


def test_profiles_carry_their_iana_numbers_and_lengths():
    assert {int(profile): profile_lengths(profile) for profile in PROFILES} == {1: (16, 14), 7: (16, 12), 8: (32, 12)}
    assert sorted(SERVER_PREFERENCE) == sorted(PROFILES)
    assert SERVER_PREFERENCE[0] == SrtpProfile.SRTP_AEAD_AES_128_GCM
    with pytest.raises(LocalError):
        profile_lengths(2)


@each_profile
def test_rtp_and_rtcp_travel_both_ways(profile: SrtpProfile):
    client, server = pair(profile)
    for sender, receiver in ((client, server), (server, client)):
        for sequence in range(5):
            packet = rtp(sequence)
            protected = sender.protect_rtp(packet)
            assert protected[:12] == packet[:12]
            assert len(protected) == len(packet) + TAG_LENGTH[profile]
            assert receiver.unprotect_rtp_untrusted(memoryview(protected)) == packet
        report = receiver_report()
        assert receiver.unprotect_rtcp_untrusted(sender.protect_rtcp(report)) == report


@each_profile
def test_a_key_opens_only_its_own_direction(profile: SrtpProfile):
    client, _ = pair(profile)
    assert reason(client.unprotect_rtp_untrusted, client.protect_rtp(rtp(1))) == "srtp_auth"


@each_profile
def test_any_flipped_bit_of_the_tag_is_an_authentication_failure(profile: SrtpProfile):
    client, server = pair(profile)
    protected = client.protect_rtp(rtp(1))
    for position in range(len(protected) - TAG_LENGTH[profile], len(protected)):
        forged = bytearray(protected)
        forged[position] ^= 1 << (position % 8)
        assert reason(server.unprotect_rtp_untrusted, bytes(forged)) == "srtp_auth"
    assert server.unprotect_rtp_untrusted(protected) == rtp(1)


@each_profile
def test_a_flipped_bit_of_header_or_payload_is_an_authentication_failure(profile: SrtpProfile):
    client, server = pair(profile)
    protected = client.protect_rtp(rtp(1))
    for position in (1, 2, 4, 8, 12, 40):
        forged = bytearray(protected)
        forged[position] ^= 1
        assert reason(server.unprotect_rtp_untrusted, bytes(forged)) == "srtp_auth"


@each_profile
def test_a_packet_seen_before_is_a_replay(profile: SrtpProfile):
    client, server = pair(profile)
    protected, report = client.protect_rtp(rtp(1)), client.protect_rtcp(receiver_report())
    server.unprotect_rtp_untrusted(protected)
    server.unprotect_rtcp_untrusted(report)
    assert reason(server.unprotect_rtp_untrusted, protected) == "srtp_replay"
    assert reason(server.unprotect_rtcp_untrusted, report) == "srtp_replay"


@each_profile
@pytest.mark.parametrize(("options", "window"), [({}, 1024), ({"replay_window": 256}, 256)])
def test_the_replay_window_takes_late_packets_up_to_its_size(
    profile: SrtpProfile, options: dict[str, int], window: int
):
    client, server = pair(profile, **options)
    protected = [client.protect_rtp(rtp(sequence)) for sequence in range(window + 1)]
    server.unprotect_rtp_untrusted(protected[window])
    assert server.unprotect_rtp_untrusted(protected[1]) == rtp(1)
    assert reason(server.unprotect_rtp_untrusted, protected[0]) == "srtp_replay"


@each_profile
def test_a_hundred_bad_packets_do_no_harm(profile: SrtpProfile):
    client, server = pair(profile)
    server.unprotect_rtp_untrusted(client.protect_rtp(rtp(65_000)))
    noise = hashlib.shake_256(b"noise").digest(100 * 100)
    for i in range(100):
        # Plausible headers of the real source, far ahead, so that a rollover counter moved by them would be wrong.
        bad = rtp(65_001 + 300 * i, noise[100 * i : 100 * i + 100])
        assert reason(server.unprotect_rtp_untrusted, bad) == "srtp_auth"
        assert reason(server.unprotect_rtcp_untrusted, receiver_report() + bad[12:]) in ("srtp_auth", "srtp_malformed")
    for sequence in range(65_001, 65_010):
        assert server.unprotect_rtp_untrusted(client.protect_rtp(rtp(sequence))) == rtp(sequence)


@each_profile
def test_the_rollover_counter_follows_the_wrap_in_spite_of_loss_and_reordering(profile: SrtpProfile):
    client, server = pair(profile)
    protected = {sequence: client.protect_rtp(rtp(sequence)) for sequence in range(65_500, 65_600)}
    order = [*range(65_500, 65_530), 65_537, 65_535, 65_536, 65_531, *range(65_540, 65_600)]
    for sequence in order:
        assert server.unprotect_rtp_untrusted(protected[sequence]) == rtp(sequence)
    assert reason(server.unprotect_rtp_untrusted, protected[65_536]) == "srtp_replay"
    # A second wrap, in the largest steps a receiver can follow.
    for sequence in (90_000, 120_000, 140_000):
        assert server.unprotect_rtp_untrusted(client.protect_rtp(rtp(sequence))) == rtp(sequence)


@each_profile
def test_the_srtcp_index_and_the_encryption_flag_are_protected(profile: SrtpProfile):
    client, server = pair(profile)
    first, second = client.protect_rtcp(receiver_report()), client.protect_rtcp(receiver_report())
    # RFC 3711 §3.4 puts the index before the tag, RFC 7714 §9.2 at the very end; 31 bits, E flag on top.
    at = len(first) - (14 if profile == SrtpProfile.SRTP_AES128_CM_HMAC_SHA1_80 else 4)
    assert [struct.unpack_from("!I", packet, at)[0] for packet in (first, second)] == [0x80000001, 0x80000002]
    for bit in range(32):
        forged = bytearray(first)
        forged[at + bit // 8] ^= 0x80 >> bit % 8
        assert reason(server.unprotect_rtcp_untrusted, bytes(forged)) in ("srtp_auth", "srtp_malformed")
    assert server.unprotect_rtcp_untrusted(second) == receiver_report()
    assert server.unprotect_rtcp_untrusted(first) == receiver_report()


@each_profile
def test_the_number_of_sources_of_one_peer_is_bounded(profile: SrtpProfile):
    client, server = pair(profile)
    for ssrc in range(MAX_SOURCES):
        server.unprotect_rtp_untrusted(client.protect_rtp(rtp(1, ssrc=ssrc)))
    assert reason(server.unprotect_rtp_untrusted, client.protect_rtp(rtp(1, ssrc=9999))) == "srtp_ssrc_limit"
    assert reason(server.unprotect_rtcp_untrusted, client.protect_rtcp(receiver_report(9999))) == "srtp_ssrc_limit"
    assert server.unprotect_rtp_untrusted(client.protect_rtp(rtp(2, ssrc=7))) == rtp(2, ssrc=7)


def test_forged_sources_take_no_room():
    client, server = pair(SrtpProfile.SRTP_AEAD_AES_128_GCM)
    for ssrc in range(2 * MAX_SOURCES):
        assert reason(server.unprotect_rtp_untrusted, rtp(1, ssrc=ssrc)) == "srtp_auth"
    assert server.unprotect_rtp_untrusted(client.protect_rtp(rtp(1))) == rtp(1)


@each_profile
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.one_of(st.binary(max_size=80), st.binary(min_size=1400, max_size=1600)))
def test_any_bytes_are_refused_with_a_decode_error(profile: SrtpProfile, data: bytes):
    _, server = pair(profile)
    for call in (server.unprotect_rtp_untrusted, server.unprotect_rtcp_untrusted):
        assert reason(call, data) in ("srtp_auth", "srtp_malformed")


@each_profile
def test_a_key_used_up_protects_nothing_more(profile: SrtpProfile):
    material = key_material(profile, b"client")
    sender = SrtpTransport(profile, material, material, max_rtp_packets=3, max_rtcp_packets=100)
    for sequence in range(3):
        assert not sender.expired
        sender.protect_rtp(rtp(sequence, ssrc=sequence))  # of all sources together
    assert sender.expired
    reporter = SrtpTransport(profile, material, material, max_rtcp_packets=2)
    for _ in range(2):
        reporter.protect_rtcp(receiver_report())
    for spent in (sender, reporter):
        with pytest.raises(LocalError):
            spent.protect_rtp(rtp(9))
        with pytest.raises(LocalError):
            spent.protect_rtcp(receiver_report())


def test_the_lifetime_of_a_key_is_that_of_rfc_3711():
    assert (MAX_RTP_PACKETS, MAX_RTCP_PACKETS) == (2**48, 2**31)


def test_the_words_by_which_errors_are_told_apart_are_pylibsrtps_own():
    assert set(_REASONS) <= set(pylibsrtp.ERRORS)


@each_profile
def test_the_longest_packets_fit_the_buffer_of_pylibsrtp_and_a_byte_more_does_not(profile: SrtpProfile):
    client, server = pair(profile)
    longest = rtp(1, bytes(MAX_PLAIN_LENGTH - 12))
    assert server.unprotect_rtp_untrusted(client.protect_rtp(longest)) == longest
    report = receiver_report() + bytes(MAX_PLAIN_LENGTH - 8)
    assert server.unprotect_rtcp_untrusted(client.protect_rtcp(report)) == report
    with pytest.raises(LocalError):
        client.protect_rtcp(report + bytes(4))
    assert reason(server.unprotect_rtp_untrusted, rtp(2, bytes(1489))) == "srtp_malformed"


@each_profile
def test_a_receiver_that_joins_late_is_led_to_the_rollover_counter_by_steps(profile: SrtpProfile):
    """libsrtp cannot be told a counter; packets at most half a cycle apart lead it there."""
    client, server = pair(profile)
    for sequence in range(0x6000, 0x50000, 0x6000):
        packet = rtp(sequence)
        assert server.unprotect_rtp_untrusted(client.protect_rtp(packet)) == packet
    stranger = pair(profile)[1]
    assert reason(stranger.unprotect_rtp_untrusted, client.protect_rtp(rtp(0x50001))) == "srtp_auth"


def test_our_own_mistakes_are_local_errors():
    client, _ = pair(SrtpProfile.SRTP_AEAD_AES_128_GCM)
    assert len(client.protect_rtp(rtp(1, bytes(MAX_PLAIN_LENGTH - 12)))) == MAX_PLAIN_LENGTH + 16
    for bad in (rtp(1), rtp(2, bytes(1500)), b"", b"\x80"):
        with pytest.raises(LocalError):
            client.protect_rtp(bad)
    for bad in (b"", b"\x80\xc9", bytes(1500)):
        with pytest.raises(LocalError):
            client.protect_rtcp(bad)
    with pytest.raises(LocalError):
        SrtpTransport(7, bytes(28), bytes(27))
    with pytest.raises(LocalError):
        SrtpTransport(7, bytes(28), bytes(28), replay_window=32)
    with pytest.raises(LocalError):
        SrtpTransport(3, bytes(28), bytes(28))
