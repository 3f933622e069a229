# ruff: noqa: ANN401  (what is in JSON is anything)
"""Parts at work in a call over the agent link, in virtual time: a recognizer that hears while the caller speaks, parts that are
slow, crash or stop listening, a model that speaks first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from realtime_caller import Caller
from trio.abc import Clock

from agent.call import Call
from agent.codecs import needs_pcm
from agent.realtime import listening
from agent.realtime.driver import converse
from agent.realtime.parts import Dialogue, Manner, Model, ModelFailed, Play, Recognizer, SpeakUp, Turn, Voice, Writer
from agent.realtime.response import Plan
from agent.realtime.speaking import SpeakingModel
from protocol.codecs import PCMU

Sound = Callable[[int, int], list[bytes]]
TRANSCRIPT = "conversation.item.input_audio_transcription"
WANTED = {"input": {"transcription": {"model": "any", "language": "en"}}}


class Speaking(Caller):
    def __init__(self, client: LinkClient, player: Player, speech: Sound, quiet: Sound) -> None:  # noqa: F821
        super().__init__(client, player, PCMU)
        self._speech = speech
        self._quiet = quiet

    async def speak(self, milliseconds: int) -> None:
        await self.send(b"".join(self._speech(self.rate, milliseconds)))

    async def pause(self, milliseconds: int) -> None:
        await self.send(b"".join(self._quiet(self.rate, milliseconds)))


class Listener:
    """A recognizer that writes down when which audio came, and guesses as it is told."""

    def __init__(self, guesses: tuple[str, ...] = (), words: str = "the words") -> None:
        self.pieces: list[tuple[float, int]] = []
        self.heard: list[float] = []
        self.languages: list[str | None] = []
        self.cancelled = 0
        self._guesses = guesses
        self._words = words

    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        raise NotImplementedError("it guesses")

    async def guess(
        self, audio: AsyncIterator[bytes], rate: int, language: str | None, tell: Callable[[str], None]
    ) -> str:
        total = 0.0
        guesses = iter(self._guesses)
        self.languages.append(language)
        try:
            async for piece in audio:
                self.pieces.append((trio.current_time(), len(piece)))
                total += len(piece) * 1000 / 2 / rate
                if (words := next(guesses, None)) is not None:
                    tell(words)
        except trio.Cancelled:
            self.cancelled += 1
            raise
        self.heard.append(total)
        return self._words


class Answerer:
    """Says one word, for a second, and keeps what it was asked."""

    def __init__(self) -> None:
        self.words: list[str | None] = []
        self.plans: list[Plan] = []

    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
        self.plans.append(plan)
        self.words.append(await turn.words() if turn is not None else None)
        voice.say("Yes.")
        await voice.play(bytes(2 * voice.rate))


Dial = Callable[..., Awaitable[Speaking]]


@pytest.fixture
def dial(open_link: Callable[..., Awaitable[Any]], play: Callable[..., Any], speech: Sound, quiet: Sound) -> Dial:
    async def dial(
        model: Model, recognizer: Recognizer | None = None, *, channel: bool = True, **options: Any
    ) -> Speaking:
        @needs_pcm
        async def agent(call: Call) -> None:
            await converse(call, model, recognizer, **options)

        client = await open_link(agent)
        player = play(client)
        await client.start_call()
        if channel:
            await client.open_channel()
        return Speaking(client, player, speech, quiet)

    return dial


async def test_a_recognizer_hears_while_the_caller_speaks_from_before_the_first_sound(
    autojump_clock: Clock, dial: Dial
):
    listener, model = Listener(), Answerer()
    caller = await dial(model, listener)
    await caller.configure(audio=WANTED)
    await caller.read("session.updated")
    await caller.pause(1000)
    began = trio.current_time()
    await caller.speak(2000)
    ended = trio.current_time()
    await caller.pause(1000)
    completed = await caller.read(f"{TRANSCRIPT}.completed")
    first, last = listener.pieces[0], listener.pieces[-1]
    assert began < first[0] < began + 0.5
    assert first[1] >= 300 * 16, "with the padding before it"
    assert ended + 0.45 < last[0] < ended + 0.7
    assert len(listener.pieces) > 20
    stopped = await caller.read("input_audio_buffer.speech_stopped")
    started = await caller.read("input_audio_buffer.speech_started")
    assert listener.heard == [pytest.approx(stopped["audio_end_ms"] - started["audio_start_ms"], abs=1.5)]
    assert completed["item_id"] == started["item_id"]
    assert (completed["transcript"], model.words, listener.languages) == ("the words", ["the words"], ["en"])


async def test_a_turn_committed_by_hand_is_heard_at_once(autojump_clock: Clock, dial: Dial):
    listener = Listener()
    caller = await dial(Answerer(), listener)
    await caller.configure(audio={"input": {**WANTED["input"], "turn_detection": None}})
    await caller.pause(200)
    await caller.speak(1000)
    assert listener.pieces == []
    await caller.write("input_audio_buffer.commit")
    await caller.read(f"{TRANSCRIPT}.completed")
    [(_, size)] = listener.pieces
    assert size == 1200 * 16
    assert "response.created" not in caller.types


async def test_a_turn_that_is_dropped_ends_its_recognition(autojump_clock: Clock, dial: Dial):
    listener = Listener()
    caller = await dial(Answerer(), listener)
    await caller.configure(audio=WANTED)
    await caller.speak(1000)
    await caller.write("input_audio_buffer.clear")
    await caller.read("input_audio_buffer.cleared")
    assert listener.cancelled == 1
    await caller.configure(audio={"input": {"turn_detection": None}})
    await caller.read("session.updated", 2)
    assert not [kind for kind in caller.types if kind.startswith(TRANSCRIPT)]


async def test_speech_at_the_very_beginning_is_whole_in_the_first_turn_however_late_the_client_configures(
    autojump_clock: Clock, dial: Dial
):
    listener = Listener()
    caller = await dial(Answerer(), listener)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.speak, 1500)
        await trio.sleep(0.8)
        detection = {"type": "server_vad", "silence_duration_ms": 300, "prefix_padding_ms": 200}
        await caller.configure(audio={"input": {**WANTED["input"], "turn_detection": detection}})
    await caller.pause(800)
    started = await caller.read("input_audio_buffer.speech_started")
    await caller.read(f"{TRANSCRIPT}.completed")
    assert started["audio_start_ms"] == 0
    assert listener.pieces[0][0] - began < 0.9
    assert listener.pieces[0][1] >= 700 * 16
    assert 1700 < listener.heard[0] < 2000
    assert caller.types.count("input_audio_buffer.speech_started") == 1


async def test_a_turn_that_was_over_before_the_client_configured_is_answered_as_it_wants(
    autojump_clock: Clock, dial: Dial
):
    model = Answerer()
    caller = await dial(model, Listener())
    await caller.speak(300)
    await caller.pause(600)
    await caller.configure(instructions="Be kind.")
    await caller.read("response.done")
    assert [plan.instructions for plan in model.plans] == ["Be kind."]


async def test_a_caller_without_a_channel_is_heard_from_the_beginning_too(autojump_clock: Clock, dial: Dial):
    model = Answerer()
    caller = await dial(model, Listener(), channel=False)
    await caller.speak(1000)
    await caller.pause(2000)
    await caller.client.until(lambda: caller.player.played, 10)
    assert model.words == ["the words"]


@pytest.mark.slow
@pytest.mark.parametrize(("guess", "least", "most"), [("turn on the light", 0.4, 0.7), ("turn on the", 3.8, 4.2)])
async def test_who_has_finished_is_answered_sooner_than_who_has_broken_off(
    autojump_clock: Clock, dial: Dial, guess: str, least: float, most: float
):
    caller = await dial(Answerer(), Listener((guess,) * 100))
    await caller.configure(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "medium"}}})
    await caller.speak(1500)
    ended = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(caller.pause, 5000)
        await caller.read("input_audio_buffer.speech_stopped")
        assert least < trio.current_time() - ended < most
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_who_goes_on_after_a_pause_is_heard_as_one_turn(autojump_clock: Clock, dial: Dial):
    listener, model = Listener(("set a timer for",) * 200), Answerer()
    caller = await dial(model, listener)
    await caller.configure(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    for _ in range(2):
        await caller.speak(800)
        await caller.pause(2000)
    await caller.pause(3000)
    await caller.read("response.done")
    assert caller.types.count("input_audio_buffer.speech_started") == 1
    assert len(listener.heard) == len(model.plans) == 1
    assert listener.heard[0] > 5500


# Slow, crashing, half-closed


class Slow:
    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        await trio.sleep_forever()
        raise AssertionError


class Crashing:
    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        await anext(audio)
        raise RuntimeError("no good")


class Hasty:
    """Has its words before the turn is over, and hears no more."""

    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        await anext(audio)
        return "enough"


@pytest.mark.parametrize(
    ("recognizer", "told", "words"),
    [
        (Slow(), "the recognizer took too long", None),
        (Crashing(), "the recognizer failed", None),
        (Hasty(), "enough", "enough"),
        (None, "there is no recognizer here", None),
    ],
)
async def test_a_recognizer_that_cannot_leaves_its_turn_without_words_and_the_call_alive(
    autojump_clock: Clock, dial: Dial, recognizer: Recognizer | None, told: str, words: str | None
):
    model = Answerer()
    caller = await dial(model, recognizer)
    await caller.configure(audio=WANTED)
    await caller.speak(1000)
    await caller.pause(1500)
    await caller.read("output_audio_buffer.started")
    assert model.words == [words]
    events = [event for event in caller.events if event["type"].startswith(TRANSCRIPT)]
    assert [event.get("transcript") or event["error"]["message"] for event in events] == [told]
    await caller.ask("Still there?")
    await caller.read("response.done", 2)


class Mute:
    """A speaker that plays a moment of each sentence, and fails as it is told in the first."""

    rate = 8000

    def __init__(self, error: Exception | None = None, *, plays_first: bool = False) -> None:
        self.spoken: list[str] = []
        self._error = error
        self._plays_first = plays_first

    async def speak(self, text: str, manner: Manner, play: Play) -> None:
        self.spoken.append(text)
        error, self._error = self._error, None
        if error is None or self._plays_first:
            await play(bytes(1600))
        if error is not None:
            raise error


class Fragile:
    """A dialogue that fails as it is told, once, after so many words."""

    def __init__(self, error: Exception | None = None, before: str = "") -> None:
        self._error = error
        self._before = before

    async def answer(self, plan: Plan, turn: Turn | None, writer: Writer) -> None:
        error, self._error = self._error, None
        if error is not None:
            await writer.write(self._before)
            raise error
        await writer.write("All is well.")


@pytest.mark.parametrize(
    ("dialogue", "speaker", "told", "spoken"),
    [
        (Fragile(RuntimeError("bug")), Mute(), "the model failed", ["Sorry."]),
        (Fragile(ModelFailed("too hot"), "It is late. Go t"), Mute(), "too hot", ["It is late.", "Go t", "Sorry."]),
        (Fragile(KeyError("bug"), "It is late. Go t"), Mute(), "the model failed", ["It is late.", "Go t", "Sorry."]),
        (Fragile(), Mute(RuntimeError("bug")), "the model failed", ["All is well."]),
        (Fragile(), Mute(ModelFailed("hoarse")), "hoarse", ["All is well."]),
        (Fragile(), Mute(RuntimeError("bug"), plays_first=True), "the model failed", ["All is well."]),
    ],
)
async def test_a_dialogue_or_speaker_that_crashes_fails_its_response_and_the_next_is_answered(
    autojump_clock: Clock, dial: Dial, dialogue: Dialogue, speaker: Mute, told: str, spoken: list[str]
):
    caller = await dial(SpeakingModel(dialogue, speaker, apology="Sorry."))
    await caller.ask("Are you well?")
    failed = (await caller.read("response.done"))["response"]
    assert (failed["status"], failed["status_details"]["error"]["message"]) == ("failed", told)
    assert speaker.spoken == spoken
    await caller.ask("And now?")
    assert (await caller.read("response.done", 2))["response"]["status"] == "completed"
    assert speaker.spoken[len(spoken) :] == ["All is well."]


async def test_parts_that_state_their_patience_are_given_it_one_after_the_other(autojump_clock: Clock, dial: Dial):
    class Loading:
        patience_seconds = 50.0

        async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
            await trio.sleep(49)
            return "the words"

    class Thinking(Answerer):
        patience_seconds = 70.0

        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            assert turn is not None
            await turn.words()
            await trio.sleep(69)
            await super().respond(plan, turn, voice)

    model = Thinking()
    caller = await dial(model, Loading())
    await caller.configure(audio=WANTED)
    await caller.speak(1000)
    await caller.pause(1500)
    done = await caller.read("response.done", seconds=400)
    assert (done["response"]["status"], model.words) == ("completed", ["the words"])


async def test_a_recognizer_that_is_far_behind_misses_what_is_not_kept_any_more(
    autojump_clock: Clock, dial: Dial, monkeypatch: pytest.MonkeyPatch
):
    class Late(Listener):
        async def guess(
            self, audio: AsyncIterator[bytes], rate: int, language: str | None, tell: Callable[[str], None]
        ) -> str:
            await trio.sleep(3)
            return await super().guess(audio, rate, language, tell)

    monkeypatch.setattr(listening, "KEPT_SECONDS", 2)
    late = Late()
    caller = await dial(Answerer(), late)
    await caller.configure(audio=WANTED)
    await caller.speak(4000)
    await caller.pause(1000)
    await caller.read(f"{TRANSCRIPT}.completed")
    assert 2000 <= late.heard[0] < 4000


@pytest.mark.slow
async def test_no_more_than_four_turns_wait_for_a_recognizer_that_is_slow(autojump_clock: Clock, dial: Dial):
    caller = await dial(Answerer(), Slow())
    detection = {"type": "server_vad", "silence_duration_ms": 200, "create_response": False}
    await caller.configure(audio={"input": {**WANTED["input"], "turn_detection": detection}})
    for _ in range(6):
        await caller.speak(400)
        await caller.pause(400)
    failed = await caller.read(f"{TRANSCRIPT}.failed")
    assert failed["error"]["message"] == "the recognizer is too slow"
    await caller.pause(11_000)
    messages = [event["error"]["message"] for event in caller.of(f"{TRANSCRIPT}.failed")]
    assert messages.count("the recognizer took too long") == 4


@pytest.mark.slow
async def test_a_model_that_says_nothing_for_a_minute_fails_and_one_that_waits_for_the_ear_does_not(
    autojump_clock: Clock, dial: Dial
):
    class Stuck:
        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            voice.say("Hm.")
            await trio.sleep(50)
            voice.say("Hm.")
            await voice.play(bytes(2 * voice.rate * 70))
            await trio.sleep_forever()

    caller = await dial(Stuck())
    await caller.write("response.create")
    done = await caller.read("response.done", seconds=400)
    assert done["response"]["status_details"]["error"]["message"] == "the model said nothing for 60 s"
    assert len(caller.player.played) > 60 * 50


async def test_one_calls_slow_parts_delay_nothing_of_anothers(autojump_clock: Clock, open_link, play, speech, quiet):
    class Choosy:
        """Never answers the first call."""

        def __init__(self) -> None:
            self.calls = 0

        async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
            self.calls += 1
            if self.calls == 1:
                await trio.sleep_forever()
            await Answerer().respond(plan, turn, voice)

    model = Choosy()

    @needs_pcm
    async def agent(call: Call) -> None:
        await converse(call, model)

    client = await open_link(agent)
    players = [play(client, handle) for handle in (1, 2)]
    for handle in (1, 2):
        await client.start_call(handle)
        await client.open_channel(handle)
        await client.send_data(handle, 1, '{"type": "response.create"}')
    await client.until(lambda: len(players[1].played) == 50)
    assert players[0].played == []


# Speaking without being asked


async def test_a_model_that_greets_does_so_once_the_session_is_configured(autojump_clock: Clock, dial: Dial):
    model = Answerer()
    caller = await dial(model, greets=True)
    await trio.sleep(0.5)
    assert model.plans == []
    await caller.configure(instructions="Be kind.")
    await caller.read("output_audio_buffer.stopped")
    assert [plan.instructions for plan in model.plans] == ["Be kind."]
    assert model.plans[0].items == ()


async def test_a_caller_whose_client_says_nothing_or_has_no_channel_is_greeted_too(autojump_clock: Clock, dial: Dial):
    for channel in (True, False):
        model = Answerer()
        caller = await dial(model, greets=True, channel=channel)
        await caller.client.until(lambda caller=caller: caller.player.played, 5)
        assert len(model.plans) == 1


async def test_a_client_that_lets_the_model_speak_first_itself_hears_no_second_greeting(
    autojump_clock: Clock, dial: Dial
):
    model = Answerer()
    caller = await dial(model, greets=True)
    await caller.configure(instructions="Be kind.")
    await caller.read("session.updated")
    await caller.write("response.create")
    await caller.pause(3000)
    assert len(model.plans) == 1
    assert "error" not in caller.types


async def test_what_runs_beside_a_call_lets_the_model_speak_up_and_ends_with_the_call(
    autojump_clock: Clock, dial: Dial
):
    ended = 0

    async def beside(speak_up: SpeakUp) -> None:
        nonlocal ended
        try:
            await trio.sleep(5)
            speak_up()
            await trio.sleep_forever()
        finally:
            ended += 1

    model = Answerer()
    caller = await dial(model, beside=beside)
    await trio.sleep(4)
    assert model.plans == []
    await caller.read("output_audio_buffer.stopped")
    assert len(model.plans) == 1
    await caller.client.connection.aclose()
    await trio.sleep(1)
    assert ended == 1
