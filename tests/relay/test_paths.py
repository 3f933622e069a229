"""One by one and as arrays: two ways over the same memory, which must do the same."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from protocol.address import TransportAddress, pack_address
from protocol.routing import DATAGRAM_OVERHEAD, Frame, RoutingConfig, Trunk, TrunkHead, TrunkKind
from protocol.stun import Class
from relay.index import flow_words

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

MakeBench = Callable[..., "Bench"]
ONE_BY_ONE, ARRAYS = 1 << 30, 0
CLIENTS = [pack_address("198.51.100.7", 40000 + n) for n in range(12)]
WIDE_CLIENTS = [pack_address(f"2001:db8::{n + 1:x}", 40000 + n) for n in range(12)]
FAMILIES = {"IPv4": CLIENTS, "IPv6": WIDE_CLIENTS}


@pytest.fixture(params=[ONE_BY_ONE, ARRAYS], ids=["one by one", "arrays"])
def few(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every batch goes this way."""
    choose(monkeypatch, request.param)
    return int(request.param)


def choose(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr("relay.uplink.FEW", few)
    monkeypatch.setattr("relay.downlink.FEW", few)


def routing(mtu: int) -> RoutingConfig:
    return RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,), prefix="10.0.0.0/8", trunk_mtu=mtu)


# ---- what holds on either way


@pytest.mark.parametrize("clients", FAMILIES.values(), ids=FAMILIES)
def test_a_stun_check_among_media_delays_and_loses_nothing(few: int, bench: Bench, clients: list[TransportAddress]):
    tokens = {client: bench.token() for client in clients}
    for client, token in tokens.items():
        bench.up(bench.check(token), client=client, ingress=1)
        bench.down(bench.answer(), client=client, ingress=1)
    batch = [(client, b"\x80\x6f" + bytes([n]) * (100 + n)) for n in range(5) for client in clients]
    check = bench.check(tokens[clients[3]])
    batch.insert(20, (clients[3], check))
    batch.insert(
        30, (pack_address("203.0.113.9", 9) if clients is CLIENTS else pack_address("2001:db8::99", 9), b"\x80")
    )
    sent = bench.core.receive_clients_untrusted([(memoryview(data), client) for client, data in batch], 1, bench.now)
    frames = [frame for data, to in sent for frame in bench.trunk.decode_untrusted(data)]
    del batch[30]
    assert [(client, bytes(payload)) for client, _, payload in frames] == batch
    assert {ingress for _, ingress, _ in frames} == {1}
    assert all(len(data) <= bench.routing.trunk_mtu for data, _ in sent)
    assert bench.core.drops == {"no_flow": 1}


@pytest.mark.parametrize("mtu", [0, 576, 1452, 8952])
def test_datagrams_are_as_full_as_the_mtu_allows(few: int, make_bench: MakeBench, mtu: int):
    bench = make_bench(routing(mtu))
    for client in CLIENTS:
        bench.establish(client=client)
    batch = [(memoryview(b"\x80" + bytes(159)), CLIENTS[n % 12]) for n in range(60)]
    sent = bench.core.receive_clients_untrusted(batch, 0, bench.now)
    most = max(1, (mtu - DATAGRAM_OVERHEAD) // 168)
    counts = [len(bench.trunk.decode_untrusted(data)) for data, _ in sent]
    assert counts == [most] * (60 // most) + [60 % most] * (60 % most > 0)


def test_empty_and_cut_datagrams_are_dropped_by_their_reason_whatever_lay_in_their_slots(few: int, bench: Bench):
    bench.establish()
    bench.up(*[bench.RTP] * 40)  # so old media is in the slots
    assert len(bench.up(*[bench.RTP, b"", b"\x80" * 2049] * 10)) == 10
    assert bench.core.drops == {"foreign_protocol": 10, "truncated": 10}
    assert bench.core.frames_up == 1 + 40 + 10


def test_every_frame_of_a_datagram_with_a_wrong_length_is_dropped_and_those_beside_it_arrive(few: int, bench: Bench):
    bench.establish()
    good = bench.trunk.encode([Frame(bench.CLIENT, 0, b"\x80voice")] * 9, 1452)
    head = TrunkHead(TrunkKind.FRAMES, False, 0, 9)
    bad = bench.trunk.seal(head, (b"\0\7" + bench.CLIENT) * 9, bytes(7 * 9 - 1))
    stranger = bench.trunk.encode([Frame(bench.CLIENT, 0, b"\x80voice")] * 9, 1452)[0]
    forged = stranger[:8] + bytes(8) + stranger[16:]
    count = bench.core.frames_down
    assert bench.down_raw(*good, bad, forged, *good) == [(0, b"\x80voice", bench.CLIENT)] * 18
    assert bench.core.frames_down == count + 18
    assert bench.core.drops == {"trunk_length": 1, "trunk_forged": 1}


def test_a_datagram_whose_length_is_wrong_teaches_nothing(few: int, bench: Bench):
    head = TrunkHead(TrunkKind.FRAMES, False, 0, 20)
    descriptors = b"".join(b"\0\7" + pack_address("192.0.2.1", port) for port in range(20))
    assert bench.down_raw(bench.trunk.seal(head, descriptors, b"\x80" * (7 * 20 + 1))) == []
    assert bench.size == 0


def test_replies_of_many_empty_frames_leave_in_several_calls(few: int, bench: Bench):
    bench.establish()
    head = TrunkHead(TrunkKind.FRAMES, False, 0, 1100)
    datagram = bench.trunk.seal(head, (b"\0\0" + bench.CLIENT) * 1100)
    if few == ARRAYS:
        assert bench.down_raw(datagram, datagram) == [(0, b"", bench.CLIENT)] * 2200
    assert bench.core.drops == {}


def test_talk_and_goodbyes_of_one_batch_count_in_their_order(few: int, bench: Bench):
    bench.establish()
    cells, row = bench.core.flows.cells, 1
    voice, alert = Frame(bench.CLIENT, 0, b"\x80voice"), Frame(bench.CLIENT, 0, b"\x15alert")
    bench.down_raw(*bench.trunk.encode([voice, alert, voice], 1452))
    assert cells.talked[row] == bench.now
    bench.down_raw(*bench.trunk.encode([voice] * 17 + [alert], 1452))
    assert cells.talked[row] < 0
    bench.down_raw(*bench.trunk.encode([Frame(bench.CLIENT, 0, b"")] * 17, 1452))
    assert cells.talked[row] < 0


def test_frames_of_its_transceiver_keep_a_flow_and_nothing_else_keeps_one(few: int, bench: Bench):
    bench.establish()
    bench.pass_time(100)
    bench.down_raw(*bench.trunk.encode([Frame(bench.CLIENT, 0, b"\x80voice")] * 30, 1452))
    bench.pass_time(100)
    assert bench.size == 1
    bench.up(*[bench.RTP] * 20)
    bench.up(*[b"\x47foreign"] * 20)
    bench.pass_time(21)
    assert bench.size == 0


# ---- and anything at all


def a_batch_of_clients(bench: Bench, source: random.Random, known: dict[bytes, str]) -> list[tuple[bytes, bytes]]:
    batch = []
    for _ in range(source.choice((1, 3, 20, 64))):
        client = source.choice(CLIENTS if source.random() < 0.7 else WIDE_CLIENTS)
        match source.randrange(12):
            case 0:
                data = bench.check(known.get(client) or bench.token(bench.A))
            case 1:
                data = bench.check(bench.token(bench.B), padding=source.randrange(400))
            case 2:
                data = bench.check(bench.token(bench.A)[:-2] + "AA")
            case 3:
                data = source.choice((b"", b"\x47x", b"\x80" * 3000, bytes(20), b"\x16\xfe\xfd" + bytes(60)))
            case 4:
                data = bench.answer()
            case _:
                data = b"\x80" + source.randbytes(source.randrange(400))
        batch.append((data, client))
    return batch


def a_batch_of_transceivers(bench: Bench, source: random.Random) -> list[tuple[bytes, bytes]]:
    batch = []
    for _ in range(source.choice((1, 2, 10))):
        frames = [
            Frame(
                source.choice(CLIENTS if source.random() < 0.7 else WIDE_CLIENTS),
                source.randrange(3),
                source.choice(
                    (b"", b"\x80voice", b"\x15alert", bench.answer(), bench.answer(Class.ERROR), b"\x17data")
                ),
            )
            for _ in range(source.choice((1, 2, 30)))
        ]
        for datagram in bench.trunk.encode(frames, 1452):
            match source.randrange(10):
                case 0:
                    datagram = datagram[:-1]
                case 1:
                    datagram = bytes(datagram[:12]) + b"x" + datagram[13:]
                case 2:
                    datagram = Trunk(b"x" * 32).encode(frames[:1], 1452)[0]
                case 3:
                    datagram = bench.trunk.seal(TrunkHead(TrunkKind.FRAMES, False, 0, 1), b"\0\2" + CLIENTS[0], b"\x80")
            batch.append((datagram, source.choice((bench.A, bench.A, bench.A, pack_address("192.0.2.1", 5)))))
    return batch


@pytest.mark.parametrize("seed", range(12))
def test_the_same_batches_have_the_same_outcome_on_both_ways(
    monkeypatch: pytest.MonkeyPatch, make_bench: MakeBench, seed: int
):
    source = random.Random(seed)
    settings = {"max_probationary": 6, "max_flows_per_token": 2, "verify": source.choice(("relay", "transceiver"))}
    setup = routing(source.choice((0, 600, 1452, 9000)))
    plain, arrays = make_bench(setup, **settings), make_bench(setup, **settings)
    known: dict[bytes, str] = {}
    for client in (*CLIENTS[:8], *WIDE_CLIENTS[:8]):
        for bench in (plain, arrays):
            known[client] = bench.establish(client=client)
    for _ in range(20):
        up, down = a_batch_of_clients(plain, source, known), a_batch_of_transceivers(plain, source)
        outcomes = []
        for bench, few in ((plain, ONE_BY_ONE), (arrays, ARRAYS)):
            choose(monkeypatch, few)
            bench.now += 1
            sent = bench.core.receive_clients_untrusted([(memoryview(d), a) for d, a in up], 0, bench.now)  # type: ignore[misc]
            to = {target: [data for data, at in sent if at == target] for _, target in sent}
            replies = bench.core.receive_trunk_untrusted([(memoryview(d), a) for d, a in down], bench.now)  # type: ignore[misc]
            core, flows = bench.core, bench.core.flows
            cells = flows.cells
            found = [flows.find_words(flow_words(client, 0)) for client in (*CLIENTS, *WIDE_CLIENTS)]
            outcomes.append(
                (
                    to,
                    [sorted(some) for some in replies],
                    core.drops,
                    (core.frames_up, core.frames_down, core.opened, core.established, core.moved, core.learned),
                    [
                        (cells.target[row], cells.seen[row], cells.talked[row], cells.budget[row])
                        for row in found
                        if row
                    ],
                )
            )
        assert outcomes[0] == outcomes[1]
    assert plain.core.frames_up > 100
