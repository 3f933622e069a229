"""`just bench`: what a packet, a talking call and a call's set-up cost in CPU time, each beside a reference in the same run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec
from rich.console import Console

from bench.barge_in import BargeInOptions, measure_barge_in
from bench.channel import ChannelOptions, measure_channel
from bench.charts import file_name, section_chart
from bench.figures import Report, Section
from bench.first_word import FirstWordOptions, measure_first_word
from bench.machine import describe, quiet_note
from bench.memory import HalfOpenOptions, MemoryOptions, measure_half_open, measure_memory
from bench.onset import OnsetOptions, measure_onset
from bench.processes import BenchFailed
from bench.progress import Progress
from bench.relay import BAR_FLOWS, BAR_RATE, RelayOptions, measure_relay, measure_survival, measure_table
from bench.render import render
from bench.setup import BAR_CALLS as SETUP_CALLS
from bench.setup import SetupOptions, measure_setup
from bench.transceiver import BAR_CALLS, BAR_GROWTH, TransceiverOptions, measure_transceiver

EXIT_WELL, EXIT_FAILED, EXIT_USAGE = range(3)

# Implementation constants
WIDTH = 120  # columns that a table needs, wherever it is printed

WHAT = ("relay", "transceiver", "setup", "memory", "half-open", "channel", "voice", "all")

EPILOG = """\
  relay        CPU µs of the relay process for each 160-byte packet, and what
               an upgrade loses; beside a forwarder in C and nginx stream
  transceiver  CPU ms for each second that a call talks; beside Pion, aiortc,
               and an echo in C over libsrtp
  setup        CPU ms for set-up and end of a call, and how long its caller
               waits; beside Pion and aiortc
  memory       what a talking call costs; beside Pion and aiortc
  half-open    memory that an offer costs which nobody follows up, and the
               slowest of many answers; beside Pion and aiortc
  channel      throughput and latency of a data channel, and CPU µs for each
               message; beside aiortc
  voice        how soon who speaks over the agent hears nothing of it any more, in
               Chromium; and whether the first word of a call is heard
  all          one after the other (the default), in about twenty minutes

References are built here: in C with gcc, cc or clang, Pion with Go (the first
time it fetches its modules), nginx if it is installed with its stream module.
What is missing is left out, and said.

Everything is on loopback, in processes of its own, and ends with this one.
CPU time is from the kernel's accounts of each process. Rounds are interleaved;
the figure to quote is the ratio to the reference, and its machine. Linux only.
Close what else is running: a busy machine moves the times, less the ratios.

exit status: 0 measured, 1 not, 2 the command line is wrong
"""


def main() -> int:
    options = _parser().parse_args()
    if not sys.platform.startswith("linux"):
        print("just bench: only Linux keeps the accounts that this reads", file=sys.stderr)
        return EXIT_FAILED
    if (problem := _unwritable(options.figures, options.json)) is not None:
        print(f"just bench: {problem}", file=sys.stderr)
        return EXIT_USAGE
    machine, note, began = describe(), quiet_note(), time.monotonic()
    sections: list[Section] = []
    try:
        with Progress() as progress:
            sections += [measure(progress) for measure in _measurements(options)]
    except BenchFailed as failed:
        print(f"just bench: {failed}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED
    if options.quick:
        for section in sections:
            section.judge_nothing("--quick")
    if note is not None:
        sections[0].note(note)
    report = Report(
        command=" ".join(["just bench", *sys.argv[1:]]),
        machine=machine,
        seconds=round(time.monotonic() - began, 1),
        sections=sections,
        verdicts=[verdict for section in sections for verdict in section.verdicts()],
    )
    console = Console()
    console.width = max(console.width, WIDTH)
    for part in render(report):
        console.print(part, soft_wrap=True)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if options.figures is not None:
        for section in sections:
            (options.figures / file_name(section)).write_text(section_chart(section, report), encoding="utf-8")
    return EXIT_WELL


def _measurements(options: argparse.Namespace) -> Sequence[Callable[[Progress], Section]]:
    quick = options.quick
    relay = RelayOptions(
        flows=tuple(options.flows or [BAR_FLOWS]),
        rounds=options.rounds or (2 if quick else 5),
        seconds=0.2 if quick else 0.5,
        rate=options.rate,
        upgrades=2 if quick else 20,
        kills=1 if quick else 5,
        table_flows=20_000 if quick else 1_000_000,
    )
    rounds, calls = options.rounds or (1 if quick else 3), options.calls or (20 if quick else BAR_CALLS)
    transceiver = TransceiverOptions(
        calls=calls,
        aiortc_calls=min(calls, 40),
        coding_calls=min(calls, 4 if quick else 10),
        growth=_growth(options.growth, calls, quick=quick),
        rounds=rounds,
        seconds=1.0 if quick else 3.0,
    )
    setup = SetupOptions(min(calls, 10 if quick else SETUP_CALLS), rounds)
    memory = MemoryOptions(calls, min(calls, 80), rounds)
    half_open = HalfOpenOptions(500, 50) if quick else HalfOpenOptions(5000, 200)
    channel = ChannelOptions(rounds, 0.5 if quick else 1.5)
    every: dict[str, Sequence[Callable[[Progress], Section]]] = {
        "relay": (partial(measure_relay, relay), partial(measure_survival, relay), partial(measure_table, relay)),
        "transceiver": (partial(measure_transceiver, transceiver),),
        "setup": (partial(measure_setup, setup),),
        "memory": (partial(measure_memory, memory),),
        "half-open": (partial(measure_half_open, half_open),),
        "channel": (partial(measure_channel, channel),),
        "voice": (
            partial(measure_barge_in, BargeInOptions(3 if quick else 50)),
            partial(measure_first_word, FirstWordOptions(3 if quick else 50)),
            partial(measure_onset, OnsetOptions(10.0 if quick else 120.0)),
        ),
    }
    return list(chain(*every.values())) if options.what == "all" else every[options.what]


def _growth(many: int | None, calls: int, *, quick: bool) -> tuple[int, int]:
    """How few calls and how many are compared."""
    few, usual = (min(calls, 5), calls) if quick else BAR_GROWTH
    return few, many or usual


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="just bench",
        description="Measures what packets and calls cost, beside references in the same run.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", nargs="?", default="all", choices=WHAT)
    parser.add_argument(
        "--quick", action="store_true", help="fewer and shorter rounds: to see that it works; no bar is judged"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures as JSON")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="draw every section there, as SVG")
    parser.add_argument("--rounds", type=_count(1, 100), metavar="N", help="rounds (relay 5, else 3)")
    parser.add_argument("--calls", type=_count(1, 500), metavar="N", help="calls at once (200)")
    parser.add_argument(
        "--growth",
        type=_count(51, 500),
        metavar="N",
        help="calls at once beside 50, to tell how the cost of one changes (500, which fill a slow CPU)",
    )
    parser.add_argument(
        "--flows", type=_count(1, 50_000), nargs="+", metavar="N", help="flows through the relay (1000)"
    )
    parser.add_argument(
        "--rate", type=_count(100, 100_000), default=BAR_RATE, metavar="N", help="packets/s of the paced load (20000)"
    )
    return parser


def _count(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return convert


def _unwritable(figures: Path | None, json: Path | None) -> str | None:
    """Known before the measurement, not after it. The folder of figures is made, and the file may be in it."""
    try:
        if figures is not None:
            figures.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return f"--figures: {figures}: {error.strerror}"
    try:
        if json is not None:
            json.touch()
    except OSError as error:
        return f"--json: {json}: {error.strerror}"
    return None


if __name__ == "__main__":
    sys.exit(main())
