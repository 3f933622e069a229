"""Clocks that jump under a living call: the wall clock an hour forth and back, and a monotonic clock that began long ago."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from attacks import Seen, Target, live
from hostile_stack import ROUTING
from targets import aiortc_server, our_stack

from protocol.routing import KeyRing

pytestmark = [pytest.mark.slow, pytest.mark.conformance, pytest.mark.xdist_group("attacks")]

HOUR = 3600
MONTH = 30 * 24 * HOUR
LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
SERVERS = {"the stack": our_stack, "aiortc": aiortc_server}


class WallClock:
    """The wall clock of other processes, by libfaketime and a file that they look into every second."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.move(0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, seconds: int) -> None:
        """So many seconds beside the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._file)


@pytest.fixture
def wall_clock(tmp_path: Path) -> WallClock:
    if not LIBRARIES:
        pytest.skip("faketime is not installed")
    return WallClock(tmp_path / "clock")


@pytest.mark.parametrize("server", SERVERS)
async def test_a_wall_clock_that_jumps_an_hour_forth_and_back_costs_no_call(server: str, wall_clock: WallClock) -> None:
    start: Callable[..., AbstractContextManager[Target]] = SERVERS[server]
    issued = []
    with start(**wall_clock.environment) as target:
        async with live(target) as call:
            for offset in (HOUR, -HOUR, 0):
                wall_clock.move(offset)
                await call.talk(1.2)
                seen = await call.judge(Seen())
                assert seen.lives, (offset, seen)
                async with live(target) as other:  # and who calls now gets through
                    assert (await other.judge(Seen())).lives, offset
                    issued.append(other.ufrag)
                assert (await call.judge(Seen())).lives, offset
    if server == "the stack":  # it did see them: the tokens bear the minute of their issue
        keys = KeyRing.parse(ROUTING)
        ages = [time.time() - keys.open_untrusted(ufrag.encode()).issued for ufrag in issued]
        assert [round(age / HOUR) for age in ages] == [-1, 1, 0]


def monotonic_clock_ahead(seconds: int) -> tuple[str, ...]:
    """The command that runs another so; empty where a time namespace is not allowed."""
    command = ("unshare", "--time", "--monotonic", str(seconds))
    show = "import time; print(time.monotonic())"
    if shutil.which("unshare") is None:
        return ()
    shown = subprocess.run([*command, sys.executable, "-c", show], capture_output=True, check=False, text=True)
    return command if shown.returncode == 0 and float(shown.stdout) > time.monotonic() + seconds / 2 else ()


async def test_a_monotonic_clock_a_month_ahead_makes_no_difference() -> None:
    """Timers that were wound by one clock and read by another, or kept in too few bits, would show here."""
    command = monotonic_clock_ahead(MONTH)
    if not command:
        pytest.skip("a time namespace is not allowed here")
    with our_stack(*command) as target:
        async with live(target) as call:
            assert (await call.judge(Seen())).lives
            await call.talk(6.5)  # long enough for consent checks and RTCP reports of both sides
            assert (await call.judge(Seen())).lives
