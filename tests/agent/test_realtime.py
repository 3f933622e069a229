# ruff: noqa: ANN401  (what is in JSON is anything)
"""A Realtime session over the agent link: what its client hears and reads, in virtual time."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from realtime_client import OFFICIAL
from trio.abc import Clock

from agent.agents import realtime
from agent.call import Call
from agent.codecs import needs_pcm, open_encoder
from agent.realtime.driver import converse
from agent.realtime.parts import CutShort, Model, ModelFailed, Recognizer, Turn, Voice
from agent.realtime.response import Plan
from protocol.agentlink import CallEnd, ChannelBlocked
from protocol.codecs import PCMU, Codec

Sound = Callable[[int, int], list[bytes]]


class Caller:
    def __init__(self, client: LinkClient, player: Player, speech: Sound, quiet: Sound, codec: Codec) -> None:  # noqa: F821
        self.client = client
        self.player = player
        self._encoder = open_encoder(codec)
        self._codec = codec
        self._speech = speech
        self._quiet = quiet
        self._rtp_time = 0

    async def speak(self, milliseconds: int) -> None:
        await self._send(self._speech(self._encoder.rate, milliseconds))

    async def pause(self, milliseconds: int) -> None:
        await self._send(self._quiet(self._encoder.rate, milliseconds))

    async def _send(self, pcm: list[bytes]) -> None:
        frames = [self._encoder.encode(piece) for piece in pcm]
        self._rtp_time = await self.client.say(frames, codec=self._codec.name, start=self._rtp_time)

    async def write(self, kind: str, **fields: Any) -> None:
        await self.client.send_data(1, 1, json.dumps({"type": kind, **fields}))

    @property
    def events(self) -> list[dict[str, Any]]:
        for message in self.client.data:
            OFFICIAL.validate_json(message.data, strict=True)
        return [json.loads(message.data) for message in self.client.data]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    async def read(self, kind: str, seconds: float = 20.0) -> dict[str, Any]:
        await self.client.until(lambda: kind in self.types, seconds)
        return next(event for event in self.events if event["type"] == kind)


@pytest.fixture
def dial(open_link: Callable[..., Awaitable[Any]], play: Callable[..., Any], speech: Sound, quiet: Sound):
    async def dial(
        model: Model | None = None,
        recognizer: Recognizer | None = None,
        *,
        codec: Codec = PCMU,
        session: dict[str, Any] | None = None,
        channel: bool = True,
        expires_at: int = 0,
    ) -> Caller:
        @needs_pcm
        async def agent(call: Call) -> None:
            if model is None:
                await realtime(call)
            else:
                await converse(call, model, recognizer)

        client = await open_link(agent)
        player = play(client, 1, codec.frame_samples)
        await client.start_call(1, codec.name, session, expires_at=expires_at)
        if channel:
            await client.open_channel()
        return Caller(client, player, speech, quiet, codec)

    return dial


Dial = Callable[..., Awaitable[Caller]]


class Talker:
    """Says so many seconds of sound, a word each."""

    def __init__(self, seconds: int = 10) -> None:
        self.seconds = seconds
        self.plans: list[Plan] = []
        self.cancelled = 0

    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
        self.plans.append(plan)
        try:
            for number in range(self.seconds):
                voice.say(f"word{number} ")
                await voice.play(bytes(2 * voice.rate))
        except trio.Cancelled:
            self.cancelled += 1
            raise


async def test_a_client_is_greeted_and_configures_its_session(autojump_clock: Clock, dial: Dial):
    caller = await dial(session={"type": "realtime", "instructions": "from the offer"}, expires_at=1_800_000_000)
    created = await caller.read("session.created")
    assert created["session"]["expires_at"] == 1_800_000_000
    assert created["session"]["instructions"] == "from the offer"
    await caller.write("session.update", session={"type": "realtime", "tracing": "auto"})
    updated = await caller.read("session.updated")
    assert updated["session"]["tracing"] == "auto"
    assert updated["session"]["instructions"] == "from the offer"


async def test_a_session_that_cannot_be_is_as_if_the_offer_had_none(autojump_clock: Clock, dial: Dial):
    caller = await dial(session={"type": "realtime", "instructions": 5})
    assert (await caller.read("session.created"))["session"]["instructions"] == ""


async def test_a_turn_is_heard_answered_and_played_to_its_end(autojump_clock: Clock, dial: Dial):
    caller = await dial()
    await caller.pause(500)
    await caller.speak(1500)
    await caller.pause(3500)
    await caller.read("output_audio_buffer.stopped")
    types = caller.types
    started, stopped = (
        await caller.read("input_audio_buffer.speech_started"),
        await caller.read("input_audio_buffer.speech_stopped"),
    )
    assert 0 <= started["audio_start_ms"] <= 500
    assert 2000 <= stopped["audio_end_ms"] <= 2700
    order = [
        "session.created",
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        "response.created",
        "response.output_item.added",
        "output_audio_buffer.started",
        "response.done",
        "output_audio_buffer.stopped",
    ]
    assert [kind for kind in types if kind in order] == order
    turn_ms = stopped["audio_end_ms"] - started["audio_start_ms"]
    assert len(caller.player.played) * 20 == pytest.approx(turn_ms, abs=20)


async def test_who_speaks_over_an_answer_silences_it_and_the_words_that_were_heard_stay(
    autojump_clock: Clock, dial: Dial
):
    talker = Talker(20)
    caller = await dial(talker)
    await caller.write("response.create")
    await caller.read("output_audio_buffer.started")
    await caller.pause(2000)
    await caller.speak(600)
    await caller.client.until(lambda: "output_audio_buffer.cleared" in caller.types)
    played = len(caller.player.played) * 20
    assert 2060 <= played <= 2660
    truncated = await caller.read("conversation.item.truncated")
    assert truncated["audio_end_ms"] == pytest.approx(played, abs=40)
    assert talker.cancelled == 1
    done = await caller.read("response.done")
    assert done["response"]["status_details"]["reason"] == "turn_detected"
    await caller.write("conversation.item.retrieve", item_id=truncated["item_id"])
    item = (await caller.read("conversation.item.retrieved"))["item"]
    assert item["content"][0]["transcript"].startswith("word0 word1")
    assert "word4" not in item["content"][0]["transcript"]
    await caller.pause(1500)
    await caller.client.until(lambda: len(talker.plans) == 2, 5)


async def test_a_client_interrupts_as_the_sdk_does(autojump_clock: Clock, dial: Dial):
    talker = Talker(30)
    caller = await dial(talker)
    await caller.write("response.create")
    await caller.read("output_audio_buffer.started")
    await trio.sleep(1.0)
    await caller.write("response.cancel")
    await caller.write("output_audio_buffer.clear")
    await caller.read("output_audio_buffer.cleared")
    played = len(caller.player.played)
    await trio.sleep(1.0)
    assert len(caller.player.played) == played
    assert "error" not in caller.types
    await caller.write("response.create")
    await caller.client.until(lambda: caller.types.count("output_audio_buffer.started") == 2)
    await trio.sleep(0.5)
    assert len(caller.player.played) > played


async def test_a_voice_that_is_cleared_but_not_cancelled_is_not_heard_again(autojump_clock: Clock, dial: Dial):
    caller = await dial(Talker(30))
    await caller.write("response.create")
    await caller.read("output_audio_buffer.started")
    await trio.sleep(1.0)  # five seconds lie ahead, and the model waits with one more frame
    await caller.write("output_audio_buffer.clear")
    truncated = await caller.read("conversation.item.truncated")
    await trio.sleep(1.0)
    assert len(caller.player.played) * 20 == truncated["audio_end_ms"]
    await caller.read("response.done", 40)  # the model has gone on, for nobody


async def test_what_is_cut_after_all_of_it_was_heard_loses_no_word(autojump_clock: Clock, dial: Dial):
    class Pausing:
        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            voice.say("All of it.")
            await voice.play(bytes(2 * voice.rate))
            await trio.sleep(60)

    caller = await dial(Pausing())
    await caller.write("response.create")
    await caller.read("output_audio_buffer.started")
    await trio.sleep(3)
    await caller.write("response.cancel")
    await caller.read("output_audio_buffer.cleared")
    assert "conversation.item.truncated" not in caller.types


async def test_a_client_that_reads_no_events_loses_its_call(autojump_clock: Clock, dial: Dial):
    caller = await dial()
    await caller.read("session.created")
    await caller.client.send(ChannelBlocked(1, 1))
    for _ in range(100):
        await caller.write("session.update", session={"instructions": "x" * 60_000})
    await caller.client.until(lambda: caller.client.of(CallEnd), 30)
    assert caller.client.of(CallEnd) == [CallEnd(1, "events_unread")]


async def test_a_response_that_is_cancelled_as_soon_as_it_is_created_ends_its_model(autojump_clock: Clock, dial: Dial):
    class Endless:
        cancelled = 0

        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:
                self.cancelled += 1
                raise

    model = Endless()
    caller = await dial(model)
    for number in range(20):
        await caller.write("response.create")
        await caller.write("response.cancel")
        await caller.client.until(lambda number=number: caller.types.count("response.done") == number + 1)
    assert {event["response"]["status"] for event in caller.events if event["type"] == "response.done"} == {"cancelled"}
    assert "error" not in caller.types


async def test_what_is_cut_with_another_response_is_told_too(autojump_clock: Clock, dial: Dial):
    talker = Talker(3)
    caller = await dial(talker)
    await caller.write("response.create")
    await caller.read("response.done")
    talker.seconds = 30
    await caller.write("response.create")
    await caller.client.until(lambda: caller.types.count("output_audio_buffer.started") == 2)
    await caller.write("response.cancel")
    await caller.client.until(lambda: caller.types.count("output_audio_buffer.cleared") == 2)
    assert "output_audio_buffer.stopped" not in caller.types


async def test_a_model_may_say_many_words_in_a_row(autojump_clock: Clock, dial: Dial):
    class Writer:
        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            for _ in range(3000):
                voice.say("word ")

    caller = await dial(Writer())
    await caller.write("response.create", response={"output_modalities": ["text"]})
    await caller.client.until(lambda: caller.client.data and '"response.done"' in caller.client.data[-1].data)
    assert json.loads(caller.client.data[-1].data)["response"]["status"] == "completed"
    assert len(caller.client.data) > 3000


async def test_an_item_that_takes_the_place_of_the_one_being_spoken_harms_nobody(autojump_clock: Clock, dial: Dial):
    caller = await dial(Talker(20))
    await caller.write("response.create")
    item_id = (await caller.read("response.output_item.added"))["item"]["id"]
    await caller.read("output_audio_buffer.started")
    await caller.write("conversation.item.delete", item_id=item_id)
    content = [{"type": "input_text", "text": "mine"}]
    message = {"type": "message", "role": "user", "id": item_id, "content": content}
    await caller.write("conversation.item.create", item=message)
    await trio.sleep(1)
    await caller.write("response.cancel")
    await caller.read("output_audio_buffer.cleared")
    await caller.write("session.update", session={"instructions": "it goes on"})
    await caller.read("session.updated")


async def test_a_recognizer_is_asked_for_the_words_of_a_turn(autojump_clock: Clock, dial: Dial):
    class Deaf:
        def __init__(self) -> None:
            self.seconds: list[float] = []

        async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
            pcm = b"".join([piece async for piece in audio])
            await trio.sleep(0.3)
            self.seconds.append(len(pcm) / 2 / rate)
            if len(self.seconds) > 1:
                raise RuntimeError("it broke")
            return f"words in {language}"

    class Repeater:
        def __init__(self) -> None:
            self.words: list[str | None] = []

        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            assert turn is not None
            self.words.append(await turn.words())

    recognizer, model = Deaf(), Repeater()
    caller = await dial(model, recognizer)
    transcription = {"model": "any", "language": "de"}
    await caller.write("session.update", session={"audio": {"input": {"transcription": transcription}}})
    for _ in range(2):
        await caller.pause(400)
        await caller.speak(1000)
        await caller.pause(1500)
    await caller.read("conversation.item.input_audio_transcription.failed")
    completed = await caller.read("conversation.item.input_audio_transcription.completed")
    assert completed["transcript"] == "words in de"
    assert completed["usage"]["seconds"] == pytest.approx(recognizer.seconds[0])
    assert 1.2 <= recognizer.seconds[0] <= 2.2
    await caller.client.until(lambda: len(model.words) == 2)
    assert model.words == ["words in de", None]


async def test_a_model_that_fails_costs_its_response_and_not_the_call(autojump_clock: Clock, dial: Dial):
    class Failing:
        def __init__(self) -> None:
            self.failures: list[Exception] = [ModelFailed("the server is down"), ValueError("a bug")]

        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            if self.failures:
                raise self.failures.pop(0)
            voice.say("back again")

    caller = await dial(Failing())
    messages = []
    for number in range(3):
        await caller.write("response.create", response={"output_modalities": ["text"]})
        await caller.client.until(lambda number=number: caller.types.count("response.done") == number + 1)
        body = [event for event in caller.events if event["type"] == "response.done"][-1]["response"]
        messages.append((body["status"], ((body["status_details"] or {}).get("error") or {}).get("message")))
    assert messages == [("failed", "the server is down"), ("failed", "the model failed"), ("completed", None)]


async def test_a_model_that_fails_in_the_middle_is_heard_as_far_as_it_came(autojump_clock: Clock, dial: Dial):
    class Stumbling:
        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            voice.say("Sorry, I am not myself.")
            await voice.play(bytes(2 * voice.rate * 2))
            raise ModelFailed("the server is down")

    caller = await dial(Stumbling())
    await caller.write("response.create")
    await caller.read("output_audio_buffer.stopped")
    assert len(caller.player.played) == 100
    error = (await caller.read("error"))["error"]
    assert (error["type"], error["code"], error["message"]) == ("server_error", "model_failed", "the server is down")
    assert (await caller.read("response.done"))["response"]["status"] == "failed"
    assert "output_audio_buffer.cleared" not in caller.types


async def test_a_model_that_is_cut_short_is_incomplete_and_heard_to_the_last_sample(autojump_clock: Clock, dial: Dial):
    class Wordy:
        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            voice.say("And then")
            await voice.play(bytes(2 * voice.rate + 2))
            raise CutShort("content_filter")

    caller = await dial(Wordy())
    await caller.write("response.create")
    await caller.read("output_audio_buffer.stopped")
    assert len(caller.player.played) == 51
    body = (await caller.read("response.done"))["response"]
    assert (body["status"], body["status_details"]["reason"]) == ("incomplete", "content_filter")
    assert "error" not in caller.types


async def test_what_a_recognizer_says_of_its_failure_is_told(autojump_clock: Clock, dial: Dial):
    class Broken:
        async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
            async for _ in audio:
                pass
            raise ModelFailed("The recognizer cannot be reached.")

    caller = await dial(Talker(1), Broken())
    await caller.write("session.update", session={"audio": {"input": {"transcription": {"model": "any"}}}})
    await caller.speak(1000)
    await caller.pause(1500)
    failed = await caller.read("conversation.item.input_audio_transcription.failed")
    assert failed["error"]["message"] == "The recognizer cannot be reached."


async def test_functions_are_called_with_what_the_model_says(autojump_clock: Clock, dial: Dial):
    class Switch:
        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            if plan.items and type(plan.items[-1]).__name__ == "FunctionCallOutput":
                voice.say(f"it says {plan.items[-1].output}")  # type: ignore[union-attr]
            else:
                voice.call(plan.tools[0].name, '{"on":true}')

    caller = await dial(Switch())
    tool = {"type": "function", "name": "light", "parameters": {"type": "object"}}
    await caller.write("session.update", session={"tools": [tool], "output_modalities": ["text"]})
    await caller.write("response.create")
    called = await caller.read("response.function_call_arguments.done")
    output = {"type": "function_call_output", "call_id": called["call_id"], "output": "on"}
    await caller.write("conversation.item.create", item=output)
    await caller.write("response.create")
    assert (await caller.read("response.output_text.done"))["text"] == "it says on"


async def test_a_caller_without_a_channel_is_answered_all_the_same(autojump_clock: Clock, dial: Dial):
    caller = await dial(channel=False)
    await caller.speak(1500)
    await caller.pause(3000)
    assert len(caller.player.played) > 50
    await caller.client.open_channel()
    assert (await caller.read("session.created"))["type"] == "session.created"


async def test_a_silence_without_frames_ends_a_turn(autojump_clock: Clock, dial: Dial):
    caller = await dial()
    await caller.speak(1500)
    await trio.sleep(2)  # DTX, or a muted microphone
    await caller.read("input_audio_buffer.speech_stopped")
    await caller.read("output_audio_buffer.stopped")
