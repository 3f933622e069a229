"""Child processes that do not outlive us, however we end."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

__all__ = ["die_with_parent"]

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent(number: signal.Signals = signal.SIGTERM) -> Callable[[], None] | None:
    """A `preexec_fn`: the kernel sends the child this signal when we end. None where there is no such thing.

    The signal is about the *thread* that forked: fork from the main thread, not from a worker that may end before.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork: after it nothing may be imported or allocated in vain
    return lambda: prctl(PR_SET_PDEATHSIG, number)
