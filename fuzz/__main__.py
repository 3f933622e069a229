"""`just fuzz`: every target in turn, each in a process of its own, and how its coverage grew."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fuzz import corpus
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "fuzz"

# Implementation constants
MEMORY_MIB = 1024
SECONDS_AN_INPUT = 5  # a single input that takes longer is a finding
MARGIN_SECONDS = 60  # for start, instrumentation and the last input

EXIT_CLEAN, EXIT_FOUND, EXIT_USAGE = range(3)

_INSTRUMENTING = re.compile(r"^INFO: Instrumenting .*\n", re.MULTILINE)
_STATUS = re.compile(r"^#(\d+)\s+(\w+)\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    runs: int
    coverage_before: int  # edges, with the committed corpus alone
    coverage: int
    features_before: int
    features: int
    finding: str  # what the process said last, "" when it ended well


def main() -> int:
    options = _options()
    console = Console(stderr=True)
    jobs = min(options.jobs, len(options.targets))
    seconds = max(1, options.seconds * jobs // len(options.targets))
    targets = "1 target" if len(options.targets) == 1 else f"{len(options.targets)} targets"
    console.print(f"{targets}, {seconds} s each, {jobs} at a time; inputs in {_shown(WORK)}/")
    began = time.monotonic()
    outcomes = []
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda name: _fuzz(name, seconds), options.targets):
            outcomes.append(outcome)
            growth = f"edges {outcome.coverage_before} → {outcome.coverage}"
            console.print(f"  {outcome.name}: {outcome.runs} runs, {growth}" + (", FINDING" if outcome.finding else ""))
    if options.keep:
        for name in options.targets:
            console.print(f"  {name}: {_keep(name)} inputs kept in {_shown(corpus.FOLDER)}/{name}.hex")
    Console().print(_table(outcomes, time.monotonic() - began))
    for outcome in outcomes:
        if outcome.finding:
            print(f"\n{outcome.name}:\n{outcome.finding}")
    return EXIT_FOUND if any(outcome.finding for outcome in outcomes) else EXIT_CLEAN


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just fuzz", description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("--seconds", type=int, default=60, help="for all targets together (default 60)")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side (default 2)")
    parser.add_argument(
        "--keep", action="store_true", help="put what was found worth keeping into the committed corpora"
    )
    parser.add_argument("--list", action="store_true", help="name the targets and end")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="only these (default: all)")
    options = parser.parse_args()
    if options.list:
        print("\n".join(names))
        sys.exit(EXIT_CLEAN)
    if options.seconds < 1 or options.jobs < 1:
        parser.error("--seconds and --jobs must be at least 1")
    unknown = sorted(set(options.targets) - set(names))
    if unknown:
        parser.error(f"no target {', '.join(unknown)}; --list names them")
    options.targets = options.targets or names
    return options


def _fuzz(name: str, seconds: int) -> Outcome:
    found, seeds = WORK / name, WORK / f"{name}.seeds"
    found.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(seeds, ignore_errors=True)
    corpus.unpack(name, seeds)
    before = _status(_run(name, "-runs=0", str(seeds)).stderr)
    arguments = [f"-max_total_time={seconds}", f"-timeout={SECONDS_AN_INPUT}", f"-rss_limit_mb={MEMORY_MIB}"]
    arguments += [f"-artifact_prefix={found}.finding-", "-print_final_stats=0", str(found), str(seeds)]
    finished = _run(name, *arguments, limit=seconds + MARGIN_SECONDS)
    runs, coverage, features = _status(finished.stderr)
    finding = "" if finished.returncode == 0 else _INSTRUMENTING.sub("", finished.stderr)[-3000:]
    return Outcome(name, runs, before[1], coverage, before[2], features, finding)


def _keep(name: str) -> int:
    """libFuzzer writes down an input when it reached something new; so the shortest of them are worth keeping."""
    return corpus.extend(name, (file.read_bytes() for file in (WORK / name).iterdir()))


def _run(name: str, *arguments: str, limit: int = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzz.child", name, *arguments]
    try:
        return subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=limit, check=False
        )
    except subprocess.TimeoutExpired as expired:
        said = (expired.stderr or b"").decode(errors="replace")
        return subprocess.CompletedProcess(command, 1, "", f"{said}\nit did not end within {limit} s")


def _status(said: str) -> tuple[int, int, int]:
    """Runs, edges and features by the last line that tells them."""
    lines = _STATUS.findall(said)
    return (int(lines[-1][0]), int(lines[-1][2]), int(lines[-1][3])) if lines else (0, 0, 0)


def _table(outcomes: list[Outcome], seconds: float) -> Table:
    table = Table(title=f"{seconds:.0f} s, {sum(outcome.runs for outcome in outcomes)} runs")
    for heading in ("target", "runs", "edges, corpus", "edges, now", "features, corpus", "features, now", "findings"):
        table.add_column(heading, justify="left" if heading == "target" else "right", no_wrap=heading == "target")
    for one in outcomes:
        numbers = (one.runs, one.coverage_before, one.coverage, one.features_before, one.features)
        table.add_row(one.name, *map(str, numbers), "yes" if one.finding else "none")
    return table


def _shown(folder: Path) -> str:
    return str(folder.relative_to(ROOT))


if __name__ == "__main__":
    sys.exit(main())
