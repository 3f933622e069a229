"""`just load`: real calls through a relay, and how they went."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import trio
from rich.console import Console

from loadgen.driver import Driver
from loadgen.fleet import Fleet, start_workers
from loadgen.options import Options, parse_options, process_count
from loadgen.ownstack import OwnStack, StackFailed, own_stack
from loadgen.page import render_page
from loadgen.progress import show_progress
from loadgen.report import Summary, render, summarize_result
from loadgen.result import Progress, Result, collect, progress_of
from loadgen.scenario import Run, place_calls
from loadgen.timeline import Timeline, sample
from service.ready import calm_collector, stop_signals

EXIT_WELL, EXIT_NOT_WELL, EXIT_USAGE = range(3)


def main() -> int:
    options = parse_options()
    for name, file in (("--json", options.json), ("--report", options.report)):
        if file not in (None, "-") and (problem := _unwritable(Path(file))) is not None:
            print(f"just load: {name}: {problem}", file=sys.stderr)
            return EXIT_USAGE
    timeline = Timeline()
    try:
        with _stack(options) as stack:
            result = _run(options, stack.url, timeline)
    except StackFailed as failed:
        print(f"just load: {failed}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # before there were calls
        return EXIT_NOT_WELL
    summary = summarize_result(result, options)
    _deliver(options, summary, timeline)
    return EXIT_WELL if summary.ok else EXIT_NOT_WELL


def _stack(options: Options) -> AbstractContextManager[OwnStack]:
    if options.url is not None:
        return nullcontext(OwnStack(options.url, 0))
    return own_stack(options.agent, dict(os.environ) | ({} if options.nack else {"ANTIPHON_TRANSCEIVER_NACK": "false"}))


def _run(options: Options, url: str, timeline: Timeline) -> Result:
    count = process_count(options)
    if count == 1:
        return trio.run(_run_here, options, url, timeline, strict_exception_groups=True)
    with start_workers(count) as workers:
        return trio.run(_run_fleet, Fleet(options, url, workers), timeline, strict_exception_groups=True)


async def _run_here(options: Options, url: str, timeline: Timeline) -> Result:
    calm_collector()
    run = Run(options, Driver(network=options.network))

    def look() -> tuple[float, Progress]:
        return trio.current_time() - run.started_at, progress_of(run)

    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_end_on_signal, signals, nursery.cancel_scope)
            nursery.start_soon(show_progress, look, options.calls, Console(stderr=True))
            nursery.start_soon(timeline.watch, look)
            await place_calls(run, url)
            timeline.add(sample(*look()))
            nursery.cancel_scope.cancel()
    return collect(run)


async def _run_fleet(fleet: Fleet, timeline: Timeline) -> Result:
    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, signals, fleet)
            nursery.start_soon(show_progress, fleet.look, fleet.options.calls, Console(stderr=True))
            nursery.start_soon(timeline.watch, fleet.look)
            await fleet.run()
            nursery.cancel_scope.cancel()
    return fleet.result()


async def _stop_on_signal(signals: AsyncIterator[int], fleet: Fleet) -> None:
    async for _ in signals:
        await fleet.stop()


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
        return


def _unwritable(file: Path) -> str | None:
    """Known before the calls, not after them."""
    try:
        file.touch()
    except OSError as error:
        return f"{file}: {error.strerror}"
    return None


def _deliver(options: Options, summary: Summary, timeline: Timeline) -> None:
    """The table; the page and the JSON where they are asked for.

    With `--json -` standard output is for the program that reads it; the table goes to standard error.
    """
    console = Console(stderr=options.json == "-")
    for part in render(summary):
        console.print(part, soft_wrap=True)
    if options.report is not None:
        command = " ".join(["just load", *map(shlex.quote, sys.argv[1:])])
        Path(options.report).write_text(render_page(summary, timeline.samples, command))
    if options.json is None:
        return
    text = msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
    if options.json == "-":
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()
    else:
        Path(options.json).write_bytes(text)


if __name__ == "__main__":
    sys.exit(main())
