"""The measurements themselves, as short as they go: that they run, find what they measure, and write what they promise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from bench.barge_in import RECEIVED
from bench.barge_in import WHOLE as BARGE_IN
from bench.calls import DIRECT, PASSING, RELAYED
from bench.figures import Report
from bench.first_word import LOST, TARDY
from bench.relay import JUMBO, RELAY, SINGLE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.thorough


def measured(what: str, folder: Path) -> Report:
    """Without what only some machines have: PATH holds the system's own programs alone."""
    command = [sys.executable, "-m", "bench", what, "--quick", "--json", str(folder / "figures.json")]
    done = subprocess.run(
        [*command, "--figures", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode((folder / "figures.json").read_bytes(), type=Report)
    pictures = [ElementTree.parse(file).getroot() for file in sorted(folder.glob("*.svg"))]
    assert len(pictures) == len(report.sections)
    return report


def subjects(report: Report) -> set[str]:
    return {series.subject for section in report.sections for series in section.series}


def test_the_relay_is_measured_and_an_upgrade_loses_nothing(tmp_path: Path):
    report = measured("relay", tmp_path)
    assert {RELAY, JUMBO, SINGLE} <= subjects(report)  # and what else is built here
    [lost] = [verdict for verdict in report.verdicts if verdict.bar.what.endswith("lost")]
    assert lost.reached.median == 0
    assert lost.met is None  # --quick
    [table] = [verdict for verdict in report.verdicts if verdict.bar.what == "memory"]
    assert table.reached.median <= table.bar.limit


def test_set_up_is_measured_beside_aiortc(tmp_path: Path):
    report = measured("setup", tmp_path)
    assert {DIRECT, RELAYED, PASSING} <= subjects(report)
    assert all(value > 0 for section in report.sections for series in section.series for value in series.rounds)


@pytest.mark.conformance
def test_interruptions_and_first_words_are_measured(tmp_path: Path):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    report = measured("voice", tmp_path)
    assert {BARGE_IN, TARDY} <= subjects(report)
    exact = [verdict for verdict in report.verdicts if verdict.bar.what == LOST or RECEIVED in verdict.bar.subject]
    assert len(exact) == 3
    assert all(verdict.met is None for verdict in exact)  # a quick run is held against no bar
    assert all(verdict.reached.median <= verdict.bar.limit for verdict in exact), exact
