"""Clocks that jump under a living call: the wall clock an hour forth and back, and a monotonic clock that began long ago."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
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


def monotonic_clock_ahead(seconds: int) -> tuple[str, ...]:
    """The command that runs another so; empty where a time namespace is not allowed."""
    command = ("unshare", "--time", "--monotonic", str(seconds))
    show = "import time; print(time.monotonic())"
    if shutil.which("unshare") is None:
        return ()
    shown = subprocess.run([*command, sys.executable, "-c", show], capture_output=True, check=False, text=True)
    return command if shown.returncode == 0 and float(shown.stdout) > time.monotonic() + seconds / 2 else ()


async def survives(target: Target, wall_clock: WallClock) -> list[str]:
    """A call while the clock jumps, and another after each jump; the ufrags of these."""
    ufrags = []
    async with live(target) as call:
        for offset in (HOUR, -HOUR, 0):
            wall_clock.move(offset)
            await call.talk(2.2)  # the file is read when a whole second has passed
            assert (await call.judge(Seen())).lives, offset
            async with live(target) as other:
                assert (await other.judge(Seen())).lives, offset
                ufrags.append(other.ufrag)
        await call.talk(1.5)  # long enough for consent checks and RTCP reports of both sides
        assert (await call.judge(Seen())).lives
    return ufrags


@pytest.mark.thorough
async def test_a_wall_clock_that_jumps_an_hour_forth_and_back_costs_no_call(wall_clock: WallClock) -> None:
    """Under a monotonic clock that began a month ago: timers wound by one clock and read by another would show too."""
    command = monotonic_clock_ahead(MONTH)
    if not command:
        pytest.skip("a time namespace is not allowed here")
    with our_stack(*command, **wall_clock.environment) as target:
        issued = [
            KeyRing.parse(ROUTING).open_untrusted(ufrag.encode()).issued for ufrag in await survives(target, wall_clock)
        ]
    # It did see the jumps: tokens bear the minute of their issue.
    assert [round((time.time() - when) / HOUR) for when in issued] == [-1, 1, 0]


@pytest.mark.soak
async def test_what_a_jumping_wall_clock_does_to_aiortc_is_what_the_page_says(wall_clock: WallClock) -> None:
    with aiortc_server(**wall_clock.environment) as target:
        await survives(target, wall_clock)
