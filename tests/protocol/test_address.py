"""Transport addresses as bytes: packed, read back, written for people."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import Path, format_address, pack_address, unpack_address
from protocol.errors import DecodeError

modest = settings(max_examples=100, deadline=None, derandomize=True)
ports = st.integers(0, 0xFFFF)


@modest
@given(st.ip_addresses(), ports)
def test_an_address_packed_is_read_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int):
    packed = pack_address(str(address), port)
    mapped = address.ipv4_mapped if address.version == 6 else None
    assert unpack_address(packed) == (str(mapped or address), port)
    assert len(packed) == (6 if address.version == 4 or mapped else 18)


def test_the_bytes_are_port_then_address():
    assert pack_address("192.0.2.1", 0x1388) == bytes.fromhex("1388 c0000201")
    assert pack_address("2001:db8::1", 443) == bytes.fromhex("01bb 20010db8000000000000000000000001")


def test_an_ipv4_address_has_one_form_whichever_socket_it_came_from():
    assert pack_address("::ffff:192.0.2.1", 5000) == pack_address("192.0.2.1", 5000)


def test_a_scope_is_dropped():
    assert pack_address("fe80::1%eth0", 1) == pack_address("fe80::1", 1)


@pytest.mark.parametrize(("host", "port"), [("localhost", 1), ("", 1), ("1.2.3", 1), ("1.2.3.4", 65536), ("::1", -1)])
def test_what_is_no_address_is_a_value_error(host: str, port: int):
    with pytest.raises(ValueError):  # noqa: PT011  (the messages are those of the standard library)
        pack_address(host, port)


@modest
@given(st.binary(max_size=24))
def test_any_bytes_give_an_address_or_a_decode_error(data: bytes):
    if len(data) in (6, 18):
        host, port = unpack_address(data)
        assert ipaddress.ip_address(host)
        assert 0 <= port <= 0xFFFF
        assert unpack_address(memoryview(data)) == (host, port)
    else:
        with pytest.raises(DecodeError) as caught:
            unpack_address(data)
        assert caught.value.reason == "address_length"


def test_addresses_are_written_as_people_write_them():
    assert format_address(pack_address("192.0.2.1", 5000)) == "192.0.2.1:5000"
    assert format_address(pack_address("2001:db8::1", 5000)) == "[2001:db8::1]:5000"


def test_a_path_is_equal_to_its_like_and_usable_as_a_key():
    here, there = pack_address("10.0.0.1", 1), pack_address("10.0.0.2", 1)
    assert {Path(b"", here): 1}[Path(b"", pack_address("10.0.0.1", 1))] == 1
    assert Path(b"", here) != Path(b"", there) != Path(b"x", there)
