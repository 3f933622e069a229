"""The unmodified `@openai/agents-realtime` in a real Chromium holds a conversation, told our URL and an `ek_…` and no more.

The agent is one of the tests' own (realtime_agent.py): the model is not what is tested here. The ids are those of
docs/conformance.md.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import wave
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soxr
import trio
from browsers import Page
from harness import SAMPLE_RATE, Stack, running_stack
from realtime_page import ephemeral_key, need_sdk, serve_page

from service.ready import parse_announcement

HERE = Path(__file__).parent
AGENT = "realtime_agent:agent"
ORDER = "Turn on the light in the kitchen."
CALLS = "v1/realtime/calls"
IMMEDIATELY_MS = 400  # of silence after an interruption: the way there and back, and Chromium's own concealment


@dataclass
class Client:
    """A page with the SDK in it, beside a running stack."""

    page: Page
    stack: Stack

    async def connect(self, url: str | None = None, config: dict[str, object] | None = None) -> float:
        """How long `RealtimeSession.connect` took, in milliseconds."""
        key = await ephemeral_key(self.stack.url)
        url = (url or self.stack.url) + CALLS
        return await self.page.evaluate(f"connect({json.dumps(url)}, {json.dumps(key)}, {json.dumps(config)})")

    async def count(self, kind: str) -> int:
        return await self.page.evaluate(f"events.filter((event) => event.type === {kind!r}).length")

    async def event(self, kind: str, nth: int = 0, seconds: float = 20.0) -> dict[str, object]:
        """The nth event of that type, waited for."""
        return await self.page.wait_for(f"events.filter((event) => event.type === {kind!r})[{nth}]", seconds)

    async def types(self) -> list[str]:
        return await self.page.evaluate("events.map((event) => event.type)")

    async def sent(self, kind: str) -> list[dict[str, object]]:
        return await self.page.evaluate(f"sent.filter((event) => event.type === {kind!r})")


@pytest.fixture(autouse=True)
def the_sdk_is_here() -> None:
    need_sdk()


@asynccontextmanager
async def sdk_client(chromium, voice: Path, agent: str = AGENT) -> AsyncIterator[Client]:
    async with (
        running_stack("--agent", agent, PYTHONPATH=str(HERE), **chromium.addresses) as stack,
        serve_page() as url,
        chromium.open(voice) as page,
    ):
        await page.goto(url)
        await page.wait_for("window.ready")
        yield Client(page, stack)


@pytest.fixture
def sentence(speech, quiet, tmp_path: Path) -> Path:
    """What the microphone hears: a sentence, a pause of eight seconds, and again."""
    return write(tmp_path / "sentence.wav", speech(SAMPLE_RATE, 1200) + quiet(SAMPLE_RATE, 8000))


@pytest.fixture
def spoken_order(quiet, tmp_path: Path) -> Path:
    """The same in a voice that the offline recognizer understands, after a while in which the greeting can be heard."""
    espeak = pytest.importorskip("agent.offline.espeak", reason="the offline voice is not here")
    library = espeak.find_espeak()
    pcm = np.frombuffer(library.synthesize(ORDER, "en-us", 160, threading.Event()), np.int16)
    speech = (soxr.resample(pcm, library.rate, SAMPLE_RATE) * 0.6).astype(np.int16).tobytes()
    return write(tmp_path / "order.wav", [*quiet(SAMPLE_RATE, 5000), speech, *quiet(SAMPLE_RATE, 20_000)])


@pytest.fixture
def silence(quiet, tmp_path: Path) -> Path:
    return write(tmp_path / "silence.wav", quiet(SAMPLE_RATE, 2000))


def write(path: Path, pieces: list[bytes]) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(b"".join(pieces))
    return path


async def test_the_sdk_connects_speaks_uses_its_function_is_silenced_and_hangs_up(chromium, sentence: Path):
    async with sdk_client(chromium, sentence) as client:
        page = client.page
        took = await client.connect()
        print(f"connect: {took:.0f} ms")
        assert took < 5000, "session.updated never came: the SDK gave up waiting for it"
        assert await page.evaluate("session.transport.status") == "connected"
        assert await page.evaluate("listen()") == "running"

        # The microphone's sentence is a turn; the model calls the page's function, and speaks what it returned.
        await client.event("input_audio_buffer.speech_started")
        await client.event("input_audio_buffer.committed")
        await page.wait_for("lights.length > 0")
        assert await page.evaluate("lights[0]") == {"room": "kitchen", "on": True}
        await page.wait_for("ear.isLoud(0.3)")
        await page.evaluate("(session.mute(true), true)")
        await client.event("output_audio_buffer.stopped")
        await page.wait_for("ear.isSilent(0.3)")
        done = await client.event("response.done", 1)
        assert done["response"]["status"] == "completed"
        said = done["response"]["output"][0]["content"][0]["transcript"]
        assert said.strip() == "The function says: the light in the kitchen is on"

        # Words instead of voice, and an answer that is too long.
        await page.evaluate("(session.sendMessage('Tell me a story.'), true)")
        await client.event("output_audio_buffer.started", 1)
        await page.wait_for("ear.isLoud(0.5)")
        await page.evaluate("(window.interruptedAt = ear.context.currentTime, session.interrupt(), true)")
        await page.wait_for("ear.isSilent(0.3)", 3)
        silent_after = await page.evaluate("1000 * (ear.rows.findLast((row) => row[1] > 0.02)[0] - interruptedAt)")
        print(f"silent {silent_after:.0f} ms after interrupt()")
        assert silent_after < IMMEDIATELY_MS * client.stack.slowness
        done = await client.event("response.done", 2)
        assert done["response"]["status"] == "cancelled"
        await client.event("output_audio_buffer.cleared")
        await client.event("conversation.item.retrieved", 1)  # asked for since the item was truncated

        # What the SDK's own history shows a user of it.
        history = await page.evaluate("session.history")
        assert [(item["type"], item.get("role")) for item in history] == [
            ("message", "user"),
            ("function_call", None),
            ("message", "assistant"),
            ("message", "user"),
            ("message", "assistant"),
        ]
        assert history[0]["content"][0]["transcript"] == ORDER
        assert history[1]["output"] == "the light in the kitchen is on"
        assert 0 < len(history[4]["content"][0]["transcript"]) < 400
        assert await page.evaluate("problems") == []

        identity = await page.evaluate("session.transport.callId")
        assert identity.startswith("rtc_")
        await page.evaluate("(session.close(), true)")
        with trio.fail_after(10):
            while (gone := await client.stack.hang_up(identity)).status_code == 200:
                await trio.sleep(0.1)
        assert gone.status_code == 404


@pytest.mark.thorough
async def test_the_sdk_talks_with_the_offline_voice(chromium, spoken_order: Path):
    async with sdk_client(chromium, spoken_order, "voice") as client:
        page = client.page
        await client.connect()
        await page.evaluate("listen()")
        await client.event("output_audio_buffer.started")
        await page.wait_for(
            "ear.rows.filter((row) => row[1] > 0.02).length > 100"
        )  # a quarter of a second of the greeting
        heard = await client.event("conversation.item.input_audio_transcription.completed", seconds=40)
        assert heard["transcript"].lower() in ORDER.lower()
        await page.wait_for("lights.length > 0")
        assert await page.evaluate("lights[0]") == {"room": "kitchen", "on": True}
        await page.evaluate("(session.mute(true), true)")
        said = "events.filter((event) => event.type === 'response.output_audio_transcript.done').at(-1)?.transcript"
        await page.wait_for(f"{said}?.includes('light in the kitchen is on')")
        await client.event("output_audio_buffer.stopped")

        await page.evaluate("(window.told = events.length, session.sendMessage('help'), true)")
        await page.wait_for("events.slice(told).some((event) => event.type === 'output_audio_buffer.started')")
        await trio.sleep(1.0)
        await page.evaluate("(session.interrupt(), true)")
        await page.wait_for("ear.isSilent(0.5)", 3)
        await page.wait_for("events.slice(told).some((event) => event.type === 'output_audio_buffer.cleared')")
        assert await page.evaluate("problems") == []


@pytest.mark.thorough
async def test_rt1_to_rt9_what_the_sdk_asks_for_when_it_connects_is_answered(chromium, silence: Path):
    async with sdk_client(chromium, silence) as client:
        page = client.page
        refused = f"connect({json.dumps(client.stack.url + CALLS)}, 'sk-no-ephemeral-key').then(() => '', String)"
        assert "ephemeral client key" in await page.evaluate(refused)
        assert await page.evaluate("requests") == [], "the SDK keeps such a key to itself"
        await client.connect()
        [request] = await page.evaluate("requests")
        [peer] = await page.evaluate("peers.map((peer) => ({given: peer.givenArguments, order: peer.order}))")
        assert peer == {"given": [], "order": ["channel", "track"]}
        assert not any(line.startswith("a=candidate") for line in request["body"].splitlines())
        assert request["method"] == "POST"
        assert request["headers"]["Content-Type"] == "application/sdp"
        assert request["headers"]["Authorization"].startswith("Bearer ek_")
        assert request["headers"]["X-OpenAI-Agents-SDK"]
        assert request["status"] == 201
        assert request["location"].rpartition("/")[2] == await page.evaluate("session.transport.callId")

        answer = request["answer"]
        assert answer.endswith("\r\n")
        shape = ("m=", "a=mid:", "a=group:")
        offered = [line.split()[0] for line in request["body"].splitlines() if line.startswith(shape)]
        answered = [line.split()[0] for line in answer.splitlines() if line.startswith(shape)]
        assert answered == offered
        assert "a=msid:" in answer
        streams = "peers[0].getReceivers().filter((receiver) => receiver.track.kind === 'audio').length"
        assert await page.evaluate(streams) == 1

        [first, second] = (await client.sent("session.update"))[:2]
        assert first["session"]["audio"]["input"]["turn_detection"] == {"type": "semantic_vad"}
        assert first["session"]["audio"]["input"]["transcription"] == {"model": "gpt-4o-mini-transcribe"}
        assert second["session"] == {"type": "realtime", "tracing": "auto"}
        updated = (await client.event("session.updated"))["session"]
        asked = first["session"]
        assert {"type", "model", "instructions", "output_modalities", "audio", "tools"} <= asked.keys()
        for name in asked.keys() - {"audio"}:
            assert updated[name] == asked[name], name
        assert updated["audio"]["input"]["turn_detection"]["type"] == "semantic_vad"
        assert (await client.event("session.updated", 1))["session"]["tracing"] == "auto"
        assert await page.evaluate("problems") == []


@pytest.mark.thorough
async def test_rt8_the_sdk_connects_beside_a_bare_aiortc_answerer(chromium, silence: Path, capsys):
    async with sdk_client(chromium, silence) as client, bare_answerer() as bare:
        took: dict[str, list[float]] = {"Antiphon": [], "aiortc": []}
        for _ in range(6):
            for name, url in (("aiortc", bare), ("Antiphon", client.stack.url)):
                took[name].append(await client.connect(url))
                await client.page.evaluate("(session.close(), true)")
                await trio.sleep(0.2)
        with capsys.disabled():
            for name, times in took.items():
                median, first = statistics.median(times[1:]), times[0]
                print(f"\nconnect() to {name}: {median:.0f} ms (median of {len(times) - 1}); the first {first:.0f} ms")
        assert statistics.median(took["Antiphon"]) < 5000
        warnings = await client.page.evaluate("warnings")
        assert not any("session.updated" in warning for warning in warnings), warnings


@asynccontextmanager
async def bare_answerer() -> AsyncIterator[str]:
    command = [sys.executable, str(HERE / "realtime_answerer.py")]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        line = b""
        with trio.fail_after(30):
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
        bound = parse_announcement(line.decode())
        assert bound is not None
        yield str(bound["url"])
    finally:
        process.send_signal(signal.SIGTERM)
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.thorough
async def test_rt10_responses_asked_for_at_once_come_one_after_the_other(chromium, silence: Path):
    async with sdk_client(chromium, silence) as client:
        await client.connect()
        ask = "(session.sendMessage('One?'), session.sendMessage('Two?'), true)"
        await client.page.evaluate(ask)
        for number in range(2):
            done = await client.event("response.done", number)
            assert done["response"]["status"] == "completed"
        created = await client.sent("response.create")
        assert [event["event_id"].startswith("agents_js_response_create_") for event in created] == [True, True]
        assert await client.page.evaluate("problems") == []


@pytest.mark.thorough
async def test_rt10_a_second_response_gets_an_error_with_its_event_id_and_the_next_is_made(chromium, silence: Path):
    async with sdk_client(chromium, silence) as client:
        page = client.page
        await client.connect()
        await page.evaluate("(session.sendMessage('Tell me a story.'), true)")
        await client.event("response.created")
        # Past the SDK's own queue, on its channel.
        second = {"type": "response.create", "event_id": "agents_js_response_create_99"}
        channel = "session.transport.connectionState.dataChannel"
        await page.evaluate(f"({channel}.send({json.dumps(json.dumps(second))}), true)")
        error = (await client.event("error"))["error"]
        assert error["event_id"] == second["event_id"]
        assert error["code"] == "conversation_already_has_active_response"
        await page.evaluate("(session.interrupt(), session.sendMessage('And now?'), true)")
        done = await client.event("response.done", 1)
        assert done["response"]["status"] == "completed"


@pytest.mark.thorough
async def test_rt11_interrupt_is_cancel_then_clear_and_while_nothing_is_said_only_clear(chromium, silence: Path):
    async with sdk_client(chromium, silence) as client:
        page = client.page
        await client.connect()
        await page.evaluate("(session.interrupt(), session.sendMessage('Tell me a story.'), true)")
        await client.event("output_audio_buffer.started")
        await page.evaluate("(session.interrupt(), true)")
        await client.event("output_audio_buffer.cleared")
        kinds = [event["type"] for event in await page.evaluate("sent")]
        wanted = ["output_audio_buffer.clear", "response.cancel", "output_audio_buffer.clear"]
        assert [kind for kind in kinds if kind in wanted] == wanted
        assert await page.evaluate("problems") == []


@pytest.mark.thorough
async def test_rt12_rt13_every_event_fits_the_sdks_own_schemas(chromium, sentence: Path):
    async with sdk_client(chromium, sentence) as client:
        page = client.page
        await client.connect()
        await client.event("conversation.item.input_audio_transcription.completed")
        await client.event("response.done", 1)  # the function's answer, spoken
        await page.evaluate("(session.sendMessage('Tell me a story.'), true)")
        await client.event("output_audio_buffer.started", 1)
        await client.event("conversation.item.truncated")  # the microphone's next sentence
        truncated = await client.event("conversation.item.truncated")
        asked = [event["item_id"] for event in await client.sent("conversation.item.retrieve")]
        assert truncated["item_id"] in asked
        await client.event("conversation.item.retrieved", len(asked) - 1)
        assert await client.count("conversation.item.retrieved") == len(asked)
        previous = "events.find((event) => event.type === 'conversation.item.added').previous_item_id"
        assert await page.evaluate(f"{previous} === null")
        done = await client.event("response.done")
        assert {"input_tokens", "output_tokens", "total_tokens"} <= done["response"]["usage"].keys()
        passed = await page.evaluate("typed")
        came = [kind for kind in await client.types() if kind != "error"]
        unfit = {kind for kind in came if came.count(kind) != passed.count(kind)} - NOT_IN_THE_SDK
        assert unfit == set()
        assert await page.evaluate("problems") == []


NOT_IN_THE_SDK: set[str] = set()
"""Events of the API for which the SDK has no schema, and which it passes on as they are."""


@pytest.mark.thorough
async def test_rt14_a_relay_that_dies_is_not_noticed_by_the_sdk(chromium, silence: Path):
    async with sdk_client(chromium, silence) as client:
        page = client.page
        await client.connect()
        await page.evaluate("listen()")
        await page.evaluate("(session.sendMessage('Tell me a story.'), true)")
        await page.wait_for("ear.isLoud(0.5)")
        os.kill(client.stack.pid_of("relay"), signal.SIGKILL)
        await trio.sleep(5)
        await page.wait_for("ear.isLoud(0.5)")
        assert await page.evaluate("connections.at(-1)") == "connected"
        assert await page.evaluate("session.transport.status") == "connected"
        await page.evaluate("(session.interrupt(), true)")
        await client.event("output_audio_buffer.cleared")
