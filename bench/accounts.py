"""What the kernel knows about another process: CPU time to the nanosecond, memory, whether it is stopped. Linux.

The CPU clock of a process (clock_getcpuclockid(3)) counts all its threads, living and dead, from the scheduler's own
accounts. Of a process that runs right now it may be one scheduler tick late; of one that sleeps or is stopped it is exact.
On loopback it contains the peer's receive path too, because the kernel runs that in the sender's time; so it is for
everyone who is measured here.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from contextlib import suppress
from pathlib import Path

from bench.orders import Usage

__all__ = ["ProcessAccounts", "TreeAccounts", "Watch"]

# Implementation constants, seconds
STOP_LIMIT = 2.0

_TICK = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None)


class ProcessAccounts:
    """Of one process, ours to look at."""

    def __init__(self, pid: int) -> None:
        """Raises OSError for a process that is not there."""
        clock = ctypes.c_int()
        if number := _libc.clock_getcpuclockid(pid, ctypes.byref(clock)):
            raise OSError(number, os.strerror(number))
        self.pid = pid
        self._clock = clock.value
        self._stat = Path(f"/proc/{pid}/stat")
        self._statm = Path(f"/proc/{pid}/statm")

    def cpu_ns(self) -> int:
        return time.clock_gettime_ns(self._clock)

    def own_seconds(self) -> float:
        """Of `cpu_ns`, what was spent in the process's own code and not in the kernel; coarse, hundredths."""
        return int(self._stat.read_text().rpartition(")")[2].split()[11]) / _TICK

    def waited_seconds(self) -> float:
        """In which its threads that live could have run and others had the CPU; 0 where the kernel does not count it."""
        files = (task / "schedstat" for task in Path(f"/proc/{self.pid}/task").iterdir())
        with suppress(OSError):  # a thread has just ended
            return sum(int(file.read_text().split()[1]) for file in files) / 1e9
        return 0.0

    def resident_bytes(self) -> int:
        return int(self._statm.read_text().split()[1]) * _PAGE

    def stop(self) -> None:
        """Returns when it really stands still."""
        os.kill(self.pid, signal.SIGSTOP)
        deadline = time.monotonic() + STOP_LIMIT
        while self._stat.read_text().rpartition(")")[2].split()[0] != "T":
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} does not stop")

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)


class TreeAccounts:
    """Of a process and all its descendants together, as they are when this is made."""

    def __init__(self, pid: int) -> None:
        """Raises OSError for a process that is not there."""
        self.members = [ProcessAccounts(member) for member in _tree(pid)]

    def cpu_ns(self) -> int:
        return sum(member.cpu_ns() for member in self.members)

    def own_seconds(self) -> float:
        return sum(member.own_seconds() for member in self.members)

    def waited_seconds(self) -> float:
        return sum(member.waited_seconds() for member in self.members)

    def resident_bytes(self) -> int:
        """Pages that processes share are counted for each; so only a difference says something."""
        return sum(member.resident_bytes() for member in self.members)


class Watch:
    """CPU and memory of servers by name, and CPU of this process as `caller`."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._accounts = {name: TreeAccounts(pid) for name, pid in pids.items()}

    def usage(self) -> dict[str, Usage]:
        used = {
            name: Usage(cpu=account.cpu_ns() / 1e9, own=account.own_seconds(), waited=account.waited_seconds())
            for name, account in self._accounts.items()
        }
        ours = resource.getrusage(resource.RUSAGE_SELF)
        return used | {"caller": Usage(cpu=ours.ru_utime + ours.ru_stime, own=ours.ru_utime)}

    def resident(self) -> dict[str, int]:
        return {name: account.resident_bytes() for name, account in self._accounts.items()}


def _tree(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    members = [pid]
    for member in members:  # grows as it goes
        members += parents.get(member, [])
    return members
