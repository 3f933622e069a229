"""The hellos of real browsers (Chromium 156, Firefox 153): DTLS 1.3 with ML-KEM, always in two datagrams."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from protocol.dtls import Role
from protocol.dtls.extensions import parse_use_srtp_untrusted
from protocol.dtls.fragments import HandshakeMessage, parse_fragments_untrusted
from protocol.dtls.messages.client_hello import parse_client_hello_untrusted
from protocol.dtls.messages.server_hello import parse_server_hello_untrusted
from protocol.dtls.record12 import pack_record, split_records_untrusted
from protocol.dtls.registry import ExtensionType

VECTORS = Path(__file__).parent / "vectors"
BROWSERS = ["chromium156", "firefox153"]


def hello(browser: str) -> list[bytes]:
    """Four datagrams: the hello in two, and its retransmission."""
    lines = (VECTORS / f"{browser}.client-hello.jsonl").read_text().splitlines()
    return [bytes.fromhex(json.loads(line)["hex"]) for line in lines]


def server_messages(datagrams: list[bytes]) -> list[tuple[int, bytes]]:
    records = [record for datagram in datagrams for record in split_records_untrusted(datagram)[0]]
    fragments = [fragment for record in records for fragment in parse_fragments_untrusted(record.fragment)]
    return [(fragment.message_type, fragment.body) for fragment in fragments]


@pytest.mark.parametrize("browser", BROWSERS)
@pytest.mark.parametrize("order", [*itertools.permutations(range(4), 2), (0, 0, 1), (1, 1, 0), (3, 2, 1, 0)], ids=str)
def test_the_hello_is_answered_once_both_parts_are_there_in_any_order(
    dtls: SimpleNamespace, browser: str, order: tuple[int, ...]
) -> None:
    datagrams = hello(browser)
    server = dtls.make_side(Role.SERVER)
    for number in order:
        server.receive(datagrams[number], 0.0)
    complete = {number % 2 for number in order} == {0, 1}
    if not complete:
        assert server.sent == []
        return
    messages = server_messages(server.sent)
    assert [kind for kind, _ in messages] == [2, 11, 12, 13, 14]
    answer = parse_server_hello_untrusted(messages[0][1])
    assert answer.version == 0xFEFD
    assert answer.cipher_suite == 0xC02B
    assert answer.random[-8:-1] != b"DOWNGRD"  # both browsers know 1.3 and would take it for a downgrade
    assert answer.session_id == b""
    chosen = parse_use_srtp_untrusted(answer.extensions[ExtensionType.USE_SRTP])
    assert chosen.profiles == (7,)
    assert chosen.mki == b""
    assert answer.extensions[ExtensionType.EXTENDED_MASTER_SECRET] == b""
    assert answer.extensions[ExtensionType.RENEGOTIATION_INFO] == b"\0"
    assert ExtensionType.SUPPORTED_VERSIONS not in answer.extensions


@pytest.mark.parametrize("browser", BROWSERS)
def test_the_hello_survives_a_round_trip_through_our_codec(browser: str) -> None:
    fragments = [
        fragment
        for datagram in hello(browser)[:2]
        for record in split_records_untrusted(datagram)[0]
        for fragment in parse_fragments_untrusted(record.fragment)
    ]
    body = b"".join(fragment.body for fragment in sorted(fragments, key=lambda fragment: fragment.offset))
    assert parse_client_hello_untrusted(body).encode() == body


@pytest.mark.parametrize("browser", BROWSERS)
def test_a_retransmitted_hello_brings_the_same_answer_again(dtls: SimpleNamespace, browser: str) -> None:
    datagrams = hello(browser)
    server = dtls.make_side(Role.SERVER)
    first = [answer for data in datagrams[:2] for answer in server.receive(data, 0.0)]
    again = [answer for data in datagrams[2:] for answer in server.receive(data, 0.049)]
    assert first
    assert server_messages(again) == server_messages(first)


@pytest.mark.parametrize("browser", BROWSERS)
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_a_browsers_hello_in_pieces_of_one_byte_is_answered(dtls: SimpleNamespace, browser: str, order: str) -> None:
    fragments = [
        fragment
        for datagram in hello(browser)[:2]
        for record in split_records_untrusted(datagram)[0]
        for fragment in parse_fragments_untrusted(record.fragment)
    ]
    body = b"".join(fragment.body for fragment in fragments)
    message = HandshakeMessage(1, 0, body)
    pieces = [message.fragment(at, 1) for at in range(len(body))]
    if order == "backwards":
        pieces.reverse()
    if order == "shuffled":
        random.Random(1).shuffle(pieces)
    server = dtls.make_side(Role.SERVER)
    for number, piece in enumerate(pieces[1:]):
        assert server.receive(pack_record(22, number, piece), 0.0) == []
    assert server.receive(pack_record(22, 0, pieces[0]), 0.0)
