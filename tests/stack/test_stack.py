"""`just up` as a process: its ready line, its restarts, its end, its refusals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import trio
from processes import children_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUIET = {
    "PATH": os.environ["PATH"],
    "ANTIPHON_STACK_PORT": "0",
    "ANTIPHON_STACK_UDP_PORT": "0",
    "ANTIPHON_STACK_PUBLIC_ADDRESS": "127.0.0.1",
    "ANTIPHON_LOG_LEVEL": "error",
}


async def start(**environment: str) -> trio.Process:
    return await trio.lowlevel.open_process(
        [sys.executable, "-m", "stack"],
        cwd=ROOT,
        env=QUIET | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


async def ready(process: trio.Process) -> str:
    assert process.stdout is not None
    heard = b""
    with trio.fail_after(20):
        while not heard.endswith(b"\n"):
            chunk = await process.stdout.receive_some()
            assert chunk
            heard += chunk
    word, url = heard.decode().split()
    assert word == "ready"
    return url


def children(process: trio.Process) -> dict[str, int]:
    return children_of(process.pid)


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "stack", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=QUIET | environment, capture_output=True, text=True, check=False, timeout=30
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_says_where_the_page_is_and_ends_cleanly_with_all_its_processes(number: int):
    process = await start()
    url = await ready(process)
    async with httpx.AsyncClient(base_url=url) as client:
        assert "<html" in (await client.get("/")).text
    pids = children(process)
    assert set(pids) == {"relay", "transceiver", "agent"}
    process.send_signal(number)
    with trio.fail_after(10):
        assert await process.wait() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.values())


async def test_a_process_that_dies_is_started_again_where_it_was():
    process = await start()
    url = await ready(process)
    before = children(process)
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    with trio.fail_after(15):
        async with httpx.AsyncClient(base_url=url) as client:
            while True:
                after = children(process)
                if set(after) == set(before) and not set(after.values()) & set(before.values()):
                    try:
                        assert (await client.get("/v1/info")).status_code == 200
                        break
                    except httpx.TransportError:
                        pass
                await trio.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(10):
        assert await process.wait() == 0


@pytest.mark.thorough
@pytest.mark.parametrize("direct", ["false", "true"])
async def test_with_workers_calls_are_carried_by_several_processes(direct: str):
    process = await start(ANTIPHON_STACK_WORKERS="2", ANTIPHON_STACK_AGENT="echo", ANTIPHON_STACK_DIRECT=direct)
    url = await ready(process)
    workers = Path(f"/proc/{children(process)['transceiver']}/task").glob("*/children")
    assert sum(len(file.read_text().split()) for file in workers) == 2
    command = [sys.executable, "-m", "loadgen", "--url", url, "--calls", "6", "--seconds", "1"]
    placed = await trio.run_process(command, cwd=ROOT, env=QUIET, check=False, capture_stdout=True, capture_stderr=True)
    assert placed.returncode == 0, placed.stdout.decode()
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(10):
        assert await process.wait() == 0


async def test_its_processes_end_even_if_it_is_killed():
    process = await start()
    await ready(process)
    pids = children(process)
    process.kill()
    await process.wait()
    with trio.fail_after(10):
        while any(Path(f"/proc/{pid}").exists() for pid in pids.values()):
            await trio.sleep(0.05)


def test_a_taken_port_is_told_in_words_and_status_1():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        finished = run(ANTIPHON_STACK_PORT=str(port))
    assert finished.returncode == 1
    assert "ready" not in finished.stdout
    assert str(port) in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "key"),
    [
        ((), {"ANTIPHON_STACK_PORT": "x"}, "stack.port"),
        ((), {"ANTIPHON_STACK_PROT": "1"}, "ANTIPHON_STACK_PROT"),
        (("--public-address", "nowhere"), {}, "stack.public_address"),
        (("--config", "absent.toml"), {}, "absent.toml"),
        (("--host", "0.0.0.0"), {}, "stack.host"),
        (("--api-keys", "/nowhere/keys"), {}, "transceiver.api_keys"),
    ],
)
def test_a_wrong_configuration_is_one_line_that_names_the_key_and_status_2(
    arguments: tuple[str, ...], environment: dict[str, str], key: str
):
    finished = run(*arguments, **environment)
    assert finished.returncode == 2
    assert key in finished.stderr
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize("variable", ["ANTIPHON_RELAY_LISTENS", "ANTIPHON_TRANSCEIVER_HTPP", "ANTIPHON_AGENT_LISTENS"])
def test_a_wrong_key_of_a_child_is_told_by_the_child_and_ends_the_stack_with_status_2(variable: str):
    finished = run(**{variable: "1"})
    assert finished.returncode == 2
    assert variable in finished.stderr


async def test_without_a_relay_it_serves_on_ipv6_too():
    process = await start(ANTIPHON_STACK_DIRECT="true", ANTIPHON_STACK_PUBLIC_ADDRESS="::1")
    await ready(process)
    assert set(children(process)) == {"transceiver", "agent"}
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(10):
        assert await process.wait() == 0


async def test_an_agent_inside_the_transceiver_needs_no_process():
    process = await start(ANTIPHON_STACK_AGENT="internal:echo")
    url = await ready(process)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"{url}v1/info")).json()["agent"] == "echo"
    assert set(children(process)) == {"transceiver", "relay"}
    process.send_signal(signal.SIGTERM)
    with trio.fail_after(10):
        assert await process.wait() == 0


@pytest.mark.parametrize("agent", ["nobody", "internal:nobody"])
def test_an_unknown_agent_is_told_in_words(agent: str):
    finished = run("--agent", agent)
    assert finished.returncode == 2
    assert agent in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_help_names_every_option_with_its_default():
    finished = run("--help")
    assert finished.returncode == 0
    for word in ("--agent", "parrot", "8080", "3478", "--public-address", "ANTIPHON_"):
        assert word in finished.stdout
