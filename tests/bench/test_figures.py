"""The arithmetic of the measurements and what is made of it. Nothing here is timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest
from rich.console import Console

from bench.charts import file_name, section_chart
from bench.figures import Report, Section, percentile, ratio, spread
from bench.reference import pion
from bench.render import render

ROOT = Path(__file__).parents[2]
MACHINE: dict[str, str | int | list[float]] = {
    "processor": "a processor",
    "cpus": 2,
    "kernel": "6.1",
    "python": "3.11",
    "load_before": [0.0, 0.1, 0.2],
}


def section_of_three_rounds() -> Section:
    section = Section(title="relay")
    for ours, theirs in ((2.0, 4.0), (3.0, 5.0), (40.0, 50.0)):
        section.add("up", "relay", "µs", ours)
        section.add("up", "forwarder", "µs", theirs, is_reference=True)
    return section


def report_of(section: Section) -> Report:
    return Report(command="just bench", machine=MACHINE, seconds=1.0, sections=[section])


def printed(section: Section) -> str:
    report = report_of(section)
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        for part in render(report):
            console.print(part)
    return capture.get()


def test_a_spread_is_the_median_between_the_lowest_and_the_highest():
    assert spread([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert spread([4.0, 1.0]).median == 2.5


def test_a_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no rounds"):
        spread([])


def test_a_ratio_is_taken_within_each_round_so_that_a_slow_machine_does_not_count():
    assert ratio([1.0, 10.0, 100.0], [2.0, 20.0, 200.0]) == (0.5, 0.5, 0.5)


def test_rounds_without_a_counterpart_are_left_out_of_a_ratio():
    assert ratio([1.0, 9.0], [2.0]) == (0.5, 0.5, 0.5)
    assert ratio([1.0], []) is None
    assert ratio([1.0], [0.0]) is None


def test_rounds_of_one_subject_under_one_load_are_one_series():
    section = section_of_three_rounds()
    assert [(series.subject, series.rounds) for series in section.series] == [
        ("relay", [2.0, 3.0, 40.0]),
        ("forwarder", [4.0, 5.0, 50.0]),
    ]


def test_a_reference_is_compared_with_the_subject_of_the_same_load_only():
    section = section_of_three_rounds()
    section.add("down", "forwarder", "µs", 1.0, is_reference=True)
    _, up, down = section.series
    assert section.ratio_to(up) == pytest.approx((0.6, 0.5, 0.8))
    assert section.ratio_to(down) is None


def test_a_note_is_kept_once_however_many_rounds_have_it_to_say():
    section = Section(title="relay")
    section.note("noisy")
    section.note("noisy")
    assert section.notes == ["noisy"]


def test_a_table_shows_medians_spreads_ratios_and_notes():
    section = section_of_three_rounds()
    section.note("the machine was not quiet")
    text = printed(section)
    assert next(line for line in text.splitlines() if "forwarder" in line).split("│")[1:5] == [
        "   forwarder ",
        "   5.00 ",
        "      4.00 – 50.0 ",
        "       0.60 ",
    ]
    assert "the machine was not quiet" in text
    assert "a processor, 2 CPUs" in text


def test_a_single_round_has_no_spread():
    section = Section(title="relay")
    section.add("up", "relay", "µs", 120.0)
    assert "–" not in printed(section).replace("lowest – highest", "")


def test_a_bar_is_met_by_the_median_of_the_ratios_and_may_be_reached_exactly():
    section = section_of_three_rounds()
    for limit in (0.59, 0.6):
        section.hold("up", "relay", limit, to="forwarder")
    missed, met = section.verdicts()
    assert not missed.met
    assert met.met
    assert met.reached == pytest.approx((0.6, 0.5, 0.8))
    lines = [line.strip() for line in printed(section).splitlines() if "bar ≤" in line]
    assert lines == [
        "up: relay / forwarder: bar ≤ 0.59: 0.60 (0.50 – 0.80) missed",
        "up: relay / forwarder: bar ≤ 0.6: 0.60 (0.50 – 0.80) met",
    ]


def test_a_bar_of_another_size_and_every_bar_of_a_quick_run_is_neither_met_nor_missed():
    section = section_of_three_rounds()
    section.hold("up", "relay", 0.5, to="forwarder")
    section.hold("up", "relay", 0.6, to="forwarder", unlike="the bar is of 1000 flows")
    assert [verdict.met for verdict in section.verdicts()] == [False, None]
    assert "bar ≤ 0.6: 0.60 (0.50 – 0.80) not judged: the bar is of 1000 flows" in printed(section)
    section.judge_nothing("--quick")
    assert [verdict.met for verdict in section.verdicts()] == [None, None]
    text = printed(section)
    assert "bar ≤ 0.5: 0.60 (0.50 – 0.80) not judged: --quick" in text
    assert "missed" not in text
    assert "≤ 0.5 not judged" in section_chart(section, report_of(section))


def test_go_that_is_installed_but_not_on_path_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(pion, "ELSEWHERE", str(tmp_path))
    assert pion.build_pion() is None
    assert pion.why_no_go() == "no Go here"
    (tmp_path / "go").touch(mode=0o755)
    assert pion.build_pion() is None
    assert pion.why_no_go() == f"{tmp_path / 'go'} is not on PATH"


def test_a_bar_without_a_reference_is_about_the_value_itself():
    section = section_of_three_rounds()
    section.hold("up", "relay", 3.0)
    [verdict] = section.verdicts()
    assert verdict.met
    assert verdict.reached == (3.0, 2.0, 40.0)


@pytest.mark.parametrize(("subject", "reference"), [("relay", "nginx"), ("router", "forwarder"), ("router", None)])
def test_a_bar_of_what_was_not_measured_is_neither_met_nor_missed(subject: str, reference: str | None):
    section = section_of_three_rounds()
    section.hold("up", subject, 1.0, to=reference)
    assert section.verdicts() == []
    assert "bar ≤ 1: not measured" in printed(section)


def test_what_a_process_spends_in_its_own_code_has_a_column_of_its_own():
    section = section_of_three_rounds()
    section.add("down", "relay", "µs", 9.0, own=1.25)
    assert "1.25" in next(line for line in printed(section).splitlines() if "9.00" in line)
    assert "own code" in printed(section)


def test_a_picture_shows_each_subject_and_marks_where_ours_has_to_end():
    section = section_of_three_rounds()
    section.title = "relay <1>: packets"
    section.hold("up", "relay", 0.5, to="forwarder")
    svg = section_chart(section, report_of(section))
    assert file_name(section) == "relay-<1>.svg"
    picture = ElementTree.fromstring(svg)
    space = {"": "http://www.w3.org/2000/svg"}
    texts = ["".join(text.itertext()) for text in picture.iterfind("text", space)]
    assert texts[:4] == ["relay <1>: packets", "up, µs", "relay", "3.00 0.60 ≤ 0.5 missed"]
    ours, theirs = (float(bar.attrib["width"]) for bar in picture.iterfind("rect", space))
    mark = next(path for path in picture.iterfind("path", space) if path.attrib["class"] == "bar")
    zero = float(picture.find("rect", space).attrib["x"])
    assert ours / theirs == pytest.approx(3.0 / 5.0, rel=0.01)
    assert float(mark.attrib["d"][1:].partition(",")[0]) - zero == pytest.approx(theirs / 2, rel=0.01)


def test_a_report_as_json_keeps_every_round():
    report = report_of(section_of_three_rounds())
    again = msgspec.json.decode(msgspec.json.encode(report), type=Report)
    assert again == report


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        ["rely"],
        ["relay", "--rounds", "0"],
        ["--calls", "many"],
        ["--growth", "50"],
        ["--json", "/no/folder/x"],
        ["--figures", "/dev/null/x"],
    ],
)
def test_a_wrong_command_line_is_refused_before_anything_is_measured(wrong: list[str]):
    done = subprocess.run(
        [sys.executable, "-m", "bench", *wrong], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "just bench" in done.stderr
    assert done.stdout == ""


def test_a_percentile_is_one_of_the_values():
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.01, 0.5, 0.99, 1.0)] == [1.0, 50.0, 99.0, 100.0]
    assert percentile([7.0], 0.99) == 7.0
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
