"""How long a caller may pause before the turn is over, judged on what was said so far (`semantic_vad`).

1. Who breaks off in the middle ("turn on the", "twenty", "I would like, uhm") gets the longest pause that the eagerness allows.
2. Who sounds finished gets a short one.
3. Where nobody knows what was said, or it may be either, it is something between.

The words are English; in other languages only punctuation tells.
"""

from __future__ import annotations

import enum
import re
from typing import Literal, TypeAlias

__all__ = ["SHORTEST_PAUSE_MS", "Sense", "allowed_pause_ms", "firm_words", "judge"]

Eagerness: TypeAlias = Literal["low", "medium", "high", "auto"]


class Sense(enum.Enum):
    FINISHED = "a whole sentence"
    UNSURE = "perhaps"
    UNFINISHED = "broken off"


# Specification constants: how long the API waits at most
LONGEST_PAUSE_MS = {"high": 2000, "auto": 4000, "medium": 4000, "low": 8000}

# Implementation constants
SHORTEST_PAUSE_MS = 300  # a shorter one is part of speaking
FINISHED_PAUSE_MS = {"high": 300, "auto": 500, "medium": 500, "low": 800}
UNSURE_PAUSE_MS = {"high": 400, "auto": 700, "medium": 700, "low": 1200}

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What no sentence ends with: conjunctions, articles, possessives, prepositions, verbs that want another, numbers that do.
_OPEN = _words(
    """
    and or but because if when while unless until although than then plus a an the my your his our their every
    of to for from with without into onto at by between is are was were am be been will would could should must may might
    i'm i'll i'd it's there's let's please i we they set turn switch uh uhm um erm hmm er
    twenty thirty forty fifty sixty seventy eighty ninety hundred thousand million point minus
    """
)
# What a sentence may end with, and often does not: more digits of a number, an object of which more is said.
_EITHER = _words(
    """
    this that these those her some any another each all both in on about under over during since so as what who which how
    where whether can need want like just also really very half ah well
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen
    nineteen
    """
)


def judge(words: str) -> Sense:
    """What the end of these words sounds like."""
    text = words.strip()
    said = [word.replace("’", "'") for word in _WORD.findall(text.lower())]
    if not said:
        return Sense.UNSURE
    if text.endswith(("?", "!")):
        return Sense.FINISHED
    if text.endswith((",", "-", "–", "—", "…", "...", ":", ";")):
        return Sense.UNFINISHED
    # A full stop proves nothing: recognizers put one wherever the voice pauses.
    if said[-1] in _OPEN:
        return Sense.UNFINISHED
    return Sense.UNSURE if said[-1] in _EITHER or said[-1].isdigit() else Sense.FINISHED


def allowed_pause_ms(eagerness: Eagerness, words: str | None) -> int:
    """From the last sound; `words`: what was said so far, None if nobody knows."""
    match judge(words) if words is not None else Sense.UNSURE:
        case Sense.FINISHED:
            return FINISHED_PAUSE_MS[eagerness]
        case Sense.UNFINISHED:
            return LONGEST_PAUSE_MS[eagerness]
        case _:
            return UNSURE_PAUSE_MS[eagerness]


def firm_words(before: str, now: str) -> str:
    """What two guesses, one after the other, both begin with: whole words, which as a rule do not change any more."""
    end = 0
    for old, found in zip(before.split(), re.finditer(r"\S+", now)):
        if old != found.group():
            break
        end = found.end()
    return now[:end]
