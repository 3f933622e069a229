"""The process that a relay is: it owns the sockets and the shared memory, and never touches a packet.

    supervisor ─┬─ host of a generation ─┬─ worker 0     its sockets, its trunk port, its flow table, its ledger
                │                        └─ worker n
                └─ host of the next one, during an upgrade

1. It opens all sockets and has the first host forked; later hosts are fresh interpreters.
2. `relay upgrade`, or SIGUSR2: a new host reads the configuration anew and forks workers on the same sockets. When all are
   ready, the old ones finish their batch and end, and the new ones begin to read. Whatever arrived in between has waited in
   the kernel. A generation that is not ready in time is killed before it has read anything.
3. A host that dies takes its workers with it; another is started, with the configuration of the one that died.
4. SIGTERM or SIGINT end everything. So does the kernel, if we are killed.
"""

from __future__ import annotations

import importlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import trio

from relay.control import control_name, serve_control
from relay.generation import Generation, HostProcess, spawn_host
from relay.ledger import LEDGER_SIZE, Family, Ledger, add_up, open_memory
from relay.messages import Place
from relay.settings import Settings, kept
from relay.sockets import WorkerSockets, usable_cpus
from service.logs import get_logger
from service.ready import announce

__all__ = ["NotReady", "Supervisor"]

# Implementation constants, seconds
REVIVE_FIRST = 0.05
REVIVE_LONGEST = 5.0
STEADY = 10.0  # a host that lived so long did not die of its configuration

log = get_logger()


class NotReady(Exception):
    """The first generation failed; the text is for the operator."""


class Supervisor:
    """One relay. `run` returns after SIGTERM or SIGINT."""

    def __init__(self, settings: Settings, file: Path | None, sockets: list[WorkerSockets]) -> None:
        self._settings = settings
        self._config = settings.relay
        self._file = file
        self._sockets = sockets
        cpus = usable_cpus()
        self._places = [Place(i, cpus[i % len(cpus)] if len(sockets) > 1 else None) for i in range(len(sockets))]
        ledgers = [open_memory(f"antiphon ledger {place.index}", LEDGER_SIZE) for place in self._places]
        tables = [open_memory(f"antiphon flows {place.index}", 0) for place in self._places]  # the workers size it
        self._ledgers = [Ledger(descriptor) for descriptor in ledgers]
        self._memory = list(zip(ledgers, tables, strict=True))
        self._current: Generation | None = None
        self._generations = 0
        self._restarts = 0  # of workers, in earlier generations
        self._upgrades = {"done": 0, "failed": 0}
        self._upgrading = False

    async def run(self, first: HostProcess) -> None:
        """Raises NotReady, and CannotListen for the admin port or the control socket."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGUSR2) as signals:
            async with trio.open_nursery() as nursery:
                generation = self._begin(nursery, first, self._settings)
                await generation.decided.wait()
                if not generation.is_ready:
                    await generation.end("")
                    raise NotReady(generation.reason)
                generation.serve()
                self._current = generation
                nursery.start_soon(self._revive, nursery)
                name = control_name(self._config, self._sockets[0].listen[0])
                if name:
                    await nursery.start(serve_control, name, lambda say: self.upgrade(nursery, say))
                admin = await self._start_admin(nursery)
                trunks = [sockets.trunk for sockets in self._sockets]
                trunk: str | list[str] = trunks[0] if len(trunks) == 1 else trunks
                listen = self._sockets[0].listen
                announce(listen=listen, trunk=trunk, admin=admin)
                log.info("relay serves", listen=listen, trunk=trunk, admin=admin, workers=len(self._places))
                async for number in signals:
                    if number == signal.SIGUSR2:
                        nursery.start_soon(self.upgrade, nursery, _say_nothing)
                        continue
                    log.info("relay ends", signal=number)
                    break
                nursery.cancel_scope.cancel()

    async def upgrade(self, nursery: trio.Nursery, say: Callable[[str], None]) -> str:
        """A new generation in place of the current one; returns why not, or "". `say` is told of the steps."""
        if self._upgrading:
            return "an upgrade is under way"
        self._upgrading = True
        try:
            reason = await self._upgrade(nursery, say)
        finally:
            self._upgrading = False
        self._upgrades["failed" if reason else "done"] += 1
        if reason:
            log.error("upgrade failed; the old generation goes on", reason=reason)
        return reason

    async def _upgrade(self, nursery: trio.Nursery, say: Callable[[str], None]) -> str:
        try:
            new = self._begin(nursery, spawn_host(self._file), None)
        except OSError as error:
            return f"no new process: {error.strerror}"
        say(f"generation {new.number}: host {new.process.pid} started")
        with trio.move_on_after(self._config.upgrade_seconds):
            await new.decided.wait()
        if not new.is_ready:
            await new.end(f"not ready within {self._config.upgrade_seconds:g} s")
            return new.reason or "a worker of it died before it served"
        say(f"generation {new.number}: ready, workers: {len(self._places)}")
        began = trio.current_time()
        old, self._current = self._current, new
        assert old is not None
        self._restarts += old.restarts
        await old.retire()
        new.serve()
        pause = (trio.current_time() - began) * 1000
        say(f"generation {new.number} serves; nobody read for {pause:.1f} ms")
        log.info("upgraded", generation=new.number, pause_ms=round(pause, 1))
        return ""

    def _begin(self, nursery: trio.Nursery, process: HostProcess, settings: Settings | None) -> Generation:
        """Raises OSError when there are no descriptors for it; the host is ended then."""
        self._generations += 1
        generation = Generation(process, self._generations)
        places = [
            (place, [*(front.fileno() for front in sockets.fronts), sockets.back.fileno(), *memory])
            for place, sockets, memory in zip(self._places, self._sockets, self._memory, strict=True)
        ]
        try:
            generation.open(places, kept(self._config), settings)
        except OSError:
            process.control.close()
            process.kill()
            nursery.start_soon(process.wait)
            raise
        nursery.start_soon(generation.run)
        return generation

    async def _revive(self, nursery: trio.Nursery) -> None:
        """Another host for one that ended without being asked."""
        delay, since = REVIVE_FIRST, trio.current_time()
        while True:
            current = self._current
            assert current is not None
            await current.gone.wait()
            if self._current is not current:
                continue  # an upgrade retired it
            log.error("a host died, and its workers with it; starting another", generation=current.number)
            delay = REVIVE_FIRST if trio.current_time() - since >= STEADY else min(2 * delay, REVIVE_LONGEST)
            since = trio.current_time()
            try:
                new = self._begin(nursery, spawn_host(self._file), current.settings or self._settings)
            except OSError as error:
                log.error("no new process", error=error.strerror)
                await trio.sleep(delay)
                continue
            self._restarts += current.restarts + len(self._places)
            self._current = new
            await new.decided.wait()
            if new.is_ready:
                new.serve()
            else:
                log.error("it does not come back yet", reason=new.reason)
                await new.end("")
                await trio.sleep(delay)

    async def _start_admin(self, nursery: trio.Nursery) -> str | None:
        if not self._config.admin:
            return None
        # A restarted relay has callers waiting: packets flow while a thread does the imports of the admin port.
        module = await trio.to_thread.run_sync(importlib.import_module, "relay.admin")
        [admin] = await nursery.start(module.admin_port, self._config.admin, self)
        return str(admin)

    # What the admin port shows

    async def refresh(self) -> None:
        """Have the workers write their ledgers."""
        if self._current is not None:
            await self._current.report()

    def status(self) -> dict[str, object]:
        current = self._current
        assert current is not None
        families = {family.name: family for family in self._total()}
        flows = dict(families["antiphon_relay_flows"].samples) if "antiphon_relay_flows" in families else {}
        return {
            "flows": int(flows.get(("established",), 0)),
            "generation": current.number,
            "supervisor": os.getpid(),
            "host": current.process.pid,
            "workers": [current.pids.get(place.index) for place in self._places],
        }

    def families(self) -> list[Family]:
        """All workers' counters added up, and what is known of the workers themselves."""
        current = self._current
        assert current is not None
        frames: list[tuple[tuple[str, ...], float]] = []
        for place, ledger in zip(self._places, self._ledgers, strict=True):
            for family in ledger.read():
                if family.name == "antiphon_relay_frames":
                    frames += [((str(place.index), *labels), value) for labels, value in family.samples]
        restarts = self._restarts + current.restarts
        return [
            *self._total(),
            Family(
                "antiphon_relay_worker_frames",
                "Client datagrams forwarded, by worker",
                "counter",
                ("worker", "direction"),
                frames,
            ),
            Family("antiphon_relay_workers", "Workers alive", "gauge", (), [((), len(current.pids))]),
            Family("antiphon_relay_worker_restarts", "Workers that died", "counter", (), [((), restarts)]),
            Family(
                "antiphon_relay_upgrades",
                "Upgrades by outcome",
                "counter",
                ("outcome",),
                [((outcome,), count) for outcome, count in self._upgrades.items()],
            ),
        ]

    def _total(self) -> list[Family]:
        return add_up(ledger.read() for ledger in self._ledgers)


def _say_nothing(_step: str) -> None:
    """SIGUSR2 has nobody to tell; the log has it."""
