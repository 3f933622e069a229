"""Parts of the relay die, are replaced or flooded under a browser's call: it hears a gap at most, nothing is set up again."""

from __future__ import annotations

import base64
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import trio
from harness import Stack, decode, dominant_frequency, running_stack
from test_browsers import call, record
from test_recovery import RENEGOTIATED, WATCH_GAP

pytestmark = pytest.mark.thorough


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def only_child(pid: int) -> int:
    [child] = children(pid)
    return child


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
    browser, tone: Path, agent: str, happens: Callable[[Stack], None], at_most_ms: int
):
    async with running_stack("--agent", agent, **browser.addresses) as stack, browser.open(tone) as page:
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
        print(
            f"\n{page.name}, {happens.__name__}, agent {agent}: gap {gap:.0f} ms ({ordinary:.0f} ms when nothing happens)"
        )
        supervisor = stack.pid_of("relay")
        with trio.fail_after(15):  # the old generation may take its time to go
            while len(children(supervisor)) > 1:
                await trio.sleep(0.1)
        after = supervisor, only_child(supervisor), only_child(only_child(supervisor))
        assert after[2] != processes[2]
        assert (after[0] == processes[0]) is (happens is not kill_relay)
        assert gap < at_most_ms * stack.slowness
        assert await page.evaluate(RENEGOTIATED) == before
        samples, rate = decode(await record(page, 1))
        assert abs(dominant_frequency(samples, rate) - 700) < 5
        assert (await stack.hang_up(identity)).status_code == 200


FORGED = 15_000  # tokens a second: more than the relay opens
DROPPED = re.compile(r'antiphon_relay_drops_total\{reason="(token_forged|stun_budget)"\} (\d+)')


def flood(relay: tuple[str, int], token: str, seconds: float) -> int:
    """STUN requests with tokens that only opening shows to be forged: key and cluster of a good one. How many were sent."""
    head, sent = base64.b64decode(token)[:3], 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(relay)
        began = time.monotonic()
        while (age := time.monotonic() - began) < seconds:
            while sent < age * FORGED:
                ufrag = base64.b64encode(head + os.urandom(33))
                request = b"\0\1\0\x3c\x21\x12\xa4\x42" + os.urandom(12) + b"\0\6\0\x35" + ufrag + b":abcd" + bytes(3)
                sent += bool(stranger.send(request))
            time.sleep(0.002)
    return sent


async def test_a_browsers_call_goes_on_beside_a_storm_of_forged_tokens(browser, tone: Path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    addresses = {"ANTIPHON_RELAY_ADMIN": admin, **browser.addresses}
    async with running_stack("--agent", "echo", **addresses) as stack, browser.open(tone) as page:
        identity = await call(page, stack.url)
        before = await page.evaluate(RENEGOTIATED)
        [host, port] = re.search(r"a=candidate:\S+ 1 udp \d+ (\S+) (\d+) ", before).groups()
        token = re.search(r"a=ice-ufrag:(\S+)", before)[1]
        await page.evaluate(WATCH_GAP)
        await trio.sleep(2)
        ordinary = await page.evaluate("gap.longest")
        sent = await trio.to_thread.run_sync(flood, (host, int(port)), token, 5.0)
        gap = await page.evaluate("gap.longest")
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://{admin}/metrics")).text
        dropped = {reason: int(count) for reason, count in DROPPED.findall(metrics)}
        print(f"\n{page.name}: gap {gap:.0f} ms ({ordinary:.0f} ms before), {sent} forged, dropped {dropped}")
        assert sent > 5 * FORGED / 2
        assert sum(dropped.values()) > sent / 2  # the rest is for the kernel, on a busy machine
        assert gap < 250 * stack.slowness
        assert await page.evaluate(RENEGOTIATED) == before
        assert (await stack.hang_up(identity)).status_code == 200
