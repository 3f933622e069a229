"""What somebody who can record trunk datagrams and send them again, from any address, does to a relay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from protocol.address import pack_address
from protocol.routing import hello
from relay.greeter import ANSWER_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.relay.conftest import Bench

TRUNKS = [pack_address("10.0.0.8", 3479), pack_address("10.0.0.9", 3479)]


def test_a_hello_in_the_name_of_another_relay_does_not_make_the_two_greet_each_other_for_ever(
    make_bench: Callable[..., Bench],
):
    relays = [make_bench(), make_bench()]
    wire = [(0, TRUNKS[1], hello(relays[0].trunk, b"recorded"))]
    said, now = 0, 0.0
    while wire:
        at, source, datagram = wire.pop(0)
        now += 0.001
        relays[at].core.receive_trunk_untrusted([(memoryview(datagram), source)], now)
        wire += [(TRUNKS.index(to), TRUNKS[at], data) for data, to in relays[at].core.greeter.take()]
        said += len(wire)
        assert said < 10


def test_hellos_sent_again_and_again_are_answered_no_more_often_than_a_transceiver_needs(bench: Bench):
    recorded = hello(bench.trunk, b"recorded")
    for _ in range(100):
        bench.now += ANSWER_SECONDS / 100
        bench.down_raw(recorded, recorded)
    assert len(bench.core.greeter.take()) in (1, 2)
    bench.now += ANSWER_SECONDS
    bench.down_raw(recorded)
    assert len(bench.core.greeter.take()) == 1


@pytest.mark.parametrize("is_known", [True, False], ids=["by its token", "by a reply"])
def test_who_forges_a_check_of_his_own_call_from_the_address_of_another_cannot_make_that_flow_make_room(
    make_bench: Callable[..., Bench], is_known: bool
):
    bench = make_bench(max_flows_per_token=3)
    voice = b"\x80voice"
    if is_known:
        bench.establish()
    bench.down(voice)
    bench.down(voice)
    own = bench.token()
    assert bench.targets(bench.check(own)) == [bench.A]  # as if it came from the victim
    for number in range(6):
        client = pack_address("203.0.113.9", 1024 + number)
        assert bench.targets(bench.check(own), client=client) == [bench.A]
        bench.down(bench.answer(), client=client)
        bench.now += 0.001
        for each in range(number + 1):
            bench.up(bench.check(own), client=pack_address("203.0.113.9", 1024 + each))
    assert bench.targets(bench.RTP) == [bench.A]
    assert bench.core.flows.established == (4 if is_known else 3)  # and the bound holds
