"""Browsers restart ICE in mid-call, by PATCH as WHIP has it (RFC 9725 §4.3.3): new sockets, new credentials, the same call.

aiortc cannot restart ICE, so there is no such test with it.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio
from harness import decode, dominant_frequency, running_stack
from test_browsers import call, record
from test_recovery import WATCH_GAP

pytestmark = pytest.mark.thorough

# What a WHIP client does: its half as a fragment, then the first answer again with the server's new half in it.
RESTART = """(async () => {
  const pc = antiphon.pc;
  const answer = pc.remoteDescription.sdp;
  pc.restartIce();
  await pc.setLocalDescription(await pc.createOffer());
  for (let waited = 0; pc.iceGatheringState !== "complete" && waited < 50; waited++) {
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const lines = pc.localDescription.sdp.split("\\r\\n");
  const first = lines.findIndex((line) => line.startsWith("m="));
  const second = lines.findIndex((line, index) => index > first && line.startsWith("m="));
  const wanted = /^(m=|a=(mid|ice-ufrag|ice-pwd|candidate|end-of-candidates))/;
  const half = [
    ...lines.slice(0, first).filter((line) => /^a=(group:BUNDLE|ice-options|ice-ufrag|ice-pwd)/.test(line)),
    ...lines.slice(first, second < 0 ? undefined : second).filter((line) => wanted.test(line)),
  ];
  const response = await fetch(`/v1/realtime/calls/${antiphon.callId}`, {
    method: "PATCH",
    headers: {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"},
    body: half.join("\\r\\n") + "\\r\\n",
  });
  const theirs = await response.text();
  if (response.status !== 200) return {status: response.status, body: theirs};
  const value = (name) => theirs.match(new RegExp(`^a=${name}:(.*?)\\r?$`, "m"))[1];
  const candidates = theirs.match(/^a=(candidate:.*|end-of-candidates)$/gm).map((line) => line.trim());
  const renewed = [];
  for (const line of answer.split("\\r\\n")) {
    if (/^a=(candidate:|end-of-candidates)/.test(line)) continue;
    if (line.startsWith("a=ice-ufrag:")) renewed.push(`a=ice-ufrag:${value("ice-ufrag")}`);
    else if (line.startsWith("a=ice-pwd:")) renewed.push(`a=ice-pwd:${value("ice-pwd")}`, ...candidates);
    else renewed.push(line);
  }
  await pc.setRemoteDescription({type: "answer", sdp: renewed.join("\\r\\n")});
  return {status: 200, etag: response.headers.get("etag"), ufrag: value("ice-ufrag"), sent: half};
})()"""

# The local port of the pair in use, and what has been received along it.
PAIR = """(async () => {
  const reports = await antiphon.pc.getStats();
  const all = [...reports.values()];
  const chosen = all.find((one) => one.type === "transport" && one.selectedCandidatePairId);
  const newest = (one, other) => (other.lastPacketReceivedTimestamp ?? 0) - (one.lastPacketReceivedTimestamp ?? 0);
  const pair = chosen ? reports.get(chosen.selectedCandidatePairId)
    : all.filter((one) => one.type === "candidate-pair" && one.state === "succeeded").sort(newest)[0];
  return {port: reports.get(pair?.localCandidateId)?.port ?? 0, received: pair?.bytesReceived ?? 0};
})()"""

STEADY = "antiphon.pc.connectionState + antiphon.pc.sctp.transport.state"

ECHO = """(async () => {
  const heard = new Promise((resolve) => {
    antiphon.channel.addEventListener("message", (event) => resolve(event.data), {once: true});
  });
  antiphon.channel.send("on the new path");
  return await heard;
})()"""


async def test_ice8_w2_a_browser_restarts_ice_in_mid_call_and_the_tone_goes_on(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        identity = await call(page, stack.url)
        await page.evaluate(WATCH_GAP)
        await trio.sleep(1)
        before = await page.evaluate(PAIR)
        answered = await page.evaluate(RESTART)
        assert answered["status"] == 200, answered
        assert answered["etag"] == f'"{answered["ufrag"]}"'
        await page.wait_for(f"(async () => ![0, {before['port']}].includes((await {PAIR}).port))()", 10)
        on_new_pair = await page.evaluate(PAIR)
        await trio.sleep(1)
        assert (await page.evaluate(PAIR))["received"] > on_new_pair["received"]
        assert await page.evaluate(STEADY) == "connectedconnected"
        assert await page.evaluate(ECHO) == "on the new path"
        gap = await page.evaluate("gap.longest")
        print(f"\n{page.name}: longest gap between packets across an ICE restart: {gap:.0f} ms")
        assert gap < 1000
        samples, rate = decode(await record(page, 1))
        assert abs(dominant_frequency(samples, rate) - 700) < 5
        # Whoever still trickles for the session before comes too late.
        async with httpx.AsyncClient(base_url=stack.url) as client:
            late = await client.patch(
                f"/v1/realtime/calls/{identity}",
                content=b"a=end-of-candidates\r\n",
                headers={"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": '"the first"'},
            )
        assert late.status_code == 412
        assert (await stack.hang_up(identity)).status_code == 200
