"""Handshakes over networks that lose, repeat, reorder and shrink: RFC 6347 §4.2.4, §4.1.1.1. All in virtual time."""

from __future__ import annotations

import itertools
import random
from types import SimpleNamespace

import pytest

from protocol.dtls import DtlsConfig, Role
from protocol.dtls.groups import X25519
from protocol.errors import LocalError

NORMAL = 0.001


def connected(client, server) -> bool:
    return client.connected is not None and server.connected is not None


@pytest.mark.parametrize("direction", [0, 1], ids=["from the client", "from the server"])
@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("delays", [[], [NORMAL, NORMAL], [0.03], [0.2], [NORMAL, 0.5]], ids=str)
def test_any_one_of_the_first_datagrams_may_be_lost_repeated_or_late(
    dtls: SimpleNamespace, direction: int, number: int, delays: list[float]
) -> None:
    client, server = dtls.make_pair(config=DtlsConfig(mtu=160))  # six datagrams a side at least

    def fate(way: int, count: int, _data: bytes) -> list[float]:
        return delays if (way, count) == (direction, number) else [NORMAL]

    dtls.run(client, server, fate)
    assert connected(client, server)
    assert client.connected.srtp.local == server.connected.srtp.remote
    assert len(client.events) == len(server.events) == 1


@pytest.mark.parametrize("first", range(5))
@pytest.mark.parametrize("second", range(5))
def test_any_two_of_the_first_datagrams_of_both_sides_may_be_lost(
    dtls: SimpleNamespace, first: int, second: int
) -> None:
    client, server = dtls.make_pair()
    lost = {(0, first), (1, second)}
    dtls.run(client, server, lambda way, count, _: [] if (way, count) in lost else [NORMAL])
    assert connected(client, server)


def matrix(disturbed: dict[int, str]):
    """Counts the datagrams of both sides as they leave; those named are dropped, doubled or swapped with the next."""
    number = -1

    def fate(_way: int, _count: int, _data: bytes) -> list[float]:
        nonlocal number
        number += 1
        match disturbed.get(number):
            case "dropped":
                return []
            case "doubled":
                return [NORMAL, NORMAL]
            case "swapped":
                return [NORMAL + (number + 1.5) * 1e-6]
            case _:
                return [NORMAL + number * 1e-6]

    return fate


FATES = ("dropped", "doubled", "swapped")
DISTURBED = [{number: fate} for number in range(10) for fate in FATES]
DISTURBED += [
    {first: fate, second: other}
    for first, second in itertools.combinations(range(10), 2)
    for fate, other in itertools.product(FATES, repeat=2)
]


@pytest.mark.slow
@pytest.mark.parametrize("mtu", [1200, 160])  # four datagrams in all, and twelve
def test_each_of_the_first_ten_datagrams_dropped_doubled_or_swapped_alone_and_in_pairs(
    dtls: SimpleNamespace, mtu: int
) -> None:
    assert len(DISTURBED) == 30 + 45 * 9
    client, server = dtls.connect(config=DtlsConfig(mtu=mtu, groups=(X25519,)))
    assert len(client.sent) + len(server.sent) == (4 if mtu == 1200 else 12)
    for disturbed in DISTURBED:
        client, server = dtls.make_pair(config=DtlsConfig(mtu=mtu, groups=(X25519,)))
        at = dtls.run(client, server, matrix(disturbed))
        assert connected(client, server), disturbed
        assert client.connected.srtp.local == server.connected.srtp.remote, disturbed
        assert len(client.events) == len(server.events) == 1, disturbed
        assert at < 1.0, disturbed


def test_a_hundred_handshakes_over_a_terrible_network(dtls: SimpleNamespace) -> None:
    for seed in range(100):
        client, server = dtls.make_pair(seed=seed)
        dtls.run(client, server, dtls.lossy(seed, loss=0.2, duplicates=0.3, jitter=0.08))
        assert connected(client, server), seed
        assert client.connected.srtp.local == server.connected.srtp.remote
        assert client.closed is None
        assert server.closed is None


def test_with_a_fifth_lost_every_handshake_is_done_in_five_seconds(dtls: SimpleNamespace) -> None:
    for seed in range(100):
        client, server = dtls.make_pair(seed=seed)
        dtls.run(client, server, dtls.lossy(seed + 1000, loss=0.2, duplicates=0.0, jitter=0.02), until=5.0)
        assert connected(client, server), seed


@pytest.mark.parametrize("round_trip", [0.001, 0.04, 0.12, 0.3, 0.9])
def test_round_trips_longer_than_the_timer_do_no_harm(dtls: SimpleNamespace, round_trip: float) -> None:
    client, server = dtls.make_pair()
    dtls.run(client, server, lambda *_: [round_trip / 2])
    assert connected(client, server)
    assert len(client.events) == len(server.events) == 1


def test_the_timer_doubles_and_then_stays(dtls: SimpleNamespace) -> None:
    client = dtls.make_side(Role.CLIENT, config=DtlsConfig(retransmit_initial=0.05, retransmit_maximum=0.4))
    client.endpoint.start(0.0)
    client.drain()
    times = []
    for _ in range(6):
        times.append(client.endpoint.next_timeout())
        assert client.timeout(times[-1])
    assert times == pytest.approx([0.05, 0.15, 0.35, 0.75, 1.15, 1.55])


def test_an_early_or_repeated_wake_up_sends_nothing(dtls: SimpleNamespace) -> None:
    client = dtls.make_side(Role.CLIENT)
    client.endpoint.start(0.0)
    client.drain()
    assert client.timeout(0.049) == []
    assert client.timeout(0.05) != []
    assert client.timeout(0.05) == []


def test_retransmitted_records_have_new_numbers(dtls: SimpleNamespace) -> None:
    client = dtls.make_side(Role.CLIENT)
    client.endpoint.start(0.0)
    first = client.drain()
    again = client.timeout(0.05)
    assert [data[:5] + data[11:] for data in first] == [data[:5] + data[11:] for data in again]
    assert [data[5:11] for data in first] != [data[5:11] for data in again]


def test_a_handshake_that_nobody_answers_ends(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    dtls.run(client, server, lambda *_: [], until=60.0)
    for side in (client, server):
        assert side.closed.reason == "handshake_timeout"
        assert side.endpoint.next_timeout() == float("inf")
    assert len(client.sent) <= DtlsConfig().flight_sendings


@pytest.mark.parametrize("limit", [600, 548, 400, 256])
def test_a_path_that_swallows_large_datagrams_is_passed_in_small_ones(dtls: SimpleNamespace, limit: int) -> None:
    client, server = dtls.make_pair()
    at = dtls.run(client, server, lambda _way, _n, data: [NORMAL] if len(data) <= limit else [], until=5.0)
    assert connected(client, server)
    assert at < 5.0


def test_a_flight_shrinks_step_by_step_and_the_next_one_begins_small(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    for data in client.drain():
        server.receive(data)
    longest = [max(map(len, server.sent))]
    longest += [max(map(len, server.timeout(server.endpoint.next_timeout()))) for _ in range(8)]
    assert longest[0] == longest[1] == longest[2] > 548
    assert 256 < longest[3] == longest[4] == longest[5] <= 548
    assert longest[6] == longest[7] == longest[8] <= 256
    server.sent.clear()
    dtls.run(client, server, now=20.0, until=21.0)
    assert connected(client, server)
    assert max(map(len, server.sent)) <= 256


def test_a_flight_that_is_answered_in_time_does_not_shrink(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    dtls.run(client, server, lambda _way, count, _: [] if count < 2 else [NORMAL])
    assert connected(client, server)
    assert max(map(len, server.sent)) > 548


@pytest.mark.parametrize("mtu", [128, 228, 300, 548, 1200])
def test_no_datagram_is_longer_than_the_mtu(dtls: SimpleNamespace, mtu: int) -> None:
    client, server = dtls.connect(config=DtlsConfig(mtu=mtu, mtu_fallbacks=(228,)))
    client.endpoint.send(bytes(client.endpoint.maximum_application_data), 1.0)
    client.drain()
    assert max(map(len, client.sent + server.sent)) <= mtu
    assert len(client.sent[-1]) == mtu
    with pytest.raises(LocalError):
        client.endpoint.send(bytes(client.endpoint.maximum_application_data + 1), 1.0)


def test_with_the_usual_mtu_each_flight_is_one_datagram(dtls: SimpleNamespace) -> None:
    client, server = dtls.connect()
    assert len(client.sent) == 2
    assert len(server.sent) == 2


def test_the_last_flight_is_sent_again_when_the_client_shows_that_it_has_not_seen_it(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    lost = 0

    def fate(way: int, count: int, _data: bytes) -> list[float]:
        nonlocal lost
        if way == 1 and 1 <= count <= 3:  # the server's last flight, three times
            lost += 1
            return []
        return [NORMAL]

    at = dtls.run(client, server, fate)
    assert lost == 3
    assert connected(client, server)
    assert at < 5.0
    assert len(server.of(type(server.connected))) == 1


@pytest.mark.parametrize(("at", "is_remembered"), [(119.0, True), (121.0, False)])
def test_the_last_flight_is_forgotten_in_the_end(dtls: SimpleNamespace, at: float, is_remembered: bool) -> None:
    client, server = dtls.make_pair()
    dtls.run(client, server, lambda way, count, _: [] if (way, count) == (1, 1) else [NORMAL], until=0.04)
    assert server.connected
    again = client.timeout(client.endpoint.next_timeout())
    assert again
    assert any(server.receive(data, at) for data in again) is is_remembered


def test_a_repeated_client_flight_with_the_same_record_numbers_is_answered_again(dtls: SimpleNamespace) -> None:
    """werift repeats record numbers: the replay window refuses its second Finished, its second hello must pass."""
    client, server = dtls.make_pair()
    hello = client.drain()
    flight4 = [answer for data in hello for answer in server.receive(data, 0.0)]
    assert [answer for data in hello for answer in server.receive(data, 0.1)]
    flight5 = [answer for data in flight4 for answer in client.receive(data, 0.2)]
    assert [answer for data in flight5 for answer in server.receive(data, 0.3)]
    again = [answer for data in flight5 for answer in server.receive(data, 0.4)]
    assert server.endpoint.drops["record_replay"]
    for data in again:
        client.receive(data, 0.5)
    assert connected(client, server)


def test_one_repetition_in_many_datagrams_is_answered_once(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair(client_config=DtlsConfig(mtu=228, mtu_fallbacks=(228,)))
    hello = client.drain()
    for data in hello:
        server.receive(data, 0.0)
    answers = [server.receive(data, 0.05) for data in hello for _ in range(3)]
    assert len([answer for answer in answers if answer]) == 1


def test_repetitions_beyond_their_allowance_do_not_put_off_the_timer(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    hello = client.drain()
    now = 0.0
    while any(server.receive(data, now) for data in hello):
        now += 0.02
    due = server.endpoint.next_timeout()
    for _ in range(10):
        now += 0.02
        assert [server.receive(data, now) for data in hello] == [[]] * len(hello)
    assert server.endpoint.next_timeout() == due
    assert server.timeout(due)


def test_application_data_that_overtakes_the_last_flight_is_delivered_after_it(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    flight4 = [answer for data in client.drain() for answer in server.receive(data)]
    flight5 = [answer for data in flight4 for answer in client.receive(data)]
    flight6 = [answer for data in flight5 for answer in server.receive(data)]
    server.endpoint.send(b"early", 0.0)
    for data in server.drain() + flight6:
        client.receive(data)
    assert [type(event).__name__ for event in client.events] == ["Connected", "ApplicationData"]
    assert client.received == [b"early"]


def test_early_records_are_held_in_bounded_number(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair()
    flight4 = [answer for data in client.drain() for answer in server.receive(data)]
    flight5 = [answer for data in flight4 for answer in client.receive(data)]
    flight6 = [answer for data in flight5 for answer in server.receive(data)]
    for number in range(100):
        server.endpoint.send(b"%d" % number, 0.0)
    for data in server.drain() + flight6:
        client.receive(data)
    assert client.received == [b"%d" % number for number in range(8)]
    assert client.endpoint.drops["record_early"] == 92


def test_shuffled_doubled_and_replayed_handshakes_deliver_nothing_twice(dtls: SimpleNamespace) -> None:
    for seed in range(10):
        chance = random.Random(seed)
        client, server = dtls.make_pair(seed=seed, config=DtlsConfig(mtu=300, mtu_fallbacks=(300,)))
        for _ in range(12):
            datagrams = client.drain() * 2
            chance.shuffle(datagrams)
            for data in datagrams:
                server.receive(data, 0.0)
            datagrams = server.sent * 2
            chance.shuffle(datagrams)
            for data in datagrams:
                client.receive(data, 0.0)
            for data in client.sent:
                server.receive(data, 0.0)
        assert connected(client, server)
        for number in range(5):
            client.endpoint.send(b"%d" % number, 1.0)
        datagrams = client.drain() * 3
        chance.shuffle(datagrams)
        for data in datagrams:
            server.receive(data, 1.0)
        assert sorted(server.received) == [b"%d" % number for number in range(5)]
        assert server.endpoint.drops["record_replay"] >= 10


def test_equal_seeds_give_equal_hellos(dtls: SimpleNamespace) -> None:
    hellos = []
    for _ in range(2):
        client = dtls.make_side(Role.CLIENT, seed=9)
        client.endpoint.start(0.0)
        hellos.append(client.drain())
    assert hellos[0] == hellos[1]
