"""The parent of the workers. It touches no packet and no call.

1. It takes the HTTP addresses (bound, not listening: nothing arrives there), so that a port of 0 is the same for all.
2. It starts a worker a core, pinned to it, and says `ready` when all of them serve.
3. A worker that dies takes its own calls with it, and no others. New connections go to those that live; it is started again,
   later each time that it does not last.
4. The admin port is the parent's: metrics of all workers, told apart by the label `worker`.
5. Told to end, it tells the workers, and ends with the last of them. When the parent itself is killed, the workers drain.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx
import msgspec
import trio
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from service.addresses import to_host_port
from service.admin import serve_admin
from service.listening import reserve_tcp_at
from service.logs import get_logger
from service.ready import parse_announcement
from transceiver.config import TransceiverConfig
from transceiver.workers.forward import Siblings
from transceiver.workers.loads import Loads
from transceiver.workers.orders import DRAIN, END
from transceiver.workers.place import WorkerPlace, usable_cpus

__all__ = ["Supervisor", "WorkerFailed"]

log = get_logger()

ROOT = Path(__file__).parents[2]

# Implementation constants, in seconds
START_SECONDS = 30.0
RESTART_FIRST, RESTART_LONGEST = 0.1, 5.0
STEADY = 10.0  # a worker that lasted so long is started again at once
POLL = 0.01
SCRAPE_SECONDS = 2.0


class WorkerFailed(Exception):
    """A worker did not come to serve when all were started; it has said why on standard error."""


class Worker:
    """One process after the other, in the same place."""

    def __init__(
        self, place: WorkerPlace, command: list[str], cpu: int | None, loads: Loads, environment: Mapping[str, str]
    ) -> None:
        self.place = place
        self._environment = environment
        self._loads = loads
        self.serves = False
        self.bound: dict[str, object] = {}
        self.starts = 0
        self._command = [*command, "--worker", msgspec.json.encode(place).decode()]
        self._cpu = cpu
        self._process: subprocess.Popen[bytes] | None = None
        self._order: bytes | None = None
        self._told = trio.Event()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def supervise(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until it has been ordered to end, and has. Raises WorkerFailed if it never comes to serve."""
        delay = RESTART_FIRST
        while not self._told.is_set():
            began = trio.current_time()
            status = await self._run_once(task_status)
            if self._told.is_set():
                return
            if not self.bound:
                raise WorkerFailed(f"worker {self.place.index} ended with status {status}")
            log.warning("a worker died; starting it again", worker=self.place.index, status=status)
            if trio.current_time() - began > STEADY:
                delay = RESTART_FIRST
            with trio.move_on_after(delay):
                await self._told.wait()
            delay = min(delay * 2, RESTART_LONGEST)

    def tell(self, order: bytes) -> None:
        self._order = order
        self._told.set()
        if self._process is not None:
            self._write(self._process, order)

    def kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    async def _run_once(self, task_status: trio.TaskStatus[None]) -> int:
        self.starts += 1
        process = subprocess.Popen(  # noqa: ASYNC220 - rare, and a fork and exec alone
            self._command,
            env=os.environ
            | self._environment
            | {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C in the terminal is the parent's to pass on
        )
        self._process = process
        if self._cpu is not None:
            os.sched_setaffinity(process.pid, {self._cpu})
        try:
            await self._listen_to(process, task_status)
        finally:
            self.serves = False
            self._loads.leave(self.place.index)
            if process.stdin is not None:
                process.stdin.close()
        while (status := process.poll()) is None:  # noqa: ASYNC110 - it has closed its standard output: it is ending
            await trio.sleep(POLL)
        return status

    async def _listen_to(self, process: subprocess.Popen[bytes], task_status: trio.TaskStatus[None]) -> None:
        """Its standard output until it closes it: the ready line, and perhaps more, which is passed on."""
        assert process.stdout is not None
        pending = b""
        with trio.move_on_after(START_SECONDS) as patience:
            async with trio.lowlevel.FdStream(os.dup(process.stdout.fileno())) as stream:
                process.stdout.close()
                async for data in stream:
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        text = line.decode("utf-8", "replace")
                        fields = None if self.serves else parse_announcement(text)
                        if fields is None:
                            print(f"worker {self.place.index}: {text}", file=sys.stderr)
                            continue
                        patience.deadline = float("inf")
                        self._serve(process, fields, task_status)
        if patience.cancelled_caught:
            log.warning("a worker did not come to serve in time", worker=self.place.index)
            process.kill()

    def _serve(
        self, process: subprocess.Popen[bytes], fields: dict[str, object], task_status: trio.TaskStatus[None]
    ) -> None:
        first = not self.bound
        self.bound, self.serves = fields, True
        if first:
            task_status.started()
        else:
            log.info("a worker is back", worker=self.place.index, pid=process.pid, listen=fields.get("listen"))
        if self._order is not None:  # it was told while it started, and could not hear yet
            self._write(process, self._order)

    def _write(self, process: subprocess.Popen[bytes], order: bytes) -> None:
        if process.stdin is not None and not process.stdin.closed:
            with suppress(BrokenPipeError):  # it is gone already
                os.write(process.stdin.fileno(), order)


class Supervisor:
    """`run` it in a nursery of its own; then `drain`, and `shut_down` for those who cannot wait.

    Raises CannotListen for a taken address, WorkerFailed.
    """

    def __init__(
        self, config: TransceiverConfig, count: int, command: list[str], environment: Mapping[str, str]
    ) -> None:
        """`environment` is what each worker has of it besides ours: secrets, that is, which a command line would show."""
        self._config = config
        self._environment = environment
        self._count = count
        self._command = command
        self._ending = False
        self._families: list[tuple[int, list[Metric]]] = []
        self._calls = 0
        self.workers: list[Worker] = []

    async def run(self, *, task_status: trio.TaskStatus[dict[str, object]] = trio.TASK_STATUS_IGNORED) -> None:
        """Until all workers have ended; `task_status` gets the fields of the ready line."""
        folder = tempfile.mkdtemp(prefix="antiphon-")  # mode 0700
        reserved: list[socket.socket] = []
        try:
            for address in self._config.http:
                reserved += reserve_tcp_at(address)
            http = tuple(to_host_port(*taken.getsockname()[:2]) for taken in reserved)
            cpus = usable_cpus()
            loads = Loads.create(Path(folder) / "loads", self._count)
            for index in range(self._count):
                place = WorkerPlace(index=index, count=self._count, http=http, folder=folder)
                cpu = cpus[index % len(cpus)] if cpus else None
                self.workers.append(Worker(place, self._command, cpu, loads, self._environment))
            async with trio.open_nursery() as nursery:
                admin = await nursery.start(
                    partial(
                        serve_admin,
                        self._config.admin,
                        metrics=self._metrics,
                        ready=self._is_ready,
                        status=self._status,
                        refresh=self._refresh,
                    )
                )
                async with trio.open_nursery() as running:
                    async with trio.open_nursery() as starting:
                        for worker in self.workers:
                            starting.start_soon(running.start, worker.supervise)
                    task_status.started(
                        {
                            "listen": [worker.bound["listen"] for worker in self.workers],
                            "http": [f"http://{address}" for address in http],
                            "admin": admin[0],
                            "workers": [worker.pid for worker in self.workers],
                        }
                    )
                nursery.cancel_scope.cancel()
        finally:
            for worker in self.workers:  # all have ended, unless we failed
                worker.kill()
            for taken in reserved:
                taken.close()
            shutil.rmtree(folder, ignore_errors=True)

    def drain(self) -> None:
        """No new calls; end when those that are live have ended."""
        self._tell(DRAIN)

    def shut_down(self) -> None:
        """Say goodbye to everybody, then end."""
        self._tell(END)

    def _tell(self, order: bytes) -> None:
        self._ending = True
        for worker in self.workers:
            worker.tell(order)

    # The admin port

    def _is_ready(self) -> bool:
        return not self._ending and any(worker.serves for worker in self.workers)

    def _status(self) -> dict[str, object]:
        serving = sum(worker.serves for worker in self.workers)
        return {"calls": self._calls, "workers": self._count, "workers_serving": serving}

    async def _refresh(self) -> None:
        self._families = []
        self._calls = 0
        siblings = Siblings(self.workers[0].place)

        async def scrape(worker: Worker) -> None:
            index = worker.place.index
            try:
                answer = await siblings.ask(index, "GET", "/admin/metrics")
                health = await siblings.ask(index, "GET", "/admin/healthz")
                families = list(text_string_to_metric_families(answer.text))
                self._calls += int(health.json()["calls"])
            except (httpx.HTTPError, ValueError, KeyError):  # it is being started again
                return
            self._families.append((index, families))

        with trio.move_on_after(SCRAPE_SECONDS):
            async with trio.open_nursery() as nursery:
                for worker in self.workers:
                    if worker.serves:
                        nursery.start_soon(scrape, worker)

    def _metrics(self) -> Iterable[Metric]:
        merged: dict[str, Metric] = {}
        for index, families in sorted(self._families, key=lambda pair: pair[0]):
            for family in families:
                whole = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    whole.add_sample(sample.name, {**sample.labels, "worker": str(index)}, sample.value)
        yield from merged.values()
        up = GaugeMetricFamily("antiphon_transceiver_worker_up", "Whether a worker serves.", labels=["worker"])
        starts = CounterMetricFamily(
            "antiphon_transceiver_worker_starts", "How often a worker was started.", labels=["worker"]
        )
        for worker in self.workers:
            up.add_metric([str(worker.place.index)], int(worker.serves))
            starts.add_metric([str(worker.place.index)], worker.starts)
        yield from (up, starts)
