# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""The whole transceiver for real: HTTP, UDP over loopback, and an agent at the other end of a WebSocket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from protocol.agentlink import (
    LINK_VERSION,
    AgentHello,
    CallAccept,
    CallEnd,
    CallFlush,
    CallPlayed,
    CallStart,
    ChannelOpen,
    DataMessage,
    PlayedReports,
    TransceiverHello,
    decode_binary_untrusted,
    decode_transceiver_message_untrusted,
    encode_data,
    encode_media,
    encode_message,
)
from protocol.codecs import OPUS
from protocol.routing import RoutingConfig
from protocol.srtp import library_named
from service.config import ConfigError, load
from transceiver.config import Timeouts, TransceiverConfig
from transceiver.server import Bound, Transceiver
from udpio import open_udp

CALLS = "/v1/realtime/calls"
ROOT = Path(__file__).parents[2]


class EchoAgent:
    """The agent's side of the link in its smallest form."""

    def __init__(self) -> None:
        self.url = ""
        self.hellos: list[TransceiverHello] = []
        self.starts: list[CallStart] = []
        self.told: list[object] = []
        self.media_messages: list[int] = []  # how many frames each carried
        self.codecs: tuple[str, ...] = ()
        self.connection: WebSocketConnection | None = None
        self.scope = trio.CancelScope()

    async def serve(self, port: int = 0, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.scope:
            async with trio.open_nursery() as nursery:
                server = await nursery.start(
                    partial(serve_websocket, self.handle, "127.0.0.1", port, None, max_message_size=1 << 20)
                )
                self.url = f"ws://127.0.0.1:{server.port}/"
                task_status.started()

    async def handle(self, request: WebSocketRequest) -> None:
        self.connection = socket = await request.accept()
        try:
            while True:
                await self.answer(socket, await socket.get_message())
        except ConnectionClosed:
            return

    async def answer(self, socket: WebSocketConnection, message: str | bytes) -> None:
        if isinstance(message, bytes):
            content = decode_binary_untrusted(message)
            if isinstance(content, DataMessage):
                await socket.send_message(encode_data(content))
            elif isinstance(content, PlayedReports):
                self.told += content.reports
            else:
                self.media_messages.append(len(content))
                for data in encode_media(content):
                    await socket.send_message(data)
            return
        event = decode_transceiver_message_untrusted(message)
        match event:
            case TransceiverHello():
                self.hellos.append(event)
                await socket.send_message(encode_message(AgentHello(LINK_VERSION, "echo", self.codecs)))
            case CallStart():
                self.starts.append(event)
                await socket.send_message(encode_message(CallAccept(event.handle)))
            case _:
                self.told.append(event)

    def told_of(self, kind: type) -> list[Any]:
        return [event for event in self.told if isinstance(event, kind)]


@pytest.fixture
async def agent(nursery: trio.Nursery) -> EchoAgent:
    agent = EchoAgent()
    await nursery.start(agent.serve)
    return agent


class Edge:
    def __init__(self, transceiver: Transceiver, bound: Bound) -> None:
        self.transceiver = transceiver
        self.bound = bound
        self.ended = trio.Event()


@pytest.fixture
def start_edge(nursery: trio.Nursery, agent: EchoAgent) -> Callable[..., Any]:
    async def start(**options: Any) -> Edge:
        config = TransceiverConfig(**{"direct": True, "agents": (agent.url,), **options})
        transceiver = Transceiver(config, RoutingConfig(), strict=True)
        edge = Edge(transceiver, Bound("", [], ""))

        async def run(*, task_status: trio.TaskStatus[Bound]) -> None:
            await transceiver.run(task_status=task_status)
            edge.ended.set()

        edge.bound = await nursery.start(run)
        return edge

    return start


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=5) as client:
        yield client


@pytest.fixture
def dial(nursery: trio.Nursery, caller_class: Any, http: httpx.AsyncClient, wait_until: Any) -> Callable[..., Any]:
    async def dial(base: str, host: str = "127.0.0.1", **options: Any) -> tuple[Any, str]:
        """A caller that is through, and the address of its call."""
        caller = caller_class(open_udp(host, 0), **options)
        response = await http.post(base + CALLS, content=caller.offer(), headers={"Content-Type": "application/sdp"})
        assert response.status_code == 201, response.text
        assert response.text.endswith("\r\n")
        caller.accept(response.text)
        nursery.start_soon(caller.run)
        await wait_until(lambda: caller.channel_is_open)
        return caller, base + response.headers["location"]

    return dial


@pytest.mark.slow
async def test_a_call_echoes_audio_and_messages_and_is_hung_up_by_http(
    start_edge: Any, agent: EchoAgent, dial: Any, http: httpx.AsyncClient, wait_until: Any
) -> None:
    edge = await start_edge()
    caller, location = await dial(edge.bound.http[0])
    await wait_until(lambda: agent.starts and agent.told_of(ChannelOpen))
    for number in range(20):
        caller.speak(OPUS.silence + bytes([number]))
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.audio) == 20)
    assert [packet.payload[-1] for packet in caller.audio] == list(range(20))
    for message in ("hello", "", b"\x01\x02", b"", "y" * 65_536):
        caller.say(message)
    await wait_until(lambda: len(caller.messages) == 5)
    assert caller.messages == ["hello", "", b"\x01\x02", b"", "y" * 65_536]
    assert agent.starts[0].codec == "opus"
    assert (agent.starts[0].clock_rate, agent.starts[0].channels) == (48_000, 2)
    assert agent.starts[0].call_id == location.rpartition("/")[2]
    await wait_until(lambda: agent.told_of(CallPlayed))
    assert (await http.post(location + "/hangup")).status_code == 200
    await wait_until(lambda: caller.ended)
    assert caller.told_reason == "hangup"
    await wait_until(lambda: [end.reason for end in agent.told_of(CallEnd)] == ["hangup"])
    assert (await http.delete(location)).status_code == 404
    metrics = (await http.get(edge.bound.admin + "/metrics")).text
    assert 'antiphon_transceiver_calls_ended_total{reason="hangup"} 1.0' in metrics
    assert "antiphon_transceiver_agent_link_up" in metrics
    assert "antiphon_transceiver_datagrams_overflowed_total 0.0" in metrics
    assert (await http.get(edge.bound.admin + "/readyz")).status_code == 200


@pytest.mark.slow
async def test_many_calls_share_one_link_and_their_frames_one_message(
    start_edge: Any, agent: EchoAgent, dial: Any, wait_until: Any
) -> None:
    edge = await start_edge()
    callers = [(await dial(edge.bound.http[0]))[0] for _ in range(6)]
    await wait_until(lambda: len(agent.starts) == 6)
    for _ in range(10):
        for caller in callers:
            caller.speak()
        await trio.sleep(0.02)
    await wait_until(lambda: all(len(caller.audio) == 10 for caller in callers))
    assert len(agent.hellos) == 1
    assert max(agent.media_messages) > 1
    assert len({start.handle for start in agent.starts}) == 6


async def test_the_agent_hangs_up_and_flushes(start_edge: Any, agent: EchoAgent, dial: Any, wait_until: Any) -> None:
    edge = await start_edge()
    caller, _ = await dial(edge.bound.http[0])
    await wait_until(lambda: agent.starts)
    handle = agent.starts[0].handle
    assert agent.connection is not None
    await agent.connection.send_message(encode_message(CallFlush(handle)))
    await wait_until(lambda: [word.reason.value for word in agent.told_of(CallPlayed)] == ["flushed"])
    await agent.connection.send_message("{}")  # nonsense is counted, and the link lives
    await agent.connection.send_message(b"\x01\x00")
    await agent.connection.send_message(encode_message(CallEnd(handle, "bored")))
    await wait_until(lambda: caller.ended)
    assert caller.told_reason == "agent_ended"
    assert edge.transceiver.agents.links[0].drops == {"link_invalid": 1, "link_truncated": 1}


async def test_an_agent_that_restarts_gets_its_calls_back(
    start_edge: Any, agent: EchoAgent, dial: Any, nursery: trio.Nursery, wait_until: Any
) -> None:
    edge = await start_edge(timeouts=Timeouts(backend_retry=0.05))
    caller, _ = await dial(edge.bound.http[0])
    await wait_until(lambda: agent.told_of(ChannelOpen))
    port = int(agent.url.rpartition(":")[2].strip("/"))
    agent.scope.cancel()
    await wait_until(lambda: not edge.transceiver.agents.links[0].connected)
    caller.say("is anybody there?")
    successor = EchoAgent()
    await nursery.start(successor.serve, port)
    await wait_until(lambda: successor.told_of(ChannelOpen))
    assert successor.starts[0].call_id == agent.starts[0].call_id
    await wait_until(lambda: caller.messages == ["is anybody there?"])
    caller.speak()
    await wait_until(lambda: caller.audio)


@pytest.mark.parametrize(
    ("listen", "host"),
    [("[::1]:0", "::1"), ("[::]:0", "::1"), ("[::]:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.1")],
)
async def test_calls_come_by_either_version_of_ip(
    start_edge: Any, dial: Any, wait_until: Any, listen: str, host: str
) -> None:
    edge = await start_edge(listen=listen)
    caller, _ = await dial(edge.bound.http[0], host)
    caller.speak()
    caller.say("hello")
    await wait_until(lambda: caller.audio and caller.messages == ["hello"])


async def test_the_agents_codecs_decide_what_is_answered(
    start_edge: Any, agent: EchoAgent, dial: Any, wait_until: Any
) -> None:
    agent.codecs = ("PCMU",)
    edge = await start_edge()
    await dial(edge.bound.http[0])
    await wait_until(lambda: agent.starts)
    assert (agent.starts[0].codec, agent.starts[0].clock_rate) == ("PCMU", 8000)


OFFER_FAULTS: dict[str, tuple[Callable[[str], str], str]] = {
    "empty": (lambda sdp: "", ""),
    "not sdp": (lambda sdp: "hello", ""),
    "no media": (lambda sdp: sdp.partition("m=")[0].replace("a=group:BUNDLE 0 1\r\n", ""), ""),
    "no fingerprint": (lambda sdp: without(sdp, "a=fingerprint"), "a=fingerprint"),
    "md5": (lambda sdp: sdp.replace("sha-256", "md5"), "a=fingerprint"),
    "sha-1": (lambda sdp: sdp.replace("sha-256", "sha-1"), "a=fingerprint"),
    "no ufrag": (lambda sdp: without(sdp, "a=ice-ufrag"), "a=ice-ufrag"),
    "no pwd": (lambda sdp: without(sdp, "a=ice-pwd"), "a=ice-pwd"),
    "bad ufrag": (lambda sdp: replaced(sdp, "a=ice-ufrag", "a=ice-ufrag:a b"), "a=ice-ufrag"),
    "short pwd": (lambda sdp: replaced(sdp, "a=ice-pwd", "a=ice-pwd:short"), "a=ice-pwd"),
    "no rtcp-mux": (lambda sdp: without(sdp, "a=rtcp-mux"), "a=rtcp-mux"),
    "unknown bundle mid": (lambda sdp: sdp.replace("BUNDLE 0 1", "BUNDLE 0 1 7"), "a=group"),
    "repeated bundle mid": (lambda sdp: sdp.replace("BUNDLE 0 1", "BUNDLE 0 1 1"), "a=group"),
}

CANNOT = {"no media", "md5", "sha-1", "no rtcp-mux"}  # good SDP of something that we do not do


def without(sdp: str, start: str) -> str:
    return "".join(line for line in sdp.splitlines(keepends=True) if not line.startswith(start))


def replaced(sdp: str, start: str, line: str) -> str:
    return "".join(line + "\r\n" if old.startswith(start) else old for old in sdp.splitlines(keepends=True))


async def test_bad_offers_are_refused_with_a_reason_and_good_ones_still_answered(
    start_edge: Any, http: httpx.AsyncClient, caller_class: Any
) -> None:
    edge = await start_edge(web="none")
    url = edge.bound.http[0] + CALLS
    caller = caller_class(open_udp("127.0.0.1", 0))
    for name, (spoil, param) in OFFER_FAULTS.items():
        response = await http.post(url, content=spoil(caller.offer()), headers={"Content-Type": "application/sdp"})
        assert response.status_code == (422 if name in CANNOT else 400), name
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert error["code"]
        assert error["message"].endswith(".")
        assert param in error["param"], name
    assert edge.transceiver.registry.sessions == {}
    response = await http.post(url, content=caller.offer(), headers={"Content-Type": "application/sdp"})
    assert response.status_code == 201
    info = (await http.get(edge.bound.http[0] + "/v1/info")).json()
    assert (info["calls"], info["agent"], info["draining"]) == (1, "echo", False)
    assert (await http.get(edge.bound.http[0] + "/")).status_code == 404
    caller.socket.close()


async def test_draining_ends_the_process_when_the_last_call_has_ended(
    start_edge: Any, dial: Any, http: httpx.AsyncClient, wait_until: Any
) -> None:
    edge = await start_edge()
    caller, _ = await dial(edge.bound.http[0])
    edge.transceiver.drain()
    offer = {"content": caller.offer(), "headers": {"Content-Type": "application/sdp"}}
    response = await http.post(edge.bound.http[0] + CALLS, **offer)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert (await http.get(edge.bound.admin + "/readyz")).status_code == 503
    assert not edge.ended.is_set()
    caller.hang_up()
    with trio.fail_after(2):
        await edge.ended.wait()


def environment(**values: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    return clean | {f"ANTIPHON_TRANSCEIVER_{key.upper()}": value for key, value in values.items()}


@pytest.mark.slow
async def test_as_a_process_it_says_where_it_serves_drains_on_sigterm_and_ends_at_once_on_the_second(
    agent: EchoAgent, dial: Any, nursery: trio.Nursery, wait_until: Any
) -> None:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "transceiver"],
        env=environment(direct="true", agents=agent.url, listen="127.0.0.1:0", http="127.0.0.1:0"),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log: list[bytes] = []
    assert process.stdout is not None
    assert process.stderr is not None
    nursery.start_soon(collect, process.stderr, log)
    with trio.fail_after(20):
        line = await process.stdout.receive_some()
    assert line.startswith(b"ready ")
    assert line.count(b"\n") == 1
    bound = json.loads(line.removeprefix(b"ready "))
    caller, location = await dial(bound["http"][0])
    caller.speak()
    await wait_until(lambda: caller.audio)
    process.send_signal(signal.SIGTERM)
    await wait_until(lambda: '{"type":"antiphon.draining"}' in caller.messages)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(3):
        assert await process.wait() == 0
    await wait_until(lambda: caller.ended)
    assert caller.told_reason == "shutdown"
    await wait_until(lambda: log)  # standard error has ended
    text = b"".join(log).decode()
    assert "Traceback" not in text
    assert location.rpartition("/")[2] in text
    assert f'"srtp": "{library_named().name}"' in text


async def collect(stream: trio.abc.ReceiveStream, into: list[bytes]) -> None:
    async with stream:
        into += [chunk async for chunk in stream]


WRONG_CONFIGURATIONS = {
    "lisen = '127.0.0.1:0'\ndirect = true": "transceiver.lisen",
    "listen = 'nonsense'\ndirect = true": "transceiver.listen",
    "direct = true\nagents = ['http://127.0.0.1/']": "transceiver.agents",
    "direct = true\n[transceiver.timeouts]\nsetup = -1": "transceiver.timeouts.setup: ",
    "direct = true\n[transceiver.timeouts]\nsetups = 1": "transceiver.timeouts.setups: unknown key",
    "direct = true\nsetup = 'actpass'": "transceiver.setup: ",
    "listen = '127.0.0.1:0'": "transceiver.advertise",
    "direct = true\nhttp = ['0.0.0.0:80']": "transceiver.http: ",
    "direct = true\nsecret_key = 'x'": "transceiver.secret_key: ",
    "direct = true\napi_keys = 'keys'\nopen_access = true": "transceiver.open_access: ",
}


@pytest.mark.parametrize(("text", "key"), WRONG_CONFIGURATIONS.items(), ids=WRONG_CONFIGURATIONS.values())
def test_a_wrong_configuration_names_its_key(tmp_path: Path, text: str, key: str) -> None:
    file = tmp_path / "antiphon.toml"
    file.write_text("[transceiver]\n" + text)
    with pytest.raises(ConfigError) as refused:
        load({"transceiver": TransceiverConfig}, file, {})
    assert str(refused.value).startswith(key)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("config", "routing", "key"),
    [
        (TransceiverConfig(advertise=("192.0.2.1:3478",)), RoutingConfig(), "routing.keys"),
        (
            TransceiverConfig(advertise=("192.0.2.1:3478",)),
            RoutingConfig(keys=("0:" + "11" * 32,)),
            "routing.trunk_keys",
        ),
        (
            TransceiverConfig(direct=True, address="192.0.2.1:0"),
            RoutingConfig(keys=("0:" + "11" * 32,)),
            "routing.prefix",
        ),
        (TransceiverConfig(advertise=("192.0.2.1:3478",), listen="0.0.0.0:0"), RoutingConfig(), "transceiver.address"),
        (TransceiverConfig(direct=True, web="/nowhere"), RoutingConfig(), "transceiver.web"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_sections_that_do_not_fit_together_name_their_key(
    config: TransceiverConfig, routing: RoutingConfig, key: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Transceiver(config, routing)
    assert refused.value.key == key


@pytest.mark.slow
def test_a_process_with_a_wrong_configuration_says_it_in_one_line_and_exits_with_2() -> None:
    command = [sys.executable, "-m", "transceiver"]
    ended = subprocess.run(
        command, env=environment(advertise="192.0.2.1:1"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("config: routing.keys: ")
    assert len(ended.stderr.splitlines()) == 1
    assert ended.stdout == ""
