"""The small language: what is meant by what is typed, and that what is spoken is heard."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from agent.offline import recognizer as recognizing
from agent.offline.language import (
    UNITS,
    AskLights,
    AskTimers,
    CancelTimers,
    Convert,
    Goodbye,
    Greeting,
    Help,
    Meaning,
    SetLights,
    SetTimer,
    Thanks,
    Unknown,
    understand,
)
from agent.offline.recognizer import IDLE_SECONDS, PocketSphinx

Say = Callable[..., bytes]
UNIT = {unit.many: unit for unit in UNITS}


def conversion(amount: float, source: str, target: str) -> Convert:
    return Convert(amount, UNIT[source], UNIT[target])


WRITTEN: list[tuple[str, Meaning]] = [
    ("Hello!", Greeting()),
    ("Thanks a lot", Thanks()),
    ("OK, thank you, goodbye.", Goodbye()),
    ("What can you do?", Help()),
    ("Set a timer for 5 minutes", SetTimer(300)),
    ("a timer of 2 minutes and 30 seconds, please", SetTimer(150)),
    ("set a timer for one hour and a half", SetTimer(5400)),
    ("set a timer", SetTimer(None)),
    ("how long is left on the timer", AskTimers()),
    ("stop the timer", CancelTimers()),
    ("Turn the kitchen light on please", SetLights("kitchen", on=True)),
    ("lights off in the living room", SetLights("living room", on=False)),
    ("turn all lights off", SetLights(None, on=False)),
    ("is the light on in the hall?", AskLights()),
    ("How many feet are 2,5 metres?", conversion(2.5, "meters", "feet")),
    ("100 km in miles", conversion(100, "kilometers", "miles")),
    ("one hundred twenty pounds in kilograms", conversion(120, "pounds", "kilograms")),
    ("20 degrees Celsius in Fahrenheit", conversion(20, "degrees celsius", "degrees fahrenheit")),
    ("how many feet are in a pound", Unknown()),
    ("Order a pizza", Unknown()),
    ("two and a half hundred feet in meters", conversion(250, "feet", "meters")),
    ("one hundred one hundred feet in meters", conversion(100, "feet", "meters")),
    ("a thousand million and 2000000000 km in miles", Unknown()),
    ("", Unknown()),
]

SPOKEN = [
    "hello",
    "what can you do",
    "goodbye",
    "set a timer for twenty five seconds",
    "start a timer for half an hour",
    "how much time is left",
    "cancel the timer",
    "turn on the light in the bedroom",
    "turn the living room lights off",
    "which lights are on",
    "how many feet are two meters",
    "convert ten pounds to kilograms",
    "what is ninety fahrenheit in celsius",
]


@pytest.mark.parametrize(("text", "meaning"), WRITTEN)
def test_what_is_written_is_understood(text: str, meaning: Meaning):
    assert understand(text) == meaning


WORDS = (
    "timer",
    "for",
    "a",
    "half",
    "two",
    "hundred",
    "and",
    "minutes",
    "on",
    "off",
    "light",
    "kitchen",
    "7.5",
    "feet",
)


def test_long_texts_and_immense_numbers_are_no_trouble():
    assert understand("timer " + "9" * 400 + " hours") == SetTimer(None)
    assert understand("9" * 450 + " km in miles") == Unknown()
    began = time.process_time()
    assert understand("one hundred " * 20_000 + "x") == Unknown()
    assert time.process_time() - began < 1


NUMBERS = st.integers(0).map(str) | st.floats(0, 1e300).map("{:f}".format) | st.sampled_from(["9" * 400, "٣", "1,5"])


@given(st.text() | st.lists(st.sampled_from(WORDS) | NUMBERS, max_size=300).map(" ".join))
def test_any_text_means_something(text: str):
    assert understand(text) is not None


@pytest.mark.slow
async def test_what_is_spoken_is_heard_word_for_word_while_it_is_spoken(spoken: Say):
    recognizer = PocketSphinx()
    for text in SPOKEN:
        pcm, guesses = spoken(text), []

        async def audio(pcm: bytes = pcm) -> AsyncIterator[bytes]:
            for place in range(0, len(pcm), 1920):
                yield pcm[place : place + 1920]

        heard = await recognizer.guess(audio(), 16_000, "en-US", guesses.append)
        assert heard == text
        assert guesses[-1] == text, "it knew before the end"


class Turn(AsyncIterator[bytes]):
    """Its pieces, each after so many seconds."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:
        self._pieces = list(pieces)

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        await trio.sleep(self._pieces[0][0])
        return self._pieces.pop(0)[1]


@pytest.fixture
def patient_clock() -> MockClock:
    """Threads have their time."""
    return MockClock(autojump_threshold=0.1)


@pytest.mark.slow
async def test_turns_in_which_nothing_is_said_any_more_leave_the_decoders_to_others(
    monkeypatch: pytest.MonkeyPatch, spoken: Say
):
    monkeypatch.setattr(recognizing, "IDLE_SECONDS", 0.05)
    recognizer = PocketSphinx(decoders=1)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(recognizer.transcribe, Turn((0, bytes(3200)), (math.inf, b"")), 16_000, None)
            await trio.sleep(0.01)
            assert await recognizer.transcribe(Turn((0, spoken("thank you"))), 16_000, None) == "thank you"
            nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_what_is_said_after_a_long_pause_follows_what_was_said_before(patient_clock: MockClock, spoken: Say):
    guesses: list[str] = []
    wait = IDLE_SECONDS + 1
    turn = Turn((0, spoken("thank you")), (wait, spoken("cancel the timer")))
    words = "thank you cancel the timer"
    assert await PocketSphinx(decoders=1).guess(turn, 16_000, None, guesses.append) == words
    assert guesses[-1] == words


@pytest.mark.slow
async def test_of_an_endless_turn_the_beginning_is_heard(
    patient_clock: MockClock, monkeypatch: pytest.MonkeyPatch, spoken: Say
):
    monkeypatch.setattr(recognizing, "LONGEST_SECONDS", 5.0)
    recognizer = PocketSphinx(decoders=1)
    for rest in ([(1.0, bytes(320))] * 20, [(math.inf, b"")]):
        assert await recognizer.transcribe(Turn((0, spoken("thank you")), *rest), 16_000, None) == "thank you"
    assert trio.current_time() < 15


@pytest.mark.slow
async def test_of_much_audio_at_once_the_beginning_is_heard(monkeypatch: pytest.MonkeyPatch, spoken: Say):
    pcm = spoken("thank you")
    monkeypatch.setattr(recognizing, "LONGEST_SECONDS", len(pcm) / 32_000)
    assert await PocketSphinx().transcribe(Turn((0, pcm), (0, spoken("goodbye"))), 16_000, None) == "thank you"
