"""The behaviours of DTLS 1.2 that the test names of BoringSSL's runner speak of, in our own words and tests.

Some of them have tests elsewhere in this folder; docs/conformance.md says which. Where the runner wants the handshake
to fail on what nobody has authenticated, we drop it and go on (RFC 6347 §4.1.2.7).
"""

from __future__ import annotations

import itertools
import math
import random
from types import SimpleNamespace

import pytest
from dtls_rogues import Talk

from protocol.dtls import DtlsConfig, Role
from protocol.dtls.fragments import HandshakeMessage, parse_fragments_untrusted
from protocol.dtls.messages import HelloVerifyRequest
from protocol.dtls.record12 import EPOCH_SHIFT, pack_record, split_records_untrusted
from protocol.dtls.registry import ContentType

SMALL = DtlsConfig(mtu=228, mtu_fallbacks=())
BOTH_ROLES = pytest.mark.parametrize("role", [Role.CLIENT, Role.SERVER], ids=lambda role: role.name.lower())


def in_records(datagrams: list[bytes]) -> list[bytes]:
    """Each record in a datagram of its own."""
    records = [record for data in datagrams for record in split_records_untrusted(data)[0]]
    return [pack_record(*record) for record in records]


def messages_in(datagrams: list[bytes]) -> list[HandshakeMessage]:
    """The messages of a flight in the clear, one fragment each."""
    records = [record for data in datagrams for record in split_records_untrusted(data)[0]]
    fragments = [fragment for record in records for fragment in parse_fragments_untrusted(record.fragment)]
    assert all(fragment.length == len(fragment.body) for fragment in fragments)
    return [HandshakeMessage(fragment.message_type, fragment.sequence, fragment.body) for fragment in fragments]


def handshake(*fragments: bytes) -> bytes:
    return pack_record(ContentType.HANDSHAKE, 500, b"".join(fragments))


def before_the_flight_for(dtls: SimpleNamespace, role: Role, config: DtlsConfig | None = None):
    """The side of this role, the other one, and the flight in several messages that the former is about to get."""
    client, server = dtls.make_pair(config=config)
    flight = [answer for data in client.drain() for answer in server.receive(data)]
    if role is Role.CLIENT:
        return client, server, flight
    return server, client, [answer for data in flight for answer in client.receive(data)]


def finish(dtls: SimpleNamespace, side, other, answers: list[bytes], now: float = 0.0) -> None:
    for data in answers:
        other.endpoint.receive_untrusted(data, now)
    dtls.run(side, other, now=now, until=now + 20)
    assert side.connected
    assert other.connected
    assert side.connected.srtp.local == other.connected.srtp.remote


# Retransmission


@BOTH_ROLES
def test_partial_progress_is_kept_and_the_timer_runs_on(dtls: SimpleNamespace, role: Role) -> None:
    side, other, flight = before_the_flight_for(dtls, role, SMALL)
    assert len(flight) >= 3
    due = side.endpoint.next_timeout()
    assert [side.receive(data, 0.01) for data in flight[:-1]] == [[]] * (len(flight) - 1)
    assert side.endpoint.next_timeout() == due
    assert side.timeout(due)  # the whole flight of ours, since nobody has answered it wholly
    answers = side.receive(flight[-1], due)  # and the missing piece is all that is needed
    assert answers
    finish(dtls, side, other, answers, due)


def test_a_wake_up_a_hair_too_early_leaves_the_timer_alone(dtls: SimpleNamespace) -> None:
    client, _ = dtls.make_pair()
    client.drain()
    due = client.endpoint.next_timeout()
    assert client.timeout(math.nextafter(due, 0.0)) == []
    assert client.endpoint.next_timeout() == due
    assert client.timeout(due)


def test_a_timeout_handled_in_small_steps_is_the_same_timeout(dtls: SimpleNamespace) -> None:
    for step in (0.001, 0.01, 0.05):
        client, _ = dtls.make_pair()
        client.drain()
        times = [0.0] + [n * step for n in range(1, round(2.0 / step) + 1) if client.timeout(n * step)]
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert len(waits) == 5
        for wait, due in zip(waits, (0.05, 0.1, 0.2, 0.4, 0.8)):
            assert due - 1e-9 < wait < due + 1.01 * step


@BOTH_ROLES
def test_an_impatient_peer_of_a_slow_reply_gets_it_once(dtls: SimpleNamespace, role: Role) -> None:
    """It has repeated its flight while we were thinking, and all copies are read together."""
    side, other, flight = before_the_flight_for(dtls, role)
    assert len(flight) == 1
    answers = [side.receive(flight[0], 0.3 + copy / 1000) for copy in range(5)]
    assert answers[0]
    assert answers[1:] == [[]] * 4
    assert side.endpoint.next_timeout() >= 0.35  # counted from the reply
    finish(dtls, side, other, answers[0], 0.31)


@BOTH_ROLES
def test_a_finished_in_fragments_connects_and_its_repetition_is_answered_once(
    dtls: SimpleNamespace, role: Role
) -> None:
    talk = Talk(dtls, role)
    talk.say("HCKVS" if role is Role.SERVER else "HCKQDS")
    talk.rogue.say("F", talk.next_number)  # made only
    finished = talk.rogue.said

    def pieces(now: float) -> list[list[bytes]]:
        parts = [finished.fragment(at, 5) for at in (10, 5, 0)]
        return [talk.side.receive(talk.rogue.protected(ContentType.HANDSHAKE, part), now) for part in parts]

    answers = pieces(0.0)
    assert talk.side.connected
    assert [bool(answer) for answer in answers] == [False, False, role is Role.SERVER]
    assert [bool(answer) for answer in pieces(1.0)] == [False, False, role is Role.SERVER]
    assert talk.side.closed is None


@BOTH_ROLES
def test_a_stray_repetition_of_finished_disturbs_nothing(dtls: SimpleNamespace, role: Role) -> None:
    talk = Talk(dtls, role)
    talk.say("HCKVSF" if role is Role.SERVER else "HCKQDSF")
    finished = talk.rogue.said.fragment(0, 100)
    for now in (1.0, 2.0, 3.0):
        answers = talk.side.receive(talk.rogue.protected(ContentType.HANDSHAKE, finished), now)
        assert bool(answers) is (role is Role.SERVER)  # only the server's last flight can still be missed
        talk.say("A", now)
    assert talk.side.received == [b"data"] * 3
    assert len(talk.side.events) == 4
    assert talk.side.endpoint.next_timeout() == math.inf


# Record numbers


def test_record_numbers_may_have_large_gaps(dtls: SimpleNamespace) -> None:
    talk = Talk(dtls, Role.SERVER)
    talk.say("HCKVSF")
    numbers = [10, 11, 1000, 1 << 16, 1 << 32, (1 << 32) + 300, (1 << 48) - 1]
    for number in numbers:
        talk.rogue.numbers = 0, 1 << EPOCH_SHIFT | number
        data = talk.rogue.say("A", 0)
        for _ in range(2):
            talk.side.receive(data)
    assert talk.side.received == [b"data"] * len(numbers)
    assert talk.side.endpoint.drops["record_replay"] == len(numbers)


def test_record_numbers_may_come_in_any_order_within_the_window(dtls: SimpleNamespace) -> None:
    talk = Talk(dtls, Role.SERVER)
    talk.say("HCKVSF")
    within = [999, *random.Random(4).sample(range(744, 999), 255)]
    for number in (*within, 744, 999, 743, 1):  # the last four have come already, or are behind the window
        talk.rogue.numbers = 0, 1 << EPOCH_SHIFT | number
        talk.say("A")
    assert len(talk.side.received) == 256
    assert talk.side.endpoint.drops["record_replay"] == 4


# Fragments


@BOTH_ROLES
@pytest.mark.parametrize("config", [SMALL, DtlsConfig()], ids=["small", "large"])
@pytest.mark.parametrize("order", ["reversed", "shuffled"])
def test_fragments_in_any_order_are_put_together(
    dtls: SimpleNamespace, role: Role, config: DtlsConfig, order: str
) -> None:
    side, other, flight = before_the_flight_for(dtls, role, config)
    pieces = in_records(flight)
    assert len(pieces) >= 5
    if order == "reversed":
        pieces.reverse()
    else:
        random.Random(6).shuffle(pieces)
    answers = [answer for data in pieces for answer in side.receive(data)]
    finish(dtls, side, other, answers)


@pytest.mark.parametrize("first_whole", [False, True])
def test_whole_messages_and_fragments_of_them_may_be_mixed(dtls: SimpleNamespace, first_whole: bool) -> None:
    client, server, flight = before_the_flight_for(dtls, Role.CLIENT)
    answers = []
    for message in messages_in(flight):
        half = len(message.body) // 2
        parts = [message.fragment(0, half), message.fragment(half, 5000)]
        whole = message.fragment(0, 5000)
        mixed = [whole, *parts] if first_whole else [parts[0], whole, parts[1]]
        answers += client.receive(handshake(*mixed))
    finish(dtls, client, server, answers)


def test_a_message_beyond_the_window_is_discarded_and_one_within_is_kept(dtls: SimpleNamespace) -> None:
    talk = Talk(dtls, Role.SERVER)
    talk.say("H")
    for number, kept in ((8, True), (9, False), (0xFFFF, False)):
        before = talk.side.endpoint.drops["message_too_early"]
        talk.side.receive(handshake(HandshakeMessage(11, number, b"early").fragment(0, 5)))
        assert (talk.side.endpoint.drops["message_too_early"] == before) is kept
    talk.say("CKVSF")
    assert talk.side.connected


@BOTH_ROLES
@pytest.mark.parametrize("change", ["type", "length"])
@pytest.mark.parametrize("wrong_first", [False, True])
def test_fragments_of_another_type_or_length_are_never_put_together(
    dtls: SimpleNamespace, role: Role, change: str, wrong_first: bool
) -> None:
    side, other, flight = before_the_flight_for(dtls, role)
    records = split_records_untrusted(flight[0])[0]
    fragment = parse_fragments_untrusted(records[0].fragment)[0]
    good = HandshakeMessage(fragment.message_type, fragment.sequence, fragment.body)
    bad = good._replace(message_type=16) if change == "type" else good._replace(body=good.body + b"x")
    half = len(good.body) // 2
    pieces = [good.fragment(0, half), bad.fragment(half, 5000)]
    for piece in reversed(pieces) if wrong_first else pieces:
        assert side.receive(handshake(piece)) == []
    assert side.endpoint.drops["fragment_mismatch"] == 1
    assert side.endpoint._association._reassembler.next_sequence == good.sequence
    answers = [answer for data in flight for answer in side.receive(data)]
    assert side.endpoint.drops["fragment_mismatch"] <= 2
    finish(dtls, side, other, answers)


@BOTH_ROLES
@pytest.mark.parametrize("cut", [1, 11, 12, 13, 40], ids=lambda cut: f"after {cut}")
def test_a_fragment_is_not_split_between_records(dtls: SimpleNamespace, role: Role, cut: int) -> None:
    """Not in its header, nor behind it, nor in its body: each record stands for itself, and half a fragment is none."""
    side, other, flight = before_the_flight_for(dtls, role)
    record = split_records_untrusted(flight[0])[0][0]
    for part in (record.fragment[:cut], record.fragment[cut:]):
        assert side.receive(pack_record(ContentType.HANDSHAKE, 400, part)) == []
    assert side.endpoint.drops["fragment_truncated"] >= 1
    answers = [answer for data in flight for answer in side.receive(data)]
    finish(dtls, side, other, answers)


@BOTH_ROLES
def test_empty_fragments_around_each_message_do_no_harm(dtls: SimpleNamespace, role: Role) -> None:
    side, other, flight = before_the_flight_for(dtls, role)
    answers = []
    for data in in_records(flight):
        record = split_records_untrusted(data)[0][0]
        if record.content_type == ContentType.HANDSHAKE and not record.epoch:
            fragment = parse_fragments_untrusted(record.fragment)[0]
            message = HandshakeMessage(fragment.message_type, fragment.sequence, fragment.body)
            empty = [message.fragment(at, 0) for at in (0, len(message.body) // 2, len(message.body))]
            answers += side.receive(handshake(*empty * 20, record.fragment, *empty * 20))
        else:
            answers += side.receive(data)
    finish(dtls, side, other, answers)


# What should not have been sent


BAD_PACKETS = [
    b"",
    b"\x16",
    bytes(100),
    pack_record(ContentType.HANDSHAKE, 900, bytes(11)),
    pack_record(ContentType.HANDSHAKE, 900, b"\x01" + b"\xff" * 40),
    pack_record(ContentType.ALERT, 900, b"\2"),
    pack_record(ContentType.CHANGE_CIPHER_SPEC, 900, b"\2"),
    pack_record(ContentType.APPLICATION_DATA, 900, b"in the clear"),
    pack_record(ContentType.APPLICATION_DATA, 1 << EPOCH_SHIFT | 900, bytes(40)),
    pack_record(ContentType.APPLICATION_DATA, 2 << EPOCH_SHIFT | 900, bytes(40)),
    pack_record(24, 900, b"heartbeat"),
    pack_record(ContentType.HANDSHAKE, 900, bytes(40), version=0x0303),
]


def test_bad_packets_between_all_others_are_ignored(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    sides = (client, server)

    def fate(way: int, _count: int, data: bytes) -> list[float]:
        flipped = bytearray(data)
        flipped[-1] ^= 1
        for bad in (data[:12], data[:13] + bytes(len(data) - 13), *BAD_PACKETS):
            assert sides[1 - way].receive(bad) == []
        if data[0] == ContentType.APPLICATION_DATA:
            assert sides[1 - way].receive(bytes(flipped)) == []
        return [0.001]

    dtls.run(client, server, fate)
    client.endpoint.send(b"ping", 1.0)
    dtls.run(client, server, fate, now=1.0)
    server.endpoint.send(b"pong", 2.0)
    dtls.run(client, server, fate, now=2.0)
    assert (client.received, server.received) == ([b"pong"], [b"ping"])
    assert (len(client.sent), len(server.sent)) == (3, 3)


@BOTH_ROLES
def test_application_data_before_the_handshake_is_dropped(dtls: SimpleNamespace, role: Role) -> None:
    talk = Talk(dtls, role)
    talk.say("AA")
    assert talk.side.receive(talk.rogue.protected(ContentType.APPLICATION_DATA, b"early")) == []
    talk.say("HCKVSFA" if role is Role.SERVER else "HCKQDSFA")
    assert talk.side.received == [b"data"]


@BOTH_ROLES
@pytest.mark.parametrize("how", ["after", "before", "in one record", "in one datagram"])
def test_an_extra_finished_is_dropped(dtls: SimpleNamespace, role: Role, how: str) -> None:
    talk = Talk(dtls, role)
    talk.say("HCKVS" if role is Role.SERVER else "HCKQDS")
    number = talk.next_number
    talk.rogue.say("F", number)  # made only
    finished = talk.rogue.said
    extra = finished._replace(sequence=number + 1)
    parts = [finished.fragment(0, 100), extra.fragment(0, 100)]
    if how == "before":
        parts.reverse()
    if how == "in one record":
        parts = [b"".join(parts)]
    datagrams = [talk.rogue.protected(ContentType.HANDSHAKE, part) for part in parts]
    if how == "in one datagram":
        datagrams = [b"".join(datagrams)]
    for data in datagrams:
        talk.side.receive(data)
    assert talk.side.connected
    assert talk.side.closed is None
    drops = talk.side.endpoint.drops
    assert drops["handshake_after_connected"] + drops["message_unexpected"] == 1
    talk.say("A")
    assert talk.side.received == [b"data"]


def test_application_data_may_be_packed_into_a_datagram_but_a_record_is_never_split(dtls: SimpleNamespace) -> None:
    client, server = dtls.connect()
    for data in (b"one", b"", b"two", b"three"):
        client.endpoint.send(data, 1.0)
    records = client.drain()
    packed = b"".join(records)
    server.receive(packed[:-1], 1.0)
    assert server.received == [b"one", b"", b"two"]
    server.receive(packed[-1:], 1.0)
    assert server.received == [b"one", b"", b"two"]
    server.receive(records[-1], 1.0)
    assert server.received == [b"one", b"", b"two", b"three"]
    assert server.endpoint.drops["record_truncated"] == 2


@pytest.mark.parametrize("length", [0, 1, 32, 255])
def test_a_cookie_of_any_length_is_brought_back(dtls: SimpleNamespace, length: int) -> None:
    talk = Talk(dtls, Role.CLIENT)
    cookie = bytes(range(length))
    (hello,) = talk.side.receive(talk.rogue.message(HelloVerifyRequest(0xFEFF, cookie), 0))
    assert hello[25 + 34] == 0  # no session identifier
    assert hello[25 + 35 : 25 + 36 + length] == bytes((length,)) + cookie
    talk.number = 1
    talk.rogue.learn(True, [hello])
    talk.say("HCKQDSF")
    assert talk.side.connected


@BOTH_ROLES
@pytest.mark.parametrize(("kind", "limit"), [(1, 16_384), (11, 32_768), (12, 8_192), (16, 8_192)])
def test_a_message_too_large_for_its_type_is_refused_by_its_first_fragment(
    dtls: SimpleNamespace, role: Role, kind: int, limit: int
) -> None:
    side, other, flight = before_the_flight_for(dtls, role)
    number = side.endpoint._association._reassembler.next_sequence + 1
    for length, refused in ((limit, 0), (limit + 1, 1), (0xFFFFFF, 2)):
        header = bytes((kind, *length.to_bytes(3, "big"), *number.to_bytes(2, "big"), 0, 0, 0, 0, 0, 1))
        side.receive(handshake(header + b"x"))
        assert side.endpoint.drops["message_too_long"] == refused
    answers = [answer for data in flight for answer in side.receive(data)]
    finish(dtls, side, other, answers)
