"""What the browsers' own statistics say of us after a quarter of a minute: believable round trips, no loss, little jitter.

On an idle machine in one network every figure is known: nothing is lost, a round trip takes milliseconds, and the clocks of
both ends are one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio
from harness import running_stack
from test_browsers import call

SECONDS = 15  # three reports of ours and of the browser's at least
STATISTICS = "(async () => [...(await antiphon.pc.getStats()).values()])()"


def only(entries: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The audio entry of that kind."""
    (found,) = [entry for entry in entries if entry["type"] == kind and entry.get("kind", "audio") == "audio"]
    return found


async def test_a_browsers_statistics_of_us_are_believable(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await call(page, stack.url)
        await trio.sleep(SECONDS)
        entries = await page.evaluate(STATISTICS)

    sent, heard = only(entries, "outbound-rtp"), only(entries, "remote-inbound-rtp")  # what we say of its voice
    assert heard["ssrc"] == sent["ssrc"]
    assert heard["packetsLost"] == heard["fractionLost"] == 0
    assert 0 < heard["roundTripTime"] < 0.2
    assert heard["roundTripTimeMeasurements"] >= 2
    assert 0 <= heard["jitter"] < 0.05
    assert heard.get("packetsReceived", sent["packetsSent"]) <= sent["packetsSent"]

    received, told = only(entries, "inbound-rtp"), only(entries, "remote-outbound-rtp")  # what we say of ours
    assert told["ssrc"] == received["ssrc"]
    assert received["packetsLost"] == received["packetsDiscarded"] == 0
    assert received["packetsReceived"] > 0.9 * SECONDS * 50
    assert received["jitter"] < 0.05
    assert 0 < told["packetsSent"] <= received["packetsReceived"]
    assert 0 < told["bytesSent"] <= received["bytesReceived"]
    assert abs(told["remoteTimestamp"] - told["timestamp"]) < 1000, "our sender reports bear the time of day"

    pair = next(entry for entry in entries if entry["type"] == "candidate-pair" and entry.get("nominated"))
    assert pair["state"] == "succeeded"
    assert 0 < pair["currentRoundTripTime"] < 0.2
    figures = {name: heard[name] for name in ("roundTripTime", "jitter")} | {"theirJitter": received["jitter"]}
    print(page.name, figures, {"pair": pair["currentRoundTripTime"]})
