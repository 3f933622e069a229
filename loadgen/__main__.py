"""`just load`: real calls through a relay, and how they went."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import trio
from rich.console import Console

from loadgen.accounts import Accounts
from loadgen.endurance import Capacity, find_capacity, process_figures
from loadgen.fleet import Alone, Fleet, Worker, start_workers
from loadgen.options import LOAD, Options, Preset, parse_options, process_count
from loadgen.ownstack import OwnStack, StackFailed, own_stack
from loadgen.page import render_page
from loadgen.progress import show_progress
from loadgen.report import Summary, render, summarize_result
from loadgen.result import Result
from loadgen.script import Script, ScriptFailed, read_script
from loadgen.signalling import KEY_VARIABLE, read_key
from loadgen.timeline import INTERVAL, Timeline
from service.ready import stop_signals

EXIT_WELL, EXIT_NOT_WELL, EXIT_USAGE = range(3)


def main(preset: Preset = LOAD) -> int:
    options = parse_options(preset=preset)
    for name, file in (("--json", options.json), ("--report", options.report)):
        if file not in (None, "-") and (problem := _unwritable(Path(file))) is not None:
            print(f"{preset.prog}: {name}: {problem}", file=sys.stderr)
            return EXIT_USAGE
    try:
        read_key()
    except ValueError as error:
        print(f"{preset.prog}: {error}", file=sys.stderr)
        return EXIT_USAGE
    try:
        script = read_script(options.say) if options.conversation else None
        with _stack(options) as stack:
            result, timeline, capacity = _run(options, stack, script)
    except (ScriptFailed, StackFailed) as failed:
        print(f"{preset.prog}: {failed}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:  # before there were calls
        return EXIT_NOT_WELL
    summary = summarize_result(result, options, process_figures(timeline.samples, ramp=options.find_capacity), capacity)
    _deliver(options, summary, timeline, preset.prog)
    return EXIT_WELL if summary.ok else EXIT_NOT_WELL


def _stack(options: Options) -> AbstractContextManager[OwnStack]:
    if options.url is not None:
        return nullcontext(OwnStack(options.url, 0))
    given = {} if options.nack else {"ANTIPHON_TRANSCEIVER_NACK": "false"}
    given |= {"ANTIPHON_TRANSCEIVER_RED": "prefer"} if options.red else {}
    environ = {name: value for name, value in os.environ.items() if name != KEY_VARIABLE}
    return own_stack(options.agent, environ | given)


def _run(options: Options, stack: OwnStack, script: Script | None) -> tuple[Result, Timeline, Capacity | None]:
    count = process_count(options)
    with start_workers(count if count > 1 else 0) as workers:
        names = {worker.pid: f"generator {number}" for number, worker in enumerate(workers, 2)}
        timeline = Timeline(Accounts(stack.pid, {os.getpid(): "generator"} | names))
        result, capacity = trio.run(
            _follow, options, stack.url, workers, timeline, script, strict_exception_groups=True
        )
    return result, timeline, capacity


async def _follow(
    options: Options, url: str, workers: Sequence[Worker], timeline: Timeline, script: Script | None
) -> tuple[Result, Capacity | None]:
    generator = Fleet(options, url, workers, script) if workers else Alone(options, url, script)
    found: list[Capacity] = []

    async def stop_at_limit() -> None:
        while (capacity := find_capacity(timeline.samples)) is None:  # noqa: ASYNC110 - one sample a second
            await trio.sleep(INTERVAL)
        found.append(capacity)
        await generator.stop()

    async def stop_on_signal(signals: AsyncIterator[int]) -> None:
        async for _ in signals:
            await generator.stop()

    with stop_signals() as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_on_signal, signals)
            nursery.start_soon(show_progress, generator.look, options.calls, Console(stderr=True))
            nursery.start_soon(timeline.watch, generator.look)
            if options.find_capacity:
                nursery.start_soon(stop_at_limit)
            await generator.run()
            timeline.take(*generator.look())
            nursery.cancel_scope.cancel()
    return generator.result(), found[0] if found else None


def _unwritable(file: Path) -> str | None:
    """Known before the calls, not after them."""
    try:
        file.touch()
    except OSError as error:
        return f"{file}: {error.strerror}"
    return None


def _deliver(options: Options, summary: Summary, timeline: Timeline, prog: str) -> None:
    """The table; the page and the JSON where they are asked for.

    With `--json -` standard output is for the program that reads it; the table goes to standard error.
    """
    console = Console(stderr=options.json == "-")
    for part in render(summary):
        console.print(part, soft_wrap=True)
    if options.report is not None:
        command = " ".join([prog, *map(shlex.quote, sys.argv[1:])])
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
