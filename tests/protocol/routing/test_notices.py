"""Hello and announce: what is written is read again, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.address import TransportAddress
from protocol.errors import DecodeError, LocalError
from protocol.routing import (
    DATAGRAM_OVERHEAD,
    Trunk,
    TrunkHead,
    TrunkKind,
    announce,
    hello,
    read_announcement_untrusted,
    read_hello_untrusted,
)

TRUNK = Trunk(b"k" * 32)
BOOT = bytes(range(8))

boots = st.binary(min_size=8, max_size=8)
clients = st.lists(
    st.one_of(st.binary(min_size=6, max_size=6), st.binary(min_size=18, max_size=18)).map(TransportAddress),
    max_size=400,
)


@given(boots)
def test_a_hello_is_read_as_it_was_written_and_is_no_longer_than_the_shortest_frame(boot: bytes):
    datagram = hello(TRUNK, boot)
    assert TRUNK.open_untrusted(datagram).kind is TrunkKind.HELLO
    assert read_hello_untrusted(memoryview(datagram)) == boot
    assert len(datagram) == 24 == DATAGRAM_OVERHEAD + 8


@given(boots, st.integers(0, 127), clients, st.sampled_from([0, 576, 1452]))
def test_announcements_are_read_as_they_were_written(boot: bytes, ingress: int, some: list[TransportAddress], mtu: int):
    found: list[TransportAddress] = []
    for datagram in announce(TRUNK, boot, ingress, some, mtu):
        assert len(datagram) <= (mtu or 1200)
        head = TRUNK.open_untrusted(datagram)
        assert (head.kind, head.ingress) == (TrunkKind.ANNOUNCE, ingress)
        told = read_announcement_untrusted(memoryview(datagram))
        assert (told.boot, told.ingress) == (boot, ingress)
        found += told.clients
        with pytest.raises(DecodeError, match="trunk_kind"):
            TRUNK.decode_untrusted(datagram)
    assert sorted(found) == sorted(some)


@given(st.integers(0, 1000), st.integers(1, 255))
def test_no_byte_of_a_notice_can_be_changed(position: int, change: int):
    for datagram in (hello(TRUNK, BOOT), *announce(TRUNK, BOOT, 1, [TransportAddress(b"\1\2\3\4\5\6")] * 3, 1452)):
        forged = bytearray(datagram)
        forged[position % len(forged)] ^= change
        with pytest.raises(DecodeError):
            TRUNK.open_untrusted(forged)


@pytest.mark.parametrize(
    ("is_ipv6", "count", "body"),
    [
        (False, 2, BOOT + b"\0\1abcdef"),  # a length
        (False, 1, BOOT + b"payload"),
        (True, 1, BOOT + bytes(15) + b"\1"),  # something where zeros belong
        (True, 2, BOOT + bytes(16) + b"\0\0po\0\0\0\1" + bytes(16)),
    ],
)
def test_what_the_trunk_signed_may_still_be_no_announcement(is_ipv6: bool, count: int, body: bytes):
    datagram = TRUNK.seal(TrunkHead(TrunkKind.ANNOUNCE, is_ipv6, 0, count), body[: count * (24 if is_ipv6 else 8)])
    datagram = datagram + body[count * (24 if is_ipv6 else 8) :]
    with pytest.raises(DecodeError, match="trunk_announce"):
        read_announcement_untrusted(datagram)


def test_a_hello_of_another_length_is_none():
    with pytest.raises(DecodeError, match="trunk_hello"):
        read_hello_untrusted(TRUNK.seal(TrunkHead(TrunkKind.HELLO, False, 0, 0), b"123456789"))
    with pytest.raises(LocalError):
        hello(TRUNK, b"1234567")
