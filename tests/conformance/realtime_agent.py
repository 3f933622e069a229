"""An agent of the Realtime API without a speech model, for tests and measurements: `--agent realtime_agent:agent`.

What the caller says, it takes for the order to switch a light on, and calls the client's function `set_light` if there is
one. What the function returns it speaks; what is written to it too. It speaks with a tone, one second for each five letters.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import numpy as np

from agent import Call, needs_pcm
from agent.realtime.driver import converse
from agent.realtime.items import FunctionCallOutput, text_of
from agent.realtime.parts import Turn, Voice
from agent.realtime.response import Plan

TONE_HERTZ = 440
AMPLITUDE = 8000
SECONDS_OF_LETTER = 0.02
PIECE_MS = 100
ORDER = "Turn on the light in the kitchen."
FUNCTION = "set_light"
STORY = "Tell me a story."
STORY_SECONDS = 20.0


class AllTheSame:
    """A recognizer that hears the one order, whatever is said."""

    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        async for _ in audio:
            pass
        return ORDER


class Lamplighter:
    """A model that calls the function, and speaks with a tone."""

    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
        last = plan.items[-1] if plan.items else None
        if turn is not None and any(tool.name == FUNCTION for tool in plan.tools):
            await turn.words()
            voice.call(FUNCTION)
            for piece in ('{"room": "kit', 'chen", "on"', ": true}"):
                voice.argue(piece)
        elif isinstance(last, FunctionCallOutput):
            await self._speak(plan, voice, f"The function says: {_plain(last.output)}")
        elif last is not None and text_of(last) == STORY:
            await self._speak(plan, voice, "Once upon a time there was a tone. " * 20, STORY_SECONDS)
        else:
            await self._speak(plan, voice, "What can I do for you?")

    async def _speak(self, plan: Plan, voice: Voice, words: str, seconds: float | None = None) -> None:
        pieces = words.split(" ")
        spoken = (len(words) * SECONDS_OF_LETTER) if seconds is None else seconds
        tone = _tone(voice.rate, spoken)
        share = -(-len(tone) // len(pieces))
        share += share % 2
        for number, word in enumerate(pieces):
            voice.say(word + " ")
            if plan.speaks:
                await voice.play(tone[number * share : (number + 1) * share])


def _plain(output: str) -> str:
    """Some clients send the function's value as it is, some as JSON."""
    try:
        return str(json.loads(output))
    except json.JSONDecodeError:
        return output


def _tone(rate: int, seconds: float) -> bytes:
    time = np.arange(round(rate * seconds)) / rate
    return (AMPLITUDE * np.sin(2 * np.pi * TONE_HERTZ * time)).astype(np.int16).tobytes()


@needs_pcm
async def agent(call: Call) -> None:
    await converse(call, Lamplighter(), AllTheSame())
