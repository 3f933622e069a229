"""STUN has a budget of its own: whatever comes, media passes in the same batch, and a flow's own checks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from protocol.address import pack_address

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

MakeBench = Callable[..., "Bench"]
CALLERS = [pack_address("198.51.100.7", 1000 + n) for n in range(100)]


def deliver(bench: Bench, batch: list[tuple[bytes, bytes]]) -> list[bytes]:
    """What reaches a transceiver."""
    sent = bench.core.receive_clients_untrusted([(memoryview(data), at) for data, at in batch], 0, bench.now)  # type: ignore[misc]
    return [bytes(frame.payload) for data, _ in sent for frame in bench.trunk.decode_untrusted(data)]


@pytest.mark.parametrize("verify", ["relay", "transceiver"])
def test_a_flood_of_forged_tokens_is_dropped_within_its_budget_and_delays_no_media(make_bench: MakeBench, verify: str):
    bench = make_bench(stun_per_second=1000, verify=verify)
    for caller in CALLERS:
        bench.establish(client=caller)
        bench.now += 0.01
    forged = bench.check(bench.token()[:-3] + "AAA")
    drops = bench.core.drops
    for turn in range(40):  # 0.4 seconds: 10240 packets
        media = [(b"\x80" + bytes([turn, n]), CALLERS[n]) for n in range(56)]
        flood = [(forged, pack_address("203.0.113.9", 1024 + n)) for n in range(200)]
        assert deliver(bench, [*flood[:100], *media, *flood[100:]]) == [data for data, _ in media]
        bench.now += 0.01
    assert sum(drops.values()) == 8000
    assert 380 <= 8000 - drops["stun_budget"] <= 400 + 50 + 1
    assert bench.core.flows.probationary == 0


def test_a_storm_of_checks_from_every_caller_needs_no_budget(make_bench: MakeBench):
    bench = make_bench(stun_per_second=1000)
    tokens = []
    for caller in CALLERS:
        tokens.append(bench.establish(client=caller))
        bench.now += 0.01
    checks = [(bench.check(token), caller) for token, caller in zip(tokens, CALLERS)]
    for _ in range(16):
        media = [(b"\x80voice", caller) for caller in CALLERS]
        assert len(deliver(bench, [pair for both in zip(checks, media) for pair in both])) == 200
    assert bench.core.drops == {}


def test_a_known_flow_that_names_new_tokens_all_the_time_has_no_more_than_the_budget(make_bench: MakeBench):
    bench = make_bench(stun_per_second=100)
    bench.establish()
    bench.now += 1
    batch = [(bench.check(bench.token(bench.B)), bench.CLIENT) for _ in range(50)]
    assert len(deliver(bench, batch)) == 5
    assert bench.core.drops == {"stun_budget": 45}
    bench.now += 0.035
    assert len(deliver(bench, batch[:10])) == 2
    assert bench.targets(bench.RTP) == [bench.A]


def test_a_call_that_begins_in_a_flood_gets_through_by_repeating_its_check(make_bench: MakeBench):
    bench = make_bench(stun_per_second=1000)
    forged, check = bench.check(bench.token()[:-3] + "AAA"), bench.check(bench.token())
    for turn in range(200):
        flood = [(forged, pack_address("203.0.113.9", 1024 + n)) for n in range(30)]
        place = turn * 7 % 30
        if deliver(bench, [*flood[:place], (check, bench.CLIENT), *flood[place:]]) == [check]:
            break
        bench.now += 0.01
    else:
        pytest.fail("it never got through")


def test_a_flood_does_not_keep_a_call_from_its_consent_whose_username_a_new_relay_does_not_know(make_bench: MakeBench):
    bench = make_bench(stun_per_second=1000)
    forged = bench.check(bench.token()[:-3] + "AAA")
    checks = {caller: bench.check(bench.token()) for caller in CALLERS}
    for caller in CALLERS:
        bench.down(b"\x80voice", client=caller)
    for turn in range(100):
        flood = [(forged, pack_address("203.0.113.9", 1024 + n)) for n in range(100)]
        check = checks[CALLERS[turn]]
        assert deliver(bench, [*flood, (check, CALLERS[turn]), *flood]) == [check]
        bench.now += 0.01
    assert bench.core.drops["stun_budget"] > 18_000


def test_an_established_flow_that_names_new_tokens_all_the_time_does_not_keep_another_from_its_consent(
    make_bench: MakeBench,
):
    bench = make_bench(stun_per_second=1000)
    loud, *others = CALLERS
    checks = {caller: bench.check(bench.token()) for caller in others}
    for caller in CALLERS:
        bench.down(b"\x80voice", client=caller)
    for turn in range(90):
        flood = [(bench.check(bench.token()), loud) for _ in range(60)]
        check = checks[others[turn]]
        assert check in deliver(bench, [*flood, (check, others[turn])])
        bench.now += 0.01
    assert bench.core.drops["stun_budget"] > 4000
