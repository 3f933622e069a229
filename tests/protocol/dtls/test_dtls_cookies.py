"""The cookie exchange of a bare listener: RFC 6347 §4.2.1. No state, no amplification, and the numbers fit afterwards."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from protocol.dtls import CookieExchange, Datagram, DtlsConfig, DtlsEndpoint, Identity, Role, VerifiedHello
from protocol.dtls.fragments import HandshakeMessage, parse_fragments_untrusted
from protocol.dtls.messages import ClientHello
from protocol.dtls.messages.client_hello import parse_client_hello_untrusted
from protocol.dtls.messages.hello_verify_request import parse_hello_verify_request_untrusted
from protocol.dtls.record12 import pack_record, split_records_untrusted
from protocol.errors import LocalError

HERE = b"\x7f\0\0\1\x12\x34"
THERE = b"\x7f\0\0\1\x12\x35"


def make_exchange(seed: int = 3, now: float = 0.0) -> CookieExchange:
    return CookieExchange(random.Random(seed).randbytes, now)


def hello_of(datagram: bytes) -> tuple[int, int, ClientHello]:
    """(record number, message number, hello)"""
    (record,), _ = split_records_untrusted(datagram)
    (fragment,) = parse_fragments_untrusted(record.fragment)
    return record.number, fragment.sequence, parse_client_hello_untrusted(fragment.body)


def repack(hello: ClientHello, record: int = 1, sequence: int = 1) -> bytes:
    message = HandshakeMessage(1, sequence, hello.encode())
    return pack_record(22, record, message.fragment(0, len(message.body)))


def start_client(dtls: SimpleNamespace):
    client = dtls.make_side(Role.CLIENT)
    client.endpoint.start(0.0)
    return client


def make_server(dtls: SimpleNamespace, verified: VerifiedHello):
    return dtls.Side(
        DtlsEndpoint(
            Role.SERVER,
            dtls.server_identity,
            peer_fingerprints=(dtls.client_identity.fingerprint(),),
            srtp_profiles=dtls.srtp,
            entropy=random.Random(1).randbytes,
            verified=verified,
        )
    )


def second_hello(dtls: SimpleNamespace, exchange: CookieExchange, now: float = 0.0) -> bytes:
    client = start_client(dtls)
    (first,) = client.drain()
    answer = exchange.receive_untrusted(first, HERE, now)
    assert isinstance(answer, Datagram)
    (second,) = client.receive(answer.data)
    return second


def test_a_listener_verifies_the_address_and_then_the_handshake_connects(dtls: SimpleNamespace) -> None:
    exchange, client = make_exchange(), start_client(dtls)
    (first,) = client.drain()
    answer = exchange.receive_untrusted(first, HERE, 0.0)
    assert isinstance(answer, Datagram)
    (second,) = client.receive(answer.data)
    verified = exchange.receive_untrusted(second, HERE, 0.1)
    assert verified == VerifiedHello(message_sequence=1, record_sequence=1)
    server = make_server(dtls, verified)
    flight = server.receive(second)
    record = split_records_untrusted(flight[0])[0][0]
    assert record.number == verified.record_sequence  # RFC 6347 §4.2.1: the number of the hello that it answers
    assert parse_fragments_untrusted(record.fragment)[0].sequence == verified.message_sequence
    for data in flight:
        client.endpoint.receive_untrusted(data, 0.1)
    server.receive(first)  # comes late and twice: nobody minds
    dtls.run(client, server, now=0.1)
    assert client.connected  # so neither the first hello nor the answer is in the transcript
    assert server.connected
    assert client.connected.srtp.local == server.connected.srtp.remote


def test_the_answer_copies_the_numbers_of_the_hello_and_is_shorter(dtls: SimpleNamespace) -> None:
    client = start_client(dtls)
    _, _, hello = hello_of(client.drain()[0])
    smallest = ClientHello(0xFEFD, bytes(32), (0xC02B,))
    for request in (repack(hello, record=77, sequence=2), repack(smallest, record=77, sequence=2)):
        answer = make_exchange().receive_untrusted(request, HERE, 0.0)
        assert isinstance(answer, Datagram)
        (record,), damage = split_records_untrusted(answer.data)
        (fragment,) = parse_fragments_untrusted(record.fragment)
        assert (record.content_type, record.number, damage) == (22, 77, "")
        assert (fragment.message_type, fragment.sequence) == (3, 2)
        said = parse_hello_verify_request_untrusted(fragment.body)
        assert said.version == 0xFEFF
        assert 0 < len(said.cookie) <= 255
        assert len(answer.data) < len(request)


@pytest.mark.parametrize("mtu", [128, 140])
def test_a_hello_in_pieces_is_verified_by_its_first(dtls: SimpleNamespace, mtu: int) -> None:
    client = dtls.make_side(Role.CLIENT, config=DtlsConfig(mtu=mtu))
    exchange = make_exchange()
    client.endpoint.start(0.0)
    answers = [exchange.receive_untrusted(data, HERE, 0.0) for data in client.drain()]
    assert [type(answer) for answer in answers] == [Datagram, type(None)]
    pieces = client.receive(answers[0].data)
    assert len(pieces) == 2
    server = make_server(dtls, exchange.receive_untrusted(pieces[0], HERE, 0.0))
    for data in pieces:
        server.endpoint.receive_untrusted(data, 0.0)
    dtls.run(client, server)
    assert client.connected
    assert server.connected


def test_a_cookie_is_good_for_its_address_only(dtls: SimpleNamespace) -> None:
    exchange = make_exchange()
    second = second_hello(dtls, exchange)
    assert isinstance(exchange.receive_untrusted(second, THERE, 0.0), Datagram)
    assert isinstance(exchange.receive_untrusted(second, HERE, 0.0), VerifiedHello)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0xFEFC},
        {"random": bytes(32)},
        {"session_id": b"x"},
        {"cipher_suites": (0xC02B,)},
        {"compression_methods": b"\1\0"},
        {"cookie": b""},
        {"cookie": bytes(32)},
        {"cookie": b"x" * 255},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_cookie_is_good_for_the_same_hello_only(dtls: SimpleNamespace, change: dict) -> None:
    exchange = make_exchange()
    _, _, hello = hello_of(second_hello(dtls, exchange))
    assert isinstance(exchange.receive_untrusted(repack(hello), HERE, 0.0), VerifiedHello)
    fields = {name: getattr(hello, name) for name in hello.__slots__}
    assert isinstance(exchange.receive_untrusted(repack(ClientHello(**fields | change)), HERE, 0.0), Datagram)


@pytest.mark.parametrize(("age", "is_good"), [(0.0, True), (59.0, True), (61.0, True), (119.0, True), (121.0, False)])
def test_the_secret_changes_and_the_one_before_is_honoured(dtls: SimpleNamespace, age: float, is_good: bool) -> None:
    for touches in ((), (60.0,)):  # whether anybody else came meanwhile or not
        exchange = make_exchange()
        second = second_hello(dtls, exchange)
        for touch in touches:
            if touch < age:
                exchange.receive_untrusted(repack(ClientHello(0xFEFD, bytes(32), (1,))), THERE, touch)
        assert isinstance(exchange.receive_untrusted(second, HERE, age), VerifiedHello) is is_good


def test_a_stale_cookie_costs_the_client_one_more_round_trip(dtls: SimpleNamespace) -> None:
    exchange, client = make_exchange(), start_client(dtls)
    answer = exchange.receive_untrusted(client.drain()[0], HERE, 0.0)
    (second,) = client.receive(answer.data)
    answer = exchange.receive_untrusted(second, HERE, 500.0)
    assert isinstance(answer, Datagram)
    (third,) = client.receive(answer.data)
    assert exchange.receive_untrusted(third, HERE, 500.1) == VerifiedHello(message_sequence=2, record_sequence=2)


def test_another_listener_does_not_honour_our_cookies(dtls: SimpleNamespace) -> None:
    second = second_hello(dtls, make_exchange(seed=3))
    assert isinstance(make_exchange(seed=4).receive_untrusted(second, HERE, 0.0), Datagram)


def test_what_is_no_whole_hello_is_dropped_and_counted(dtls: SimpleNamespace) -> None:
    _, _, hello = hello_of(start_client(dtls).drain()[0])
    message = HandshakeMessage(1, 1, hello.encode())
    too_little = pack_record(22, 1, message.fragment(0, 38))
    second_half = pack_record(22, 1, message.fragment(60, 500))
    exchange = make_exchange()
    for data, reason in (
        (b"", "record_truncated"),
        (b"\x16\xfe\xfd", "record_truncated"),
        (pack_record(23, 1, b"data"), "not_a_hello"),
        (pack_record(22, 1 << 48, b"sealed"), "not_a_hello"),
        (pack_record(22, 1, HandshakeMessage(16, 0, b"").fragment(0, 0)), "not_a_hello"),
        (repack(hello, sequence=9), "not_a_hello"),
        (repack(hello, record=(1 << 48) - 1), "not_a_hello"),
        (too_little, "truncated"),
        (second_half, "not_the_beginning_of_a_hello"),
        (repack(hello)[:-1], "record_truncated"),
    ):
        before = exchange.drops[reason]
        assert exchange.receive_untrusted(data, HERE, 0.0) is None
        assert exchange.drops[reason] == before + 1


def test_a_thousand_hellos_leave_nothing_behind(dtls: SimpleNamespace) -> None:
    exchange = make_exchange()

    def size() -> int:
        return sum(len(value) for value in vars(exchange).values() if hasattr(value, "__len__"))

    before = size()
    for number in range(1000):
        hello = ClientHello(0xFEFD, number.to_bytes(32, "big"), (0xC02B,))
        exchange.receive_untrusted(repack(hello), number.to_bytes(6, "big"), 0.0)
    assert size() == before


def test_only_a_server_follows_a_cookie_exchange(dtls: SimpleNamespace) -> None:
    with pytest.raises(LocalError):
        DtlsEndpoint(
            Role.CLIENT,
            Identity.generate(dtls.wall),
            peer_fingerprints=(),
            srtp_profiles=(),
            entropy=random.Random(1).randbytes,
            verified=VerifiedHello(1, 1),
        )
