"""An agent for the page's test, `talking_agent:agent`: it has the page switch a light, then tells of it at length."""

from __future__ import annotations

import array
import math
from collections.abc import AsyncIterator

from agent import Call, needs_pcm
from agent.realtime.driver import converse
from agent.realtime.items import FunctionCallOutput, text_of
from agent.realtime.parts import Turn, Voice
from agent.realtime.response import Plan

HERTZ = 440


class Steward:
    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> None:
        last = plan.items[-1]
        if not isinstance(last, FunctionCallOutput):
            voice.say(f"You said {await turn.words() if turn is not None else text_of(last)!r}.")
            voice.call("set_light", '{"room": "kitchen", "on": true}')
            return
        tone = array.array(
            "h", (round(8000 * math.sin(math.tau * HERTZ * n / voice.rate)) for n in range(voice.rate // 2))
        )
        for word in [
            "The",
            "light",
            "in",
            "the",
            "kitchen",
            "is",
            "on",
            "and",
            "all",
            "is",
            "well",
            "in",
            "the",
            "house",
        ]:
            voice.say(f"{word} ")
            await voice.play(tone.tobytes())


class Ears:
    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        async for _ in audio:
            pass
        return "light in the kitchen"


@needs_pcm
async def agent(call: Call) -> None:
    await converse(call, Steward(), Ears())
