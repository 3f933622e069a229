"""Keys are changed while calls go on: the new one second everywhere, then first everywhere, then the old one goes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk

OLD, NEW = ("1:" + "5a" * 32, "a5" * 32), ("2:" + "6b" * 32, "b6" * 32)
CLUSTER = RoutingConfig(prefix="10.0.0.0/8")


def routing(*pairs: tuple[str, str]) -> RoutingConfig:
    return msgspec.structs.replace(
        CLUSTER, keys=tuple(key for key, _ in pairs), trunk_keys=tuple(key for _, key in pairs)
    )


WALK = [routing(OLD), routing(OLD, NEW), routing(NEW, OLD), routing(NEW)]
# (relay, transceiver): at each step either of them may be the first to change.
STEPS = [(WALK[0], WALK[0])]
for before, after in pairwise(WALK):
    STEPS += [(after, before), (before, after), (after, after)]


@pytest.mark.parametrize(("relay", "transceiver"), STEPS)
def test_at_every_step_of_a_rotation_a_new_call_gets_through_and_frames_go_both_ways(
    make_bench: Callable[..., Any], relay: RoutingConfig, transceiver: RoutingConfig
):
    bench = make_bench(relay)
    keys, trunk = KeyRing.parse(transceiver), Trunk.parse(transceiver)
    token = keys.seal(bench.A, incarnation=1, wall_time=bench.wall, entropy=bytes)
    [(to, _)] = bench.up(bench.check(token, password=keys.derive_password(token)))
    assert to == bench.A
    answers = trunk.encode([Frame(bench.CLIENT, 0, bench.answer())] * 3, 1452)
    assert len(bench.down_raw(*answers)) == 3
    datagrams = bench.core.receive_clients_untrusted([(memoryview(bench.RTP), bench.CLIENT)] * 2, 0, bench.now)
    assert [frame.payload for data, _ in datagrams for frame in trunk.decode_untrusted(data)] == [bench.RTP] * 2
    assert not bench.core.drops


def test_a_key_that_is_changed_at_once_cuts_relay_and_transceiver_off_from_each_other(
    make_bench: Callable[..., Any],
):
    bench = make_bench(routing(NEW))
    bench.down_raw(*Trunk.parse(routing(OLD)).encode([Frame(bench.CLIENT, 0, bench.answer())] * 9, 0))
    token = KeyRing.parse(routing(OLD)).seal(bench.A, incarnation=1, wall_time=bench.wall, entropy=bytes)
    assert bench.up(bench.check(token, password="unknown")) == []
    assert bench.core.drops == {"trunk_forged": 9, "token_unknown_key": 1}
