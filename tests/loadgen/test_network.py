"""What a run may put between its calls and the server, when calls come, and the page that shows how it went."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.accounts import ProcessSample
from loadgen.driver import Driver
from loadgen.network import UnderWay
from loadgen.options import parse_options
from loadgen.page import render_page
from loadgen.plots import line_chart
from loadgen.report import sentences, summarize
from loadgen.scenario import Run, arrivals
from loadgen.timeline import MAX_SAMPLES, Sample, Timeline


def test_the_options_of_a_bad_network_are_shares_and_milliseconds():
    words = "--loss 5% --jitter 30 --delay 20 --duplicate 0.01 --rebind-every 4 --seed 7"
    network = parse_options(words.split()).network
    assert network.conditions.loss == pytest.approx(0.05)
    assert network.conditions.duplication == pytest.approx(0.01)
    assert (network.conditions.jitter, network.conditions.delay) == (0.03, 0.02)
    assert (network.rebind_seconds, network.seed) == (4.0, 7)
    assert parse_options([]).network.is_perfect


@pytest.mark.parametrize(
    "arguments",
    [
        "--loss 120%",
        "--loss 5%%",
        "--loss nan",
        "--jitter -1",
        "--burst-loss 95% --burst-length 2",
        "--mtu 20",
        "--rebind-every 0",
        "--arrivals never",
    ],
)
def test_a_network_that_cannot_be_is_refused_with_status_2(arguments: str, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_options(arguments.split())
    assert ended.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        ("", False),
        ("--jitter 20 --reorder 5%", False),
        ("--loss 1%", True),
        ("--rebind-every 5", True),
        ("--mtu 600", True),
    ],
)
def test_loss_is_allowed_where_the_run_itself_causes_it(arguments: str, allowed: bool):
    assert parse_options(arguments.split()).allow_loss is allowed


def test_each_call_has_a_network_of_its_own_that_the_seed_repeats():
    def lost(seed: int, call: int) -> list[bool]:
        shapers = parse_options(["--loss", "50%", "--seed", str(seed)]).network.shapers(call)
        assert shapers is not None
        up, _down = shapers
        found = []
        for _ in range(64):
            up.send((b"x", b"y"), 1, 0.0)
            found.append(not up.poll(0.0))
        return found

    assert lost(1, 1) == lost(1, 1)
    assert lost(1, 1) != lost(1, 2)
    assert lost(1, 1) != lost(2, 1)


def test_steady_calls_come_at_even_distances_and_poisson_calls_as_they_like_but_at_the_same_rate():
    steady = list(arrivals(parse_options(["--calls", "5", "--rate", "10"]), 100.0))
    assert steady == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])
    options = parse_options(["--calls", "2000", "--rate", "10", "--arrivals", "poisson", "--seed", "3"])
    drawn = list(arrivals(options, 100.0))
    distances = [after - before for before, after in itertools.pairwise(drawn)]
    assert drawn == list(arrivals(options, 100.0))
    assert drawn[-1] - drawn[0] == pytest.approx(200.0, rel=0.1)
    assert sum(distance > 0.1 for distance in distances) == pytest.approx(2000 * 0.368, rel=0.1)  # e to the power of -1


def test_the_page_is_one_file_with_its_plots_and_shows_no_markup_of_others(world):
    world.run_for(0.5)
    world.call.stop_talking(world.now)
    world.call.fail("<b>no_ice</b>")
    run = Run(parse_options(["--calls", "1"]), Driver(lambda: 0.0), started_at=0.0, seconds=1.0)
    run.calls.append(world.call)
    samples = [
        Sample(float(second), 1, 1, 0, 50 * second, 50 * second, 0, 0, {"<b>": ProcessSample(second, 1 << 20)})
        for second in range(4)
    ]
    page = render_page(summarize(run), samples, "just load --url http://x/?a=<b>")
    assert page.count("<svg") == page.count("</svg>") == 7
    without = render_page(summarize(run), [one._replace(processes={}) for one in samples], "just load")
    assert without.count("<svg") == 5
    assert "<b>" not in page
    assert "&lt;b&gt;no_ice" in page
    for chart in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + chart.split("</svg>")[0] + "</svg>")


def test_a_chart_holds_all_its_points():
    chart = ElementTree.fromstring(line_chart("t", [("a", [(0, 0), (7, 9.9)]), ("b", [(3, 0.1)])], "x", "y"))
    for line in chart.iter("polyline"):
        for point in line.attrib["points"].split():
            across, down = map(float, point.split(","))
            assert 0 <= across <= 640
            assert 0 <= down <= 260
    assert "nothing was measured" in line_chart("t", [("a", [])], "x", "y")


def test_a_long_run_is_remembered_in_bounded_space():
    timeline = Timeline()
    for second in range(5 * MAX_SAMPLES):
        timeline.add(Sample(float(second), 0, 0, 0, 0, 0, 0))
    assert len(timeline.samples) <= MAX_SAMPLES + 1
    assert timeline.samples[0].at == 0.0
    assert timeline.samples[-1].at == 5 * MAX_SAMPLES - 1


def test_a_generator_that_was_at_its_limit_says_that_the_figures_may_be_its_own(world):
    world.run_for(0.3)
    world.call.stop_talking(world.now)
    run = Run(parse_options(["--calls", "1"]), Driver(lambda: 0.0), started_at=0.0, seconds=10.0, cpu_seconds=1.0)
    run.calls.append(world.call)
    assert summarize(run).generator["limit"] == []
    run.driver.worst_lateness = 0.25
    run.arrival_lateness.add(0.5)
    run.cpu_seconds = 9.9
    summary = summarize(run)
    assert summary.generator["limit"] == ["one frame very late", "calls late", "no CPU left"]
    assert any("may be its own doing" in text for _, text in sentences(summary))


@given(st.lists(st.tuples(st.floats(0, 0.005), st.floats(0, 0.1), st.booleans()), max_size=60))
def test_what_is_under_way_arrives_once_in_order_not_early_and_a_millisecond_late_at_most(
    moves: list[tuple[float, float, bool]],
):
    way: UnderWay[tuple[float, int]] = UnderWay()
    now, sent, taken = 5000.0, [], []
    for number, (passes, lasts, looks) in enumerate(moves):
        now += passes
        sent.append((now + lasts, number))
        way.put(now + lasts, sent[-1])
        if looks:
            arrived = way.take(now)
            assert all(due <= now for due, _ in arrived)
            assert [int(due * 1000) for due, _ in arrived] == sorted(int(due * 1000) for due, _ in arrived)
            assert all(due > now - 0.001 for due, number in sent if number not in {n for _, n in arrived + taken})
            taken += arrived
    waiting = [due for due, number in sent if number not in {n for _, n in taken}]
    assert way.next_arrival() == pytest.approx(min(waiting, default=math.inf) + 0.001, abs=0.0011)
    if moves and way:
        due = way.next_arrival()
        taken += (found := way.take(due))
        assert found
    taken += way.take(now + 0.2)
    assert sorted(taken) == sorted(sent)
    assert not way
