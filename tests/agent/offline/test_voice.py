"""Conversations with the offline voice over the agent link: a synthetic caller speaks, real parts listen and answer.

Time is virtual, and goes on by 20 ms when nothing has happened for 3: threads at work are given that much for each frame. A
machine that is busy with something else makes these tests slower, and nothing in them late.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from realtime_caller import Caller
from structlog.testing import capture_logs
from trio.abc import Clock
from trio.testing import MockClock

from agent.agents import make_voice
from agent.codecs import open_decoder
from agent.config import AgentConfig
from agent.offline.recognizer import PocketSphinx
from agent.offline.small import NOT_HEARD
from agent.realtime import hearing
from protocol.codecs import OPUS

pytestmark = pytest.mark.slow

Say = Callable[..., bytes]

LISTENING = {"input": {"transcription": {"model": "any"}, "turn_detection": {"type": "semantic_vad"}}}
SET_LIGHT = {
    "type": "function",
    "name": "set_light",
    "parameters": {
        "type": "object",
        "properties": {"room": {"type": "string", "enum": ["kitchen", "living_room"]}, "on": {"type": "boolean"}},
        "required": ["room", "on"],
    },
}


class Speaking(Caller):
    def __init__(self, client: LinkClient, player: Player, spoken: Say) -> None:  # noqa: F821
        super().__init__(client, player, OPUS)
        self._spoken = spoken

    async def say(self, text: str, *, after: int = 900) -> None:
        await self.send(self._spoken(text, self.rate, after=after))

    async def answer(self, count: int) -> str:
        """What the agent said the `count`th time."""
        event = await self.read("response.output_audio_transcript.done", count)
        return str(event["transcript"])


Dial = Callable[..., Awaitable[Speaking]]


@pytest.fixture
def clock_that_waits() -> MockClock:
    return MockClock(autojump_threshold=0.003)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "PATIENCE_SECONDS", 100.0)


@pytest.fixture
def dial(
    nursery: trio.Nursery,
    clock_that_waits: MockClock,
    open_link: Callable[..., Awaitable[Any]],
    play: Callable[..., Any],
    spoken: Say,
) -> Dial:
    async def tick() -> None:
        while True:
            await trio.sleep(0.02)

    nursery.start_soon(tick)

    async def dial(*, greets: bool = False) -> Speaking:
        client = await open_link(make_voice(AgentConfig(greets=greets)))
        player = play(client, 1, OPUS.frame_samples)
        await client.start_call(1, "opus")
        await client.open_channel()
        return Speaking(client, player, spoken)

    return dial


async def test_it_greets_understands_answers_and_tells_both_transcripts(clock_that_waits: Clock, dial: Dial):
    caller = await dial(greets=True)
    await caller.configure(audio=LISTENING)
    assert "offline voice" in await caller.answer(1)
    await caller.read("output_audio_buffer.stopped")
    await caller.say("how many feet are two meters")
    heard = await caller.read("conversation.item.input_audio_transcription.completed")
    assert heard["transcript"] == "how many feet are two meters"
    assert await caller.answer(2) == "2 meters are 6.56 feet."
    await caller.read("output_audio_buffer.stopped", 2)
    assert "error" not in caller.types


async def test_what_it_says_is_understood_by_its_own_recognizer(clock_that_waits: Clock, dial: Dial):
    """From the dialogue's words to the caller's ear: the sound that is played is the sentence."""
    caller = await dial()
    await caller.ask("goodbye")
    assert await caller.answer(1) == "Goodbye."
    await caller.read("output_audio_buffer.stopped")
    decoder = open_decoder(OPUS)
    pcm = b"".join(decoder.decode(payload) for payload in caller.player.played)

    async def audio():
        yield bytes(9600)
        yield pcm
        yield bytes(9600)

    assert await PocketSphinx().transcribe(audio(), decoder.rate, None) in ("goodbye", "bye")


async def test_it_switches_lights_by_the_clients_function_and_says_what_came_of_it(clock_that_waits: Clock, dial: Dial):
    caller = await dial()
    await caller.configure(tools=[SET_LIGHT])
    await caller.read("session.updated")
    await caller.say("turn on the light in the kitchen")
    call = await caller.read("response.function_call_arguments.done")
    assert call["name"] == "set_light"
    assert json.loads(call["arguments"]) == {"room": "kitchen", "on": True}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"ok": true}'}
    await caller.write("conversation.item.create", item=output)
    await caller.write("response.create")
    assert await caller.answer(1) == "The light in the kitchen is on."


async def test_a_timer_rings_by_itself(clock_that_waits: Clock, dial: Dial):
    caller = await dial()
    await caller.read("session.created")
    await caller.say("set a timer for four seconds")
    assert await caller.answer(1) == "I set a timer for 4 seconds."
    assert await caller.answer(2) == "Your timer for 4 seconds is up."


async def test_first_words_are_heard_although_the_client_configures_late(clock_that_waits: Clock, dial: Dial):
    caller = await dial()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.say, "what can you do")
        await trio.sleep(0.7)
        await caller.configure(audio=LISTENING)
    heard = await caller.read("conversation.item.input_audio_transcription.completed")
    assert heard["transcript"] == "what can you do"
    assert len(caller.of("input_audio_buffer.speech_started")) == 1


async def test_it_says_what_it_can_do_when_it_does_not_understand(clock_that_waits: Clock, dial: Dial):
    caller = await dial()
    await caller.read("session.created")
    await caller.ask("Order a pizza.")
    assert "help" in await caller.answer(1)


async def test_a_language_that_the_recognizer_does_not_know_is_told_and_the_caller_is_answered(
    clock_that_waits: Clock, dial: Dial
):
    caller = await dial()
    await caller.configure(audio={"input": {"transcription": {"model": "any", "language": "de"}}})
    await caller.read("session.updated")
    with capture_logs() as logs:
        await caller.say("what can you do")
        failed = await caller.read("conversation.item.input_audio_transcription.failed")
        assert failed["error"]["message"] == "the offline recognizer understands English only, not 'de'"
        assert await caller.answer(1) == NOT_HEARD
    assert not [line for line in logs if line["log_level"] == "error"]
