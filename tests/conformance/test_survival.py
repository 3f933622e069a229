"""Parts of the relay die, or are replaced, under a browser's call: it hears a gap at most, and nothing is set up again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from harness import Stack, decode, dominant_frequency, running_stack
from test_browsers import call, record
from test_recovery import RENEGOTIATED, WATCH_GAP

pytestmark = pytest.mark.thorough


def only_child(pid: int) -> int:
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def kill_worker(stack: Stack) -> None:
    os.kill(only_child(only_child(stack.pid_of("relay"))), signal.SIGKILL)


def kill_relay(stack: Stack) -> None:
    os.kill(stack.pid_of("relay"), signal.SIGKILL)


def upgrade(stack: Stack) -> None:
    os.kill(stack.pid_of("relay"), signal.SIGUSR2)


# The browser's statistics are up to 50 ms old, and media comes every 20 ms.
@pytest.mark.parametrize("agent", ["echo", "examples.insistent:insistent"])
@pytest.mark.parametrize(
    ("happens", "at_most_ms"),
    [(kill_worker, 250), (kill_relay, 1500), (upgrade, 250)],
    ids=lambda what: getattr(what, "__name__", ""),
)
async def test_a_browsers_call_goes_on(
    chromium, tone: Path, agent: str, happens: Callable[[Stack], None], at_most_ms: int
):
    async with running_stack("--agent", agent) as stack, chromium.open(tone) as page:
        identity = await call(page, stack.url)
        before = await page.evaluate(RENEGOTIATED)
        await page.evaluate(WATCH_GAP)
        await trio.sleep(2)
        ordinary = await page.evaluate("gap.longest")
        supervisor = stack.pid_of("relay")
        processes = supervisor, only_child(supervisor), only_child(only_child(supervisor))
        happens(stack)
        await trio.sleep(3)
        await page.wait_for("performance.now() - gap.last < 100", 6)
        gap = await page.evaluate("gap.longest")
        print(f"\n{happens.__name__}, agent {agent}: gap {gap:.0f} ms ({ordinary:.0f} ms when nothing happens)")
        supervisor = stack.pid_of("relay")
        after = supervisor, only_child(supervisor), only_child(only_child(supervisor))
        assert after[2] != processes[2]
        assert (after[0] == processes[0]) is (happens is not kill_relay)
        assert gap < at_most_ms * stack.slowness
        assert await page.evaluate(RENEGOTIATED) == before
        samples, rate = decode(await record(page, 1))
        assert abs(dominant_frequency(samples, rate) - 700) < 5
        assert (await stack.hang_up(identity)).status_code == 200
