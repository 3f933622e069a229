"""What the processes of a stack cost and whether they stay as large as they were, from samples of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from loadgen.accounts import Accounts, ProcessSample
from loadgen.endurance import find_capacity, process_figures
from loadgen.options import parse_options
from loadgen.report import sentences, summarize_result
from loadgen.result import CallResult, ProcessResult, Result
from loadgen.timeline import Sample

MIB = 1 << 20
ROOT = Path(__file__).parents[2]


def samples_of(seconds: int, memory, *, talking=lambda second: 10, cpu: float = 0.02) -> list[Sample]:
    """One a second; the transceiver uses `cpu` seconds in each."""
    found = []
    for second in range(seconds):
        process = ProcessSample(cpu * second, int(memory(second)))
        found.append(
            Sample(float(second), 10, talking(second), 0, 500 * second, 500 * second, 0, 0, {"transceiver": process})
        )
    return found


def test_the_price_of_a_call_is_taken_where_all_talk_and_not_where_they_are_set_up():
    def talking(second: int) -> int:
        return min(second, 10)

    samples = samples_of(40, lambda second: 50 * MIB, talking=talking)
    burdened = [
        sample._replace(processes={"transceiver": ProcessSample(min(sample.at, 10.0) * 5 + sample.at * 0.02, 50 * MIB)})
        for sample in samples
    ]
    figures = process_figures(burdened)["transceiver"]
    assert figures["cpu_ms_per_call_second"] == pytest.approx(2.0)  # 20 ms a second for ten calls
    assert figures["share_of_a_core"] == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("memory", "flat"),
    [
        (lambda second: 50 * MIB, True),
        (lambda second: 50 * MIB + 2000 * (second % 7), True),
        (lambda second: 50 * MIB + min(second, 15) * MIB, True),  # it grew while caches filled, and then no more
        (lambda second: 50 * MIB + second * 40 * 1024, False),
        (lambda second: 50 * MIB - second * 40 * 1024, True),
    ],
    ids=["constant", "saw", "settling", "growing", "shrinking"],
)
def test_memory_is_flat_when_it_has_stopped_growing(memory, flat: bool):
    figures = process_figures(samples_of(100, memory))["transceiver"]
    assert figures["flat"] is flat
    result = Result(calls=[CallResult(number=0)], processes=[ProcessResult(seconds=1.0)])
    for words, ok in (("--calls 1 --soak", flat), ("--calls 1", True)):
        summary = summarize_result(result, parse_options(words.split()), {"transceiver": figures})
        assert summary.ok is ok
    said = " ".join(text for _, text in sentences(summary))
    assert ("memory is flat" in said) is flat
    assert ("the memory of transceiver is not flat" in said) is not flat


def test_of_a_short_run_nothing_is_said_about_memory():
    assert process_figures(samples_of(6, lambda second: second * MIB))["transceiver"]["flat"] is None
    assert process_figures([]) == {}


def ramp(*, late_from: int = 999, busy_from: int = 999, sent_late_from: int = 999) -> list[Sample]:
    found, sent, late, sent_late, cpu = [], 0, 0, 0, 0.0
    for second in range(60):
        frames = 4 * second * 50
        sent += frames
        late += frames // 10 if second >= late_from else 0
        sent_late += frames // 4 if second >= sent_late_from else 0
        cpu += 0.99 if second >= busy_from else 0.3
        processes = {"relay": ProcessSample(cpu, MIB)}
        found.append(Sample(float(second), 4 * second, 4 * second, 0, sent, sent, late, sent_late, processes))
    return found


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"late_from": 30}, "of the frames were back in time"),
        ({"busy_from": 30}, "relay used 9"),
        ({"sent_late_from": 30}, "the generator sent late"),
    ],
)
def test_the_capacity_is_what_was_carried_before_the_first_limit(limit: dict[str, int], reason: str):
    samples = ramp(**limit)
    found = [find_capacity(samples[:count]) for count in range(1, 61)]
    assert found[:30] == [None] * 30
    first = next(capacity for capacity in found if capacity is not None)
    assert reason in first.reason
    assert 25 * 4 <= first.calls <= 35 * 4
    assert find_capacity(ramp()) is None


def test_one_bad_moment_is_no_limit():
    samples = ramp()
    bad = [sample._replace(late=sample.late + (500 if sample.at >= 30 else 0)) for sample in samples]
    assert [find_capacity(bad[:count]) for count in range(61)] == [None] * 61


def test_the_price_of_a_call_on_a_ramp_is_taken_from_its_upper_half_and_its_memory_may_grow():
    samples = samples_of(40, lambda second: second * 10 * MIB, talking=lambda second: 4 * second, cpu=0.156)
    assert process_figures(samples) == {}  # no two samples with as many calls
    figures = process_figures(samples, ramp=True)["transceiver"]
    assert figures["cpu_ms_per_call_second"] == pytest.approx(
        1.34, rel=0.02
    )  # 156 ms a second for 116 calls on average
    assert figures["flat"] is None


def test_a_ramp_that_was_ended_by_itself_is_no_failure_and_tells_how_far_it_came():
    calls = [CallResult(number=number, failure="interrupted") for number in range(8)]
    options = parse_options(["--find-capacity"])
    capacity = find_capacity(ramp(late_from=30)[:41])
    figures = process_figures(samples_of(40, lambda second: 50 * MIB), ramp=True)
    summary = summarize_result(Result(calls=calls, processes=[ProcessResult(seconds=1.0)]), options, figures, capacity)
    assert summary.ok
    assert (options.calls, options.rate) == (2000, 4.0)
    said = [text for _, text in sentences(summary)]
    assert any(text.startswith(f"{capacity.calls} calls, then: only 9") for text in said)
    assert "a core of its own would carry 475 calls of the transceiver, by what it cost here" in said


@pytest.mark.parametrize("option", ["--soak", "--find-capacity"])
def test_processes_of_a_stack_elsewhere_cannot_be_looked_at(option: str, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--url", "http://127.0.0.1:1/", option])
    assert ended.value.code == 2
    assert "--url" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="the accounts are Linux's")
def test_accounts_follow_a_process_and_its_children_by_name_until_they_end():
    code = "import subprocess, sys, time; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        try:
            accounts = Accounts(parent.pid, {os.getpid(): "ourselves"})
            deadline = time.monotonic() + 10
            while len(found := accounts.look()) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            names = list(found)
            assert names[0] == "ourselves"
            assert names[2] == f"{names[1]} 2"
            assert found["ourselves"].resident > MIB
            assert found["ourselves"].cpu > 0
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        finally:
            parent.kill()
            parent.wait()
            for child in children:
                os.kill(int(child), 9)
        assert list(accounts.look()) == ["ourselves"]


@pytest.mark.thorough
def test_twenty_seconds_of_fifty_calls_lose_nothing_and_leave_memory_flat():
    command = [sys.executable, "-m", "loadgen", "--soak", "--agent", "meter", "--calls", "50", "--seconds", "20"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANTIPHON_")}
    ended = subprocess.run(
        [*command, "--json", "-"], cwd=ROOT, env=environment, capture_output=True, timeout=120, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    summary = msgspec.json.decode(ended.stdout)
    assert summary["calls"]["succeeded"] == 50
    assert summary["audio"]["lost"] == 0
    assert summary["agent"]["calls"] == 50
    assert {"relay", "transceiver", "agent", "generator"} <= set(summary["processes"])
    assert all(figures["flat"] for figures in summary["processes"].values())
