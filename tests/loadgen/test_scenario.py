"""Runs over real sockets: HTTP and UDP on loopback against an echo in this process, and against a whole stack."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path as FilePath

import msgspec
import pytest
import trio

from loadgen.driver import Driver
from loadgen.options import parse_options
from loadgen.report import sentences, summarize
from loadgen.scenario import Run, place_calls
from loadgen.script import read_script
from protocol.routing import RoutingConfig
from transceiver.config import TransceiverConfig
from transceiver.server import Bound, Transceiver
from transceiver.signalling import new_key

ROOT = FilePath(__file__).parents[2]


async def run_against(server, arguments: str, disturb=None):
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.run)
        options = parse_options(["--url", url, *arguments.split()])
        run = Run(options, Driver(network=options.network))
        if disturb is not None:
            nursery.start_soon(disturb, run)
        with trio.fail_after(20):
            await place_calls(run, url)
        nursery.cancel_scope.cancel()
    return summarize(run)


async def test_what_the_generator_does_before_its_first_call_is_no_lateness_of_that_call():
    run = Run(parse_options(["--calls", "1", "--seconds", "1"]), Driver(trio.current_time))
    run.started_at -= 60  # as if it had been busy with other things for so long
    await place_calls(run, "http://127.0.0.1:1/")
    assert run.calls[0].failure == "offer_no_connection"
    assert run.arrival_lateness.percentile(1.0) < 30
    assert run.seconds < 30


@pytest.mark.slow
async def test_calls_over_real_sockets_lose_nothing_and_are_hung_up(new_server):
    server = new_server()
    summary = await run_against(server, "--calls 3 --seconds 0.6")
    assert summary.ok, summary
    assert summary.audio["received"] >= 3 * 29
    assert summary.data["received"] == 3
    assert sorted(server.hung_up) == ["call0", "call1", "call2"]
    assert summary.calls["goodbyes"] == 3


@pytest.mark.slow
async def test_calls_send_messages_as_often_as_they_are_told(new_server):
    summary = await run_against(new_server(), "--calls 2 --seconds 0.6 --message-every 0.1")
    assert summary.ok
    assert 10 <= summary.data["received"] == summary.data["sent"] <= 14


@pytest.mark.slow
async def test_a_hang_up_that_is_not_answered_by_200_is_a_failure(new_server):
    summary = await run_against(new_server(hangup_status=404), "--calls 1 --seconds 0.1")
    assert summary.calls["failures"] == {"hangup_status_404": 1}


async def test_an_offer_that_is_refused_is_a_failure_with_its_status(new_server):
    server = new_server(offer_status=503)
    summary = await run_against(server, "--calls 2 --rate 100")
    assert summary.calls["failures"] == {"offer_status_503": 2}
    assert server.hung_up == []


@pytest.mark.slow
async def test_a_call_whose_media_never_comes_is_hung_up_all_the_same(new_server):
    server = new_server()
    server.media = False
    summary = await run_against(server, "--calls 1 --setup-timeout 0.3")
    assert summary.calls["failures"] == {"no_ice": 1}
    assert server.hung_up == ["call0"]


@pytest.mark.slow
async def test_a_generator_that_is_late_itself_says_so_and_goes_on(new_server):
    async def hold_up(run: Run) -> None:
        while not run.talking:
            await trio.sleep(0.01)
        await trio.sleep(0.1)
        time.sleep(0.3)  # noqa: ASYNC251 - the whole loop stands still

    summary = await run_against(new_server(), "--calls 1 --seconds 0.7", hold_up)
    assert summary.calls["failed"] == 0
    assert summary.generator["frames_sent_late"] >= 4
    assert summary.generator["frames_skipped"] >= 9
    assert summary.generator["worst_lateness_ms"] >= 60
    assert summary.audio["longest_gap_ms"]["max"] >= 250


@pytest.mark.slow
async def test_calls_go_on_through_loss_and_delay_and_from_one_port_to_the_next(new_server):
    ports = set()

    async def watch(run: Run) -> None:
        while True:
            ports.update(line.socket.address for line in run.driver.lines)
            await trio.sleep(0.02)

    bad = "--loss 10% --delay 10 --jitter 5 --rebind-every 0.7 --check-every 0.2 --seed 5"
    summary = await run_against(new_server(), f"--calls 2 --seconds 2 {bad}", watch)
    assert summary.calls["failed"] == 0
    assert summary.ok
    assert summary.network["rebindings"] >= 4
    assert len(ports) > 4  # looked at now and then; the system may give a port again
    assert summary.network["heard_again_after_ms"]["max"] < 1000
    carried = summary.generator["datagrams_sent"] + summary.generator["datagrams_received"]
    assert 0 < summary.network["dropped"]["lost"] < 0.25 * carried  # both ways, a tenth each
    assert summary.audio["lost"] > 0
    assert summary.audio["round_trip_ms"]["p50"] >= 20.0


@pytest.mark.slow
async def test_calls_that_are_cut_short_count_as_interrupted(new_server):
    server = new_server()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.run)
        run = Run(parse_options(["--url", url, "--calls", "2", "--seconds", "30", "--rate", "100"]), Driver())
        with trio.move_on_after(0.4):
            await place_calls(run, url)
        nursery.cancel_scope.cancel()
    summary = summarize(run)
    assert summary.calls["failures"] == {"interrupted": 2}
    assert run.driver.lines == set()


def environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("ANTIPHON_")}


@pytest.mark.slow
async def test_a_server_that_asks_for_keys_gets_ours_which_stands_in_no_report(nursery, tmp_path: FilePath):
    key, line = new_key("load", os.urandom)
    (tmp_path / "keys").write_text(line)
    config = TransceiverConfig(direct=True, agents=("internal:echo",), web="none", api_keys=str(tmp_path / "keys"))
    transceiver = Transceiver(config, RoutingConfig(), strict=True)

    async def run(*, task_status: trio.TaskStatus[Bound]) -> None:
        await transceiver.run(task_status=task_status)

    bound = await nursery.start(run)
    report = tmp_path / "page.html"
    arguments = ["--calls", "2", "--seconds", "0.6", "--rate", "40", "--json", "-", "--report", str(report)]
    command = [sys.executable, "-m", "loadgen", "--url", bound.http[0], *arguments]
    for given, failures in ((key, {}), ("", {"offer_status_401": 2})):
        variables = environment() | {"ANTIPHON_LOAD_KEY": given}
        ended = await trio.run_process(
            command, cwd=ROOT, env=variables, capture_stdout=True, capture_stderr=True, check=False
        )
        summary = msgspec.json.decode(ended.stdout)
        assert summary["calls"]["failures"] == failures, ended.stderr.decode()
        assert summary["calls"]["goodbyes"] == (2 if given else 0)
        for told in (ended.stdout, ended.stderr, report.read_bytes()):
            assert key.encode() not in told
    transceiver.shut_down()


@pytest.mark.slow
def test_without_an_address_a_whole_stack_is_started_called_and_ended():
    command = [sys.executable, "-m", "loadgen", "--calls", "4", "--seconds", "1", "--rate", "40", "--json", "-"]
    variables = environment() | {"ANTIPHON_LOAD_KEY": "sk-not-for-our-own"}
    ended = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    summary = msgspec.json.decode(ended.stdout)
    assert summary["ok"] is True
    assert summary["calls"]["succeeded"] == summary["calls"]["goodbyes"] == 4
    assert summary["audio"]["lost"] == 0
    assert summary["audio"]["received"] >= 4 * 49
    assert b"calls 4/4: " in ended.stderr


@pytest.mark.slow
def test_calls_converse_with_an_agent_that_speaks_the_realtime_api():
    arguments = (
        "--agent realtime --calls 2 --rate 40 --seconds 5 --think 0.3 --processes 2 --interrupt-every 1 --json -"
    )
    command = [sys.executable, "-m", "loadgen", *arguments.split()]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, timeout=90, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    summary = msgspec.json.decode(ended.stdout)
    turns = summary["turns"]
    assert summary["ok"] is True
    assert summary["calls"]["goodbyes"] == 2
    assert turns["asked"] == turns["completed"] + turns["interrupted"] >= 4
    assert turns["failures"] == {}
    assert turns["interruptions"]["made"] >= 2
    assert turns["interruptions"]["made"] == turns["interruptions"]["honoured"] + turns["interruptions"]["over_before"]
    assert 500 <= turns["latency_ms"]["answer"]["p50"] < 5000
    assert turns["unreadable_messages"] == 0
    assert set(summary["setup_ms"]) == {"signalling", "ice", "dtls", "channel", "session", "all"}
    assert [call["turns"]["failed"] for call in summary["each"]] == [0, 0]
    assert "2 calls, 0 failed; " in ended.stderr.decode()


@pytest.mark.slow
async def test_an_agent_that_does_not_speak_the_realtime_api_has_no_session(new_server):
    server = new_server()
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.run)
        options = parse_options(["--url", url, "--conversation", "--calls", "1", "--setup-timeout", "0.5"])
        run = Run(options, Driver(), script=read_script(()))
        with trio.fail_after(20):
            await place_calls(run, url)
        nursery.cancel_scope.cancel()
    summary = summarize(run)
    assert summary.calls["failures"] == {"no_session": 1}
    assert not summary.ok
    assert any("does the agent there speak" in text for _, text in sentences(summary))


@pytest.mark.slow
def test_an_interrupt_ends_calls_and_stack_and_still_reports():
    command = [sys.executable, "-m", "loadgen", "--calls", "1", "--seconds", "60", "--json", "-"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe) as process:
        assert process.stderr is not None
        assert b"1 talking" in process.stderr.readline()
        children = FilePath(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert msgspec.json.decode(output)["calls"]["failures"] == {"interrupted": 1}
    assert len(children) == 1
    assert not FilePath(f"/proc/{children[0]}").exists()


@pytest.mark.slow
def test_a_stack_that_cannot_start_is_status_2_and_says_why():
    command = [sys.executable, "-m", "loadgen", "--calls", "1"]
    variables = environment() | {"ANTIPHON_STACK_NONSENSE": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert b"ANTIPHON_STACK_NONSENSE" in ended.stderr
