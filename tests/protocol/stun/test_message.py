"""The STUN codec: RFC 5769 vectors, aioice byte for byte, and everything it must refuse."""

from __future__ import annotations

import hashlib
import hmac
import json
import pathlib
from typing import Any

import aioice.stun
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import DecodeError, LocalError
from protocol.stun import Class, Message, Method, parse_message_untrusted

VECTORS = pathlib.Path(__file__).parents[2] / "vectors"
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"
TRANSACTION_ID = bytes.fromhex("b7e7a701bc34d686fa87dfae")

# RFC 5769 §2.1 to §2.4
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b1"
    "51263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643000800142b91f599"
    "fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5"
    "bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
REQUEST_LONG_TERM = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c662f2f3439396b39"
    "353464364f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a2"
    "8ca89666"
)

ATTRIBUTES: dict[str, Any] = {
    "MAPPED-ADDRESS": ("192.0.2.1", 32853),
    "XOR-MAPPED-ADDRESS": ("2001:db8::1", 5000),
    "USERNAME": "server:client",
    "ERROR-CODE": (487, "Role Conflict"),
    "CHANNEL-NUMBER": 0x4000,
    "LIFETIME": 600,
    "DATA": b"abcde",
    "REALM": "example.org",
    "NONCE": b"nonce",
    "PRIORITY": 1853824767,
    "USE-CANDIDATE": None,
    "SOFTWARE": "antiphon",
    "ICE-CONTROLLED": 2**64 - 1,
    "ICE-CONTROLLING": 1,
    "OTHER-ADDRESS": ("203.0.113.9", 1),
}


def test_stun1_rfc_5769_sample_request() -> None:
    message = parse_message_untrusted(REQUEST)
    assert (message.message_method, message.message_class) == (Method.BINDING, Class.REQUEST)
    assert message.transaction_id == TRANSACTION_ID
    assert message.attributes["USERNAME"] == "evtj:h6vY"
    assert message.attributes["PRIORITY"] == 0x6E0001FF
    assert message.attributes["ICE-CONTROLLED"] == 0x932FF9B151263B36
    assert list(message.attributes)[-1] == "FINGERPRINT"
    assert message.check_message_integrity(PASSWORD)
    assert not message.check_message_integrity(PASSWORD + b"x")


@pytest.mark.parametrize(
    ("data", "address"),
    [(RESPONSE_IPV4, ("192.0.2.1", 32853)), (RESPONSE_IPV6, ("2001:db8:1234:5678:11:2233:4455:6677", 32853))],
)
def test_stun6_rfc_5769_sample_responses_give_the_clients_address(data: bytes, address: tuple[str, int]) -> None:
    message = parse_message_untrusted(data)
    assert message.attributes["XOR-MAPPED-ADDRESS"] == address
    assert message.check_message_integrity(PASSWORD)


def test_rfc_5769_long_term_request_without_fingerprint() -> None:
    message = parse_message_untrusted(REQUEST_LONG_TERM)
    assert message.attributes["USERNAME"] == "マトリックス"
    key = hashlib.md5(b"".join(["マトリックス:example.org:TheMatrIX".encode()])).digest()
    assert message.check_message_integrity(key)
    assert bytes(message) == REQUEST_LONG_TERM


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize("signed", [False, True])
def test_each_attribute_is_written_as_aioice_writes_it_and_read_as_aioice_reads_it(name: str, signed: bool) -> None:
    ours = Message(Method.BINDING, Class.RESPONSE, TRANSACTION_ID, {name: ATTRIBUTES[name]})
    theirs = aioice.stun.Message(
        aioice.stun.Method.BINDING, aioice.stun.Class.RESPONSE, TRANSACTION_ID, {name: ATTRIBUTES[name]}
    )
    if signed:
        ours.add_message_integrity(PASSWORD)
        theirs.add_message_integrity(PASSWORD)
    else:
        ours.add_fingerprint()
        theirs.add_fingerprint()
    assert bytes(ours) == bytes(theirs)
    parsed = parse_message_untrusted(bytes(ours))
    assert parsed.attributes == aioice.stun.parse_message(bytes(theirs)).attributes == ours.attributes
    assert parsed.check_message_integrity(PASSWORD) is signed
    assert bytes(parsed) == bytes(ours)


@pytest.mark.parametrize("vector", ["chromium156", "chromium156-sped", "firefox153"])
def test_captured_browser_messages_parse_as_aioice_parses_them_and_write_back_the_same_bytes(vector: str) -> None:
    seen = 0
    for line in (VECTORS / f"{vector}.first-datagrams.jsonl").read_text().splitlines():
        data = bytes.fromhex(json.loads(line)["hex"])
        if data[0] > 3:
            continue
        message = parse_message_untrusted(data)
        known = {name: value for name, value in message.attributes.items() if not name.startswith("0x")}
        assert known == aioice.stun.parse_message(data).attributes
        assert bytes(message) == data
        seen += 1
    assert seen >= 6


def test_stun5_unknown_optional_attributes_are_kept_in_their_order() -> None:
    line = (VECTORS / "chromium156.first-datagrams.jsonl").read_text().splitlines()[0]
    message = parse_message_untrusted(bytes.fromhex(json.loads(line)["hex"]))
    assert list(message.attributes)[:3] == ["USERNAME", "0xC057", "ICE-CONTROLLING"]
    assert message.attributes["0xC057"] == bytes.fromhex("00010000")


def test_stun1_attributes_behind_message_integrity_are_ignored() -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"PRIORITY": 1})
    message.add_message_integrity(PASSWORD)
    del message.attributes["FINGERPRINT"]
    message.attributes["USE-CANDIDATE"] = None
    message.add_fingerprint()
    parsed = parse_message_untrusted(bytes(message))
    assert "USE-CANDIDATE" not in parsed.attributes
    assert parsed.check_message_integrity(PASSWORD)


def test_the_first_of_repeated_attributes_counts() -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"PRIORITY": 1, "0x0024": b"\0\0\0\2"})
    assert parse_message_untrusted(bytes(message)).attributes == {"PRIORITY": 1}


@pytest.mark.parametrize("length", [16, 20, 32])
def test_stun2_sha256_integrity_of_each_permitted_length_is_judged(length: int) -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"USERNAME": "a:b"})
    before = bytes(message)
    covered = before[:2] + (len(before) - 20 + 4 + length).to_bytes(2, "big") + before[4:]
    message.attributes["MESSAGE-INTEGRITY-SHA256"] = hmac.new(PASSWORD, covered, "sha256").digest()[:length]
    assert parse_message_untrusted(bytes(message)).check_message_integrity(PASSWORD)
    assert not parse_message_untrusted(bytes(message)).check_message_integrity(b"other")


@pytest.mark.parametrize("length", [0, 12, 18, 36])
def test_stun2_sha256_integrity_of_any_other_length_is_refused(length: int) -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"MESSAGE-INTEGRITY-SHA256": bytes(length)})
    with pytest.raises(DecodeError, match="stun_attribute"):
        parse_message_untrusted(bytes(message))


def test_stun2_of_both_kinds_of_integrity_the_stronger_decides() -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"USERNAME": "a:b"})
    message.add_message_integrity(PASSWORD)
    message.add_message_integrity_sha256(PASSWORD)
    assert list(message.attributes) == ["USERNAME", "MESSAGE-INTEGRITY", "MESSAGE-INTEGRITY-SHA256", "FINGERPRINT"]
    assert parse_message_untrusted(bytes(message)).check_message_integrity(PASSWORD)
    forged = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"USERNAME": "a:b"})
    forged.add_message_integrity(PASSWORD)
    forged.add_message_integrity_sha256(b"other")
    assert not parse_message_untrusted(bytes(forged)).check_message_integrity(PASSWORD)


def test_stun3_a_wrong_fingerprint_is_refused() -> None:
    with pytest.raises(DecodeError, match="stun_fingerprint"):
        parse_message_untrusted(REQUEST[:-1] + bytes([REQUEST[-1] ^ 1]))


def test_stun3_nothing_may_follow_the_fingerprint() -> None:
    data = REQUEST + bytes.fromhex("00250000")
    data = data[:2] + (len(data) - 20).to_bytes(2, "big") + data[4:]
    with pytest.raises(DecodeError):
        parse_message_untrusted(data)


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("stun_truncated", b""),
        ("stun_truncated", REQUEST[:19]),
        ("stun_length", REQUEST[:-4]),
        ("stun_length", REQUEST + b"\0\0\0\0"),
        ("stun_length", REQUEST[:2] + b"\0\x57" + REQUEST[4:-1]),
        ("stun_cookie", REQUEST[:4] + b"\0\0\0\0" + REQUEST[8:]),  # RFC 3489 had no cookie
        ("stun_cookie", b"\x40" + REQUEST[1:]),
        ("stun_method", b"\x00\x05" + REQUEST[2:]),
        ("stun_truncated", REQUEST[:22] + b"\xff\xff" + REQUEST[24:]),
    ],
)
def test_dmx3_what_is_not_stun_is_refused_with_its_reason(reason: str, data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_message_untrusted(data)
    assert caught.value.reason == reason


def test_a_two_byte_priority_is_refused_where_aioice_let_struct_error_escape() -> None:
    data = bytes.fromhex("000100082112a442") + TRANSACTION_ID + bytes.fromhex("0024000200010000")
    with pytest.raises(DecodeError, match="stun_attribute"):
        parse_message_untrusted(data)


def test_stun8_transaction_ids_come_from_the_entropy_that_is_handed_in() -> None:
    assert Message(Method.BINDING, Class.REQUEST, entropy=lambda n: b"\7" * n).transaction_id == b"\7" * 12
    with pytest.raises(LocalError):
        Message(Method.BINDING, Class.REQUEST)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(position=st.integers(0, len(REQUEST) - 9), value=st.integers(0, 255), cut=st.integers(0, len(REQUEST)))
def test_a_damaged_message_parses_or_raises_decode_error_and_is_never_authentic(
    position: int, value: int, cut: int
) -> None:
    damaged = bytearray(REQUEST)
    damaged[position] = value
    for data in (bytes(damaged), REQUEST[:cut]):
        try:
            message = parse_message_untrusted(data)
        except DecodeError:
            continue
        assert data == REQUEST or not message.check_message_integrity(PASSWORD)
