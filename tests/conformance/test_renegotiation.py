"""Further offers from real peers, and the DTLS role the other way round."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio
from harness import decode, dominant_frequency, running_stack
from test_browsers import call, record

pytestmark = pytest.mark.thorough

PEER = Path(__file__).parent / "aiortc_peer.py"

# Posts an offer to the call's own place; what the answer says of direction, version and ICE.
RENEGOTIATE = """(async () => {
  const pc = antiphon.pc;
  await pc.setLocalDescription(await pc.createOffer());
  const response = await fetch(`/v1/realtime/calls/${antiphon.callId}`, {
    method: "POST", headers: {"Content-Type": "application/sdp"}, body: pc.localDescription.sdp,
  });
  const sdp = await response.text();
  if (response.status !== 200) return {status: response.status, sdp};
  await pc.setRemoteDescription({type: "answer", sdp});
  return {
    status: response.status,
    version: Number(/^o=\\S+ \\S+ (\\d+)/m.exec(sdp)[1]),
    ufrag: /^a=ice-ufrag:(\\S+)/m.exec(sdp)[1],
    direction: pc.getTransceivers()[0].currentDirection,
    state: pc.connectionState,
  };
})()"""

COUNT = """(async () => {
  for (const report of (await antiphon.pc.getStats()).values()) {
    if (report.type === "inbound-rtp" && report.kind === "audio") return report.packetsReceived;
  }
  return 0;
})()"""


async def grows(page, by_at_least: int = 20) -> bool:
    """Whether audio arrives."""
    before = await page.evaluate(COUNT)
    await trio.sleep(1)
    return await page.evaluate(COUNT) - before >= by_at_least


async def turn(page, direction: str) -> dict:
    await page.evaluate(f"(antiphon.pc.getTransceivers()[0].direction = '{direction}', true)")
    result = await page.evaluate(RENEGOTIATE)
    assert result["status"] == 200, result
    return result


async def test_a_browser_holds_a_call_and_takes_it_up_again(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await call(page, stack.url)
        assert await grows(page)
        for version, (offered, agreed) in enumerate(
            {"sendonly": "sendonly", "inactive": "inactive", "recvonly": "recvonly"}.items(), 2
        ):
            result = await turn(page, offered)
            assert (result["direction"], result["version"]) == (agreed, version)
            await trio.sleep(0.3)
            assert not await grows(page)  # the echo has nothing to say, or nobody to say it to
        assert (await turn(page, "sendrecv"))["direction"] == "sendrecv"
        assert await grows(page)


async def test_a_browser_adds_a_data_channel_to_a_call(browser, tone: Path):
    late = """(async () => {
      const channel = antiphon.pc.createDataChannel("late");
      await new Promise((resolve) => { channel.onopen = resolve; });
      const heard = new Promise((resolve) => { channel.onmessage = (event) => resolve(event.data); });
      channel.send("late, but here");
      return await heard;
    })()"""
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await page.goto(stack.url + "?raw")
        # The page opens its channel before it offers; this call is made without one.
        await page.evaluate(
            "(RTCPeerConnection.prototype.realCreate = RTCPeerConnection.prototype.createDataChannel, "
            "RTCPeerConnection.prototype.createDataChannel = () => new EventTarget(), true)"
        )
        await page.evaluate("(document.querySelector('#call').click(), true)")
        await page.wait_for("antiphon.stages.audio !== undefined && antiphon.stages.audio !== null")
        await page.evaluate(
            "(RTCPeerConnection.prototype.createDataChannel = RTCPeerConnection.prototype.realCreate, true)"
        )
        assert "m=application" not in await page.evaluate("antiphon.pc.localDescription.sdp")
        await page.evaluate("(antiphon.lateAnswer = " + late + ", true)")
        result = await page.evaluate(RENEGOTIATE)
        assert result["status"] == 200, result
        assert await page.evaluate("antiphon.lateAnswer") == "late, but here"
        assert await grows(page)


async def test_a_browser_restarts_ice_by_a_further_offer(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await call(page, stack.url)
        before = await page.evaluate("/a=ice-ufrag:(\\S+)/.exec(antiphon.pc.remoteDescription.sdp)[1]")
        await page.evaluate("(antiphon.pc.restartIce(), true)")
        result = await page.evaluate(RENEGOTIATE)
        assert result["status"] == 200, result
        assert result["ufrag"] != before
        await page.wait_for("antiphon.pc.connectionState === 'connected'")
        assert await grows(page, 40)
        await page.evaluate("(antiphon.channel.onmessage = (event) => { antiphon.said = event.data; }, true)")
        await page.evaluate("(antiphon.channel.send('the same channel'), true)")
        await page.wait_for("antiphon.said === 'the same channel'")


async def test_a_browser_is_called_by_an_active_transceiver(browser, tone: Path):
    addresses = {**browser.addresses, "ANTIPHON_TRANSCEIVER_SETUP": "active"}
    async with running_stack("--agent", "echo", **addresses) as stack, browser.open(tone) as page:
        await call(page, stack.url)
        assert "a=setup:active" in await page.evaluate("antiphon.pc.remoteDescription.sdp")
        samples, rate = decode(await record(page, 1.5))
        assert abs(dominant_frequency(samples, rate) - 700) < 5
        await page.evaluate("(antiphon.channel.onmessage = (event) => { antiphon.said = event.data; }, true)")
        await page.evaluate("(antiphon.channel.send('hello, client'), true)")
        await page.wait_for("antiphon.said === 'hello, client'")
        assert (await turn(page, "inactive"))["direction"] == "inactive"


@pytest.mark.parametrize(("setup", "role"), [("passive", "client"), ("active", "server")])
async def test_aiortc_talks_to_a_transceiver_of_either_setup_and_holds_the_call(setup: str, role: str):
    async with running_stack("--agent", "echo", ANTIPHON_TRANSCEIVER_SETUP=setup) as stack:
        with trio.fail_after(60):
            command = [sys.executable, str(PEER), stack.url, "2", "actpass", "hold"]
            finished = await trio.run_process(command, capture_stdout=True)
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["role"] == role
    assert abs(result["hertz"] - 700) < 5, result
    assert all(result["echoed"].values()), result["echoed"]
    assert (result["frames_held"], result["hangup"]) == (0, 200)
