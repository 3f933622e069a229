"""A dialogue and a speaker as one model: what is said when, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.abc import Clock

from agent.realtime.client_events import ResponseSettings
from agent.realtime.parts import CutShort, Manner, ModelFailed, Play, Turn, Writer
from agent.realtime.response import Plan
from agent.realtime.server_events import Usage
from agent.realtime.speaking import MAX_AHEAD, MAX_LETTERS, Sentences, SpeakingModel
from protocol.realtime.settings import Settings

Answer = Callable[[Writer], Awaitable[Usage | None]]


class Dialogue:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def answer(self, plan: Plan, turn: Turn | None, writer: Writer) -> Usage | None:
        return await self._answer(writer)


class Speaker:
    """Takes a second for each sentence, which gives 100 ms of sound."""

    rate = 8000

    def __init__(self, fails_at: str = "") -> None:
        self.manners: list[Manner] = []
        self._fails_at = fails_at

    async def speak(self, text: str, manner: Manner, play: Play) -> None:
        self.manners.append(manner)
        if text == self._fails_at:
            raise ModelFailed("no voice")
        await trio.sleep(1)
        await play(bytes(1600))


class Log:
    """`parts.Voice`: writes down what it is told, and when."""

    rate = 16_000

    def __init__(self) -> None:
        self.began = trio.current_time()
        self.log: list[tuple[int, str]] = []
        self.bytes = 0

    def _note(self, what: str) -> None:
        self.log.append((round(trio.current_time() - self.began), what))

    def say(self, text: str) -> None:
        self._note(text)

    async def play(self, pcm: bytes) -> None:
        self.bytes += len(pcm)
        await trio.lowlevel.checkpoint()

    def call(self, name: str, arguments: str = "") -> str:
        self._note(f"call {name}{arguments}")
        return "call_1"

    def argue(self, text: str) -> None:
        self._note(f"argue {text}")


def a_plan(**change: object) -> Plan:
    return Plan.of("resp_1", Settings(), ResponseSettings(**change), ())  # type: ignore[arg-type]


def write(*texts: str, pause: float = 0.0) -> Answer:
    async def answer(writer: Writer) -> None:
        for text in texts:
            await trio.sleep(pause)
            await writer.write(text)

    return answer


async def test_each_sentence_is_spoken_as_soon_as_it_is_whole(autojump_clock: Clock):
    voice = Log()
    await SpeakingModel(Dialogue(write("It is late", " now. ", "Go to", " bed.", pause=0.25)), Speaker()).respond(
        a_plan(), None, voice
    )
    assert voice.log == [(0, "It is late now. "), (2, "Go to bed.")]
    assert abs(voice.bytes - 2 * 3200) < 100


async def test_a_written_answer_has_no_sound_and_does_not_wait_for_sentences(autojump_clock: Clock):
    voice, speaker = Log(), Speaker()
    model = SpeakingModel(Dialogue(write("It is", " late", pause=1)), speaker)
    await model.respond(a_plan(output_modalities=["text"]), None, voice)
    assert voice.log == [(1, "It is"), (2, " late")]
    assert not speaker.manners


async def test_functions_are_called_where_they_stand_among_the_sentences(autojump_clock: Clock):
    async def answer(writer: Writer) -> None:
        await writer.write("One moment please")
        await writer.call("light")
        await writer.argue('{"on":')
        await writer.argue("true}")
        await writer.write("Done it is.")

    voice = Log()
    await SpeakingModel(Dialogue(answer), Speaker()).respond(a_plan(), None, voice)
    told = [what for _, what in voice.log]
    assert told == ["One moment please", "call light", 'argue {"on":', "argue true}", "Done it is."]


async def test_a_dialogue_that_writes_faster_than_it_is_spoken_waits(autojump_clock: Clock):
    written = 0

    async def answer(writer: Writer) -> None:
        nonlocal written
        for _ in range(100):
            await writer.write("This is one. ")
            written += 1

    voice = Log()
    with trio.move_on_after(1.5):
        await SpeakingModel(Dialogue(answer), Speaker(), patience=1).respond(a_plan(), None, voice)
    assert MAX_AHEAD <= written <= MAX_AHEAD + 3


async def test_a_dialogue_that_says_nothing_for_too_long_is_given_up_and_the_caller_is_told(autojump_clock: Clock):
    voice = Log()
    model = SpeakingModel(Dialogue(write("Well, ", "never", pause=15)), Speaker(), patience=20, apology="Sorry.")
    await model.respond(a_plan(), None, voice)
    slow = SpeakingModel(Dialogue(write("never", pause=21)), Speaker(), patience=20, apology="I am sorry.")
    voice = Log()
    with pytest.raises(ModelFailed, match="said nothing for 20 s"):
        await slow.respond(a_plan(), None, voice)
    assert voice.log == [(20, "I am sorry.")]
    assert voice.bytes


async def test_a_dialogue_that_states_its_patience_is_given_it(autojump_clock: Clock):
    class Loading(Dialogue):
        patience_seconds = 60.0

    voice = Log()
    await SpeakingModel(Loading(write("Here I am.", pause=59)), Speaker()).respond(a_plan(), None, voice)
    assert voice.log == [(59, "Here I am.")]
    model = SpeakingModel(Loading(write("Too late.", pause=61)), Speaker())
    with pytest.raises(ModelFailed, match="said nothing for 60 s"):
        await model.respond(a_plan(), None, voice)
    assert model.patience_seconds >= 60


async def test_the_time_until_a_turns_words_are_known_is_not_the_dialogues(autojump_clock: Clock):
    turn = Turn("item_1", b"", 16_000)

    async def answer(writer: Writer) -> None:
        assert await turn.words() == "hello"
        await trio.sleep(pause)
        await writer.write("Hello.")

    async def hear() -> None:
        await trio.sleep(15)
        turn.settle("hello")

    for pause in (19, 21):
        turn, voice, failed = Turn("item_1", b"", 16_000), Log(), False
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear)
            try:
                await SpeakingModel(Dialogue(answer), Speaker(), patience=20).respond(a_plan(), turn, voice)
            except ModelFailed:
                failed = True
        assert (failed, voice.log) == ((False, [(34, "Hello.")]) if pause == 19 else (True, []))


async def test_a_dialogue_that_needs_no_words_does_not_wait_for_them(autojump_clock: Clock):
    voice = Log()
    with trio.fail_after(2):
        await SpeakingModel(Dialogue(write("Hello.")), Speaker()).respond(a_plan(), Turn("item_1", b"", 16_000), voice)
    assert voice.log == [(0, "Hello.")]


@pytest.mark.parametrize("error", [ModelFailed("gone"), RuntimeError("a bug")])
async def test_a_dialogue_that_breaks_off_is_followed_by_an_apology_of_its_own(autojump_clock: Clock, error: Exception):
    async def answer(writer: Writer) -> None:
        await writer.write("It is sunny. And tomorrow it rai")
        raise error

    voice = Log()
    with pytest.raises(type(error), match=str(error)):
        await SpeakingModel(Dialogue(answer), Speaker(), apology="Sorry, no.").respond(a_plan(), None, voice)
    assert [what for _, what in voice.log] == ["It is sunny. ", "And tomorrow it rai", " Sorry, no."]
    voice = Log()
    with pytest.raises(type(error)):
        await SpeakingModel(Dialogue(answer), Speaker(), apology="Sorry, no.").respond(
            a_plan(output_modalities=["text"]), None, voice
        )
    assert [what for _, what in voice.log] == ["It is sunny. And tomorrow it rai"]


async def test_a_speaker_that_fails_ends_the_answer(autojump_clock: Clock):
    voice = Log()
    model = SpeakingModel(Dialogue(write("It is late. ", "Go to bed. ", "Sleep well. ")), Speaker("Go to bed."))
    with pytest.raises(ModelFailed, match="no voice"):
        await model.respond(a_plan(), None, voice)


async def test_what_there_is_of_an_answer_that_is_cut_short_is_said_without_an_apology(autojump_clock: Clock):
    async def answer(writer: Writer) -> None:
        await writer.write("It is late. Go to")
        raise CutShort("max_output_tokens", Usage(total_tokens=3))

    voice = Log()
    with pytest.raises(CutShort) as cut:
        await SpeakingModel(Dialogue(answer), Speaker(), apology="Sorry.").respond(a_plan(), None, voice)
    assert (cut.value.reason, cut.value.usage) == ("max_output_tokens", Usage(total_tokens=3))
    assert [what for _, what in voice.log] == ["It is late. ", "Go to"]
    assert abs(voice.bytes - 2 * 3200) < 100


async def test_usage_and_manner_are_passed_on(autojump_clock: Clock):
    async def answer(writer: Writer) -> Usage:
        await writer.write("Hello there.")
        return Usage(total_tokens=3)

    speaker = Speaker()
    usage = await SpeakingModel(Dialogue(answer), speaker).respond(a_plan(), None, Log())
    assert usage == Usage(total_tokens=3)
    assert speaker.manners == [Manner("alloy", 1.0)]


@given(st.lists(st.text(alphabet='ab .!?\n"12', max_size=400)))
def test_pieces_joined_are_the_text_and_none_is_too_long(texts: list[str]):
    sentences = Sentences()
    pieces = [piece for text in texts for piece in sentences.feed(text)]
    rest = sentences.finish()
    assert "".join(pieces) + rest == "".join(texts)
    assert all(0 < len(piece) <= MAX_LETTERS + 400 for piece in pieces)


@pytest.mark.parametrize("text", [".", ".....x", '"', ". ", "\r\n", "a", "Go there. "])
def test_cutting_takes_time_in_proportion_to_the_text(text: str):
    def seconds(letters: int) -> float:
        began = time.process_time()
        Sentences().feed(text * (letters // len(text)))
        return time.process_time() - began

    seconds(1000)
    assert seconds(40_000) < 4 * min(seconds(20_000) for _ in range(3)) + 0.05


def test_numbers_and_short_words_are_no_sentences_of_their_own():
    sentences = Sentences()
    assert sentences.feed('1. Take it. "Now!" he said. Then') == ["1. Take it. ", '"Now!" he said. ']
    assert sentences.finish() == "Then"


async def test_of_two_failures_the_client_hears_of_the_first(autojump_clock: Clock):
    async def answer(writer: Writer) -> None:
        raise ModelFailed("no model")

    model = SpeakingModel(Dialogue(answer), Speaker("Sorry."), apology="Sorry.")
    with pytest.raises(ModelFailed, match="no model"):
        await model.respond(a_plan(), None, Log())
