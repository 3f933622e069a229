"""The short ways: peeking at USERNAME, scanning Binding messages, writing answers."""

from __future__ import annotations

import json
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import pack_address, unpack_address
from protocol.errors import DecodeError
from protocol.stun import (
    Class,
    Message,
    Method,
    authenticate,
    binding_error,
    binding_request,
    binding_success,
    message_fingerprint,
    parse_message_untrusted,
    peek_username_untrusted,
    scan_binding_untrusted,
)

VECTORS = pathlib.Path(__file__).parents[2] / "vectors"
KEY = b"password-of-the-server"
TRANSACTION_ID = bytes(range(12))
CHECK = binding_request(
    TRANSACTION_ID, b"server:client", KEY, priority=7, controlling=True, tie_breaker=9, use_candidate=True
)


def captured(vector: str) -> list[bytes]:
    lines = (VECTORS / f"{vector}.first-datagrams.jsonl").read_text().splitlines()
    datagrams = [json.loads(line) for line in lines]
    return [bytes.fromhex(d["hex"]) for d in datagrams if d["dir"] == "in" and d["hex"].startswith("00")]


def request(attributes: dict[str, object]) -> bytes:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, attributes)
    message.add_message_integrity(KEY)
    return bytes(message)


@pytest.mark.parametrize(
    ("vector", "username"),
    [
        ("chromium156", b"srv1e88a3a4f:OoHV"),
        ("chromium156-sped", b"srv1be32f87d:Nm3q"),
        ("firefox153", b"srv147e472ea:8327ba8a"),
    ],
)
def test_the_username_of_every_captured_check_is_found(vector: str, username: bytes) -> None:
    checks = captured(vector)
    assert len(checks) >= 3
    for check in checks:
        assert peek_username_untrusted(check) == username
        assert peek_username_untrusted(memoryview(check)) == username
        assert scan_binding_untrusted(check).username == username


def test_the_username_is_found_behind_other_attributes() -> None:
    data = request({"PRIORITY": 1, "0xC057": b"abcde", "ICE-CONTROLLING": 4, "USERNAME": "server:client"})
    assert peek_username_untrusted(data) == b"server:client"


def test_a_username_behind_message_integrity_is_not_believed() -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"PRIORITY": 1})
    message.add_message_integrity(KEY)
    del message.attributes["FINGERPRINT"]
    message.attributes["USERNAME"] = "server:client"
    message.add_fingerprint()
    with pytest.raises(DecodeError, match="stun_username"):
        peek_username_untrusted(bytes(message))
    assert scan_binding_untrusted(bytes(message)).username is None


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("stun_truncated", CHECK[:27]),
        ("stun_length", CHECK[:-4]),
        ("stun_cookie", CHECK[:4] + bytes(4) + CHECK[8:]),
        ("stun_not_request", b"\x01\x01" + CHECK[2:]),
        ("stun_username", request({"PRIORITY": 1})),
        ("stun_username", request({"USERNAME": "x" * 513})),  # STUN7
        ("stun_username", request({f"0x{0xC100 + n:04X}": b"" for n in range(40)} | {"USERNAME": "a:b"})),
        ("stun_username", CHECK[:22] + b"\xff\xff" + CHECK[24:]),
    ],
)
def test_peeking_refuses_what_is_not_a_request_with_a_username(reason: str, data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        peek_username_untrusted(data)
    assert caught.value.reason == reason


def test_stun7_the_longest_username_is_read() -> None:
    assert len(peek_username_untrusted(request({"USERNAME": "x" * 512}))) == 512


def test_a_check_of_ours_is_what_the_codec_would_write() -> None:
    message = Message(
        Method.BINDING,
        Class.REQUEST,
        TRANSACTION_ID,
        {"USERNAME": "server:client", "ICE-CONTROLLING": 9, "USE-CANDIDATE": None, "PRIORITY": 7},
    )
    message.add_message_integrity(KEY)
    assert bytes(message) == CHECK
    binding = scan_binding_untrusted(CHECK)
    assert (binding.username, binding.priority, binding.controlling) == (b"server:client", 7, True)
    assert (binding.tie_breaker, binding.use_candidate, binding.unknown) == (9, True, ())
    assert authenticate(CHECK, binding, KEY)
    assert not authenticate(CHECK, binding, KEY + b"x")


@pytest.mark.parametrize(("host", "size"), [("192.0.2.1", 64), ("2001:db8::1", 76)])
def test_stun10_a_success_has_64_or_76_bytes_and_gives_the_address_back(host: str, size: int) -> None:
    address = pack_address(host, 4711)
    answer = binding_success(TRANSACTION_ID, address, KEY)
    assert len(answer) == size < len(CHECK)
    message = parse_message_untrusted(answer)
    assert message.attributes["XOR-MAPPED-ADDRESS"] == (host, 4711)
    assert message.check_message_integrity(KEY)
    mapped = scan_binding_untrusted(answer).mapped
    assert mapped is not None
    assert unpack_address(mapped) == (host, 4711)


def test_stun2_an_answer_carries_the_kind_of_integrity_that_was_asked_for() -> None:
    answer = binding_success(TRANSACTION_ID, pack_address("192.0.2.1", 1), KEY, "sha256")
    message = parse_message_untrusted(answer)
    assert "MESSAGE-INTEGRITY" not in message.attributes
    assert message.check_message_integrity(KEY)


def test_stun4_a_401_carries_no_integrity() -> None:
    message = parse_message_untrusted(binding_error(TRANSACTION_ID, 401, b"Unauthorized", None))
    assert list(message.attributes) == ["ERROR-CODE", "FINGERPRINT"]
    assert message.attributes["ERROR-CODE"] == (401, "Unauthorized")


def test_stun5_a_420_lists_what_was_not_understood() -> None:
    data = request({"USERNAME": "a:b", "0x7FF0": b"", "0x7FF1": b"x", "0xC001": b"\0\0\0\1"})
    binding = scan_binding_untrusted(data)
    assert binding.unknown == (0x7FF0, 0x7FF1)
    message = parse_message_untrusted(binding_error(TRANSACTION_ID, 420, b"Unknown", KEY, unknown=binding.unknown))
    assert message.attributes["UNKNOWN-ATTRIBUTES"] == (0x7FF0, 0x7FF1)
    assert message.check_message_integrity(KEY)


def test_stun3_a_check_without_fingerprint_is_refused() -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"USERNAME": "server:client"})
    message.add_message_integrity(KEY)
    del message.attributes["FINGERPRINT"]
    with pytest.raises(DecodeError, match="stun_fingerprint_missing"):
        scan_binding_untrusted(bytes(message))


def sealed(kind: int, body: bytes) -> bytes:
    """A message of these bytes under a right header and FINGERPRINT."""
    head = kind.to_bytes(2, "big") + (len(body) + 8).to_bytes(2, "big") + bytes.fromhex("2112a442") + TRANSACTION_ID
    return head + body + bytes.fromhex("80280004") + message_fingerprint(head + body).to_bytes(4, "big")


@pytest.mark.parametrize(
    ("reason", "data"),
    [
        ("stun_truncated", CHECK[:27]),
        ("stun_cookie", CHECK[:4] + bytes(4) + CHECK[8:]),
        ("stun_length", CHECK + bytes(4)),
        ("stun_length", CHECK[:3] + bytes((CHECK[3] + 2,)) + CHECK[4:] + bytes(2)),
        ("stun_method", sealed(0x0003, b"")),
        ("stun_method", sealed(0x4001, b"")),
        ("stun_fingerprint", CHECK[:-1] + bytes((CHECK[-1] ^ 1,))),
        ("stun_truncated", sealed(1, b"\x00\x06\x00\x09abcd")),
        ("stun_attributes", sealed(1, b"\xc1\x00\x00\x00" * 65)),
        ("stun_integrity_length", sealed(1, b"\x00\x1c\x00\x0c" + bytes(12))),
        ("stun_integrity_length", sealed(1, b"\x00\x08\x00\x04" + bytes(4))),
        ("stun_username", sealed(1, b"\x00\x06\x02\x01" + bytes(516))),
        ("stun_attribute", sealed(1, b"\x00\x24\x00\x02" + bytes(4))),
        ("stun_attribute", sealed(1, b"\x80\x29\x00\x04" + bytes(4))),
        ("stun_attribute", sealed(1, b"\xc0\x01\x00\x01" + bytes(4))),
        ("stun_attribute", sealed(0x0101, b"\x00\x20\x00\x08" + bytes(8))),
        ("stun_attribute", sealed(0x0111, b"\x00\x09\x00\x02" + bytes(4))),
    ],
)
def test_dmx3_stun3_what_is_no_sound_check_is_refused_with_its_reason(reason: str, data: bytes) -> None:
    with pytest.raises(DecodeError) as caught:
        scan_binding_untrusted(data)
    assert caught.value.reason == reason


def test_of_repeated_attributes_the_first_counts_in_checks_too() -> None:
    body = b""
    for number in (1, 2):
        body += b"\x00\x06\x00\x04" + b"usr%d" % number
        body += b"\x00\x24\x00\x04" + number.to_bytes(4, "big")
        body += (b"\x80\x29\x00\x08", b"\x80\x2a\x00\x08")[number - 1] + number.to_bytes(8, "big")
        body += b"\xc0\x01\x00\x04" + number.to_bytes(4, "big")
    binding = scan_binding_untrusted(sealed(1, body))
    assert (binding.username, binding.priority, binding.nomination) == (b"usr1", 1, 1)
    assert (binding.controlling, binding.tie_breaker) == (False, 1)


def test_a_truncated_message_integrity_is_refused() -> None:
    message = Message(Method.BINDING, Class.REQUEST, TRANSACTION_ID, {"MESSAGE-INTEGRITY": bytes(4)})
    message.add_fingerprint()
    with pytest.raises(DecodeError, match="stun_integrity_length"):
        scan_binding_untrusted(bytes(message))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(body=st.binary(max_size=120), kind=st.sampled_from([0x0001, 0x0011, 0x0101, 0x0111]))
def test_any_body_under_a_right_header_scans_or_raises_decode_error(body: bytes, kind: int) -> None:
    body += bytes(-len(body) % 4)
    data = kind.to_bytes(2, "big") + (len(body)).to_bytes(2, "big") + bytes.fromhex("2112a442") + TRANSACTION_ID + body
    sealed = data[:2] + (len(body) + 8).to_bytes(2, "big") + data[4:]
    sealed += bytes.fromhex("80280004") + message_fingerprint(data).to_bytes(4, "big")
    for function in (scan_binding_untrusted, parse_message_untrusted, peek_username_untrusted):
        try:
            function(sealed)
        except DecodeError:
            continue


@settings(max_examples=100, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200))
def test_any_bytes_scan_or_raise_decode_error(data: bytes) -> None:
    for function in (scan_binding_untrusted, parse_message_untrusted, peek_username_untrusted):
        try:
            function(data)
        except DecodeError:
            continue
