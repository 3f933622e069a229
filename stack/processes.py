"""One child process of the stack: started, awaited until it serves, started again when it dies, and ended cleanly.

1. The child is `python -m <package> …` with its configuration in the environment. Standard error is ours; its one line on
   standard output says which addresses it bound (`service.ready`).
2. Dies it without being asked, it is started again with the addresses it had: peers may hold them. Deaths in a row wait longer.
3. On stop: SIGTERM, then SIGTERM again (end at once), then SIGKILL.
4. On Linux the kernel ends the child if we die ourselves, however that happens.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import trio

from service.children import die_with_parent
from service.logs import get_logger
from service.ready import parse_announcement

__all__ = ["Child", "StartFailed"]

# Implementation constants, seconds
START_LIMIT = 20.0
RESTART_FIRST = 0.05
RESTART_LONGEST = 5.0
STEADY = 10.0  # alive that long, a child's earlier deaths are forgotten
POLL_SECONDS = 0.02
STOP_PATIENCE = 1.0  # after the first SIGTERM (calls are told), and three times that after the second

ROOT = Path(__file__).resolve().parents[1]

log = get_logger()


class StartFailed(Exception):
    """A child ended before it served, or did not serve in time; its own words are on standard error."""

    def __init__(self, name: str, status: int) -> None:
        super().__init__(f"{name} did not come up (exit status {status})")
        self.status = status


class Child:
    """One supervised process. `bound` is what its last ready line said."""

    def __init__(
        self,
        name: str,
        arguments: list[str],
        environment: Mapping[str, str],
        rebind: Callable[[dict[str, object]], Mapping[str, str]],
    ) -> None:
        """`rebind` turns the bound addresses into the environment with which a restarted process takes them again."""
        self.name = name
        self.bound: dict[str, object] = {}
        self.restarts = 0
        self._command = [sys.executable, "-m", *arguments]
        self._environment = dict(environment)
        self._rebind = rebind
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = trio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def supervise(self, *, task_status: trio.TaskStatus[dict[str, object]] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until stopped; `task_status` gets the first ready line's fields. Raises StartFailed."""
        started = False
        delay = RESTART_FIRST
        async with trio.open_nursery() as output:
            while not self._stopping.is_set():
                began = trio.current_time()
                try:
                    await self._start(output)
                except StartFailed:
                    if not started:
                        raise
                    log.warning("process does not come back yet", child=self.name)
                if not started:
                    started = True
                    self._environment |= self._rebind(self.bound)
                    task_status.started(self.bound)
                if self._process is not None:
                    status = await _wait(self._process)
                    if self._stopping.is_set():
                        return
                    log.warning("process died; starting it again", child=self.name, status=status)
                self.restarts += 1
                delay = RESTART_FIRST if trio.current_time() - began > STEADY else delay
                await trio.sleep(delay)
                delay = min(delay * 2, RESTART_LONGEST)

    async def stop(self) -> None:
        """End it and wait; safe to call in any state."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        stages = ((signal.SIGTERM, STOP_PATIENCE), (signal.SIGTERM, 3 * STOP_PATIENCE), (signal.SIGKILL, math.inf))
        for number, patience in stages:
            if process.poll() is not None:
                return
            process.send_signal(number)
            with trio.move_on_after(patience):
                await _wait(process)

    async def _start(self, output: trio.Nursery) -> None:
        # Forked from this very thread: the kernel's signal at the parent's death is about the thread that forked, and a
        # worker thread of trio's ends when it is idle.
        process = subprocess.Popen(  # noqa: ASYNC220
            self._command,
            env=self._environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in our order
            preexec_fn=die_with_parent(),
        )
        self._process = process
        with trio.move_on_after(START_LIMIT) as patience:
            fields = await output.start(self._read_output, process)
            if fields is not None:
                self.bound = fields
                return
        if patience.cancelled_caught:
            process.kill()
        status = await _wait(process)
        raise StartFailed(self.name, status)

    async def _read_output(
        self,
        process: subprocess.Popen[bytes],
        *,
        task_status: trio.TaskStatus[dict[str, object] | None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Hand the ready line to the starter; pass anything else on to standard error, until the process closes it."""
        assert process.stdout is not None
        ready = False
        pending = b""
        async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as stream:
            process.stdout.close()
            async for chunk in stream:
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    text = line.decode("utf-8", "replace")
                    fields = None if ready else parse_announcement(text)
                    if fields is not None:
                        ready = True
                        task_status.started(fields)
                    else:
                        print(f"{self.name}: {text}", file=sys.stderr)
        if not ready:
            task_status.started(None)


async def _wait(process: subprocess.Popen[bytes]) -> int:
    """Its exit status; polled, so that nothing but this thread ever waits for a child."""
    while (status := process.poll()) is None:  # noqa: ASYNC110
        await trio.sleep(POLL_SECONDS)
    return status
