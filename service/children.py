"""Child processes that do not outlive us, however we end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

__all__ = ["die_with_parent", "follow_parent"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """A `preexec_fn`: the kernel sends the child this signal when we end. None where there is no such thing.

    The signal is about the *thread* that forked: fork from the main thread, not from a worker that may end before.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: after it nothing may be imported or allocated in vain
    return lambda: prctl(PR_SET_PDEATHSIG, number)


def follow_parent(parent: int) -> None:
    """Called in the child itself, soon after it began: the kernel kills it when the process `parent` ends, whose child it is.

    Where the kernel has no such signal, the child must notice the end of a pipe or socket that the parent holds.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before we asked
            os._exit(1)
