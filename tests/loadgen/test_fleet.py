"""A generator of several processes: what they measured is put together exactly, and one that dies is told of."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import trio

from loadgen.distribution import Histogram
from loadgen.fleet import Fleet, start_workers
from loadgen.options import parse_options, process_count
from loadgen.report import sentences, summarize_result
from loadgen.result import CallResult, ProcessResult, Progress, Result, merge, merge_progress


def histogram_of(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


def result_of(first: int, values: list[float]) -> Result:
    calls = [
        CallResult(number=first + 2 * index, audio={"sent": 50, "received": 49, "lost": 1, "late": index})
        for index in range(3)
    ]
    process = ProcessResult(seconds=10.0, cpu_seconds=1.0 + first, worst_lateness=0.01 * (1 + first), datagrams_sent=7)
    return Result(
        calls=calls, processes=[process], frame_round_trips=histogram_of(values), network_drops={"lost": 2 + first}
    )


def test_percentiles_of_several_processes_are_those_of_all_their_values_together():
    drawn = random.Random(7)
    fast, slow = [[drawn.expovariate(rate) for _ in range(3000)] for rate in (100, 5)]
    together, merged = histogram_of(fast + slow), histogram_of(fast)
    merged.merge(histogram_of(slow))
    assert merged.counts() == together.counts()
    assert (merged.count, merged.maximum) == (together.count, together.maximum)
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        assert merged.percentile(share) == together.percentile(share)


def test_results_of_two_processes_are_summed_and_their_calls_put_in_order():
    whole = merge([result_of(1, [0.01] * 10), result_of(0, [0.03] * 30)])
    assert [call.number for call in whole.calls] == [0, 1, 2, 3, 4, 5]
    assert whole.network_drops == {"lost": 5}
    summary = summarize_result(whole, parse_options(["--calls", "6", "--allow-loss"]))
    assert summary.ok
    assert (summary.audio["sent"], summary.audio["lost"], summary.audio["late"]) == (300, 6, 6)
    assert summary.audio["late_permille"] == pytest.approx(20.0)
    assert summary.audio["round_trip_ms"]["p50"] == pytest.approx(30.0, abs=0.1)
    assert summary.generator["processes"] == 2
    assert summary.generator["datagrams_sent"] == 14
    assert summary.generator["worst_lateness_ms"] == 20.0
    assert summary.generator["cpu_share_of_a_core"] == pytest.approx(0.3)
    assert summary.generator["busiest_process"] == pytest.approx(0.2)


def test_the_progress_of_several_processes_is_one():
    parts = [Progress(placed=2, sent=10, longest_gap=0.1), Progress(placed=3, sent=20, longest_gap=0.3)]
    whole = merge_progress(parts)
    assert (whole.placed, whole.sent, whole.longest_gap) == (5, 30, 0.3)


def test_a_generator_has_as_many_processes_as_asked_for_and_no_more_than_calls():
    usable = len(os.sched_getaffinity(0))
    assert process_count(parse_options(["--calls", "20"])) == 1
    assert process_count(parse_options(["--calls", "5000"])) == usable
    assert process_count(parse_options(["--calls", "500", "--processes", "0"])) == usable
    assert process_count(parse_options(["--calls", "500", "--processes", "7"])) == 7
    assert process_count(parse_options(["--calls", "2", "--processes", "7"])) == 2


@pytest.mark.parametrize("count", ["-1", "65", "many", "1.5"])
def test_a_number_of_processes_that_cannot_be_is_refused(count: str, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(["--processes", count])
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


async def run_fleet(server, arguments: str, disturb=None):
    async with trio.open_nursery() as nursery:
        url = await nursery.start(server.run)
        options = parse_options(["--url", url, *arguments.split()])
        with start_workers(process_count(options)) as workers:
            fleet = Fleet(options, url, workers)
            if disturb is not None:
                nursery.start_soon(disturb, fleet, workers)
            with trio.fail_after(40):
                await fleet.run()
            pids = [worker.pid for worker in workers]
        nursery.cancel_scope.cancel()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    return summarize_result(fleet.result(), options)


@pytest.mark.slow
async def test_calls_of_two_processes_begin_together_and_lose_nothing(new_server):
    server = new_server()
    summary = await run_fleet(server, "--calls 5 --seconds 0.5 --rate 100 --processes 2")
    assert summary.ok, summary
    assert [call["call"] for call in summary.each] == [0, 1, 2, 3, 4]
    assert summary.calls["goodbyes"] == len(server.hung_up) == 5
    assert summary.audio["foreign"] == summary.audio["lost"] == 0
    assert summary.generator["processes"] == 2


@pytest.mark.thorough
@pytest.mark.slow
async def test_a_process_that_is_killed_fails_its_calls_and_is_told_of_while_the_other_goes_on(new_server):
    async def kill_one(fleet: Fleet, workers) -> None:
        while fleet.look()[1].talking < 4:
            await trio.sleep(0.05)
        workers[1].kill()

    summary = await run_fleet(new_server(), "--calls 4 --seconds 1.2 --rate 100 --processes 2", kill_one)
    assert not summary.ok
    assert summary.calls["failures"] == {"generator_died": 2}
    assert summary.calls["succeeded"] == 2
    assert summary.generator["died"] == ["signal 9"]
    assert "a process died" in summary.generator["limit"]
    assert any("ended before its time (signal 9)" in text for _, text in sentences(summary))


@pytest.mark.thorough
async def test_calls_of_several_processes_that_are_cut_short_say_goodbye_and_report(new_server):
    server = new_server()

    async def stop(fleet: Fleet, workers) -> None:
        while fleet.look()[1].talking < 2:
            await trio.sleep(0.05)
        await fleet.stop()

    summary = await run_fleet(server, "--calls 2 --seconds 60 --rate 100 --processes 2", stop)
    assert summary.calls["failures"] == {"interrupted": 2}
    assert summary.audio["received"] > 0
