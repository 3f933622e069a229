"""The supervisor's view of one generation: a host, its workers, and what each of them has said.

preparing ──all Ready──▶ ready ──serve──▶ serving ──retire──▶ retired
    └───────── host ends, a worker dies, time ────────▶ failed
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import trio

from relay.messages import (
    MAX_MESSAGE,
    Died,
    Failed,
    Forked,
    Kill,
    Loaded,
    Message,
    Place,
    Ready,
    Report,
    Reported,
    Retire,
    Serve,
    Start,
    Stop,
    Stopped,
    decode,
    open_pair,
    send,
)
from relay.settings import Settings
from service.logs import get_logger

__all__ = ["Generation", "HostProcess", "fork_host", "spawn_host"]

# Implementation constants, seconds
STOP_LIMIT = 1.0  # for a batch to be finished; whoever is stuck is killed
REPORT_LIMIT = 1.0  # a worker busier than that is shown with its counters of the last second
REAP_SECONDS = 0.005
WATCH_SECONDS = 2.0
STUCK_SECONDS = 10.0  # without an answer a worker is not busy but stuck (or stopped by a debugger); it is replaced.
# After as long again its host has not done so, and is stuck itself.

log = get_logger()


class HostProcess:
    """A host as our child, and our end of the pair."""

    def __init__(self, pid: int, control: socket.socket) -> None:
        self.pid = pid
        self.control = control
        control.setblocking(False)

    def kill(self) -> None:
        """Only before `wait` has returned."""
        os.kill(self.pid, signal.SIGKILL)

    async def wait(self) -> int:
        """Reaps it; by polling, so that only the thread that made it ever waits for it."""
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)  # noqa: ASYNC222 - it does not block
            if pid:
                return os.waitstatus_to_exitcode(status)
            await trio.sleep(REAP_SECONDS)


def fork_host(file: Path | None) -> HostProcess:
    """The first generation's: we have just begun, and have imported what it needs. Not while trio runs."""
    from relay.host import host

    ours, theirs = open_pair()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return HostProcess(pid, ours)
    try:
        ours.close()
        host(theirs, file, parent)
    finally:
        os._exit(0)


def spawn_host(file: Path | None) -> HostProcess:
    """A later generation's: a fresh interpreter, with the code that is installed now."""
    ours, theirs = open_pair()
    with theirs:
        os.set_inheritable(theirs.fileno(), True)
        arguments = [sys.executable, "-m", "relay.fresh_host", str(theirs.fileno()), *([str(file)] if file else [])]
        # From this very thread: the kernel's signal at a parent's death is about the thread that forked.
        pid = os.posix_spawn(sys.executable, arguments, os.environ)
    return HostProcess(pid, ours)


class Generation:
    """Made, then `run` in a task, which ends when the host has ended."""

    def __init__(self, process: HostProcess, number: int) -> None:
        self.number = number
        self.process = process
        self.settings: Settings | None = None  # what the host runs with
        self.pids: dict[int, int] = {}
        self.restarts = 0
        self.reason = ""  # why it failed
        self.decided = trio.Event()  # ready, or failed
        self.gone = trio.Event()
        self._retired = False
        self._channels: list[socket.socket] = []
        self._ready: set[int] = set()
        self._stopped: set[int] = set()
        self._all_stopped = trio.Event()
        self._reports: dict[int, int] = {}
        self._heard_at: dict[int, float] = {}
        self._report_number = 0
        self._reported = trio.Event()

    @property
    def is_ready(self) -> bool:
        return not self.reason and len(self._ready) == len(self._channels)

    def open(
        self,
        places: Sequence[tuple[Place, Sequence[int]]],
        kept: dict[str, object],
        settings: Settings | None,
    ) -> None:
        """Tell the host what there is; `places` with their descriptors, but for the channels."""
        send(self.process.control, Start(len(places), kept, settings))
        for place, (*sockets, ledger, table) in places:
            ours, theirs = open_pair()
            ours.setblocking(False)
            self._channels.append(ours)
            with theirs:
                send(self.process.control, place, [*sockets, theirs.fileno(), ledger, table])

    async def run(self) -> None:
        """Until the host has ended; cancelled, it ends the host."""
        try:
            async with trio.open_nursery() as nursery:
                for index, channel in enumerate(self._channels):
                    nursery.start_soon(self._listen_to_worker, index, channel)
                nursery.start_soon(self._watch)
                await self._listen_to_host()
                nursery.cancel_scope.cancel()
        finally:
            self._fail("its host ended")
            for sock in (self.process.control, *self._channels):
                sock.close()
            self.process.kill()
            with trio.CancelScope(shield=True):
                await self.process.wait()
            self.gone.set()
            self._all_stopped.set()

    def serve(self) -> None:
        """Its workers read from now on."""
        if self._retired:
            return
        send(self.process.control, Serve())
        for channel in self._channels:
            send(channel, Serve())

    async def retire(self) -> None:
        """Returns when none of its workers reads any more; then their host ends by itself."""
        self._retired = True
        send(self.process.control, Retire())
        for channel in self._channels:
            send(channel, Stop())
        with trio.move_on_after(STOP_LIMIT) as patience:
            await self._all_stopped.wait()
        if patience.cancelled_caught:
            log.warning("workers do not stop; killed", generation=self.number)
            await self.end("")

    async def end(self, reason: str) -> None:
        """Kill it, whatever it does."""
        self._fail(reason)
        if not self.gone.is_set():
            self.process.kill()
            await self.gone.wait()

    async def report(self) -> None:
        """Have the ledgers brought up to date, as far as workers answer in time."""
        self._report_number += 1
        number, asked = self._report_number, set()
        for index, channel in enumerate(self._channels):
            if index in self._ready and send(channel, Report(number)):
                asked.add(index)
        with trio.move_on_after(REPORT_LIMIT):
            while not self.gone.is_set() and any(self._reports.get(index, 0) < number for index in asked):
                await self._reported.wait()

    async def _watch(self) -> None:
        while True:
            await trio.sleep(WATCH_SECONDS)
            await self.report()
            for index in self._ready:
                silent = trio.current_time() - self._heard_at[index]
                if silent > 2 * STUCK_SECONDS:
                    log.error("a host is stuck; killed, and its workers with it", host=self.process.pid, worker=index)
                    self.process.kill()
                    return
                if silent > STUCK_SECONDS:
                    log.error("a worker is stuck; killed", worker=index, pid=self.pids.get(index))
                    send(self.process.control, Kill(index))

    async def _listen_to_host(self) -> None:
        sock = trio.socket.from_stdlib_socket(self.process.control)
        while (message := await _receive(sock)) is not None:
            match message:
                case Loaded(settings=settings):
                    self.settings = settings
                case Failed(reason=reason):
                    self._fail(reason)
                case Forked(index=index, pid=pid):
                    self.pids[index] = pid
                case Died(index=index, status=status):
                    self._note_death(index, status)
                case _:
                    pass

    async def _listen_to_worker(self, index: int, channel: socket.socket) -> None:
        sock = trio.socket.from_stdlib_socket(channel)
        while (message := await _receive(sock)) is not None:
            self._heard_at[index] = trio.current_time()
            match message:
                case Ready():
                    self._ready.add(index)
                    if self.is_ready:
                        self.decided.set()
                case Reported(number=number):
                    self._reports[index] = number
                    self._reported.set()
                    self._reported = trio.Event()
                case Stopped():
                    self._note_stop(index)
                case _:
                    pass

    def _note_death(self, index: int, status: int) -> None:
        self._ready.discard(index)
        pid = self.pids.pop(index, None)
        if self._retired:
            self._note_stop(index)
        elif not self.decided.is_set():
            self._fail(f"its worker {index} ended with status {status}")
        else:
            self.restarts += 1
            log.warning("a worker died; it is started again", worker=index, died=pid, status=status)

    def _note_stop(self, index: int) -> None:
        self._stopped.add(index)
        if len(self._stopped) == len(self._channels):
            self._all_stopped.set()

    def _fail(self, reason: str) -> None:
        if not self.decided.is_set():
            self.reason = reason
            self.decided.set()


async def _receive(sock: trio.socket.SocketType) -> Message | None:
    try:
        data = await sock.recv(MAX_MESSAGE)
    except OSError:
        return None
    return decode(data) if data else None
