# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""Strangers at the ports of a whole stack, while somebody talks; and its processes killed under him."""

from __future__ import annotations

import base64
import itertools
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from hostile_rig import callers
from hostile_stack import KEY, ROUTING, LiveStack, live_stack

from fuzz.target import tagged
from protocol.address import TransportAddress, pack_address
from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk
from protocol.stun import Class, Message, Method
from udpio import open_udp

pytestmark = pytest.mark.slow

MAX_GAP = 0.1  # between two frames of a living call; or thrice what it was before, on a machine with other things to do
SDP = {"Content-Type": "application/sdp"}


@pytest.fixture(scope="module")
def stack() -> Iterator[LiveStack]:
    with live_stack() as stack:
        yield stack


@asynccontextmanager
async def talking(stack: LiveStack) -> AsyncIterator[Any]:
    """A caller who talks all the while."""
    caller = callers.Caller(open_udp("127.0.0.1", 0))
    try:
        async with httpx.AsyncClient(base_url=stack.url, timeout=10) as http:
            response = await http.post("/v1/realtime/calls", content=caller.offer(), headers=SDP)
    except httpx.TransportError:
        caller.socket.close()
        raise
    assert response.status_code == 201, response.text
    caller.accept(response.text)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.run)

        async def talk() -> None:
            while True:
                caller.speak()
                await trio.sleep(0.02)

        nursery.start_soon(talk)
        await callers.until(lambda: caller.audio and caller.channel_is_open)
        yield caller
        caller.hang_up()
        nursery.cancel_scope.cancel()


async def hears(caller: Any, seconds: float = 5.0) -> None:
    heard = len(caller.audio)
    await callers.until(lambda: len(caller.audio) > heard + 3, seconds)


def worst_gap(caller: Any, since: float) -> float:
    times = [since, *(when for when in caller.audio_times if when > since), trio.current_time()]
    return max(b - a for a, b in itertools.pairwise(times))


async def bearable(caller: Any) -> float:
    """The gap that this machine allows a call now."""
    since = trio.current_time()
    await trio.sleep(0.5)
    return max(MAX_GAP, 3 * worst_gap(caller, since))


def check(token: str, password: str = "x" * 24) -> bytes:
    attributes: dict[str, Any] = {
        "USERNAME": f"{token}:abcd",
        "PRIORITY": 1,
        "ICE-CONTROLLING": 5,
        "USE-CANDIDATE": None,
    }
    request = Message(Method.BINDING, Class.REQUEST, os.urandom(12), attributes)
    request.add_message_integrity(password.encode())
    request.add_fingerprint()
    return bytes(request)


def seal(address: TransportAddress, *, age: float = 0.0, **routing: Any) -> str:
    keys = KeyRing.parse(RoutingConfig(**{"keys": ROUTING.keys, "prefix": ROUTING.prefix, **routing}))
    return keys.seal(address, incarnation=7, wall_time=time.time() - age, entropy=os.urandom)


def bad_tokens(good: str, transceiver: TransportAddress) -> list[str]:
    raw = bytearray(base64.b64decode(good))
    flipped = []
    for bit in range(0, len(raw) * 8, 3):
        raw[bit // 8] ^= 1 << bit % 8
        flipped.append(base64.b64encode(raw).decode())
        raw[bit // 8] ^= 1 << bit % 8
    source = random.Random(1)
    return [
        *flipped,
        *(good[:length] for length in range(0, 48, 5)),
        good + "A",
        good[:-1] + "=",
        *(base64.b64encode(source.randbytes(36)).decode() for _ in range(50)),
        seal(transceiver, age=7 * 86400),
        seal(transceiver, age=-86400),
        seal(transceiver, keys=("1:" + "33" * 32,)),
        seal(transceiver, keys=("5:" + KEY,)),
        seal(transceiver, cluster=9),
        seal(pack_address("127.0.0.77", 80), prefix="127.0.0.0/8"),
    ]


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.9", 0))  # outside the prefix
        sock.setblocking(False)
        yield sock


def heard_by(sock: socket.socket) -> bytes:
    try:
        return sock.recv(65536)
    except BlockingIOError:
        return b""


async def test_bad_tokens_get_no_byte_leave_no_trace_and_harm_no_call(
    stack: LiveStack, stranger: socket.socket
) -> None:
    async with talking(stack) as caller:
        most = await bearable(caller)
        before, drops = stack.flows(), sum(stack.relay_drops().values())
        good = caller.remote_ice.ufrag
        tokens = bad_tokens(good, pack_address(*stack.transceiver))
        checks = [check(token) for token in tokens]
        since = trio.current_time()
        for index, data in enumerate(checks):
            stranger.sendto(data, stack.relay)
            caller.socket.send_batch([(data, pack_address(*stack.relay))])  # also along the caller's own flow
            if index % 10 == 0:
                await trio.sleep(0.01)
        await trio.sleep(0.2)
        gap = worst_gap(caller, since)
        assert heard_by(stranger) == b""
        assert stack.flows() == before
        # A flow that is established fails open to the age of tokens of its own transceiver; two of these are only old.
        assert sum(stack.relay_drops().values()) - drops == 2 * len(tokens) - 2
        assert gap < most


async def test_a_good_token_under_a_wrong_password_gets_no_byte_and_no_place(
    stack: LiveStack, stranger: socket.socket
) -> None:
    async with talking(stack) as caller:
        most = await bearable(caller)
        established, since = stack.flows()[0], trio.current_time()
        good = caller.remote_ice.ufrag
        unknown = seal(pack_address(*stack.transceiver))  # as of an earlier incarnation of this very transceiver
        for token in (good, unknown) * 20:
            stranger.sendto(check(token), stack.relay)
            stranger.sendto(b"\x80\x6f" + os.urandom(100), stack.relay)
            stranger.sendto(bytes.fromhex("16fefd") + os.urandom(100), stack.relay)
        await trio.sleep(0.2)
        gap = worst_gap(caller, since)
        assert heard_by(stranger) == b""
        assert stack.flows()[0] == established
        assert gap < most


async def test_random_bytes_of_every_size_to_every_port_are_dropped(stack: LiveStack, stranger: socket.socket) -> None:
    source = random.Random(2)
    async with talking(stack) as caller:
        most = await bearable(caller)
        before, since = stack.flows(), trio.current_time()
        for size in (*range(0, 130, 3), *range(200, 1600, 111), 2047, 2048, 2049, 4096, 9000):
            for port in (stack.relay, stack.trunk, stack.transceiver):
                for first in (b"", b"\0", b"\x16", b"\x80", b"\xc5\x20"):
                    stranger.sendto((first + source.randbytes(size))[:size], port)
            await trio.sleep(0.001)
        await trio.sleep(0.2)
        gap = worst_gap(caller, since)
        assert heard_by(stranger) == b""
        assert stack.flows() == before
        assert gap < most
        assert (
            stack.metrics(stack.transceiver_admin).get('antiphon_transceiver_dropped_total{reason="internal_error"}', 0)
            == 0
        )


async def test_trunk_datagrams_forged_malformed_or_from_outside_teach_nothing(
    stack: LiveStack, stranger: socket.socket
) -> None:
    """Forged tags; true tags over nonsense; true datagrams from an address that is no transceiver's, once and again."""
    trunk, forger = Trunk.parse(ROUTING), Trunk(b"f" * 32)
    victim = pack_address("127.0.0.1", 9)
    frame = Frame(victim, 0, b"\x80" + bytes(40))
    async with talking(stack) as caller:
        most = await bearable(caller)
        before, drops, since = stack.flows(), stack.relay_drops(), trio.current_time()
        for port in (stack.trunk, stack.transceiver):
            for datagram in forger.encode([frame], 1452):
                stranger.sendto(datagram, port)
            for body in (
                b"\0",  # no frame
                bytes(4) + b"\1" + bytes(7),
                b"\0\1\0\0\1" + bytes(23),
                bytes(4) + b"\1\xff\xff" + bytes(6),  # no payload
                b"\0\0\x7f\0\1" + bytes(8),  # a true frame of nothing
                b"\xff" * 1400,
            ):
                stranger.sendto(tagged(trunk, body), port)
                stranger.sendto(tagged(trunk, body)[:-1], port)
            for _ in range(5):
                stranger.sendto(trunk.encode([frame], 1452)[0], port)
        await trio.sleep(0.2)
        gap = worst_gap(caller, since)
        assert heard_by(stranger) == b""
        assert stack.flows() == before
        assert stack.relay_drops()["trunk_source"] - drops.get("trunk_source", 0) == 18
        assert gap < most


async def test_a_killed_agent_takes_no_call_with_it(stack: LiveStack) -> None:
    async with talking(stack) as caller:
        killed = stack.kill("agent")
        await callers.until(lambda: stack.children().get("agent", killed) != killed)
        await hears(caller, 15)  # its successor has taken the call over
        assert not caller.ended
        assert stack.zombies() == 0


async def test_a_killed_transceiver_is_replaced_and_takes_new_calls(stack: LiveStack) -> None:
    async with talking(stack) as caller:
        killed = stack.kill("transceiver")
        await callers.until(lambda: stack.children().get("transceiver", killed) != killed)
        heard = len(caller.audio)
        with trio.fail_after(15):
            while True:
                try:
                    async with talking(stack) as other:
                        await hears(other)
                    break
                except httpx.TransportError:
                    await trio.sleep(0.05)
        assert len(caller.audio) <= heard + 3  # nobody has his keys any more; nobody pretends to
        assert stack.zombies() == 0


async def test_a_killed_relay_is_replaced_and_the_call_goes_on(stack: LiveStack) -> None:
    async with talking(stack) as caller:
        killed = stack.kill("relay")
        await callers.until(lambda: stack.children().get("relay", killed) != killed)
        await hears(caller, 10)
        assert not caller.ended
        assert stack.zombies() == 0
