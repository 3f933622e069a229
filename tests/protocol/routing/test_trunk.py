"""Trunk framing: bundling, order, the tag."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.target import tagged
from protocol.address import TransportAddress, pack_address
from protocol.errors import DecodeError, LocalError
from protocol.routing import DATAGRAM_OVERHEAD, Frame, RoutingConfig, Trunk, TrunkHead, TrunkKind, frame_overhead
from protocol.routing.token import derive_key

KEY, OTHER = b"k" * 32, b"o" * 32
REFUSED = {"trunk_forged", "trunk_kind", "trunk_foreign", "trunk_flags", "trunk_ingress", "trunk_count"}
V4, V6 = pack_address("192.0.2.7", 5004), pack_address("2001:db8::7", 5006)


def decoded(trunk: Trunk, datagrams: list[bytes]) -> list[Frame]:
    return [frame for datagram in datagrams for frame in trunk.decode_untrusted(datagram)]


def reason(trunk: Trunk, datagram: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        trunk.decode_untrusted(datagram)
    return caught.value.reason


def test_the_layout_on_the_wire():
    [datagram] = Trunk(KEY).encode([Frame(V4, 3, b"abc"), Frame(V4, 3, b"")], 1452)
    assert datagram[:8] == b"\xc5\x20\0\3\0\2\0\0"
    assert datagram[DATAGRAM_OVERHEAD:] == b"\0\3" + V4 + b"\0\0" + V4 + b"abc"
    [datagram] = Trunk(KEY).encode([Frame(V6, 127, b"abc")], 1452)
    assert datagram[:8] == b"\xc5\x20\1\x7f\0\1\0\0"
    assert datagram[DATAGRAM_OVERHEAD:] == b"\0\3" + V6[:2] + bytes(4) + V6[2:] + b"abc"


def test_the_tag_is_blake2s_over_head_length_and_descriptors():
    [datagram] = Trunk(KEY).encode([Frame(V4, 3, b"abc")], 1452)
    key = derive_key(KEY, b"antiphon trunk v2")
    signed = datagram[:6] + len(datagram).to_bytes(2, "big") + datagram[16:24]
    assert datagram[8:16] == hashlib.blake2s(signed, key=key, digest_size=8, person=b"trunk").digest()


def test_seven_voice_packets_share_one_datagram():
    frames = [Frame(V4, 0, bytes([n]) * 160) for n in range(7)]
    [datagram] = Trunk(KEY).encode(frames, 1452)
    assert Trunk(KEY).decode_untrusted(datagram) == frames


def test_a_datagram_never_exceeds_the_mtu_but_for_one_frame_that_must():
    frames = [Frame(V6, 1, b"x" * size) for size in (600, 600, 600, 1600, 20, 1412, 1)]
    datagrams = Trunk(KEY).encode(frames, 1452)
    assert decoded(Trunk(KEY), datagrams) == frames
    assert [len(d) > 1452 for d in datagrams].count(True) == 1
    assert len(datagrams) == 6


def test_an_mtu_of_zero_turns_bundling_off():
    config = RoutingConfig(trunk_keys=("ab" * 32,), trunk_mtu=0)
    trunk, frames = Trunk.parse(config), [Frame(V4, 0, payload) for payload in (b"", b"", b"a", b"b" * 1200)]
    datagrams = trunk.encode(frames, config.trunk_mtu)
    assert decoded(trunk, datagrams) == frames
    assert len(datagrams) == 4


def test_nothing_encodes_to_nothing():
    assert Trunk(KEY).encode([], 1452) == []


def test_a_bundle_can_be_used_again():
    bundle = Trunk(KEY).bundle(1452)
    bundle.add(V4, b"one")
    first = bundle.finish()
    bundle.add(V4, b"two")
    assert [frame.payload for frame in decoded(Trunk(KEY), first + bundle.finish())] == [b"one", b"two"]
    assert bundle.finish() == []


def test_frames_of_another_ingress_or_family_begin_a_datagram():
    frames = [Frame(V4, 0, b"a"), Frame(V4, 0, b"b"), Frame(V6, 0, b"c"), Frame(V4, 0, b"d"), Frame(V4, 1, b"e")]
    datagrams = Trunk(KEY).encode(frames, 1452)
    assert [[frame.payload for frame in Trunk(KEY).decode_untrusted(d)] for d in datagrams] == [
        [b"a", b"b"],
        [b"c"],
        [b"d"],
        [b"e"],
    ]
    assert decoded(Trunk(KEY), datagrams) == frames


@pytest.mark.parametrize("client", [V4, V6], ids=["IPv4", "IPv6"])
def test_every_bit_but_those_of_payloads_is_covered_by_the_tag(client: TransportAddress):
    trunk = Trunk(KEY)
    [datagram] = trunk.encode([Frame(client, 0, b"payload"), Frame(client, 0, b"more")], 1452)
    covered = len(datagram) - len(b"payloadmore")
    for bit in range(len(datagram) * 8):
        flipped = bytearray(datagram)
        flipped[bit // 8] ^= 1 << bit % 8
        if bit < covered * 8:
            assert reason(trunk, bytes(flipped)) in REFUSED
        else:
            frames = trunk.decode_untrusted(bytes(flipped))
            assert [(f.client, len(f.payload)) for f in frames] == [(client, 7), (client, 4)]


def test_a_datagram_that_was_cut_or_grew_is_refused():
    trunk = Trunk(KEY)
    [datagram] = trunk.encode([Frame(V4, 0, b"payload")], 1452)
    assert [reason(trunk, datagram[:length]) for length in range(24, len(datagram))] == ["trunk_forged"] * 7
    assert [reason(trunk, datagram[:length]) for length in range(16, 24)] == ["trunk_count"] * 8
    assert reason(trunk, datagram + b"x") == "trunk_forged"


def test_another_key_is_forged_until_it_is_accepted():
    [datagram] = Trunk(OTHER).encode([Frame(V4, 0, b"payload")], 1452)
    assert reason(Trunk(KEY), datagram) == "trunk_forged"
    assert len(Trunk(KEY, OTHER).decode_untrusted(datagram)) == 1


def test_other_versions_and_other_protocols_are_told_apart():
    trunk = Trunk(KEY)
    assert reason(trunk, b"\xc5\x10" + bytes(30)) == "trunk_kind"
    assert reason(trunk, b"\xc5\x23" + bytes(30)) == "trunk_kind"
    assert reason(trunk, b"\x16\xfe" + bytes(30)) == "trunk_foreign"
    assert reason(trunk, b"\xc5\x20\2" + bytes(30)) == "trunk_flags"
    assert reason(trunk, b"\xc5\x20\0\0\0\1\1\0" + bytes(30)) == "trunk_flags"
    assert reason(trunk, b"\xc5\x20\0\x80" + bytes(30)) == "trunk_ingress"
    assert reason(trunk, b"\xc5\x20short") == "trunk_truncated"


@pytest.mark.parametrize(
    ("count", "descriptors", "payloads", "why"),
    [
        (0, b"", b"", "trunk_count"),
        (0, b"", b"x", "trunk_count"),
        (2, b"\0\0" + V4, b"", "trunk_count"),
        (65535, b"\0\0" + V4, b"", "trunk_count"),
        (1, b"\0\2" + V4, b"x", "trunk_length"),
        (1, b"\0\0" + V4, b"x", "trunk_length"),
        (2, b"\0\1" + V4 + b"\xff\xff" + V4, b"xy", "trunk_length"),
    ],
)
def test_a_signed_datagram_whose_counts_are_wrong_yields_no_frame(
    count: int, descriptors: bytes, payloads: bytes, why: str
):
    head = TrunkHead(TrunkKind.FRAMES, False, 0, count)
    assert reason(Trunk(KEY), Trunk(KEY).seal(head, descriptors, payloads)) == why


def test_hello_and_announcement_are_opened_but_are_no_frames():
    trunk = Trunk(KEY)
    for head, body in (
        (TrunkHead(TrunkKind.HELLO, False, 5, 0), b"boot id."),
        (TrunkHead(TrunkKind.ANNOUNCE, False, 5, 2), (b"\0\0" + V4) * 2),
        (TrunkHead(TrunkKind.ANNOUNCE, True, 5, 1), bytes(24)),
    ):
        datagram = trunk.seal(head, body)
        assert trunk.open_untrusted(datagram) == head
        assert reason(trunk, datagram) == "trunk_kind"
        for at in range(DATAGRAM_OVERHEAD, len(datagram)):
            assert reason(trunk, datagram[:at] + bytes((datagram[at] ^ 1,)) + datagram[at + 1 :]) == "trunk_forged"


@pytest.mark.parametrize("ingress", [-1, 128])
def test_an_ingress_that_does_not_fit_is_a_bug_of_ours(ingress: int):
    with pytest.raises(LocalError):
        Trunk(KEY).bundle(1452, ingress)


def test_an_address_that_is_none_is_a_bug_of_ours():
    with pytest.raises(LocalError):
        Trunk(KEY).encode([Frame(TransportAddress(b"1234567"), 0, b"")], 1452)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        (RoutingConfig(), r"^routing\.trunk_keys: at least one"),
        (RoutingConfig(trunk_keys=("ab",)), r"^routing\.trunk_keys: the secret"),
        (RoutingConfig(trunk_keys=("ab" * 32,), trunk_mtu=100), r"^routing\.trunk_mtu"),
    ],
)
def test_a_bad_configuration_is_named(config: RoutingConfig, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        Trunk.parse(config)


addresses = st.one_of(st.binary(min_size=6, max_size=6), st.binary(min_size=18, max_size=18)).map(TransportAddress)
frames = st.lists(st.builds(Frame, addresses, st.integers(0, 127), st.binary(max_size=2000)), max_size=20)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(frames, st.integers(576, 9000))
def test_any_frames_survive_in_order(sent: list[Frame], mtu: int):
    trunk = Trunk(KEY)
    assert decoded(trunk, trunk.encode(sent, mtu)) == sent


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.booleans())
def test_no_bytes_do_anything_but_raise_a_decode_error_or_are_all_there(data: bytes, signed: bool):
    trunk = Trunk(KEY)
    datagram = tagged(trunk, data[:3] + bytes(1) + data[3:]) if signed else b"\xc5\x20" + data
    try:
        frames = trunk.decode_untrusted(datagram)
    except DecodeError as error:
        assert error.reason in REFUSED | {"trunk_length", "trunk_truncated"}
    else:
        assert signed
        assert sum(frame_overhead(f.client) + len(f.payload) for f in frames) == len(datagram) - DATAGRAM_OVERHEAD
