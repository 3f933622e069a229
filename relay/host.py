"""The host of a generation of workers: imports everything, then forks the workers and forks again whoever dies.

Forked by the supervisor, or loaded by `relay.fresh_host`. It has no threads and no event loop:
its memory is what every worker begins with, so a worker is back within milliseconds, without an import.

Whoever lived for a second is replaced at once; whoever keeps dying sooner waits, longer each time, and the others do not
notice. The host ends when its supervisor does, and the kernel kills the workers when their host ends.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from relay.messages import Died, Failed, Forked, Kill, Loaded, Place, Retire, Serve, Start, receive, send
from relay.settings import check_routing, kept, load_settings
from relay.worker import Worker, Workplace
from service.children import follow_parent
from service.config import ConfigError
from service.logs import configure

__all__ = ["host"]

# Implementation constants, seconds
STEADY = 1.0
DELAY_FIRST = 0.05
DELAY_LONGEST = 5.0
MAX_REASON = 1000  # characters


def host(control: socket.socket, file: Path | None, parent: int) -> None:
    """The process. `control` is our end of the supervisor's pair, `parent` its process id."""
    follow_parent(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):  # sent to a whole group: the supervisor decides
        signal.signal(number, signal.SIG_IGN)
    os.dup2(2, 1)  # standard output is the supervisor's, for its one line
    control.setblocking(True)
    try:
        generation = _Generation(control, _prepare(control, file))
    except (ConfigError, ConnectionError) as error:
        send(control, Failed(str(error)))
        return
    except Exception as error:  # noqa: BLE001 - new code that cannot be made to work: the operator wants to know why
        traceback.print_exc()
        send(control, Failed(f"{type(error).__name__}: {error}"[:MAX_REASON]))
        return
    generation.run()


def _prepare(control: socket.socket, file: Path | None) -> list[Worker]:
    first = receive(control)
    if first is None or not isinstance(first[0], Start):
        raise ConnectionError("the supervisor did not begin with Start")
    start = first[0]
    places = []
    for _ in range(start.workers):  # first: what is left unread when we end would make the kernel drop our last word
        found = receive(control)
        if found is None or not isinstance(found[0], Place):
            raise ConnectionError("the supervisor ended")
        place = found[0]
        *fronts, back, channel, ledger, table = found[1]
        sock = socket.socket(fileno=channel)
        places.append(Workplace(place.index, place.cpu, tuple(fronts), back, sock, ledger, table))
    settings = start.settings
    if settings is None:
        settings = load_settings(file, os.environ)
        check_routing(settings)
        for key, value in kept(settings.relay).items():
            if key in start.kept and value != start.kept[key]:
                raise ConfigError(f"relay.{key}", f"an upgrade cannot change it to {value!r}; restart the relay")
    configure(settings.log, "relay")
    send(control, Loaded(settings))
    return [Worker(place, settings) for place in places]


class _Life:
    """The process at one place, or the time until there is one again."""

    __slots__ = ("begun", "delay", "due", "pid")

    def __init__(self) -> None:
        self.pid = 0  # of the one that lives
        self.begun = 0.0
        self.delay = 0.0
        self.due: float | None = 0.0  # when to fork, if nobody lives


class _Generation:
    def __init__(self, control: socket.socket, workers: list[Worker]) -> None:
        self._control = control
        self._workers = workers
        self._lives = [_Life() for _ in workers]
        self._serving = False
        self._retired = False
        self._pid = os.getpid()
        self._wake, self._woken = socket.socketpair()

    def run(self) -> None:
        """Until the last worker of a retired generation has ended, or the supervisor."""
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _nothing)
        gc.collect()
        gc.freeze()  # workers share these pages as long as nobody writes to them, and a collection would
        poll = select.poll()  # not select(): with many workers a descriptor may be above 1023
        for end in (self._control, self._wake):
            poll.register(end, select.POLLIN)
        while not (self._retired and not any(life.pid for life in self._lives)):
            now = time.monotonic()
            for index, life in enumerate(self._lives):
                if life.due is not None and life.due <= now:
                    self._fork(index, now)
            waits = [life.due - now for life in self._lives if life.due is not None]
            readable = {descriptor for descriptor, _ in poll.poll(1000 * max(0.0, min(waits)) if waits else None)}
            if self._wake.fileno() in readable:
                with suppress(BlockingIOError):
                    self._wake.recv(4096)
                self._reap(time.monotonic())
            if self._control.fileno() in readable and not self._obey():
                return  # and with us the workers

    def _obey(self) -> bool:
        found = receive(self._control)
        if found is None:
            return False
        if isinstance(found[0], Serve):
            self._serving = True
        elif isinstance(found[0], Kill):
            if pid := self._lives[found[0].index].pid:  # not reaped yet, so it is still this one
                os.kill(pid, signal.SIGKILL)
        elif isinstance(found[0], Retire):
            self._retired = True
            for index, life in enumerate(self._lives):
                life.due = None
                if not life.pid:
                    send(self._control, Died(index, 0))
        return True

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for index, life in enumerate(self._lives):
                if life.pid == pid:
                    life.pid = 0
                    if not self._retired:
                        steady = now - life.begun >= STEADY
                        life.due = now + (0.0 if steady else life.delay)
                        life.delay = 0.0 if steady else min(max(2 * life.delay, DELAY_FIRST), DELAY_LONGEST)
                    send(self._control, Died(index, os.waitstatus_to_exitcode(status)))

    def _fork(self, index: int, now: float) -> None:
        life = self._lives[index]
        try:
            pid = os.fork()
        except (
            OSError
        ) as error:  # no process or memory to spare just now: that must not cost the workers that there are
            print(f"worker {index} cannot be forked: {error.strerror}", file=sys.stderr)
            life.delay = min(max(2 * life.delay, DELAY_FIRST), DELAY_LONGEST)
            life.due = now + life.delay
            return
        life.due, life.begun = None, now
        if not pid:
            self._become(self._workers[index])
        life.pid = pid
        send(self._control, Forked(index, pid))

    def _become(self, mine: Worker) -> NoReturn:
        """In the child: the worker, and nothing of the host's."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            follow_parent(self._pid)
            for end in (self._control, self._wake, self._woken):
                end.close()
            for other in self._workers:
                if other is not mine:
                    other.close()
            mine.work(self._serving)
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the host's stack below us is not ours to unwind
            traceback.print_exc()
        finally:
            os._exit(status)


def _nothing(_number: int, _frame: object) -> None:
    """A handler, so that SIGCHLD reaches the wake-up descriptor."""


if __name__ == "__main__":  # for a supervisor that began before there was `relay.fresh_host`
    descriptor, *files = sys.argv[1:]
    host(socket.socket(fileno=int(descriptor)), Path(files[0]) if files else None, os.getppid())
