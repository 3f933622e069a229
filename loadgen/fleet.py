"""The generator as several processes: each places its part of the calls, and what they measured is put together here.

1. `start_workers` starts them before there is a loop, each on a core of its own where there are enough.
2. `Fleet.run` gives each its order, waits until all are ready, lets them begin at one moment, and follows them.
3. A worker that ends before it has told its result takes its figures with it: its calls count as failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import IO

import trio

from loadgen.driver import Driver
from loadgen.messages import Begin, Order, Ready, read_from_worker, say
from loadgen.options import Options
from loadgen.result import CallResult, ProcessResult, Progress, Result, collect, merge, merge_progress, progress_of
from loadgen.scenario import Run, place_calls
from loadgen.script import Script
from service.children import die_with_parent
from service.ready import calm_collector

__all__ = ["Alone", "Fleet", "Worker", "start_workers"]

# Implementation constants, seconds
LEAD = 0.05  # from the word to begin until the first call is due, so that it reaches every worker
READY_LIMIT = 30.0
STOP_PATIENCE = 20.0

ROOT = Path(__file__).resolve().parents[1]

Worker = subprocess.Popen[bytes]


@contextmanager
def start_workers(count: int) -> Iterator[list[Worker]]:
    """They end with us, and are gone when this ends."""
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(_start())  # noqa: PERF401 - those that were started are ended, if one cannot be
        yield workers
    finally:
        for worker in workers:
            worker.terminate()
        deadline = time.monotonic() + STOP_PATIENCE
        for worker in workers:
            try:
                worker.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()


def _start() -> Worker:
    # Blocking on purpose, before there is a loop: the kernel's signal at our death is about the thread that forked.
    return subprocess.Popen(
        [sys.executable, "-m", "loadgen.worker"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is ours: we tell them
        preexec_fn=die_with_parent(),
    )


class Alone:
    """The generator as this process alone; to be made where trio runs."""

    def __init__(self, options: Options, url: str, script: Script | None = None) -> None:
        calm_collector()
        self._run = Run(options, Driver(network=options.network), script=script)
        self._url = url
        self._scope = trio.CancelScope()

    def look(self) -> tuple[float, Progress]:
        """Seconds of the run, and what has been reached in them."""
        return trio.current_time() - self._run.started_at, progress_of(self._run)

    def result(self) -> Result:
        return collect(self._run)

    async def run(self) -> None:
        with self._scope:
            await place_calls(self._run, self._url)

    async def stop(self) -> None:
        """End the calls early: they say goodbye."""
        await trio.lowlevel.checkpoint()
        self._scope.cancel()


class Fleet:
    """The generator as several processes, in the same words."""

    def __init__(self, options: Options, url: str, workers: Sequence[Worker], script: Script | None = None) -> None:
        self.options = options
        self._script = script
        self.url = url
        self._workers = workers
        self._mark = os.urandom(4)
        self._progress = [Progress() for _ in workers]
        self._results: list[Result | None] = [None for _ in workers]
        self._ready = [trio.Event() for _ in workers]
        self._began_at = 0.0

    def look(self) -> tuple[float, Progress]:
        seconds = trio.current_time() - self._began_at if self._began_at else 0.0
        return seconds, merge_progress(self._progress)

    def result(self) -> Result:
        return merge(result or self._lost(index) for index, result in enumerate(self._results))

    async def run(self) -> None:
        """Until every worker has told its result, or ended without."""
        async with trio.open_nursery() as nursery:
            for index in range(len(self._workers)):
                nursery.start_soon(self._follow, index)
            await self._command()

    async def stop(self) -> None:
        """End the calls early; the results still come, or the workers are killed."""
        for worker in self._workers:
            worker.terminate()
        await trio.sleep(STOP_PATIENCE)
        for worker in self._workers:
            worker.kill()

    async def _command(self) -> None:
        count, cpus = len(self._workers), sorted(os.sched_getaffinity(0))
        async with AsyncExitStack() as stack:
            orders = [await stack.enter_async_context(_stream(worker.stdin)) for worker in self._workers]
            for index, order in enumerate(orders):
                cpu = cpus[index % len(cpus)] if count > 1 else None
                words = Order(
                    options=self.options,
                    url=self.url,
                    run=self._mark,
                    first=index,
                    every=count,
                    cpu=cpu,
                    script=self._script,
                )
                await _tell(order, words)
            with trio.move_on_after(READY_LIMIT):
                for ready in self._ready:
                    await ready.wait()
            for worker, ready in zip(self._workers, self._ready, strict=True):
                if not ready.is_set():
                    worker.kill()
            self._began_at = trio.current_time() + LEAD
            begin = Begin(time.monotonic() + LEAD)
            for order in orders:
                await _tell(order, begin)

    async def _follow(self, index: int) -> None:
        worker = self._workers[index]
        async with _stream(worker.stdout) as answers:
            async for word in read_from_worker(answers):
                match word:
                    case Ready():
                        self._ready[index].set()
                    case Progress() as progress:
                        self._progress[index] = progress
                    case Result() as result:
                        self._results[index] = result
        self._ready[index].set()  # nobody is to wait for it
        while worker.poll() is None:  # noqa: ASYNC110 - its pipe is closed: it ends at once
            await trio.sleep(0.01)

    def _lost(self, index: int) -> Result:
        """In place of what a worker that died would have told."""
        numbers = range(index, self.options.calls, len(self._workers))
        code = self._workers[index].returncode
        return Result(
            calls=[CallResult(number=number, failure="generator_died") for number in numbers],
            processes=[ProcessResult(died=f"signal {-code}" if code is not None and code < 0 else f"status {code}")],
        )


def _stream(pipe: IO[bytes] | None) -> trio.lowlevel.FdStream:
    assert pipe is not None
    return trio.lowlevel.FdStream(os.dup(pipe.fileno()))


async def _tell(order: trio.lowlevel.FdStream, message: object) -> None:
    try:
        await say(order, message)
    except trio.BrokenResourceError:
        return  # it has ended, which is noticed elsewhere
