# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""Sessions of the Realtime API by WebSocket, for real: a client, a transceiver and an agent over loopback."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import trio
from realtime_socket import SocketClient, open_socket
from trio_websocket import ConnectionRejected

from agent import Call
from agent.agents import echo, realtime
from agent.codecs import open_decoder, open_encoder
from agent.live import Agent
from agent.loading import Switchboard
from agent.realtime.driver import converse
from agent.realtime.line import Line
from agent.realtime.parts import Model, Turn, Voice
from agent.realtime.response import Plan
from agent.server import AgentServer
from agent.sessions import over_websocket
from protocol.codecs import PCMA, PCMU
from protocol.routing import RoutingConfig
from transceiver.config import Timeouts, TransceiverConfig
from transceiver.server import Bound, Transceiver
from transceiver.signalling import new_key

Sound = Callable[[int, int], list[bytes]]
PATH = "/v1/realtime?model=any"
RATE = 24000


class Edge:
    def __init__(self, transceiver: Transceiver, bound: Bound, agent: AgentServer | None, ended: trio.Event) -> None:
        self.transceiver = transceiver
        self.agent = agent
        self.url = bound.http[0]
        self.admin = bound.admin
        self.ended = ended


@pytest.fixture
def start(nursery: trio.Nursery) -> Callable[..., Awaitable[Edge]]:
    async def start(
        agent: Agent | None = realtime, *, also: tuple[str, ...] = (), max_calls: int = 100, **options: Any
    ) -> Edge:
        server, url = None, "internal:echo"
        if agent is not None:
            server = AgentServer(agent, "under-test", also=also, max_calls=max_calls)
            url = f"ws://{await nursery.start(server.serve, '127.0.0.1:0')}/"
        config = TransceiverConfig(direct=True, agents=(url,), **options)
        transceiver = Transceiver(config, RoutingConfig(), strict=True)
        ended = trio.Event()

        async def run(*, task_status: trio.TaskStatus[Bound]) -> None:
            await transceiver.run(task_status=task_status)
            ended.set()

        return Edge(transceiver, await nursery.start(run), server, ended)

    return start


Start = Callable[..., Awaitable[Edge]]


def speaking(model: Model) -> Agent:
    @over_websocket
    async def agent(call: Call | Line) -> None:
        await converse(call, model)

    return agent


class Talker:
    """Says so many words, half a second each, as fast as they are taken."""

    def __init__(self, words: int = 4, pause: float = 0.0) -> None:
        self.words = words
        self.pause = pause
        self.said = 0
        self.cancelled = 0

    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
        try:
            for number in range(self.words):
                voice.say(f"word{number} ")
                await voice.play(bytes(voice.rate))
                self.said += 1
                await trio.sleep(self.pause)
        except trio.Cancelled:
            self.cancelled += 1
            raise


async def speak(client: SocketClient, pieces: list[bytes]) -> None:
    for piece in pieces:
        await client.append(piece)


@pytest.mark.slow
async def test_a_turn_that_is_appended_is_heard_and_comes_back_as_sound(start: Start, speech: Sound, quiet: Sound):
    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        created = await client.read("session.created")
        assert created["session"]["model"] == "any"
        assert created["session"]["expires_at"] > 0
        await speak(client, quiet(RATE, 500) + speech(RATE, 1500) + quiet(RATE, 1000))
        await client.read("response.done")
        started = await client.read("input_audio_buffer.speech_started")
        stopped = await client.read("input_audio_buffer.speech_stopped")
        assert 0 <= started["audio_start_ms"] <= 500
        assert 2000 <= stopped["audio_end_ms"] <= 2700
        wanted = [
            "session.created",
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_audio.done",
            "response.done",
        ]
        assert [kind for kind in client.types if kind in wanted] == wanted
        assert not any(kind.startswith("output_audio_buffer") for kind in client.types)
        heard = np.frombuffer(client.sound(), np.int16).astype(float)
        assert len(heard) / 24 == pytest.approx(stopped["audio_end_ms"] - started["audio_start_ms"], abs=25)
        assert np.sqrt((heard**2).mean()) > 300


@pytest.mark.slow
async def test_a_commit_of_more_audio_than_is_kept_is_told(start: Start):
    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        await client.configure(audio={"input": {"turn_detection": None, "format": {"type": "audio/pcmu"}}})
        await client.append(bytes(8 * 61_000))
        await client.send("input_audio_buffer.commit", event_id="too much")
        error = (await client.read("error"))["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_overrun", "too much")
        assert len(client.of("input_audio_buffer.committed")) == 1


@pytest.mark.slow
async def test_on_a_websocket_nobody_greets_unasked(start: Start):
    talker = Talker(1)

    @over_websocket
    async def greeter(call: Call | Line) -> None:
        await converse(call, talker, greets=True)

    edge = await start(greeter)
    async with open_socket(edge.url + PATH) as client:
        await client.configure(instructions="Wait.")
        await trio.sleep(0.6)
        assert client.of("response.created") == []
        await client.send("response.create")
        await client.read("response.done")
        assert len(client.of("response.created")) == talker.said == 1


@pytest.mark.slow
async def test_who_speaks_over_an_answer_ends_it_and_truncates_by_himself(start: Start, speech: Sound, quiet: Sound):
    talker = Talker(40, pause=0.05)
    edge = await start(speaking(talker))
    async with open_socket(edge.url + PATH) as client:
        await client.read("session.created")
        await client.send("response.create")
        await client.read("response.output_audio.delta", 10)
        await speak(client, speech(RATE, 600))
        done = await client.read("response.done")
        assert done["response"]["status_details"]["reason"] == "turn_detected"
        assert talker.cancelled == 1
        assert "conversation.item.truncated" not in client.types
        item_id = done["response"]["output"][0]["id"]
        sent_ms = len(client.sound()) / 48
        assert sent_ms >= 1000
        part = {"item_id": item_id, "content_index": 0}
        await client.send("conversation.item.truncate", event_id="late", **part, audio_end_ms=int(sent_ms) + 1000)
        error = (await client.read("error"))["error"]
        assert (error["event_id"], error["param"]) == ("late", "audio_end_ms")
        await client.send("conversation.item.truncate", **part, audio_end_ms=990)
        assert (await client.read("conversation.item.truncated"))["audio_end_ms"] == 990
        await client.send("conversation.item.retrieve", item_id=item_id)
        item = (await client.read("conversation.item.retrieved"))["item"]
        assert item["content"][0]["transcript"].split() == ["word0", "word1"]
        await speak(client, quiet(RATE, 1000))
        await client.read("response.created", 2)


@pytest.mark.slow
async def test_turns_that_come_faster_than_they_were_spoken_are_still_parted_by_their_pauses(
    start: Start, speech: Sound, quiet: Sound
):
    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        await client.configure(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
        began = trio.current_time()
        await speak(client, quiet(RATE, 500) + 2 * (speech(RATE, 1000) + quiet(RATE, 2500)))
        await client.read("input_audio_buffer.speech_stopped", 2)
        assert trio.current_time() - began < 5.0, "of 7.5"
        assert client.types.count("input_audio_buffer.speech_started") == 2


async def test_without_detection_the_client_commits_and_asks_by_hand(start: Start, quiet: Sound, speech: Sound):
    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        await client.configure(audio={"input": {"turn_detection": None}})
        await speak(client, quiet(RATE, 80))
        await client.send("input_audio_buffer.commit", event_id="short")
        error = (await client.read("error"))["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "short")
        assert "80.00ms" in error["message"]
        await client.send("input_audio_buffer.clear")
        await client.read("input_audio_buffer.cleared")
        await speak(client, speech(RATE, 100))  # as little as may be
        await client.send("input_audio_buffer.commit")
        item_id = (await client.read("input_audio_buffer.committed"))["item_id"]
        assert "response.created" not in client.types
        await client.send("response.create")
        assert (await client.read("response.done"))["response"]["status"] == "completed"
        assert len(client.sound()) / 48 == pytest.approx(100, abs=1)
        await client.send("conversation.item.retrieve", item_id=item_id)
        await client.read("conversation.item.retrieved")


@pytest.mark.parametrize("codec", [PCMU, PCMA])
async def test_audio_may_be_g711_both_ways(start: Start, speech: Sound, codec: Any):
    edge = await start()
    form = {"type": f"audio/{codec.name.lower()}"}
    async with open_socket(edge.url + PATH) as client:
        shown = await client.configure(
            audio={"input": {"format": form, "turn_detection": None}, "output": {"format": form}}
        )
        assert shown["audio"]["input"]["format"] == shown["audio"]["output"]["format"] == form
        encoder = open_encoder(codec)
        said = speech(8000, 900)
        for piece in said:
            await client.append(encoder.encode(piece))
        await client.send("input_audio_buffer.commit")
        await client.send("response.create")
        await client.read("response.done")
        sound = client.sound()
        assert len(sound) / 8 == pytest.approx(900, abs=1)
        heard = np.frombuffer(open_decoder(codec).decode(sound), np.int16).astype(float)
        meant = np.frombuffer(b"".join(said), np.int16).astype(float)
        shift = 800 - int(np.argmax(np.correlate(heard, meant[800:-800], "valid")))  # it went to 16 kHz and back
        assert abs(shift) < 200
        assert np.corrcoef(heard[800 - shift : 6400 - shift], meant[800:6400])[0, 1] > 0.95


async def test_wrong_events_get_an_error_and_the_session_goes_on(start: Start):
    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        await client.read("session.created")
        wrong: list[tuple[str | bytes, str, str | None, str | None]] = [
            ("not JSON", "invalid_json", None, None),
            (b"\xff\xfe", "invalid_json", None, None),
            ('{"type": "no.such.event", "event_id": "mine"}', "invalid_value", "type", "mine"),
            ('{"type": "input_audio_buffer.append", "event_id": "a", "audio": "???"}', "invalid_value", "audio", "a"),
            ('{"type": "input_audio_buffer.append", "event_id": "b", "audio": "AAA"}', "invalid_value", "audio", "b"),
            ('{"type": "input_audio_buffer.append", "event_id": "c", "audio": "ä"}', "invalid_value", "audio", "c"),
            ('{"type": "input_audio_buffer.append", "audio": 5}', "invalid_type", "audio", None),
            ('{"type": "output_audio_buffer.clear", "event_id": "d"}', "unsupported", "type", "d"),
            (
                json.dumps({"type": "session.update", "event_id": "e", "session": {"instructions": "x" * 262_144}}),
                "event_too_large",
                None,
                "e",
            ),
        ]
        for number, (message, code, param, event_id) in enumerate(wrong):
            await client.connection.send_message(message)
            error = (await client.read("error", number + 1))["error"]
            assert (error["code"], error["param"], error["event_id"]) == (code, param, event_id)
            assert error["type"] == "invalid_request_error"
        await client.configure(instructions="it goes on")


@pytest.mark.slow
async def test_an_append_may_be_large_and_what_is_larger_ends_the_session_with_1009(start: Start):
    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        await client.configure(audio={"input": {"turn_detection": None}})
        whole = base64.b64encode(bytes(15 * 1024 * 1024 * 3 // 4)).decode()
        assert len(whole) == 15 * 1024 * 1024
        await client.send("input_audio_buffer.append", audio=whole)
        await client.send("input_audio_buffer.append", audio=whole + "AAAA", event_id="more")
        error = (await client.read("error"))["error"]
        assert (error["code"], error["event_id"]) == ("event_too_large", "more")
        await client.send("input_audio_buffer.commit")
        await client.read("input_audio_buffer.committed")
        await client.connection.send_message("x" * (17 * 1024 * 1024))
        await client.until(lambda: client.closed)
        assert client.closed is not None
        assert client.closed[0] == 1009
    await trio.sleep(0.1)
    assert edge.transceiver.registry.sockets == 0


@pytest.mark.slow
async def test_a_client_that_does_not_read_holds_up_its_model_and_loses_nothing(start: Start):
    talker = Talker(words=1500)  # 36 MB of sound, 48 in base64: more than all buffers on the way
    edge = await start(speaking(talker))
    address = edge.url.removeprefix("http://").split(":")
    async with await trio.open_tcp_stream(address[0], int(address[1])) as stream:
        from wsproto import ConnectionType, WSConnection
        from wsproto.events import Request, TextMessage

        protocol = WSConnection(ConnectionType.CLIENT)
        await stream.send_all(protocol.send(Request(host="localhost", target=PATH)))
        protocol.receive_data(await stream.receive_some(65536))
        await stream.send_all(protocol.send(TextMessage('{"type": "response.create"}')))
        before = -1
        with trio.fail_after(20):
            while talker.said > before or talker.said == 0:
                before = talker.said
                await trio.sleep(0.5)
        assert talker.said < talker.words, "the model was not held up"
        last, sound = "", 0
        with trio.fail_after(60):
            while '"response.done"' not in last:
                for event in protocol.events():
                    if isinstance(event, TextMessage):
                        last = (last if last and not last.endswith("\0") else "") + event.data
                        if event.message_finished:
                            sound += len(last) if '"response.output_audio.delta"' in last else 0
                            if '"response.done"' in last:
                                break
                            last = ""
                if '"response.done"' not in last:
                    protocol.receive_data(await stream.receive_some(1 << 20))
        assert talker.said == talker.words
        assert sound > talker.words * RATE * 4 / 3


async def rejection(url: str, **options: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    """How the upgrade was refused: status, error object, headers."""
    with pytest.raises(BaseExceptionGroup) as refused:
        async with open_socket(url, **options):
            pass
    [rejected] = refused.value.exceptions
    assert isinstance(rejected, ConnectionRejected)
    headers = {name.decode().lower(): value.decode() for name, value in rejected.headers}
    assert headers["content-type"] == "application/json"
    return rejected.status_code, json.loads(rejected.body or b"")["error"], headers


@pytest.mark.parametrize("agent", [echo, None])
async def test_an_agent_that_cannot_serve_sessions_is_named_and_that_before_the_upgrade(
    start: Start, agent: Agent | None
):
    edge = await start(agent)
    status, error, _ = await rejection(edge.url + PATH)
    assert (status, error["code"]) == (501, "websocket_unsupported")
    assert ("under-test" if agent is not None else "echo") in error["message"]


async def test_of_several_agents_the_one_that_is_named_serves_or_the_first_that_can(start: Start):
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            voice.say(self.name)

    agents = {"under-test": echo, "one": speaking(Named("one")), "two": speaking(Named("two"))}
    edge = await start(Switchboard(agents), also=("one", "two"))
    for model, answers in (("one", "one"), ("two", "two"), ("gpt-realtime", "one")):
        async with open_socket(edge.url + f"/v1/realtime?model={model}") as client:
            await client.send("response.create", response={"output_modalities": ["text"]})
            assert (await client.read("response.output_text.done"))["text"] == answers
    status, error, _ = await rejection(edge.url + "/v1/realtime?model=under-test")
    assert (status, error["code"]) == (501, "websocket_unsupported")
    assert "under-test" in error["message"]


async def test_a_session_that_only_transcribes_is_refused_and_so_is_a_model_that_cannot_be(start: Start):
    edge = await start()
    status, error, _ = await rejection(edge.url + "/v1/realtime?intent=transcription")
    assert (status, error["code"], error["param"]) == (404, "transcription_not_served", "intent")
    status, error, _ = await rejection(edge.url + "/v1/realtime?model=" + "x" * 300)
    assert (status, error["code"]) == (400, "invalid_model")


async def test_who_asks_without_an_upgrade_is_told_that_it_takes_one(start: Start):
    edge = await start()
    async with httpx.AsyncClient() as http:
        answer = await http.get(edge.url + PATH)
        assert answer.status_code == 426
        assert answer.headers["upgrade"] == "websocket"
        assert answer.json()["error"]["code"] == "upgrade_required"
        # Elsewhere an upgrade is passed over, as it always was.
        answer = await http.get(edge.url + "/v1/info", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
        assert answer.status_code == 200


async def test_sessions_count_as_calls(start: Start):
    edge = await start(max_sessions=1)
    async with open_socket(edge.url + PATH) as client, httpx.AsyncClient() as http:
        await client.read("session.created")
        assert edge.agent is not None
        assert edge.agent.statistics.calls == 1
        assert (await http.get(edge.url + "/v1/info")).json()["calls"] == 1
        metrics = (await http.get(edge.admin + "/metrics")).text
        assert "antiphon_transceiver_websocket_sessions 1.0" in metrics
        assert "antiphon_transceiver_websocket_sessions_started_total 1.0" in metrics
        status, error, headers = await rejection(edge.url + PATH)
        assert (status, error["code"]) == (503, "session_limit")
        assert headers["retry-after"]
        offer = await http.post(
            edge.url + "/v1/realtime/calls", content=b"v=0", headers={"Content-Type": "application/sdp"}
        )
        assert offer.json()["error"]["code"] == "session_limit"
    await until(lambda: edge.agent is not None and edge.agent.statistics.calls == 0)
    assert edge.transceiver.sockets.ended == {"peer_closed": 1}
    assert edge.agent.statistics.calls_ended == {"peer_closed": 1}
    async with open_socket(edge.url + PATH) as client:
        await client.read("session.created")


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.005)


async def test_an_agent_that_is_full_or_leaves_refuses_and_the_client_may_come_again(
    start: Start, nursery: trio.Nursery
):
    edge = await start(max_calls=1)
    assert edge.agent is not None
    async with open_socket(edge.url + PATH) as client:
        await client.read("session.created")
        status, error, headers = await rejection(edge.url + PATH)
        assert (status, error["code"], headers["retry-after"]) == (503, "agent_full", "5")
        nursery.start_soon(edge.agent.drain, 0.1)
        await client.until(lambda: client.closed)
        assert client.closed == (1001, "agent_stopped")
    assert (await rejection(edge.url + PATH))[0] == 503


async def test_an_agent_that_ends_or_fails_closes_the_session_with_the_reason(start: Start):
    @over_websocket
    async def leaving(call: Call | Line) -> None:
        if call.session is not None and call.session["model"] == "bad":
            raise ValueError("a bug")

    edge = await start(leaving)
    for model, closed in (("good", (1000, "agent_ended")), ("bad", (1011, "agent_failed"))):
        async with open_socket(edge.url + f"/v1/realtime?model={model}") as client:
            await client.until(lambda client=client: client.closed)
            assert client.closed == closed


async def test_a_session_ends_after_its_longest_duration_and_says_so(start: Start):
    edge = await start(timeouts=Timeouts(max_session=0.2))
    async with open_socket(edge.url + PATH) as client:
        await client.read("session.created")
        assert (await client.read("error"))["error"]["code"] == "session_expired"
        await client.until(lambda: client.closed)
        assert client.closed == (1000, "max_duration")
    assert edge.transceiver.sockets.ended == {"max_duration": 1}


async def test_draining_lets_sessions_finish_and_shutting_down_does_not(start: Start):
    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        await client.read("session.created")
        edge.transceiver.drain()
        assert (await rejection(edge.url + PATH))[1]["code"] == "draining"
        await client.configure(instructions="it goes on")
        assert not edge.ended.is_set()
        edge.transceiver.shut_down()
        await client.until(lambda: client.closed)
        assert client.closed == (1001, "shutdown")
    with trio.fail_after(5):
        await edge.ended.wait()


async def test_a_session_that_still_waits_for_its_agent_keeps_no_process_from_ending(
    start: Start, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
):
    waiting = trio.Event()

    async def read_head(_: object) -> None:
        waiting.set()
        await trio.sleep_forever()

    edge = await start()
    monkeypatch.setattr("service.websocket.read_head", read_head)

    async def ask() -> None:
        with suppress(BaseExceptionGroup):  # a refusal, if it still gets out
            async with open_socket(edge.url + PATH):
                pass

    nursery.start_soon(ask)
    await waiting.wait()
    edge.transceiver.shut_down()
    with trio.fail_after(2):
        await edge.ended.wait()


async def test_an_agent_that_is_gone_takes_its_sessions_along(start: Start, monkeypatch: pytest.MonkeyPatch):
    connections: list[Any] = []
    monkeypatch.setattr("agent.server.AgentServer._run_session", lambda _, connection: hold(connection))

    async def hold(connection: Any) -> None:
        connections.append(connection)

    edge = await start()
    async with open_socket(edge.url + PATH) as client:
        await client.until(lambda: client.closed)
        assert client.closed is not None
        assert client.closed[0] == 1011
    assert edge.transceiver.sockets.ended == {"agent_lost": 1}


# Who may


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    """The file, and the key in it, which may have one call."""
    key, line = new_key("shop", os.urandom, calls=1)
    (tmp_path / "keys").write_text(line)
    return str(tmp_path / "keys"), key


async def test_a_key_is_needed_and_comes_as_a_header_or_from_browsers_as_a_subprotocol(
    start: Start, keys: tuple[str, str]
):
    edge = await start(api_keys=keys[0])
    status, error, headers = await rejection(edge.url + PATH)
    assert (status, error["code"], headers["www-authenticate"]) == (401, "missing_api_key", "Bearer")
    assert (await rejection(edge.url + PATH, headers=[(b"Authorization", b"Bearer wrong")]))[1][
        "code"
    ] == "invalid_api_key"
    bearer = [(b"Authorization", f"Bearer {keys[1]}".encode())]
    async with open_socket(edge.url + PATH, headers=bearer) as client:
        assert client.connection.subprotocol is None
        await client.read("session.created")
        assert (await rejection(edge.url + PATH, headers=bearer))[1]["code"] == "concurrent_calls_exceeded"
    await until(lambda: edge.transceiver.registry.sockets == 0)
    offered = ["realtime", f"openai-insecure-api-key.{keys[1]}", "openai-agents-sdk.0.20.0"]
    async with open_socket(edge.url + PATH, subprotocols=offered) as client:
        assert client.connection.subprotocol == "realtime"
        await client.read("session.created")


async def test_a_client_secret_brings_its_session(start: Start, keys: tuple[str, str]):
    edge = await start(api_keys=keys[0])
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {keys[1]}"}) as http:
        session = {"type": "realtime", "instructions": "from the secret", "audio": {"input": {"turn_detection": None}}}
        secret = (await http.post(edge.url + "/v1/realtime/client_secrets", json={"session": session})).json()["value"]
    async with open_socket(edge.url + PATH, headers=[(b"Authorization", f"Bearer {secret}".encode())]) as client:
        shown = (await client.read("session.created"))["session"]
        assert (shown["instructions"], shown["model"]) == ("from the secret", "any")
        assert shown["audio"]["input"]["turn_detection"] is None


async def test_pages_of_other_origins_connect_only_where_they_may_call(start: Start):
    edge = await start(allow_origins=("https://shop.example",))
    status, error, _ = await rejection(edge.url + PATH, headers=[(b"Origin", b"https://evil.example")])
    assert (status, error["code"]) == (403, "origin_not_allowed")
    async with open_socket(edge.url + PATH, headers=[(b"Origin", b"https://shop.example")]) as client:
        await client.read("session.created")


# The official client

OFFICIAL_CLIENT = """
import asyncio, base64, json, sys
from openai import AsyncOpenAI

async def main(url):
    client = AsyncOpenAI(api_key="sk-any", base_url=url + "/v1")
    speech = base64.b64decode(sys.stdin.read())
    seen, sound = [], 0
    async with client.realtime.connect(model="any") as connection:
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        for place in range(0, len(speech), 9600):
            await connection.input_audio_buffer.append(audio=base64.b64encode(speech[place:place + 9600]).decode())
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        async for event in connection:
            seen.append(type(event).__name__)
            if event.type == "response.output_audio.delta":
                sound += len(base64.b64decode(event.delta))
            if event.type == "response.done":
                break
    print(json.dumps([seen, sound]))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_the_official_python_client_connects_and_talks(start: Start, speech: Sound):
    edge = await start()
    said = b"".join(speech(RATE, 1000))
    result = await trio.run_process(
        [sys.executable, "-c", OFFICIAL_CLIENT, edge.url],
        stdin=base64.b64encode(said),
        capture_stdout=True,
        env=os.environ | {"NO_PROXY": "*", "no_proxy": "*"},
    )
    seen, sound = json.loads(result.stdout)
    assert seen[0] == "SessionCreatedEvent"
    assert {
        "SessionUpdatedEvent",
        "InputAudioBufferCommittedEvent",
        "ResponseAudioDeltaEvent",
        "ResponseDoneEvent",
    } <= set(seen)
    assert sound == pytest.approx(len(said), abs=100)
