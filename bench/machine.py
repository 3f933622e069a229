"""The machine a run was made on, and who else is at work on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

__all__ = ["describe", "measuring_cpus", "quiet_note"]

# Implementation constants
BUSY_LOAD = 0.5  # processes at work, on average over the last minute, before we begin


def describe() -> dict[str, str | int | list[float]]:
    return {
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def measuring_cpus() -> tuple[int, int] | None:
    """One CPU for what is measured, another for everything that drives it; None on a machine with one only."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[-1]) if len(usable) > 1 else None


def quiet_note() -> str | None:
    """A word of warning when others are at work."""
    load = os.getloadavg()[0]
    if load <= BUSY_LOAD:
        return None
    return f"the machine was not quiet: load {load:.2f} when we began; trust the ratios more than the times"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
