"""The relay dies under a talking call and comes back: its state is a cache, so nobody notices more than a gap.

Measured twice, while the agent talks: learning flows again from the transceiver's replies, and with that switched off, from
the next check alone.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
from harness import decode, dominant_frequency, running_stack
from test_browsers import call, record

WATCH_GAP = """(() => {
  const gap = window.gap = {longest: 0, last: performance.now(), packets: 0};
  const receiver = antiphon.pc.getReceivers().find((one) => one.track.kind === "audio");
  setInterval(async () => {
    for (const report of (await receiver.getStats()).values()) {
      if (report.type !== "inbound-rtp" || report.packetsReceived === gap.packets) continue;
      const now = performance.now();
      gap.longest = Math.max(gap.longest, now - gap.last);
      gap.last = now;
      gap.packets = report.packetsReceived;
    }
  }, 10);
  return true;
})()"""

RENEGOTIATED = "antiphon.pc.remoteDescription.sdp + antiphon.pc.connectionState"


@pytest.mark.parametrize(("learns", "at_most_ms"), [("true", 1500), ("false", 5000)], ids=["replies", "checks alone"])
async def test_a_talking_call_survives_the_death_of_the_relay(chromium, tone: Path, learns: str, at_most_ms: int):
    async with (
        running_stack("--agent", "examples.refrain:refrain", ANTIPHON_RELAY_LEARN_FROM_REPLIES=learns) as stack,
        chromium.open(tone) as page,
    ):
        identity = await call(page, stack.url)
        before = await page.evaluate(RENEGOTIATED)
        await page.evaluate(WATCH_GAP)
        await trio.sleep(1)
        relay = stack.pid_of("relay")
        os.kill(relay, signal.SIGKILL)
        await trio.sleep(1)
        await page.wait_for("performance.now() - gap.last < 100", 6)
        await trio.sleep(1)
        gap = await page.evaluate("gap.longest")
        print(
            f"\ngap after kill -9 of the relay, learning from {'replies' if learns == 'true' else 'checks alone'}: {gap:.0f} ms"
        )
        assert stack.pid_of("relay") != relay
        assert gap < at_most_ms
        assert await page.evaluate(RENEGOTIATED) == before
        samples, rate = decode(await record(page, 1))
        assert abs(dominant_frequency(samples, rate) - 700) < 5
        assert (await stack.hang_up(identity)).status_code == 200
