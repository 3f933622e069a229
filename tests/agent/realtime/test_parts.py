"""What every part in the registry must stand: cancelled anywhere, used by several calls at once, audio that ends too soon, and
never a step of the event loop so long that another call's frame would be late.

A part that needs more than the default configuration has its own in `CONFIGS`.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import msgspec
import numpy as np
import pytest
import trio
from openai_server import OpenAiServer, served_beside, tone

from agent.config import AgentConfig
from agent.lifetime import Closable
from agent.realtime.client_events import ResponseSettings
from agent.realtime.items import InputText, Message
from agent.realtime.parts import Companion, Detectors, Dialogue, Manner, PersonalDialogue, Recognizer, Speaker
from agent.realtime.registry import (
    DETECTORS,
    DIALOGUES,
    RECOGNIZERS,
    SPEAKERS,
    PartUnavailable,
    make_dialogue,
    make_recognizer,
)
from agent.realtime.response import Plan
from agent.voice import Turn as TurnChange
from protocol.realtime.settings import Settings

pytestmark = pytest.mark.slow

Sound: TypeAlias = Callable[[int, int], list[bytes]]

CONFIGS: dict[str, Callable[[], AgentConfig]] = {}

LONGEST_STEP_SECONDS = 0.03  # of the main thread's own CPU time
SENTENCE = "The light in the kitchen is on. "
RATE = 16_000


@pytest.fixture(scope="module", autouse=True)
def openai_server():
    """What the parts named `openai` ask."""
    with served_beside(OpenAiServer(sound=tone(1.0))) as port:
        endpoint = {"base_url": f"http://127.0.0.1:{port}/v1", "model": "any"}
        openai = dict.fromkeys(("recognizer", "dialogue", "speaker"), endpoint)
        CONFIGS["openai"] = lambda: msgspec.convert({"openai": openai}, AgentConfig)
        yield
        del CONFIGS["openai"]


class LongestStep(trio.abc.Instrument):
    """How long one step of a task kept the event loop to itself. CPU time, as machines that run tests are busy."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = math.inf

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.seconds = max(self.seconds, time.thread_time() - self._began)


@pytest.fixture
async def longest_step():
    step = LongestStep()
    trio.lowlevel.add_instrument(step)
    yield step
    trio.lowlevel.remove_instrument(step)


@contextmanager
def made(registry: dict[str, Callable[[AgentConfig], Any]], name: str) -> Iterator[Any]:
    part = registry[name](CONFIGS.get(name, AgentConfig)())
    yield part
    if isinstance(part, Closable):
        trio.run(part.aclose)


@pytest.fixture(scope="module", params=DETECTORS)
def detectors(request: pytest.FixtureRequest) -> Iterator[Detectors]:
    with made(DETECTORS, request.param) as part:
        yield part


@pytest.fixture(scope="module", params=RECOGNIZERS)
def recognizer(request: pytest.FixtureRequest) -> Iterator[Recognizer]:
    with made(RECOGNIZERS, request.param) as part:
        yield part


@pytest.fixture(scope="module", params=DIALOGUES)
def dialogue(request: pytest.FixtureRequest) -> Iterator[Dialogue]:
    with made(DIALOGUES, request.param) as part:
        yield part


@pytest.fixture(scope="module", params=SPEAKERS)
def speaker(request: pytest.FixtureRequest) -> Iterator[Speaker]:
    with made(SPEAKERS, request.param) as part:
        yield part


def noise(seconds: float) -> bytes:
    """It rises and falls like speech."""
    count = int(seconds * RATE)
    loud = 2000 * np.abs(np.sin(np.arange(count) * 2 * np.pi * 3 / RATE))
    return (np.random.default_rng(1).normal(0, 1, count) * loud).astype(np.int16).tobytes()


TWO_SECONDS = noise(2.0)


class Babble(AsyncIterator[bytes]):
    """A turn of so much noise; `breaks`: then the caller hangs up."""

    def __init__(self, pcm: bytes, piece_ms: int = 60, *, breaks: bool = False) -> None:
        size = RATE * piece_ms // 1000 * 2
        self._pieces = iter([pcm[place : place + size] for place in range(0, len(pcm), size)])
        self._breaks = breaks

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for piece in self._pieces:
            return piece
        if self._breaks:
            raise OSError("hung up")
        raise StopAsyncIteration


class Notes:
    """`parts.Writer`"""

    def __init__(self) -> None:
        self.text = ""
        self.calls: list[str] = []

    async def write(self, text: str) -> None:
        await trio.lowlevel.checkpoint()
        self.text += text

    async def call(self, name: str) -> None:
        await trio.lowlevel.checkpoint()
        self.calls.append(name)

    async def argue(self, text: str) -> None:
        await trio.lowlevel.checkpoint()


def plan(text: str) -> Plan:
    asked = Message(role="user", content=[InputText(text)], id="item_1")
    return Plan.of("resp_1", Settings(), ResponseSettings(), (asked,))


async def give_up(work: Callable[[], Any]) -> None:
    """Begin it a few times, and cancel it after longer and longer."""
    for milliseconds in (0, 1, 5, 20, 60):
        with trio.move_on_after(milliseconds / 1000):
            await work()


async def test_a_recognizer_hears_again_after_it_was_cancelled_and_several_calls_at_once(
    recognizer: Recognizer, longest_step: LongestStep
):
    async def hear() -> None:
        heard.append(await recognizer.transcribe(Babble(TWO_SECONDS), RATE, None))

    heard: list[str] = []
    await give_up(hear)
    heard.clear()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(hear)
    assert len(heard) == 3
    assert len(set(heard)) == 1, "the same sound, the same words, whoever was heard before"
    assert longest_step.seconds < LONGEST_STEP_SECONDS


async def test_a_recognizer_makes_something_of_audio_that_ends_at_once(recognizer: Recognizer):
    with trio.fail_after(10):
        assert isinstance(await recognizer.transcribe(Babble(b""), RATE, None), str)
        assert isinstance(await recognizer.transcribe(Babble(noise(0.05), 7), RATE, "en"), str)


async def test_a_recognizer_that_is_not_listened_out_leaves_nothing_behind(recognizer: Recognizer):
    with pytest.raises(OSError, match="hung up"):
        await recognizer.transcribe(Babble(noise(0.5), breaks=True), RATE, None)
    assert isinstance(await recognizer.transcribe(Babble(noise(0.3)), RATE, None), str)


async def test_a_dialogue_answers_again_after_it_was_cancelled_and_several_calls_at_once(
    dialogue: Dialogue, longest_step: LongestStep
):
    async def ask() -> None:
        notes = Notes()
        await dialogue.answer(plan("hello"), None, notes)
        answers.append(notes.text)

    answers: list[str] = []
    await give_up(ask)
    answers.clear()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(ask)
    assert len(answers) == 3
    assert all(answers)
    assert longest_step.seconds < LONGEST_STEP_SECONDS


async def test_a_dialogue_whose_answer_nobody_takes_answers_the_next(dialogue: Dialogue):
    class Gone(Notes):
        async def write(self, text: str) -> None:
            raise OSError("hung up")

    with pytest.raises(OSError, match="hung up"):
        await dialogue.answer(plan("hello"), None, Gone())
    notes = Notes()
    with trio.fail_after(10):
        await dialogue.answer(plan("hello"), None, notes)
    assert notes.text


async def test_what_a_dialogue_remembers_of_one_call_another_does_not_know(dialogue: Dialogue):
    if not isinstance(dialogue, PersonalDialogue):
        return

    async def say(companion: Companion, text: str) -> str:
        notes = Notes()
        await companion.answer(plan(text), None, notes)
        return notes.text

    one, other = dialogue.begin(), dialogue.begin()
    before = await say(other, "how much time is left")
    await say(one, "set a timer for five minutes")
    assert await say(other, "how much time is left") == before
    assert await say(one, "how much time is left") != before
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run, lambda: None)
        await trio.sleep(0.01)
        nursery.cancel_scope.cancel()


async def test_a_speaker_speaks_again_after_it_was_cancelled_and_for_several_calls_at_once(
    speaker: Speaker, longest_step: LongestStep
):
    async def speak() -> None:
        sound = bytearray()

        async def play(pcm: bytes) -> None:
            await trio.lowlevel.checkpoint()
            sound.extend(pcm)

        await speaker.speak(SENTENCE, Manner("alloy"), play)
        sounds.append(bytes(sound))

    sounds: list[bytes] = []
    await give_up(speak)
    sounds.clear()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(speak)
    assert [len(sound) / 2 / speaker.rate > 0.5 for sound in sounds] == [True] * 3
    assert longest_step.seconds < LONGEST_STEP_SECONDS


async def test_a_speaker_whom_nobody_hears_out_speaks_the_next_sentence(speaker: Speaker):
    async def gone(pcm: bytes) -> None:
        raise OSError("hung up")

    heard = 0

    async def play(pcm: bytes) -> None:
        nonlocal heard
        heard += len(pcm)
        await trio.lowlevel.checkpoint()

    with pytest.raises(OSError, match="hung up"):
        await speaker.speak(SENTENCE, Manner(), gone)
    with trio.fail_after(10):
        await speaker.speak(SENTENCE, Manner(), play)
    assert heard


async def test_a_long_text_does_not_keep_another_call_from_being_spoken_to(speaker: Speaker):
    """Whoever is ahead of the caller's ear waits, and others do not wait for him."""
    started = trio.Event()

    async def never(pcm: bytes) -> None:
        started.set()
        await trio.sleep_forever()

    async def play(pcm: bytes) -> None:
        await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(speaker.speak, SENTENCE * 200, Manner(), never)
        await started.wait()
        with trio.fail_after(5):
            await speaker.speak(SENTENCE, Manner("nobody's", 1.5), play)
        nursery.cancel_scope.cancel()


async def test_nothing_to_say_is_not_said(speaker: Speaker):
    async def play(pcm: bytes) -> None:
        await trio.lowlevel.checkpoint()

    for text in ("", " \n", "…", "\0", "🙂"):
        await speaker.speak(text, Manner(speed=0.25), play)


@pytest.mark.parametrize("rate", [8000, 16_000])
def test_a_detector_finds_a_turn_and_its_end_whatever_the_pieces(
    detectors: Detectors, speech: Sound, quiet: Sound, rate: int
):
    said = b"".join([*quiet(rate, 600), *speech(rate, 1500), *quiet(rate, 1500)])
    for size in (2, 333, 640, len(said)):
        detector = detectors.start(rate, threshold=0.5, pause_ms=500, speaking=False)
        found = [turn for place in range(0, len(said), size) for turn in detector.feed(said[place : place + size])]
        assert found == [TurnChange.STARTED, TurnChange.STOPPED]
    assert 0 < detector.onset_ms <= 500


def test_a_detector_of_one_call_knows_nothing_of_anothers_and_one_may_begin_in_a_turn(
    detectors: Detectors, speech: Sound, quiet: Sound
):
    one, other = (detectors.start(RATE, threshold=0.5, pause_ms=500, speaking=False) for _ in range(2))
    for piece, pause in zip(speech(RATE, 1500), quiet(RATE, 1500), strict=True):
        one.feed(piece)
        assert other.feed(pause) == []
    assert one.silence() == [TurnChange.STOPPED]
    assert other.silence() == []
    begun = detectors.start(RATE, threshold=0.5, pause_ms=500, speaking=True)
    assert [turn for pause in quiet(RATE, 1500) for turn in begun.feed(pause)] == [TurnChange.STOPPED]


def test_parts_are_chosen_by_name_and_a_name_that_is_none_says_which_there_are():
    assert make_recognizer(AgentConfig(recognizer="none")) is None
    with pytest.raises(PartUnavailable, match=r"agent\.dialogue: 'sphinx' is none of small"):
        make_dialogue(AgentConfig(dialogue="sphinx"))
