"""What the kernel knows about another process: CPU time to the nanosecond, memory, whether it is stopped. Linux.

The CPU clock of a process (clock_getcpuclockid(3)) counts all its threads, living and dead, from the scheduler's own
accounts. Of a process that runs right now it may be one scheduler tick late; of one that sleeps or is stopped it is exact.
On loopback it contains the peer's receive path too, because the kernel runs that in the sender's time; so it is for
everyone who is measured here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from pathlib import Path

__all__ = ["ProcessAccounts"]

# Implementation constants, seconds
STOP_LIMIT = 2.0

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
