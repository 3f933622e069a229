"""The one invariant that matters, under any course of events: media goes only to who has proved that it knows the caller."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from protocol.address import pack_address
from protocol.stun import Class
from relay.index import flow_words

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

CLIENTS = [pack_address("198.51.100.1", port) for port in range(1, 9)] + [pack_address("2001:db8::1", 9)]
TRANSCEIVERS = [pack_address("10.0.0.1", port) for port in range(5001, 5005)]


@pytest.mark.parametrize("learn", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_media_goes_only_to_a_transceiver_that_has_answered_this_client(
    make_bench: Callable[..., Bench], seed: int, learn: bool
):
    source = random.Random(seed)
    bench = make_bench(learn_from_replies=learn, max_flows=6, max_probationary=4, idle_seconds=30.0)
    tokens = {transceiver: bench.token(transceiver) for transceiver in TRANSCEIVERS}
    answered: set[tuple[bytes, int, bytes]] = set()
    for _ in range(400):
        client, ingress = source.choice(CLIENTS), source.randrange(2)
        transceiver = source.choice(TRANSCEIVERS)
        match source.randrange(7):
            case 0 | 1:
                sent = bench.targets(bench.check(tokens[transceiver]), client=client, ingress=ingress)
                assert sent in ([], [transceiver])
            case 2:
                bench.down(source.choice((bench.answer(), b"\x80voice")), transceiver, client, ingress)
                answered.add((client, ingress, transceiver))
            case 3:
                bench.down(bench.answer(Class.ERROR), transceiver, client, ingress)
            case 4:
                for target in bench.targets(bench.RTP, bench.DTLS, client=client, ingress=ingress):
                    assert (client, ingress, target) in answered
            case 5:
                bench.up(bench.check("A" * 48), b"\xff", bench.answer(), client=client, ingress=ingress)
            case _:
                bench.pass_time(source.choice((0.1, 3.0, 15.0)))
        flows = bench.core.flows
        rows = [row for client in CLIENTS for way in range(2) if (row := flows.find_words(flow_words(client, way)))]
        established = sum(flows.cells.target[row] != 0 for row in rows)
        assert flows.established == established <= 6
        assert flows.probationary == len(rows) - established <= 4
    assert answered
