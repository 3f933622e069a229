"""The service: real sockets, draining, and the process itself."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import CollectorRegistry
from trio_websocket import wrap_client_stream

from agent import AgentServer, Call
from agent.agents import echo
from agent.config import AgentConfig
from agent.lifetime import holding
from agent.loading import AgentNotFound, load_agent
from agent.offline.sphinx import find_sphinx
from protocol.agentlink import LINK_VERSION, AgentDrain, CallEnd, CallRefuse, CallStart, MediaRecord, TransceiverHello

ROOT = Path(__file__).parents[2]


@pytest.fixture
def connect(nursery: trio.Nursery, link_client: type):
    async def hold(url: str, *, task_status: trio.TaskStatus[object]) -> None:
        host, port = url.removeprefix("ws://").removesuffix("/").split(":")
        async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as inner:
            client = link_client(await wrap_client_stream(inner, stream, host, "/"))
            client.break_off = stream.aclose
            task_status.started(client)
            await client.listen()

    async def connect(url: str):
        client = await nursery.start(hold, url)
        await client.send(TransceiverHello(LINK_VERSION, "t-test"))
        await client.until(lambda: client.control)
        return client

    return connect


async def test_several_transceivers_are_served_side_by_side(nursery: trio.Nursery, connect: Callable):
    server = AgentServer(echo, "echo")
    bound = await nursery.start(server.serve, "127.0.0.1:0")
    clients = [await connect(f"ws://{bound}/") for _ in range(3)]
    for client in clients:
        await client.start_call()
        await client.send_frames(MediaRecord(1, 0, 0, b"\xff" * 160))
    for client in clients:
        await client.until(lambda client=client: client.media)
    assert (server.statistics.links, server.statistics.calls) == (3, 3)


async def test_the_parts_that_an_agent_holds_are_closed_after_its_last_call(nursery: trio.Nursery, connect: Callable):
    log = []

    class Part:
        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()
            log.append("closed")

    async def agent(call: Call) -> None:
        log.append("called")
        try:
            await trio.sleep_forever()
        finally:
            log.append("ended")

    holding(agent, Part(), object(), None)
    async with trio.open_nursery() as inner:
        bound = await inner.start(AgentServer(agent, "agent").serve, "127.0.0.1:0")
        client = await connect(f"ws://{bound}/")
        await client.start_call()
        inner.cancel_scope.cancel()
    assert log == ["called", "ended", "closed"]


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: agent\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def exchange(bound: str, data: bytes) -> bytes:
    """What the server answers to `data` before it closes the connection, or within a moment."""
    host, port = bound.split(":")
    answer = b""
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(data)
        with trio.move_on_after(0.2):
            async for piece in stream:
                answer += piece
    return answer


async def test_a_web_page_cannot_reach_the_agent(nursery: trio.Nursery):
    server = AgentServer(echo, "echo")
    bound = await nursery.start(server.serve, "127.0.0.1:0")
    answer = await exchange(bound, UPGRADE + b"Origin: https://evil.example\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert server.statistics.drops == {"link_from_browser": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [b"", b"\x16\x03\x01\x00\x05hello", b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n", UPGRADE + b"\r\n" + b"\xff" * 20],
    ids=["nothing", "tls", "http", "bad frames"],
)
async def test_what_is_no_websocket_disturbs_nobody(nursery: trio.Nursery, connect: Callable, noise: bytes):
    server = AgentServer(echo, "echo")
    bound = await nursery.start(server.serve, "127.0.0.1:0")
    await exchange(bound, noise)
    client = await connect(f"ws://{bound}/")
    await client.start_call()
    assert server.statistics.calls == 1


async def test_a_transceiver_that_breaks_off_leaves_nothing_behind(nursery: trio.Nursery, connect: Callable):
    server = AgentServer(echo, "echo")
    bound = await nursery.start(server.serve, "127.0.0.1:0")
    client = await connect(f"ws://{bound}/")
    await client.start_call()
    await client.break_off()
    with trio.fail_after(2):
        while server.statistics.links:
            await trio.sleep(0.01)
    assert (server.statistics.calls, server.statistics.calls_ended) == (0, {"link_lost": 1})


async def test_draining_refuses_new_calls_and_waits_for_those_in_progress(nursery: trio.Nursery, connect: Callable):
    server = AgentServer(echo, "echo")
    bound = await nursery.start(server.serve, "127.0.0.1:0")
    client = await connect(f"ws://{bound}/")
    await client.start_call(1)
    drained = trio.Event()

    async def drain() -> None:
        await server.drain(30)
        drained.set()

    nursery.start_soon(drain)
    await client.until(lambda: client.of(AgentDrain))
    await client.send(CallStart(2, "rtc_2", "PCMU", 8000, 1))
    await client.until(lambda: client.of(CallRefuse))
    assert client.of(CallRefuse) == [CallRefuse(2, "agent_draining")]
    assert not drained.is_set()
    await client.send(CallEnd(1, "hangup"))
    with trio.fail_after(2):
        await drained.wait()
    await client.until(lambda: client.is_closed)


async def test_calls_that_outlast_the_drain_are_ended_with_a_word(nursery: trio.Nursery, connect: Callable):
    server = AgentServer(echo, "echo")
    bound = await nursery.start(server.serve, "127.0.0.1:0")
    client = await connect(f"ws://{bound}/")
    await client.start_call(1)
    await server.drain(0.05)
    await client.until(lambda: client.is_closed)
    assert client.of(CallEnd) == [CallEnd(1, "agent_stopped")]
    assert client.connection.closed.code == 1001


async def test_the_metrics_tell_what_happened(nursery: trio.Nursery, connect: Callable):
    async def failing(call: Call) -> None:
        raise RuntimeError("oops")

    server = AgentServer(failing, "failing")
    bound = await nursery.start(server.serve, "127.0.0.1:0")
    client = await connect(f"ws://{bound}/")
    await client.send(CallStart(1, "rtc_1", "PCMU", 8000, 1))
    await client.until(lambda: client.of(CallEnd))

    class Source:
        def collect(self):
            return server.statistics.metrics()

    registry = CollectorRegistry()
    registry.register(Source())
    text = generate_latest(registry).decode()
    assert 'antiphon_agent_calls_ended_total{reason="agent_failed"} 1.0' in text
    assert "antiphon_agent_links 1.0" in text


@pytest.mark.parametrize("name", ["nix", "no_such_module:f", "json:loads", "json:nothing", ":f", "..:f"])
def test_a_name_that_is_no_agent_is_refused_with_a_sentence(name: str):
    with pytest.raises(AgentNotFound):
        load_agent(name)


def test_the_example_is_an_agent():
    assert load_agent("examples.greeter:greeter") is not None


def run_agent(*arguments: str, cwd: Path = ROOT) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agent", *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
async def test_the_process_serves_somebodys_own_agent_and_ends_cleanly(tmp_path: Path, connect: Callable, monkeypatch):
    (tmp_path / "mine.py").write_text(
        textwrap.dedent(
            """
            from agent import Call

            async def agent(call: Call) -> None:
                async for frame in call.frames():
                    await call.send_frame(frame.payload[::-1])
            """
        )
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    process = run_agent("--agent", "mine:agent", "--listen", "127.0.0.1:0")
    try:
        line = await trio.to_thread.run_sync(process.stdout.readline)
        word, ready = line.split(" ", 1)
        ready = json.loads(ready)
        assert word == "ready"
        client = await connect(ready["url"])
        await client.start_call()
        await client.send_frames(MediaRecord(1, 0, 0, bytes(range(160))))
        await client.until(lambda: client.media)
        assert client.payloads() == [bytes(range(160))[::-1]]
        async with httpx.AsyncClient() as http:
            health = (await http.get(ready["admin"] + "/healthz")).json()
            metrics = (await http.get(ready["admin"] + "/metrics")).text
        assert health == {"status": "ok", "agent": "mine:agent", "calls": 1}
        assert "antiphon_agent_frames_sent_total 1.0" in metrics
        await client.send(CallEnd(1, "hangup"))
        process.send_signal(signal.SIGTERM)
        output, log = await trio.to_thread.run_sync(process.communicate)
        assert process.returncode == 0, log
        assert output == ""
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--agent", "nix"], 2, "config: agent.agent: "),
        (["--listen", "here"], 2, "config: agent.listen: "),
        (["--listen", "192.0.2.1:9"], 1, "agent: cannot listen on 192.0.2.1:9"),
    ],
)
def test_a_process_that_cannot_run_says_why_in_one_line(arguments: list[str], code: int, says: str):
    output, error = (process := run_agent(*arguments)).communicate(timeout=20)
    assert (process.returncode, output) == (code, "")
    assert error.startswith(says)
    assert error.count("\n") == 1


async def test_the_voice_without_its_extra_says_in_one_sentence_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    find_sphinx.cache_clear()
    with pytest.raises(AgentNotFound, match=r"^pocketsphinx is not installed; .*`./just up --agent voice` installs it"):
        load_agent("voice", AgentConfig())
    find_sphinx.cache_clear()
