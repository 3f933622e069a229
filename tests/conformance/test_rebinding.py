"""The caller's NAT forgets him in mid-call, and the world sees him at another port, or another address.

Real callers behind the kernel's own NAT. What is measured is the longest time without a packet, heard by the caller from an
agent that returns what it hears: so both ways are in it. It ends with the caller's next check, which is the first thing that
the relay can know him by: Chromium checks every 2.7 s, Firefox and aiortc every 4 to 6 s. Media has to be back within a second
of it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import namespace
import nat
import pytest
import trio
from harness import decode, dominant_frequency, running_stack
from test_browsers import call, record
from test_recovery import WATCH_GAP

AIORTC = Path(__file__).parent / "aiortc_peer.py"
CHECK_SECONDS = {"chromium": 2.8, "firefox": 6.0, "aiortc": 6.0}  # at most, between two checks
BACK_SECONDS = 1.0
SLACK_SECONDS = 0.3  # of the watch, and of a machine that does other things

pytestmark = [pytest.mark.own_network, pytest.mark.thorough]


@pytest.fixture
def home():
    """The caller's home; None outside the test's own network, where the test does not run."""
    if (missing := nat.obstacle()) is not None:
        pytest.skip(f"a NAT cannot be made: {missing}")
    if not namespace.is_private():
        yield None
        return
    with nat.caller_behind_nat() as made:
        yield made


def server_of(home):
    arguments = ("--agent", "echo", "--host", nat.SERVER, "--open-access")
    return running_stack(*arguments, prefix=home.server_prefix, ANTIPHON_STACK_PUBLIC_ADDRESS=nat.SERVER)


def port_of(url: str) -> int:
    found = re.search(r":(\d+)/", url)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("change", ["port", "address"])
async def test_a_browser_talks_on_after_its_nat_forgot_it(browser, tone: Path, home, change: str):
    async with server_of(home) as stack, nat.local_page(port_of(stack.url)) as url, browser.open(tone) as page:
        await call(page, url)
        before = await page.evaluate("antiphon.pc.remoteDescription.sdp")
        await page.evaluate(WATCH_GAP)
        await trio.sleep(1)
        home.rebind(address=change == "address")
        await trio.sleep(1)
        limit = CHECK_SECONDS[page.name] + BACK_SECONDS + SLACK_SECONDS
        await page.wait_for("performance.now() - gap.last < 500", limit + 5)
        await trio.sleep(2)
        gap = await page.evaluate("gap.longest") / 1000
        print(f"\n{page.name}: another {change}, nothing heard for {gap:.2f} s")
        assert gap < limit
        assert await page.evaluate("antiphon.pc.remoteDescription.sdp") == before
        samples, rate = decode(await record(page, 1))
        assert abs(dominant_frequency(samples, rate) - 700) < 5


@pytest.mark.parametrize("change", ["port", "address"])
async def test_aiortc_talks_on_after_its_nat_forgot_it(home, change: str):
    environment = os.environ | {"AIORTC_ADDRESS": nat.CALLER}
    async with server_of(home) as stack, nat.local_page(port_of(stack.url)) as url:
        with trio.fail_after(60):
            process = await trio.lowlevel.open_process(
                [sys.executable, str(AIORTC), url, "10"], stdout=subprocess.PIPE, env=environment
            )
            assert process.stdout is not None
            said = b""
            while b"\n" not in said:
                chunk = await process.stdout.receive_some()
                assert chunk, "it ended before it talked"
                said += chunk
            await trio.sleep(1)
            home.rebind(address=change == "address")
            said += b"".join([chunk async for chunk in process.stdout])
            assert await process.wait() == 0
    result = json.loads(said.splitlines()[-1])
    gap = result["longest_gap"]
    print(f"\naiortc: another {change}, nothing heard for {gap:.2f} s")
    assert 0.1 < gap < CHECK_SECONDS["aiortc"] + BACK_SECONDS + SLACK_SECONDS
    assert abs(result["hertz"] - 700) < 5, result
