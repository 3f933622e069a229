# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""Controllers of a live call, for real: a caller, a transceiver, an agent, and WebSockets from the side."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from realtime_client import OFFICIAL
from realtime_socket import open_socket
from trio_websocket import ConnectionRejected

from agent import Call, ChannelClosed, ChannelOpened, Message
from agent.agents import echo
from agent.codecs import needs_pcm
from agent.live import Agent
from agent.realtime.driver import converse
from agent.realtime.parts import Turn, Voice
from agent.realtime.response import Plan
from agent.server import AgentServer
from protocol.routing import RoutingConfig
from transceiver.config import TransceiverConfig
from transceiver.server import Transceiver
from transceiver.session.controllers import MAX_CONTROLLERS
from transceiver.signalling import new_key
from udpio import open_udp

pytestmark = pytest.mark.slow

CALLS = "/v1/realtime/calls"


class Obedient:
    """Writes what its instructions are."""

    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
        voice.say(plan.instructions or "nothing")


@needs_pcm
async def obedient(call: Call) -> None:
    await converse(call, Obedient())


class Scene:
    """A caller who is through, and what a controller needs to know of it."""

    def __init__(
        self, transceiver: Transceiver, base: str, call_id: str, caller: Any, agent: AgentServer | None
    ) -> None:
        self.transceiver = transceiver
        self.base = base
        self.call_id = call_id
        self.caller = caller
        self.agent = agent
        self.url = f"{base}/v1/realtime?call_id={call_id}"

    @property
    def events(self) -> list[dict[str, Any]]:
        """What the caller's client was told."""
        events = [json.loads(message) for message in self.caller.messages]
        for event in events:
            if not event["type"].startswith("antiphon."):
                OFFICIAL.validate_python(event)
        return events

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    @property
    def drops(self) -> Any:
        return self.transceiver.registry.all_drops()


@pytest.fixture
def call(nursery: trio.Nursery, caller_class: Any, wait_until: Any) -> Callable[..., Awaitable[Scene]]:
    async def call(agent: Agent | None = obedient, key: str = "", **options: Any) -> Scene:
        server, url = None, "internal:echo"
        if agent is not None:
            server = AgentServer(agent, "under-test")
            url = f"ws://{await nursery.start(server.serve, '127.0.0.1:0')}/"
        transceiver = Transceiver(
            TransceiverConfig(direct=True, agents=(url,), **options), RoutingConfig(), strict=True
        )
        bound = await nursery.start(transceiver.run)
        caller = caller_class(open_udp("127.0.0.1", 0))
        headers = {"Content-Type": "application/sdp"} | ({"Authorization": f"Bearer {key}"} if key else {})
        async with httpx.AsyncClient() as http:
            response = await http.post(bound.http[0] + CALLS, content=caller.offer(), headers=headers)
        assert response.status_code == 201, response.text
        caller.accept(response.text)
        nursery.start_soon(caller.run)
        await wait_until(lambda: caller.channel_is_open)
        return Scene(transceiver, bound.http[0], response.headers["location"].rpartition("/")[2], caller, server)

    return call


Dial = Callable[..., Awaitable[Scene]]


async def rejection(url: str, **options: Any) -> tuple[int, str]:
    with pytest.raises(BaseExceptionGroup) as refused:
        async with open_socket(url, **options):
            pass
    [rejected] = refused.value.exceptions
    assert isinstance(rejected, ConnectionRejected)
    return rejected.status_code, json.loads(rejected.body or b"")["error"]["code"]


async def test_a_controller_changes_the_instructions_of_a_live_call_and_sees_what_follows(call: Dial, wait_until: Any):
    scene = await call()
    scene.caller.say(json.dumps({"type": "session.update", "session": {"output_modalities": ["text"]}}))
    await wait_until(lambda: scene.of("session.updated"))
    async with open_socket(scene.url) as controller:
        created = await controller.read("session.created")
        assert created["session"]["output_modalities"] == ["text"], "the session as it is now"
        await controller.configure(instructions="from the side")
        await wait_until(lambda: len(scene.of("session.updated")) == 2)
        assert scene.of("session.updated")[1]["session"]["instructions"] == "from the side"
        scene.caller.say(json.dumps({"type": "response.create"}))
        assert (await controller.read("response.output_text.done"))["text"] == "from the side"
        await wait_until(lambda: scene.of("response.done"))
        await controller.read("response.done")
        after = [event["event_id"] for event in scene.events]
        assert [event["event_id"] for event in controller.events[1:]] == after[-len(controller.events) + 1 :]
    assert len(scene.of("session.created")) == 1


async def test_an_error_is_for_whoever_caused_it(call: Dial, wait_until: Any):
    scene = await call()
    async with open_socket(scene.url) as one, open_socket(scene.url) as other:
        for controller in (one, other):
            await controller.read("session.created")
        await one.send("response.cancel", event_id="of-one")
        assert (await one.read("error"))["error"]["event_id"] == "of-one"
        await one.connection.send_message("not JSON")
        await one.connection.send_message('{"type": "session.update", "session": {"instructions": 5}}')
        await one.connection.send_message(json.dumps({"type": "input_audio_buffer.clear", "padding": "x" * 300_000}))
        errors = [(await one.read("error", number))["error"] for number in (2, 3, 4)]
        # The last is told by the transceiver: the agent never sees it.
        assert {error["code"] for error in errors} == {"invalid_json", "invalid_type", "event_too_large"}
        scene.caller.say(json.dumps({"type": "response.cancel", "event_id": "of-the-caller"}))
        await wait_until(lambda: scene.of("error"))
        await other.configure(instructions="it goes on")
        await one.read("session.updated")
        await wait_until(lambda: scene.of("session.updated"))
        assert [event["error"]["event_id"] for event in scene.of("error")] == ["of-the-caller"]
        assert not other.of("error")
        assert len(one.of("error")) == 4


async def test_who_does_not_read_is_cut_and_the_call_and_the_others_go_on(call: Dial, wait_until: Any):
    scene = await call()
    async with open_socket(scene.url) as reader:
        address = scene.base.removeprefix("http://").split(":")
        async with await trio.open_tcp_stream(address[0], int(address[1])) as stalled:
            target = scene.url.removeprefix(scene.base)
            head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            await stalled.send_all(head.encode())
            assert b"101" in await stalled.receive_some(12)
            registry = scene.transceiver.registry
            session = registry.sessions[scene.call_id]
            assert len(session.conversation.controllers or ()) == 2
            for number in range(340):  # 20 MB: more than all buffers on the way hold
                await reader.configure(instructions=f"{number} " + "x" * 60_000)
                if len(session.conversation.controllers or ()) == 1:
                    break
            assert len(session.conversation.controllers or ()) == 1
            assert scene.drops["controller_slow"] == 1
            with trio.fail_after(5), suppress(trio.BrokenResourceError):
                while await stalled.receive_some(1 << 20):  # what the kernel had, then the end
                    pass
        await reader.configure(instructions="the last")
        await wait_until(lambda: scene.of("session.updated")[-1]["session"]["instructions"] == "the last")
        assert not scene.caller.ended


async def test_when_the_call_ends_its_controllers_are_told_why(call: Dial):
    scene = await call()
    async with open_socket(scene.url) as one, open_socket(scene.url) as other, httpx.AsyncClient() as http:
        for controller in (one, other):
            await controller.read("session.created")
        await http.post(f"{scene.base}{CALLS}/{scene.call_id}/hangup")
        for controller in (one, other):
            await controller.until(lambda controller=controller: controller.closed)
            assert controller.closed == (1000, "hangup")
    assert await rejection(scene.url) == (404, "call_not_found")


async def test_a_controller_that_leaves_is_forgotten_by_agent_and_call(call: Dial, wait_until: Any):
    seen: list[object] = []
    calls: list[Call] = []

    async def watching(a_call: Call) -> None:
        calls.append(a_call)
        async for event in a_call:
            seen.append(event)
            if isinstance(event, Message):
                assert await a_call.send_message(event.data, event.channel)
                await a_call.send_message("for the caller")

    scene = await call(watching)
    await wait_until(lambda: calls and calls[0].channels)
    async with open_socket(scene.url) as controller:
        await wait_until(lambda: calls[0].controllers)
        assert list(calls[0].controllers) == [0x10000]
        assert list(calls[0].channels.values()) == ["oai-events"]
        await wait_until(lambda: ChannelOpened(0x10000, "sideband", "", sideband=True) in seen)
        await controller.connection.send_message('{"type": "input_audio_buffer.cleared", "event_id": "an echo"}')
        await controller.read("input_audio_buffer.cleared")
        await wait_until(lambda: scene.caller.messages == ["for the caller"])
    await wait_until(lambda: not calls[0].controllers)
    await wait_until(lambda: seen[-1] == ChannelClosed(0x10000))
    assert not await calls[0].send_message("too late", 0x10000)
    async with open_socket(scene.url):
        await wait_until(lambda: list(calls[0].controllers) == [0x10001])


async def test_an_agent_that_is_no_realtime_session_does_with_a_controller_what_it_does_with_any_channel(call: Dial):
    scene = await call(echo)
    async with open_socket(scene.url) as controller:
        await controller.connection.send_message('{"type": "input_audio_buffer.cleared", "event_id": "an echo"}')
        assert (await controller.read("input_audio_buffer.cleared"))["event_id"] == "an echo"
    assert scene.caller.messages == []


async def test_a_call_that_is_not_there_or_has_no_agent_is_refused_before_the_upgrade(call: Dial):
    scene = await call(None)
    assert await rejection(scene.url) == (404, "call_not_found")
    assert await rejection(scene.base + "/v1/realtime?call_id=rtc_nobody") == (404, "call_not_found")
    assert await rejection(scene.base + "/v1/realtime?call_id=") == (404, "call_not_found")


async def test_so_many_controllers_and_no_more(call: Dial):
    scene = await call()
    async with trio.open_nursery() as nursery:
        for _ in range(MAX_CONTROLLERS):
            await nursery.start(hold, scene.url)
        assert await rejection(scene.url) == (429, "controller_limit")
        nursery.cancel_scope.cancel()


async def hold(url: str, *, task_status: trio.TaskStatus[None]) -> None:
    async with open_socket(url) as controller:
        await controller.read("session.created")
        task_status.started()
        await trio.sleep_forever()


async def test_a_controller_needs_the_key_that_the_call_was_placed_with(call: Dial, tmp_path: Path):
    pairs = {name: new_key(name, os.urandom) for name in ("shop", "other")}
    (tmp_path / "keys").write_text("\n".join(line for _, line in pairs.values()))
    scene = await call(key=pairs["shop"][0], api_keys=str(tmp_path / "keys"))

    def bearer(credential: str) -> Any:
        return [(b"Authorization", f"Bearer {credential}".encode())]

    assert await rejection(scene.url) == (401, "missing_api_key")
    assert await rejection(scene.url, headers=bearer(pairs["other"][0])) == (404, "call_not_found")
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {pairs['shop'][0]}"}) as http:
        secret = (await http.post(scene.base + "/v1/realtime/client_secrets", json={})).json()["value"]
    assert await rejection(scene.url, headers=bearer(secret)) == (403, "api_key_required")
    async with open_socket(scene.url, headers=bearer(pairs["shop"][0])) as controller:
        await controller.read("session.created")


OFFICIAL_CONTROLLER = """
import asyncio, json, sys
from openai import AsyncOpenAI

async def main(url, call_id):
    client = AsyncOpenAI(api_key="sk-any", base_url=url + "/v1")
    seen = []
    async with client.realtime.connect(call_id=call_id) as connection:
        await connection.session.update(session={"type": "realtime", "instructions": "from the official client"})
        async for event in connection:
            seen.append(type(event).__name__)
            if event.type == "session.updated":
                break
    print(json.dumps(seen))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_official_python_client_controls_a_call(call: Dial, wait_until: Any):
    scene = await call()
    result = await trio.run_process(
        [sys.executable, "-c", OFFICIAL_CONTROLLER, scene.base, scene.call_id],
        capture_stdout=True,
        env=os.environ | {"NO_PROXY": "*", "no_proxy": "*"},
    )
    assert json.loads(result.stdout) == ["SessionCreatedEvent", "SessionUpdatedEvent"]
    await wait_until(lambda: scene.of("session.updated"))
    assert scene.of("session.updated")[0]["session"]["instructions"] == "from the official client"
