"""What the report says in words, and what its recipes offer on the command line."""

from __future__ import annotations

import math
from typing import Any

import pytest

from loadgen.accounts import ProcessSample
from loadgen.endurance import process_figures
from loadgen.options import Arrivals, parse_options
from loadgen.page import render_page
from loadgen.phrases import describe_failure, describe_limit, describe_network, say
from loadgen.report import Summary, render, sentences, summarize_result
from loadgen.result import CallResult, ProcessResult, Result
from loadgen.soak_calls import SOAK_CALLS
from loadgen.timeline import Sample

BAD = "--loss 5% --burst-loss 0.5% --burst-length 4 --delay 20 --jitter 30 --mtu 1200 --rebind-every 8 --seed 7"


def summary_of(result: Result, words: str = "", processes: dict[str, Any] | None = None) -> Summary:
    return summarize_result(result, parse_options(["--calls", "1", *words.split()]), processes)


def said(summary: Summary) -> str:
    return "\n".join(text for _, text in sentences(summary))


def test_the_conditions_of_a_bad_network_have_their_units_and_the_rebinding_is_among_them():
    summary = summary_of(Result(calls=[CallResult(number=0)], rebindings=3), BAD)
    expected = (
        "loss 5 %, burst loss 0.5 %, burst length 4 datagrams, delay 20 ms, jitter 30 ms, mtu 1200 bytes, "
        "each call on another port every 8 s"
    )
    assert describe_network(summary.network) == expected
    assert expected in said(summary)
    assert f"<td>conditions</td><td>{expected}</td>" in render_page(summary, [], "just load")


def test_the_page_says_words_and_no_python():
    lost = Result(calls=[CallResult(number=0)], processes=[ProcessResult(worst_lateness=0.3, died="signal 9")])
    summary = summary_of(lost, "", {"relay": process_figures(samples_of("relay", 20))["relay"]})
    page = render_page(summary, [], "just load")
    assert "<td>limit</td><td>one frame very late, a process died</td>" in page
    assert "<td>died</td><td>signal 9</td>" in page
    assert "<td>yes</td>" in page  # its memory is flat
    assert not any(python in page for python in ("[&#x27;", "[]", "True", "None", "inf"))
    assert [say(value) for value in (None, True, [], {}, {"p50": 1.5}, math.inf)] == [
        "–", "yes", "none", "none", "p50 1.5", "without end",
    ]  # fmt: skip


GENERATOR = {
    "limit": ["frames late"],
    "worst_lateness_ms": 14.0,
    "receive_delay_ms": {"max": 6.0},
    "call_lateness_p99_ms": None,
}


@pytest.mark.parametrize(("shown", "explained"), [(20.0, True), (28.0, True), (900.0, False), (None, True)])
def test_a_generator_at_its_limit_may_be_to_blame_only_as_far_as_its_own_delays_reach(
    shown: float | None, explained: bool
):
    text = describe_limit(GENERATOR, shown)
    assert ("may be its own doing" in text) is explained
    assert ("does not explain 900 ms" in text) is not explained
    assert "up to 14 ms late" in text or "no more than 14 ms late" in text


def samples_of(name: str, seconds: int, *, last: float = math.inf, cpu: float = 0.02) -> list[Sample]:
    """One a second, of a process that is there until `last`."""
    return [
        Sample(float(at), 10, 10, 0, 0, 0, 0, 0, {name: ProcessSample(cpu * at, 1 << 20)} if at <= last else {})
        for at in range(seconds)
    ]


def test_processes_of_the_generator_that_ended_before_the_last_sample_are_counted_and_told_as_one():
    parts = (samples_of("generator", 12, cpu=0.001), samples_of("generator 2", 12, last=10), samples_of("relay", 12))
    merged = [
        one._replace(processes={**one.processes, **two.processes, **three.processes})
        for one, two, three in zip(*parts, strict=True)
    ]
    figures = process_figures(merged)
    assert figures["generator 2"]["cpu_ms_per_call_second"] == pytest.approx(2.0)
    text = said(summary_of(Result(calls=[CallResult(number=0)]), "", figures))
    assert "milliseconds of CPU for each second of a call: generator: 2.1, relay: 2" in text


def test_nothing_is_said_of_the_memory_of_a_stack_that_is_not_seen():
    alone = process_figures(samples_of("generator", 20))
    assert alone["generator"]["flat"]
    assert "memory" not in said(summary_of(Result(calls=[CallResult(number=0)]), "--url http://x/", alone))
    both = alone | process_figures(samples_of("relay", 20))
    assert "no process of the stack rose" in said(summary_of(Result(calls=[CallResult(number=0)]), "", both))


def test_where_nobody_listens_the_report_says_so_and_has_no_empty_table():
    summary = summary_of(Result(calls=[CallResult(number=0, failure="offer_no_connection", reached={"start": 1.0})]))
    assert "offer_no_connection: nobody listens there; is `just up` running?" in said(summary)
    assert all(isinstance(part, str) for part in render(summary))
    page = render_page(summary, [], "just load")
    assert "nothing was measured" not in page
    assert "<h2>milliseconds</h2>" not in page


def test_failures_are_explained_where_it_is_known_what_they_mean():
    assert "no longer had the call" in str(describe_failure("hangup_status_404", all_failed=False))
    assert describe_failure("no_audio", all_failed=False) is None
    assert "echo" in str(describe_failure("no_audio", all_failed=True))
    assert describe_failure("no_ice", all_failed=True) is None


def test_an_unknown_way_to_arrive_is_refused_with_the_ones_that_there_are(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse_options(["--arrivals", "x"])
    assert "must be one of steady, poisson, not 'x'" in capsys.readouterr().err
    assert parse_options(["--arrivals", "poisson"]).arrivals is Arrivals.POISSON


def test_soak_calls_shows_its_own_defaults_and_what_it_writes(capsys: pytest.CaptureFixture[str]):
    options = parse_options([], SOAK_CALLS)
    assert (options.calls, options.seconds, options.agent, options.soak) == (300, 600.0, "meter", True)
    assert options.report is not None
    assert parse_options(["--calls", "5", "--report", "mine.html"], SOAK_CALLS).report == "mine.html"
    with pytest.raises(SystemExit):
        parse_options(["--help"], SOAK_CALLS)
    shown = "".join(capsys.readouterr().out.split())  # however it is wrapped
    for part in ("just soak-calls", "how many calls (300)", "each talks for (600)", options.report):
        assert "".join(part.split()) in shown
