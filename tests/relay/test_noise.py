"""What must leave no trace: forged, stale and unknown tokens, foreign protocols, forged trunks, any bytes at all."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.target import tagged
from protocol.address import TransportAddress, pack_address
from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from relay.core import RelayCore

if TYPE_CHECKING:
    from tests.relay.conftest import Bench

MakeBench = Callable[..., "Bench"]


def forged(bench: Bench) -> dict[str, str]:
    good = bench.token()
    raw = bytearray(base64.b64decode(good))
    raw[20] ^= 1
    return {
        "bit flip": base64.b64encode(raw).decode(),
        "random": base64.b64encode(random.Random(3).randbytes(36)).decode(),
        "truncated": good[:47],
        "empty": "",
        "longer": good + "A",
        "stale": bench.token(age=6000),
        "from the future": bench.token(age=-400),
        "ordinary ufrag": "Zk3x",
    }


@pytest.mark.parametrize(
    "name",
    ["bit flip", "random", "truncated", "empty", "longer", "stale", "from the future", "ordinary ufrag"],
)
def test_a_bad_token_sends_nothing_and_stores_nothing(bench: Bench, name: str):
    check = bench.check(forged(bench)[name])
    assert bench.up(check) == []
    assert bench.size == 0
    assert sum(bench.core.drops.values()) == 1
    assert set(bench.core.drops) <= {"token_forged", "token_unknown_key", "token_malformed", "token_stale"}


def test_a_flood_of_random_tokens_leaves_the_table_and_a_living_call_alone(bench: Bench):
    bench.establish()
    source = random.Random(5)
    for n in range(2000):
        ufrag = base64.b64encode(source.randbytes(36)).decode()
        assert bench.up(bench.check(ufrag, password="x" * 32), client=pack_address("203.0.113.5", 1 + n)) == []
    assert bench.size == 1
    assert bench.targets(bench.RTP) == [bench.A]


def test_a_bad_token_on_an_established_flow_changes_nothing(bench: Bench):
    bench.establish()
    for token in forged(bench).values():
        bench.up(bench.check(token))
    assert bench.targets(bench.RTP) == [bench.A]


def test_a_token_of_a_wider_prefix_goes_nowhere(make_bench: MakeBench):
    routing = {"keys": ("1:" + "5a" * 32,), "trunk_keys": ("a5" * 32,)}
    bench = make_bench(RoutingConfig(**routing, prefix="10.0.0.0/24"))
    wide = make_bench(RoutingConfig(**routing, prefix="10.0.0.0/8"))
    assert bench.up(bench.check(wide.token(pack_address("10.99.0.1", 5000)))) == []
    assert bench.core.drops == {"token_address": 1}


def test_the_relay_can_verify_integrity_before_it_stores_anything(make_bench: MakeBench):
    bench = make_bench(verify="relay")
    token = bench.token()
    assert bench.up(bench.check(token, password="wrong" * 6)) == []
    assert bench.core.drops == {"integrity": 1}
    flipped = bytearray(bench.check(token))
    flipped[-1] ^= 1
    assert bench.up(bytes(flipped)) == []
    assert bench.size == 0
    assert bench.targets(bench.check(token)) == [bench.A]


def test_first_bytes_that_are_no_protocol_of_ours_are_dropped(bench: Bench):
    bench.establish()
    passed = {first for first in range(256) if bench.up(bytes([first]) + bytes(40))}
    assert passed == {*range(20, 64), *range(128, 192)}
    assert bench.core.drops == {"foreign_protocol": 256 - 4 - 44 - 64, "not_stun": 4}
    assert bench.up(b"") == []


def test_the_public_port_speaks_no_trunk(bench: Bench):
    bench.establish()
    [datagram] = bench.trunk.encode([Frame(bench.CLIENT, 0, b"x")], 1452)
    assert bench.up(datagram) == []


def test_stun_that_is_not_framed_as_stun_is_dropped(bench: Bench):
    bench.establish()
    check = bench.check(bench.token())
    for bad in (check[:-4], check + bytes(4), check[:4] + b"\0\0\0\0" + check[8:], check[:18], check[:-1]):
        assert bench.up(bad) == []
    assert bench.core.drops == {"not_stun": 5}


def test_a_forged_trunk_datagram_is_dropped_and_teaches_nothing(bench: Bench):
    [datagram] = Trunk(b"x" * 32).encode([Frame(bench.CLIENT, 0, b"\x80voice")], 1452)
    assert bench.down_raw(datagram, b"", b"\xc5", bytes(100)) == []
    assert bench.size == 0
    assert bench.core.drops == {"trunk_forged": 1, "trunk_truncated": 2, "trunk_foreign": 1}


def test_a_true_trunk_datagram_from_outside_the_prefix_is_dropped(bench: Bench):
    """Somebody who has copied one off the wire must not be able to attract a caller's datagrams by replaying it."""
    for thief in (pack_address("192.0.2.66", 5001), pack_address("::1", 5001), pack_address("10.0.0.9", 0)):
        assert bench.down(b"\x80voice", thief) == []
    assert bench.size == 0
    assert bench.core.drops == {"trunk_source": 3}


def test_a_reply_for_an_ingress_that_we_do_not_have_is_dropped(bench: Bench):
    assert bench.down(b"\x80voice", ingress=2) == []
    assert bench.core.drops == {"trunk_ingress": 1}


SECRET = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,), prefix="10.0.0.0/8")
STUN_HEAD = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
addresses = st.sampled_from([pack_address("10.0.0.1", 5), pack_address("192.0.2.1", 6), pack_address("::1", 7)])


@st.composite
def datagrams(draw: st.DrawFn) -> bytes:
    body = draw(st.binary(max_size=120))
    match draw(st.integers(0, 3)):
        case 0:
            return body
        case 1:  # framed as STUN
            body += bytes(-len(body) % 4)
            return STUN_HEAD[:2] + len(body).to_bytes(2, "big") + STUN_HEAD[4:] + body
        case 2:  # with a USERNAME
            name = draw(st.binary(min_size=40, max_size=60))
            attribute = b"\0\6" + len(name).to_bytes(2, "big") + name + bytes(-len(name) % 4)
            return STUN_HEAD[:2] + len(attribute).to_bytes(2, "big") + STUN_HEAD[4:] + attribute
        case _:  # signed by the trunk's key
            return tagged(Trunk.parse(SECRET), body)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.booleans(), datagrams(), addresses), max_size=20), st.sampled_from(["relay", "transceiver"])
)
def test_no_bytes_from_either_side_ever_raise_or_open_a_flow_without_a_key(
    events: list[tuple[bool, bytes, TransportAddress]], verify: str
):
    config = RelayConfig(verify=verify)  # type: ignore[arg-type]
    core = RelayCore(config, KeyRing.parse(SECRET), Trunk.parse(SECRET), wall_time=lambda: 0.0)
    for upward, data, address in events:
        if upward:
            assert core.receive_clients_untrusted([(memoryview(data), address)], 0, 0.0) == [] or core.learned
        else:
            core.receive_trunk_untrusted([(memoryview(data), address)], 0.0)
    core.handle_timeout(1.0)
    assert core.flows.probationary == 0
    assert core.flows.established == core.learned
