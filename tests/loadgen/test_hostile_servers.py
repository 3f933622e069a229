"""The server under load is hostile: no answer, message or address of it ends the run, fills it or turns it on somebody else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio

from loadgen.driver import Driver
from loadgen.signalling import MAX_ANSWER, SignallingFailed, new_client, post_offer, read_key
from protocol.ice import Candidate, candidate_priority


@pytest.mark.parametrize(
    "word",
    [
        "[" * 100_000 + "antiphon.call.ended",
        '{"type":"antiphon.call.ended","reason":"\\ud800"}',
        '{"type":"antiphon.call.ended","reason":{"a":[]}}',
        '"antiphon.call.ended"',
    ],
    ids=["nested", "surrogate", "object", "no object"],
)
def test_a_goodbye_that_no_parser_likes_has_an_unknown_reason(world, word: str) -> None:
    world.run_for(0.1)
    world.server.peer.send_message(world.server.channel, word, world.now)
    world.run_for(0.5)
    assert world.call.farewell == "unknown"


@pytest.mark.parametrize("size", [1, 21])
def test_a_server_that_takes_no_message_long_enough_to_open_a_channel_fails_the_call(new_world, size: int) -> None:
    world = new_world()
    world.server.answer = world.server.answer.replace("a=max-message-size:262144", f"a=max-message-size:{size}")
    assert f"a=max-message-size:{size}\r\n" in world.server.answer
    world.dial()
    world.run_until(lambda: world.call.is_over)
    assert world.call.failure == "channel_refused"


@pytest.mark.slow
async def test_candidates_that_no_socket_can_send_to_are_counted_and_end_nothing(new_world) -> None:
    addresses = ("255.255.255.255", "0.0.0.0", "224.0.0.1", "::", "fe80::1", "ff02::1", "::ffff:0.0.0.0", "2001:db8::1")
    call = new_world().call
    driver = Driver()
    line = driver.open(call)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(driver.run)
        world = new_world(
            candidates=tuple(Candidate("1", 1, "udp", candidate_priority("host"), one, 9, "host") for one in addresses)
        )
        line.call = world.call
        world.call.answered(world.server.answer.encode(), driver.clock())
        driver.touch(line)
        await trio.sleep(0.45)
        assert world.call.failure is None
        driver.close(line)
        nursery.cancel_scope.cancel()


# Signalling

Responder = Callable[[trio.SocketStream], Awaitable[None]]


async def post_to(nursery: trio.Nursery, respond: Responder) -> str:
    """The reason for which an offer to a server that answers so has failed."""
    (listener,) = await nursery.start(partial(trio.serve_tcp, respond, 0, host="127.0.0.1"))
    url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
    async with new_client(url, connections=1, through_proxy=False) as client:
        with pytest.raises(SignallingFailed) as failed:
            await post_offer(client, "v=0\r\n")
    return failed.value.reason


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("//[::1", "offer_bad_location"),
        ("/" + "a" * 70_000, "offer_bad_location"),
        ("http://\u2603.example/", "offer_bad_location"),
        ("http://192.0.2.1/v1/realtime/calls/rtc_1", "offer_foreign_location"),
        ("//192.0.2.1/v1/realtime/calls/rtc_1", "offer_foreign_location"),
    ],
    ids=["no address", "endless", "no name", "another server", "another host"],
)
async def test_a_call_is_hung_up_at_its_own_server_or_not_at_all(nursery, location: str, reason: str) -> None:
    async def respond(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        head = f"HTTP/1.1 201 Created\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        await stream.send_all(head.encode())

    assert await post_to(nursery, respond) == reason


@pytest.mark.parametrize("key", ["sk-a b", "sk-ü", "sk-a\nX-Other: 1"])
def test_what_is_no_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="ANTIPHON_LOAD_KEY") as refused:
        read_key({"ANTIPHON_LOAD_KEY": key})
    assert "sk-" not in str(refused.value)
    assert read_key({"ANTIPHON_LOAD_KEY": " sk-a\n"}) == "sk-a"
    assert read_key({}) == ""


async def test_of_an_answer_without_end_no_more_is_read_than_of_any_answer(nursery) -> None:
    sent = 0

    async def respond(stream: trio.SocketStream) -> None:
        nonlocal sent
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 201 Created\r\nLocation: /v1/x\r\n\r\n")
        try:
            while True:
                await stream.send_all(bytes(65_536))
                sent += 65_536
        except trio.BrokenResourceError:
            return

    assert await post_to(nursery, respond) == "answer_too_long"
    assert sent < 100 * MAX_ANSWER  # what the sockets between them hold


async def test_a_server_that_sends_a_byte_now_and_then_holds_nobody_up(nursery, monkeypatch) -> None:
    monkeypatch.setattr("loadgen.signalling.REQUEST_SECONDS", 0.2)

    async def respond(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 201 Created\r\nLocation: /v1/x\r\n\r\n")
        try:
            while True:
                await stream.send_all(b"v")
                await trio.sleep(0.05)
        except trio.BrokenResourceError:
            return

    with trio.fail_after(5):
        assert await post_to(nursery, respond) == "offer_timeout"


@pytest.mark.parametrize(
    ("word", "slots"),
    [
        ('{"type":"meter.slots",', None),
        ('{"type":"meter.slots",' + "[" * 100_000, None),
        ('{"type":"meter.slots","expected":[1]}', None),
        ('{"type":"meter.slots","expected":-1,"late":99999999999999999999,"in_time":3}', {"in_time": 3}),
        ('{"type":"meter.slots","expected":"many"}', {}),
    ],
    ids=["cut off", "nested", "list", "beyond all bounds", "word"],
)
def test_of_counts_that_cannot_be_none_is_believed(world, word: str, slots: dict[str, int] | None) -> None:
    world.run_for(0.1)
    world.server.peer.send_message(world.server.channel, word, world.now)
    world.run_for(0.5)
    assert world.call.slots == slots
    assert world.call.failure is None
