"""The parrot in a real browser: it says the caller's sentence back, and is silent at once when spoken over."""

from __future__ import annotations

import wave
from pathlib import Path

import pytest
from harness import SAMPLE_RATE, decode, running_stack
from test_browsers import call, record

LISTEN = """(() => {
  window.heard = [];
  antiphon.channel.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    heard.push({type: message.type, at: performance.now(), played_ms: message.played_ms});
  });
  return true;
})()"""


@pytest.fixture
def write_voice(speech, quiet, tmp_path: Path):
    """A WAV of a sentence and the silence after it, in milliseconds."""

    def write_voice(sentence: int, pause: int) -> Path:
        path = tmp_path / "sentence.wav"
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(b"".join(speech(SAMPLE_RATE, sentence) + quiet(SAMPLE_RATE, pause)))
        return path

    return write_voice


@pytest.mark.thorough
async def test_the_parrot_says_a_sentence_back(browser, write_voice):
    voice = write_voice(1500, 3500)
    async with running_stack("--agent", "parrot", **browser.addresses) as stack, browser.open(voice) as page:
        await call(page, stack.url, until="channel")
        await page.evaluate(LISTEN)
        await page.wait_for("heard.some((one) => one.type === 'parrot.speaking')")
        samples, _ = decode(await record(page, 1))
        assert abs(samples).mean() > 0.01 * abs(samples).max() > 0
        await page.wait_for("heard.some((one) => one.type === 'parrot.finished')")
        played = await page.evaluate("heard.find((one) => one.type === 'parrot.finished').played_ms")
        assert 1200 < played < 3000


@pytest.mark.thorough
async def test_speaking_over_the_parrot_stops_it_at_once(chromium, write_voice):
    voice = write_voice(2500, 1300)  # the next sentence begins while the parrot still says the last one
    async with running_stack("--agent", "parrot", **chromium.addresses) as stack, chromium.open(voice) as page:
        await call(page, stack.url, until="channel")
        await page.evaluate(LISTEN)
        await page.wait_for("heard.some((one) => one.type === 'parrot.interrupted')")
        played = await page.evaluate("heard.find((one) => one.type === 'parrot.interrupted').played_ms")
        assert 0 < played < 1500
