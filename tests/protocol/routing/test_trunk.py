"""Trunk framing: bundling, order, the tag."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import TransportAddress, pack_address
from protocol.errors import DecodeError, LocalError
from protocol.routing import DATAGRAM_OVERHEAD, Frame, RoutingConfig, Trunk, frame_head

KEY, OTHER = b"k" * 32, b"o" * 32
V4, V6 = pack_address("192.0.2.7", 5004), pack_address("2001:db8::7", 5006)


def decoded(trunk: Trunk, datagrams: list[bytes]) -> list[Frame]:
    return [frame for datagram in datagrams for frame in trunk.decode_untrusted(datagram)]


def reason(trunk: Trunk, datagram: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        trunk.decode_untrusted(datagram)
    return caught.value.reason


def test_the_layout_on_the_wire():
    [datagram] = Trunk(KEY).encode([Frame(V4, 3, b"abc"), Frame(V6, 127, b"")], 1452)
    assert datagram[:2] == b"\xc5\x10"
    assert datagram[DATAGRAM_OVERHEAD:] == b"\x03" + V4 + b"\0\3abc" + b"\xff" + V6 + b"\0\0"


def test_seven_voice_packets_share_one_datagram():
    frames = [Frame(V4, 0, bytes([n]) * 160) for n in range(7)]
    [datagram] = Trunk(KEY).encode(frames, 1452)
    assert Trunk(KEY).decode_untrusted(datagram) == frames


def test_a_datagram_never_exceeds_the_mtu_but_for_one_frame_that_must():
    frames = [Frame(V6, 1, b"x" * size) for size in (600, 600, 600, 1600, 20, 1421, 1)]
    datagrams = Trunk(KEY).encode(frames, 1452)
    assert decoded(Trunk(KEY), datagrams) == frames
    assert [len(d) > 1452 for d in datagrams].count(True) == 1
    assert len(datagrams) == 6


def test_nothing_encodes_to_nothing():
    assert Trunk(KEY).encode([], 1452) == []


def test_a_bundle_can_be_used_again():
    bundle = Trunk(KEY).bundle(1452)
    bundle.add(frame_head(V4, 0), b"one")
    first = bundle.finish()
    bundle.add(frame_head(V4, 0), b"two")
    assert [frame.payload for frame in decoded(Trunk(KEY), first + bundle.finish())] == [b"one", b"two"]
    assert bundle.finish() == []


def test_every_bit_is_covered_by_the_tag():
    trunk = Trunk(KEY)
    [datagram] = trunk.encode([Frame(V4, 0, b"payload")], 1452)
    for bit in range(len(datagram) * 8):
        flipped = bytearray(datagram)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason(trunk, bytes(flipped)) in {"trunk_forged", "trunk_kind", "trunk_foreign"}


def test_another_key_is_forged_until_it_is_accepted():
    [datagram] = Trunk(OTHER).encode([Frame(V4, 0, b"payload")], 1452)
    assert reason(Trunk(KEY), datagram) == "trunk_forged"
    assert len(Trunk(KEY, OTHER).decode_untrusted(datagram)) == 1


def test_other_kinds_and_other_protocols_are_told_apart():
    trunk = Trunk(KEY)
    assert reason(trunk, b"\xc5\x11" + bytes(30)) == "trunk_kind"
    assert reason(trunk, b"\x16\xfe" + bytes(30)) == "trunk_foreign"
    assert reason(trunk, b"\xc5\x10short") == "trunk_truncated"


@pytest.mark.parametrize("body", [b"\0", b"\0" + V4, b"\0" + V4 + b"\0\2x", b"\x80" + V6 + b"\0", b"\xff" * 10])
def test_a_signed_body_that_ends_too_early_yields_no_frame(body: bytes):
    good = b"\0" + V4 + b"\0\1x"
    assert reason(Trunk(KEY), Trunk(KEY).sign_frames(good + body)) == "trunk_truncated"


def test_an_ingress_that_does_not_fit_is_a_bug_of_ours():
    with pytest.raises(LocalError):
        frame_head(V4, 128)


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


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=80), st.booleans())
def test_no_bytes_do_anything_but_raise_a_decode_error(data: bytes, signed: bool):
    trunk = Trunk(KEY)
    try:
        trunk.decode_untrusted(trunk.sign_frames(data) if signed else b"\xc5\x10" + data)
    except DecodeError as error:
        assert error.reason.startswith("trunk_")
