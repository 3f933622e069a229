# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""The short way of audio through a transceiver: almost all of it, and nothing but it; with the echo in the process."""

from __future__ import annotations

import os
import random
import socket
from collections import Counter
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import Path, pack_address
from protocol.codecs import OPUS
from protocol.ice import SendTo
from protocol.routing import RoutingConfig, Trunk
from protocol.srtp import library_named
from transceiver.backends.internal import EchoAgent
from transceiver.backends.pool import AgentPool
from transceiver.config import INTERNAL_AGENTS, TransceiverConfig
from transceiver.outbox import MAX_FRAMES, SLOTS, Outbox, relay_local
from transceiver.session.session import Session
from udpio import MemoryNetwork, SocketOptions, Tick, bind_udp, open_udp
from udpio.plain import PlainSocket

TRUNK = Trunk.parse(RoutingConfig(keys=("1:" + "11" * 32,), prefix="127.0.0.0/8", trunk_keys=("22" * 32,)))
CLIENT = pack_address("192.0.2.1", 5000)
CLIENT6 = pack_address("2001:db8::1", 5000)


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What the ordinary way does, once it is asked for."""
    counted: Counter[str] = Counter()
    receive, play = Session.receive_untrusted, Session.handle_backend

    def received(self: Session, data: bytes, *rest: Any) -> None:
        counted["received"] += data[0] >= 128 and not 192 <= data[1] < 224
        receive(self, data, *rest)

    def played(self: Session, *rest: Any) -> None:
        counted["played"] += type(rest[1]).__name__ == "MediaRecord"
        play(self, *rest)

    monkeypatch.setattr(Session, "receive_untrusted", received)
    monkeypatch.setattr(Session, "handle_backend", played)
    return counted


@pytest.mark.parametrize("relayed", [False, True], ids=["direct", "by a relay"])
async def test_of_fifty_frames_all_but_the_first_take_the_short_way_both_ways(
    autojump_clock: Any, world: Any, wait_until: Any, caller_class: Any, ordinary: Counter[str], relayed: bool
):
    sockets = (world.relayed(pack_address("203.0.113.5", 777)),) if relayed else ()
    caller, _ = await world.live_call(**({"caller": caller_class(*sockets)} if relayed else {}))
    for number in range(50):
        caller.speak(OPUS.silence + bytes([number]))
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.audio) == 50)
    assert [packet.payload[-1] for packet in caller.audio] == list(range(50))
    assert [packet.sequence - caller.audio[0].sequence & 0xFFFF for packet in caller.audio] == list(range(50))
    assert ordinary["received"] <= 2
    assert ordinary["played"] <= 2


async def test_one_datagram_that_no_slot_holds_sends_none_of_its_batch_the_long_way(
    autojump_clock: Any, world: Any, wait_until: Any, ordinary: Counter[str]
):
    caller, _ = await world.live_call()
    stranger = world.network.open("127.0.0.9")
    for number in range(50):
        stranger.send_batch([(bytes(3000), world.address)])
        caller.speak(OPUS.silence + bytes([number]))
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.audio) == 50)
    assert ordinary["received"] <= 2


async def test_a_call_that_moves_keeps_its_audio_and_takes_the_short_way_again(
    autojump_clock: Any, world: Any, wait_until: Any, ordinary: Counter[str]
):
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    for number in range(10):
        caller.speak(OPUS.silence + bytes([number]))
        await trio.sleep(0.02)
    first = session.route
    assert first is not None
    session.peer.ice.selected = Path(*session.peer.ice.selected)  # selected anew: another path of the same name
    for number in range(10, 30):
        caller.speak(OPUS.silence + bytes([number]))
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.audio) == 30)
    assert session.route is not None
    assert session.route is not first
    assert len(world.engine.routes.direct) == 1
    assert ordinary["received"] <= 4


async def test_nothing_of_a_call_is_left_among_the_routes_when_it_has_ended(
    autojump_clock: Any, world: Any, wait_until: Any, caller_class: Any
):
    direct, _ = await world.live_call()
    relayed, _ = await world.live_call(caller=caller_class(world.relayed(pack_address("203.0.113.5", 777))))
    for caller in (direct, relayed):
        for _ in range(5):
            caller.speak()
            await trio.sleep(0.02)
    routes = world.engine.routes
    assert (len(routes.direct), [len(table) for table in routes.trunk.values()]) == (1, [1])
    for call_id in list(world.registry.sessions):
        world.registry.hang_up(call_id)
    await wait_until(lambda: not world.registry.sessions)
    assert not routes.direct
    assert not routes.trunk
    assert not routes.by_path


async def test_every_packet_of_a_call_is_delivered_or_counted_by_its_reason(
    autojump_clock: Any, world: Any, wait_until: Any
):
    caller, call_id = await world.live_call(data=False)
    world.backend.echo = False
    source = random.Random(11)
    session = world.registry.sessions[call_id]
    sent: list[bytes] = []

    def spoil(data: bytes) -> list[bytes]:
        kind = source.randrange(8)
        damaged = bytearray(data)
        damaged[source.randrange(12, len(data))] ^= 1
        return {0: [data, data], 1: [bytes(damaged)], 2: [data[:20]], 3: []}.get(kind, [data])

    for _ in range(400):
        caller.peer.send_audio(OPUS.silence, 960 * len(sent), trio.current_time())
        for output in caller.peer.poll():
            assert isinstance(output, SendTo)
            for data in spoil(output.data) if output.data[1] == 111 else [output.data]:
                sent += [data] if data[1] & 0x7F == 111 else []
                caller.socket.send_batch([(data, output.path.remote)])
        await trio.sleep(0.02)
    await trio.sleep(0.5)
    statistics = session.peer.statistics(trio.current_time())
    refused = sum(count for reason, count in statistics.drops.items() if reason.startswith(("srtp", "rtp")))
    assert statistics.packets_received + refused == len(sent)
    uplink = session.uplink
    assert uplink is not None
    delivered = len(world.backend.last.audio)
    counted = sum(uplink.counters[reason] for reason in ("late", "duplicate", "straggler", "empty"))
    assert delivered + counted == statistics.packets_received
    assert delivered > 200
    assert refused > 50


async def test_the_echo_in_the_process_gives_audio_and_messages_back(
    autojump_clock: Any, world: Any, wait_until: Any, ordinary: Counter[str]
):
    agents = AgentPool(("internal:echo",), "us", world.engine)
    world.nursery.start_soon(agents.run)
    await agents.wait_connected()
    world.registry._backend = agents
    world.engine.on_turn_end = agents.flush
    caller, call_id = await world.live_call()
    assert [link.calls for link in agents.links] == [1]
    for number in range(30):
        caller.speak(OPUS.silence + bytes([number]))
        await trio.sleep(0.02)
    caller.say("hello")
    await wait_until(lambda: len(caller.audio) == 30 and caller.messages == ["hello"])
    assert [packet.payload[-1] for packet in caller.audio] == list(range(30))
    assert [packet.marker for packet in caller.audio] == [True] + [False] * 29
    assert ordinary["received"] <= 2
    world.registry.hang_up(call_id)
    await wait_until(lambda: not world.registry.sessions)
    assert [link.calls for link in agents.links] == [0]


async def test_the_meter_in_the_process_tells_a_caller_how_his_audio_came(
    autojump_clock: Any, world: Any, wait_until: Any
):
    agents = AgentPool(("internal:meter",), "us", world.engine)
    world.nursery.start_soon(agents.run)
    await agents.wait_connected()
    assert agents.name == "meter"
    world.registry._backend = agents
    world.engine.on_turn_end = agents.flush
    caller, _ = await world.live_call()
    for _ in range(10):
        caller.speak(OPUS.silence)
        await trio.sleep(0.02)
    caller.say('{"type":"meter.slots"}')
    caller.say("hello")
    await wait_until(lambda: len(caller.messages) == 2)
    assert msgspec.json.decode(caller.messages[0]) == {
        "type": "meter.slots",
        "expected": 10,
        "in_time": 10,
        "recovered": 0,
        "by_copy": 0,
        "late": 0,
        "within_200_ms": 10,
    }
    assert caller.messages[1] == "hello"


def test_every_agent_that_may_be_named_has_a_backend():
    TransceiverConfig(direct=True, agents=INTERNAL_AGENTS)
    agents = AgentPool(INTERNAL_AGENTS, "us", None)  # type: ignore[arg-type]
    assert {type(link) for link in agents.links} == {EchoAgent}
    assert len(agents.links) == len(INTERNAL_AGENTS)
    with pytest.raises(ValueError, match="internal:parrot"):
        TransceiverConfig(direct=True, agents=("internal:parrot",))


class Wire:
    """An outbox on a network in memory, and on the kernel's, to two relays and two clients of its own."""

    def __init__(self, mtu: int, kernel: bool) -> None:
        if kernel:
            options = SocketOptions(batch_size=256)
            self.ours, *self.theirs = (open_udp("127.0.0.1", 0, options) for _ in range(4))
        else:
            network = MemoryNetwork()
            self.ours, *self.theirs = (network.open(batch_size=4096) for _ in range(4))
        self.outbox = Outbox(self.ours, TRUNK, mtu, library_named())

    def heard(self, number: int) -> list[bytes]:
        found = []
        while batch := self.theirs[number].receive_batch():
            found += [bytes(data) for data, _ in batch]
        return found

    def close(self) -> None:
        for each in (self.ours, *self.theirs):
            each.close()


@pytest.mark.parametrize("kernel", [False, True], ids=["in memory", "by the kernel"])
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    mtu=st.sampled_from([0, 576, 1452]),
    datagrams=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from([1, 40, 160, 500, 1200, 1500, 1600]), st.booleans()), max_size=90
    ),
)
def test_what_was_given_to_the_outbox_arrives_whole_and_in_order(
    kernel: bool, mtu: int, datagrams: list[tuple[int, int, bool]]
):
    wire = Wire(mtu, kernel)
    try:
        expected: list[list[tuple[Any, ...]]] = [[], [], []]
        for number, (way, size, in_place) in enumerate(datagrams):
            data = number.to_bytes(2, "big") * (size // 2 + 1)
            if way < 2:
                path = Path(b"", wire.theirs[way].address)
                expected[way].append((data,))
            else:
                client = CLIENT6 if way == 4 else CLIENT
                path = Path(relay_local(wire.theirs[2].address, way), client)
                expected[2].append((client, way, data))
            outlet = wire.outbox.outlet(path)
            if in_place and len(data) + 20 <= outlet.room:
                at = outlet.reserve(len(data) + 20)
                outlet.arena.view[at : at + len(data)] = data
                outlet.commit(outlet.target(path.remote), len(data))
            else:
                wire.outbox.send(data, path)
        wire.outbox.flush()
        assert [(data,) for data in wire.heard(0)] == expected[0]
        assert [(data,) for data in wire.heard(1)] == expected[1]
        frames = []
        for datagram in wire.heard(2):
            found = TRUNK.decode_untrusted(datagram)
            assert len(found) == 1 or len(datagram) <= mtu
            assert len(found) <= MAX_FRAMES
            frames += [(client, ingress, bytes(payload)) for client, ingress, payload in found]
        for way in (2, 3, 4):  # in order by ingress
            assert [f for f in frames if f[1] == way] == [f for f in expected[2] if f[1] == way]
        assert not wire.ours.counters.send_errors
    finally:
        wire.close()


def test_a_thousand_frames_for_one_relay_share_datagrams():
    wire = Wire(1452, kernel=False)
    path = Path(relay_local(wire.theirs[2].address, 0), CLIENT)
    for _ in range(1000):
        wire.outbox.send(bytes(120), path)
    wire.outbox.flush()
    assert len(wire.heard(2)) == -(-1000 // ((1452 - 16) // 128))
    assert wire.outbox.frames_sent == 1000


def test_frames_sent_counts_those_that_are_written_in_place_and_long_ones():
    wire = Wire(1452, kernel=False)
    path = Path(relay_local(wire.theirs[2].address, 0), CLIENT)
    outlet = wire.outbox.outlet(path)
    for _ in range(30):
        outlet.reserve(120)
        outlet.commit(outlet.target(CLIENT), 120)
    wire.outbox.send(bytes(3000), path)
    wire.outbox.flush()
    assert sum(len(TRUNK.decode_untrusted(datagram)) for datagram in wire.heard(2)) == wire.outbox.frames_sent == 31


def test_what_the_kernel_refuses_is_counted_by_datagram_and_the_rest_leaves():
    wire = Wire(1452, kernel=True)
    try:
        nobody = Path(b"", pack_address("127.0.0.1", 0))  # EINVAL
        for number in range(2 * SLOTS + 10):
            wire.outbox.send(os.urandom(100), nobody if number % 4 == 0 else Path(b"", wire.theirs[0].address))
        wire.outbox.flush()
        counters = wire.ours.counters
        assert sum(counters.send_errors.values()) == -(-(2 * SLOTS + 10) // 4)
        assert counters.datagrams_sent == 2 * SLOTS + 10 - sum(counters.send_errors.values())
    finally:
        wire.close()


@pytest.mark.parametrize("plain", [False, True], ids=["by the batch", "one by one"])
def test_frames_in_trunk_datagrams_that_the_kernel_refuses_are_not_counted_as_sent(plain: bool):
    wire = Wire(1452, kernel=True)
    options = SocketOptions()
    ours = PlainSocket(bind_udp("127.0.0.1", 0, options), options) if plain else wire.ours
    outbox = Outbox(ours, TRUNK, 1452, library_named())
    try:
        good = Path(relay_local(wire.theirs[2].address, 0), CLIENT)
        bad = Path(relay_local(pack_address("127.0.0.1", 0), 0), CLIENT)  # EINVAL
        for _ in range(40):
            outbox.send(bytes(100), bad)
            outbox.send(bytes(100), good)
        outbox.send(bytes(3000), bad)
        outbox.flush()
        arrived = sum(len(TRUNK.decode_untrusted(datagram)) for datagram in wire.heard(2))
        assert (arrived, outbox.frames_sent, outbox.frames_refused) == (40, 40, 41)
        assert ours.counters.datagrams_sent < 10
    finally:
        wire.close()
        ours.close()


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="one socket for both families: Linux")
def test_an_ipv6_socket_reaches_clients_of_both_families():
    six = open_udp("::", 0, SocketOptions(dual_stack=True))
    four_client, six_client = open_udp("127.0.0.1", 0), open_udp("::1", 0)
    outbox = Outbox(six, None, 1452, library_named())
    try:
        for client in (four_client, six_client, four_client):
            outbox.send(b"hello", Path(b"", client.address))
        outbox.flush()
        assert [bytes(data) for data, _ in four_client.receive_batch()] == [b"hello"] * 2
        assert [bytes(data) for data, _ in six_client.receive_batch()] == [b"hello"]
    finally:
        for each in (six, four_client, six_client):
            each.close()


async def test_many_packets_are_taken_together_within_the_latency_budget_and_a_few_at_once(
    autojump_clock: Any, world: Any, wait_until: Any
):
    budget = 0.004
    world.engine._tick = Tick(budget)
    stranger = world.network.open("127.0.0.9")
    taken_at: list[float] = []
    receive = world.engine._receive_datagram_untrusted

    def received(*arguments: Any) -> None:
        taken_at.append(trio.current_time())
        receive(*arguments)

    world.engine._receive_datagram_untrusted = received
    world.engine._direct = False  # every datagram goes by the method above
    for pause, count in ((0.02, 20), (0.00025, 400)):
        taken_at.clear()
        sent_at = []
        turns = world.engine.turns
        for _ in range(count):
            sent_at.append(trio.current_time())
            stranger.send_batch([(b"noise", world.address)])
            await trio.sleep(pause)
        await trio.sleep(0.1)
        late = [taken - sent for sent, taken in zip(sent_at, taken_at, strict=True)]
        if pause == 0.02:
            assert max(late) == 0
        else:
            assert max(late) < 2 * budget
            assert world.engine.turns - turns < count / 5


async def test_a_trunk_datagram_sent_again_from_elsewhere_makes_the_transceiver_speak_to_nobody(
    autojump_clock: Any, world: Any, wait_until: Any, caller_class: Any
):
    """Its tag says nothing of the sender: whoever has recorded one can send it from any address."""
    recorded: list[bytes] = []
    put = world.network.route

    def route(source: Any, destination: Any, data: bytes) -> None:
        if destination == world.address:
            recorded.append(data)
        put(source, destination, data)

    world.network.route = route
    caller, _ = await world.live_call(caller=caller_class(world.relayed(pack_address("203.0.113.5", 777))))
    for _ in range(10):
        caller.speak()
        await trio.sleep(0.02)
    victim = world.network.open("127.0.0.77")
    again = tuple(recorded)
    assert again
    for data in again:
        victim.send_batch([(data, world.address)])
    await trio.sleep(1)
    assert victim.receive_batch() == []


def test_a_place_that_was_asked_for_and_not_used_makes_no_datagram():
    network = MemoryNetwork()
    relay, other = network.open("127.0.0.9", 9), network.open("127.0.0.8", 9)
    outbox = Outbox(network.open("127.0.0.1", 4000), TRUNK, 1452, library_named())
    first, second = (outbox.outlet(Path(relay_local(each.address, 1), CLIENT)) for each in (relay, other))
    for _ in range(2 * SLOTS):
        first.reserve(100)
    outbox.flush()
    assert relay.receive_batch() == []
    first.reserve(100)  # for a frame that may not leave, after all
    at = second.reserve(5)
    second.arena.view[at : at + 5] = b"frame"
    second.commit(second.target(CLIENT), 5)
    first.reserve(200)
    outbox.flush()
    assert relay.receive_batch() == []
    [(datagram, _)] = other.receive_batch()
    assert [bytes(frame.payload) for frame in TRUNK.decode_untrusted(datagram)] == [b"frame"]
