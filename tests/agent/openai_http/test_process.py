"""The agent `voice` as a process of its own, with all its parts from one server, over real sockets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from openai_server import OpenAiServer, tone
from trio_websocket import wrap_client_stream

from protocol.agentlink import LINK_VERSION, TransceiverHello

ROOT = Path(__file__).parents[3]
CONFIG = """
[agent]
agent = "voice"
listen = "127.0.0.1:0"
drain_seconds = 0.1
recognizer = "openai"
dialogue = "openai"
speaker = "openai"
"""
PART = """
[agent.openai.{part}]
base_url = "http://127.0.0.1:{port}/v1"
model = "small"
api_key_env = "SOME_KEY"
"""


def run_voice(config: Path, key: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "agent", "--config", str(config)],
        cwd=ROOT,
        env={**os.environ, "SOME_KEY": key, "NO_PROXY": "127.0.0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
async def test_the_agent_greets_with_a_models_words_in_a_servers_voice_and_leaves_no_connection_behind(
    tmp_path: Path, server: OpenAiServer, nursery: trio.Nursery, link_client: type
):
    server.words, server.sound = ("Hello, who ", "is there?"), tone(0.5)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, server.serve, listeners)
    port = listeners[0].socket.getsockname()[1]
    config = tmp_path / "antiphon.toml"
    config.write_text(
        CONFIG + "".join(PART.format(part=part, port=port) for part in ("recognizer", "dialogue", "speaker"))
    )
    process = run_voice(config, "sk-4")
    try:
        line = await trio.to_thread.run_sync(process.stdout.readline)
        host, bound = json.loads(line.partition(" ")[2])["listen"].split(":")
        async with await trio.open_tcp_stream(host, int(bound)) as stream, trio.open_nursery() as inner:
            client = link_client(await wrap_client_stream(inner, stream, host, "/"))
            inner.start_soon(client.listen)
            await client.send(TransceiverHello(LINK_VERSION, "t-test"))
            await client.start_call()
            await client.open_channel()
            await client.until(lambda: len(client.media) >= 25, 20)
            assert server.requests[0].json["messages"][-1] == {"role": "user", "content": "Hello!"}
            assert server.requests[1].json["input"] == "Hello, who is there?"
            assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-4"}
            assert server.open == 2
            process.send_signal(signal.SIGTERM)
            output, log = await trio.to_thread.run_sync(process.communicate)
            inner.cancel_scope.cancel()
        assert (process.returncode, output) == (0, ""), log
        assert "sk-4" not in log
        assert "the account of a server" in log
        with trio.fail_after(2):
            while server.open:
                await trio.sleep(0.01)
    finally:
        process.kill()
    nursery.cancel_scope.cancel()


@pytest.mark.slow
def test_a_key_that_is_none_ends_the_process_with_one_line(tmp_path: Path):
    config = tmp_path / "antiphon.toml"
    config.write_text(CONFIG + PART.format(part="recognizer", port=1))
    output, error = (process := run_voice(config, "sk-4 sk-5")).communicate(timeout=60)
    assert (process.returncode, output) == (2, "")
    assert error == "config: agent.openai.recognizer.api_key_env: that is no API key: it must be one word of ASCII\n"
