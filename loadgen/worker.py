"""One process of a generator that has several: `python -m loadgen.worker`, started by `loadgen.fleet` and nobody else.

SIGTERM ends the calls early: they say goodbye and are told of. The kernel sends it, too, when the parent is gone.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator

import trio

from loadgen.driver import Driver
from loadgen.messages import Begin, Order, Ready, read_to_worker, say
from loadgen.result import collect, progress_of
from loadgen.scenario import Run, Share, place_calls
from service.ready import calm_collector, stop_signals

# Implementation constants
PROGRESS_SECONDS = 0.5


async def serve() -> None:
    answers = trio.lowlevel.FdStream(os.dup(1))
    os.dup2(2, 1)  # whatever else may print
    async with trio.lowlevel.FdStream(os.dup(0)) as orders, answers:
        words = read_to_worker(orders)
        order = await anext(words)
        assert isinstance(order, Order)
        if order.cpu is not None:
            os.sched_setaffinity(0, {order.cpu})
        run = Run(
            order.options,
            Driver(network=order.options.network),
            share=Share(order.first, order.every),
            script=order.script,
        )
        run.figures.run = order.run

        async def begin() -> float:
            calm_collector()
            await say(answers, Ready())
            word = await anext(words)
            assert isinstance(word, Begin)
            return trio.current_time() + word.at - time.monotonic()

        with stop_signals() as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_end_on_signal, signals, nursery.cancel_scope)
                nursery.start_soon(_tell_progress, run, answers)
                await place_calls(run, order.url, begin)
                nursery.cancel_scope.cancel()
        await say(answers, collect(run))


async def _end_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
        return


async def _tell_progress(run: Run, answers: trio.abc.SendStream) -> None:
    while True:
        await trio.sleep(PROGRESS_SECONDS)
        if run.begun:
            with trio.CancelScope(shield=True):  # a frame is sent whole, or what follows it could not be read
                await say(answers, progress_of(run))


if __name__ == "__main__":
    trio.run(serve, strict_exception_groups=True)
