"""A relay that begins anew, and transceivers that tell it their calls: both sides in virtual time, without a network."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import Path, TransportAddress, pack_address
from protocol.errors import DecodeError
from protocol.routing import (
    NO_BOOT,
    Frame,
    KeyRing,
    RoutingConfig,
    Trunk,
    TrunkKind,
    announce,
    hello,
    read_hello_untrusted,
)
from relay.config import RelayConfig
from relay.core import RelayCore
from relay.index import flow_words
from transceiver.outbox import relay_local
from transceiver.relays import HELLO_SECONDS, Relays

ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,))
KEYS, TRUNK = KeyRing.parse(ROUTING), Trunk.parse(ROUTING)
RELAY = pack_address("127.0.0.1", 3479)
ENGINE = pack_address("127.0.0.1", 4000)


def client(number: int) -> TransportAddress:
    return pack_address(f"198.51.{number >> 8}.{number & 255}", 50000)


def new_core(boot: bytes = b"boot-001", **settings_: object) -> RelayCore:
    config = RelayConfig(listen=("127.0.0.1:0", "127.0.0.2:0"), **settings_)  # type: ignore[arg-type]
    return RelayCore(config, KEYS, TRUNK, wall_time=lambda: 0.0, boot=boot)


class Exchange:
    """One relay worker, one transceiver; what one sends arrives at the other at once."""

    def __init__(self, paths: list[Path | None]) -> None:
        self.now = 100.0
        self.core = new_core()
        self.paths = paths
        self.relays = Relays(TRUNK, 1452, lambda: iter(list(self.paths)))
        self.up = self.down = 0  # datagrams that are not frames

    def frames_come_from_the_relay(self) -> None:
        self.relays.heard(RELAY, self.now)

    def transceiver_says(self, datagrams: list[bytes]) -> None:
        self.core.receive_trunk_untrusted([(memoryview(data), ENGINE) for data in datagrams], self.now)
        self.settle()

    def settle(self) -> None:
        for _ in range(50):
            quiet = True
            for data, to in self.core.greeter.take():
                assert to == ENGINE
                self.down += 1
                self.relays.hear_untrusted(data, RELAY, self.now)
                quiet = False
            sent = self.relays.handle_timeout(self.now)
            for data, to in sent:
                assert to == RELAY
                self.up += 1
                self.core.receive_trunk_untrusted([(memoryview(data), ENGINE)], self.now)
                quiet = False
            if quiet and self.relays.next_timeout() > self.now:
                return
        raise AssertionError("they never stop talking")

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.relays.next_timeout() <= until:
            self.now = max(self.now, self.relays.next_timeout())
            self.settle()
        self.now = until

    def target(self, number: int, ingress: int = 0) -> TransportAddress | None:
        flows = self.core.flows
        row = flows.find_words(flow_words(client(number), ingress))
        return flows.transceivers.addresses[flows.cells.target[row]] if row else None


def calls(count: int, ingress: int = 0) -> list[Path | None]:
    return [Path(relay_local(RELAY, ingress), client(number)) for number in range(count)]


def test_all_calls_are_back_with_the_first_word_of_the_transceiver():
    exchange = Exchange([*calls(1500), None, Path(b"", client(9000)), Path(relay_local(ENGINE, 0), client(9001))])
    exchange.frames_come_from_the_relay()
    exchange.transceiver_says(TRUNK.encode([Frame(client(3), 0, b"\x80 a reply")], 1452))
    assert exchange.core.flows.established == 1500
    assert exchange.target(1499) == ENGINE
    assert exchange.target(9000) is exchange.target(9001) is None
    assert ENGINE in exchange.core.greeter.known
    assert exchange.down == 1


def test_a_relay_that_was_restarted_while_nobody_speaks_is_told_within_fifty_milliseconds():
    exchange = Exchange(calls(3, ingress=1))
    exchange.frames_come_from_the_relay()
    exchange.transceiver_says(TRUNK.encode([Frame(client(0), 1, b"\x80 a reply")], 1452))
    exchange.core = new_core(b"boot-002")
    assert exchange.core.flows.established == 0
    exchange.sleep(HELLO_SECONDS)
    assert [exchange.target(number, 1) for number in range(3)] == [ENGINE] * 3


def test_a_transceiver_that_hears_its_callers_says_nothing_of_itself():
    exchange = Exchange(calls(3))
    exchange.frames_come_from_the_relay()
    exchange.transceiver_says(TRUNK.encode([Frame(client(0), 0, b"\x80 a reply")], 1452))
    up = exchange.up
    for _ in range(100):
        exchange.sleep(0.02)
        exchange.frames_come_from_the_relay()
    assert exchange.up == up


def test_a_relay_without_calls_is_spoken_to_no_more():
    exchange = Exchange(calls(1))
    exchange.frames_come_from_the_relay()
    exchange.sleep(60)
    assert exchange.relays.next_timeout() == math.inf
    assert 700 < exchange.up < 850  # 40 s, twenty times a second


def test_a_relay_that_is_not_told_asks_again_but_not_more_often_than_every_fifty_milliseconds():
    core, greeted = new_core(), 0
    frame = TRUNK.encode([Frame(client(0), 0, b"\x80 a reply")], 1452)[0]
    for step in range(1000):
        core.receive_trunk_untrusted([(memoryview(frame), ENGINE)], step / 1000)
        greeted += len(core.greeter.take())
    assert 18 <= greeted <= 21


def test_the_answer_to_a_stranger_is_never_longer_than_his_datagram():
    core = new_core()
    longest = 0
    for data in (
        hello(TRUNK, NO_BOOT),
        hello(TRUNK, b"another!"),
        *TRUNK.encode([Frame(client(0), 0, b"")], 1452),
        *announce(TRUNK, b"another!", 0, [client(1)], 1452),
    ):
        core.receive_trunk_untrusted([(memoryview(data), ENGINE)], 0.0)
        answers = core.greeter.take()
        assert sum(len(answer) for answer, _ in answers) <= len(data)
        longest = max([longest, *(len(answer) for answer, _ in answers)])
    assert longest == 24
    core.receive_trunk_untrusted([(memoryview(hello(TRUNK, NO_BOOT)), pack_address("192.0.2.1", 1))], 0.0)
    assert core.greeter.take() == []  # outside the prefix
    assert core.drops["trunk_source"] == 1


def test_an_announcement_from_before_a_restart_is_void():
    core = new_core(b"boot-002")
    [old] = announce(TRUNK, b"boot-001", 0, [client(1)], 1452)
    core.receive_trunk_untrusted([(memoryview(old), ENGINE)], 0.0)
    assert core.flows.established == 0
    assert core.drops["trunk_boot"] == 1


def test_an_announcement_takes_no_flow_from_another_transceiver():
    core = new_core()
    [told] = announce(TRUNK, b"boot-001", 0, [client(1)], 1452)
    core.receive_trunk_untrusted([(memoryview(told), ENGINE)], 0.0)
    core.receive_trunk_untrusted([(memoryview(told), pack_address("127.0.0.1", 4001))], 1.0)
    row = core.flows.find_words(flow_words(client(1), 0))
    assert core.flows.transceivers.addresses[core.flows.cells.target[row]] == ENGINE


def test_announced_flows_have_the_bound_of_all_others_and_can_be_refused():
    core = new_core(max_flows=5)
    [told] = announce(TRUNK, b"boot-001", 0, [client(number) for number in range(9)], 1452)
    core.receive_trunk_untrusted([(memoryview(told), ENGINE)], 0.0)
    assert core.flows.established == 5
    assert core.not_learned["table_full"] == 4
    core = new_core(learn_from_replies=False)
    core.receive_trunk_untrusted([(memoryview(told), ENGINE)], 0.0)
    assert core.flows.established == 0
    [elsewhere] = announce(TRUNK, b"boot-001", 2, [client(1)], 1452)
    core.receive_trunk_untrusted([(memoryview(elsewhere), ENGINE)], 0.0)
    assert core.drops["trunk_ingress"] == 1


def test_a_recorded_hello_makes_no_flood_of_announcements():
    exchange = Exchange(calls(500))
    exchange.frames_come_from_the_relay()
    exchange.transceiver_says(TRUNK.encode([Frame(client(0), 0, b"\x80 a reply")], 1452))
    before = exchange.up
    for number in range(200):  # within 20 ms
        exchange.now += 0.0001
        exchange.relays.hear_untrusted(hello(TRUNK, b"old-%04d" % number), RELAY, exchange.now)
        exchange.settle()
    assert exchange.up - before < 20
    exchange.sleep(1)
    assert exchange.core.flows.established == 500


def test_only_relays_that_brought_frames_are_spoken_to():
    relays = Relays(TRUNK, 1452, lambda: iter(()))
    with pytest.raises(DecodeError, match="trunk_stranger"):
        relays.hear_untrusted(hello(TRUNK, b"boot-001"), RELAY, 0.0)
    relays.heard(RELAY, 0.0)
    for data in (hello(TRUNK, NO_BOOT), *announce(TRUNK, b"boot-001", 0, [client(1)], 1452)):
        with pytest.raises(DecodeError):
            relays.hear_untrusted(data, RELAY, 0.0)
    for number in range(1000):
        relays.heard(pack_address("127.1.0.0", number + 1), number / 1000)
    assert len(relays.handle_timeout(10.0)) <= 256


def test_what_is_slow_to_look_through_is_looked_through_in_slices():
    looked = 0

    def walk() -> Iterator[Path | None]:
        nonlocal looked
        for path in calls(2000):
            looked += 1
            yield path

    relays = Relays(TRUNK, 1452, walk)
    relays.heard(RELAY, 0.0)
    relays.hear_untrusted(hello(TRUNK, b"boot-001"), RELAY, 0.0)
    turns = 0
    while relays.next_timeout() <= 0.0:
        before, turns = looked, turns + 1
        out = relays.handle_timeout(0.0)
        assert looked - before <= 512
    assert turns == 4
    assert read_hello_untrusted(out[-1][0]) == b"boot-001"
    assert {TRUNK.open_untrusted(data).kind for data, _ in out} == {TrunkKind.ANNOUNCE, TrunkKind.HELLO}


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=20))
def test_no_bytes_on_the_trunk_harm_either_side(datagrams: list[tuple[bool, bytes]]):
    core, relays = new_core(), Relays(TRUNK, 1452, lambda: iter(calls(3)))
    relays.heard(RELAY, 0.0)
    for genuine, data in datagrams:
        if genuine:  # signed, and whatever it says
            data = (
                hello(TRUNK, data[:8].ljust(8, b"\0"))
                if len(data) < 30
                else announce(TRUNK, data[:8], 0, [client(1)], 0)[0]
            )
        core.receive_trunk_untrusted([(memoryview(data), ENGINE)], 0.0)
        try:
            relays.hear_untrusted(data, RELAY, 0.0)
        except DecodeError:
            continue
        relays.handle_timeout(0.0)
