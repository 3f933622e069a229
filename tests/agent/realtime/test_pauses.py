"""How long a caller may pause, by what was said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.realtime.pauses import SHORTEST_PAUSE_MS, Sense, allowed_pause_ms, firm_words, judge

FINISHED = [
    "Turn on the light in the kitchen.",
    "what time is it",
    "thank you",
    "what is this for?",
    "set a timer for twenty minutes",
    "help",
]
UNSURE = ["", "...", "set a timer for five", "five five 5", "I want that", "turn it on", "what"]
UNFINISHED = [
    "turn on the",
    "and",
    "set a timer for twenty",
    "one hundred and",
    "I would like, uhm",
    "Well, first of all,",
    "because I'm",
    "I want to go to the.",  # a recognizer's full stop proves nothing
    "on the other hand…",
]


@pytest.mark.parametrize(
    ("text", "sense"),
    [
        *((text, Sense.FINISHED) for text in FINISHED),
        *((text, Sense.UNSURE) for text in UNSURE),
        *((text, Sense.UNFINISHED) for text in UNFINISHED),
    ],
)
def test_what_is_broken_off_is_told_from_what_is_whole(text: str, sense: Sense):
    assert judge(text) is sense


@pytest.mark.parametrize(("eagerness", "longest"), [("low", 8000), ("medium", 4000), ("auto", 4000), ("high", 2000)])
def test_who_breaks_off_may_pause_as_long_as_the_api_says_and_who_is_done_need_not_wait(eagerness, longest: int):
    assert allowed_pause_ms(eagerness, "turn on the") == longest
    finished, unknown = allowed_pause_ms(eagerness, "turn on the light"), allowed_pause_ms(eagerness, None)
    assert SHORTEST_PAUSE_MS <= finished < unknown < longest


@given(st.text())
def test_any_words_have_a_sense(text: str):
    assert judge(text) in Sense


def test_words_are_firm_when_two_guesses_begin_with_them():
    assert firm_words("", "set a") == ""
    assert firm_words("set a time", "set a timer for") == "set a"
    assert firm_words("set a timer for five", "set a timer for fifteen") == "set a timer for"
    assert firm_words("set a timer", "set a timer") == "set a timer"


@given(st.text(), st.text())
def test_firm_words_are_the_beginning_of_the_later_guess(before: str, now: str):
    assert now.startswith(firm_words(before, now))
