"""Chromium and Firefox call the stack as a newcomer does: the page, its button, their own WebRTC, our three processes."""

from __future__ import annotations

import base64
from pathlib import Path

import httpx
import pytest
from harness import decode, dominant_frequency, running_stack

RECORD = """(async () => {
  const track = antiphon.pc.getReceivers().find((receiver) => receiver.track.kind === "audio").track;
  const recorder = new MediaRecorder(new MediaStream([track]));
  const chunks = [];
  recorder.ondataavailable = (event) => chunks.push(event.data);
  const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
  recorder.start(200);
  await new Promise((resolve) => setTimeout(resolve, SECONDS * 1000));
  recorder.stop();
  await stopped;
  const bytes = new Uint8Array(await new Blob(chunks).arrayBuffer());
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
})()"""


async def record(page, seconds: float) -> bytes:
    return base64.b64decode(await page.evaluate(RECORD.replace("SECONDS", str(seconds))))


async def call(page, url: str, until: str = "audio") -> str:
    """Open the page, press its button, wait for a stage of the set-up; the call's id."""
    await page.goto(url + "?raw")
    await page.evaluate("(document.querySelector('#call').click(), true)")
    await page.wait_for(f"antiphon.stages.{until} !== undefined && antiphon.stages.{until} !== null")
    return await page.evaluate("antiphon.callId")


async def test_the_tone_a_browser_sends_comes_back_in_what_it_receives(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await call(page, stack.url)
        samples, rate = decode(await record(page, 2))
        assert abs(dominant_frequency(samples, rate) - 700) < 5
        stages = await page.evaluate("antiphon.stages")
        print(page.name, stages)
        assert all(stages[name] >= 0 for name in ("signalling", "ice", "dtls", "channel", "audio"))


NEGOTIATED = """(async () => {
  const pc = new RTCPeerConnection();
  const channel = pc.createDataChannel("mine", { negotiated: true, id: 7 });
  const heard = new Promise((resolve) => { channel.onmessage = (event) => resolve(event.data); });
  channel.onopen = () => channel.send("grüße");
  await pc.setLocalDescription();
  const secret = await (await fetch("/v1/realtime/client_secrets", { method: "POST" })).json();
  const response = await fetch("/v1/realtime/calls?dcid=7", {
    method: "POST",
    headers: { "Content-Type": "application/sdp", Authorization: `Bearer ${secret.value}` },
    body: pc.localDescription.sdp,
  });
  await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
  const answer = await heard;
  pc.close();
  return answer;
})()"""


async def test_a_channel_that_a_browser_opens_without_asking_carries_messages(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await page.goto(stack.url)
        assert await page.evaluate(NEGOTIATED) == "grüße"


async def test_what_a_browser_says_on_the_data_channel_is_echoed(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        await call(page, stack.url)
        echo = """(async () => {
          const channel = antiphon.channel;
          const heard = new Promise((resolve) => {
            channel.addEventListener("message", (event) => resolve(event.data), {once: true});
          });
          channel.send("grüße, Antiphon");
          return await heard;
        })()"""
        assert await page.evaluate(echo) == "grüße, Antiphon"


@pytest.mark.thorough
async def test_a_caller_who_hangs_up_ends_the_call_on_both_sides(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        identity = await call(page, stack.url)
        await page.evaluate("(document.querySelector('#call').click(), true)")
        await page.wait_for("antiphon.state === 'idle' || antiphon.state === 'ended'")
        gone = await stack.hang_up(identity)
        assert gone.status_code == 404
        assert gone.json()["error"]["code"]


@pytest.mark.thorough
async def test_a_server_that_hangs_up_tells_the_caller_why(browser, tone: Path):
    async with running_stack("--agent", "echo", **browser.addresses) as stack, browser.open(tone) as page:
        identity = await call(page, stack.url)
        assert (await stack.hang_up(identity)).status_code == 200
        await page.wait_for("antiphon.state === 'idle' || antiphon.state === 'ended'")
        assert await page.evaluate("antiphon.endReason")


@pytest.mark.thorough
async def test_the_page_says_which_agent_answers():
    async with running_stack("--agent", "parrot") as stack, httpx.AsyncClient(base_url=stack.url) as client:
        assert (await client.get("/v1/info")).json()["agent"] == "parrot"
        assert "<html" in (await client.get("/")).text
