"""`realtime`: speaks the OpenAI Realtime API, on the data channel of a call or on a WebSocket; its model, so far, is a parrot
that says your turn back.

What it is for: to try clients of that API against, and to build on (`agent.realtime.parts`).
"""

from __future__ import annotations

from agent.call import Call
from agent.codecs import needs_pcm
from agent.codecs.resampling import Resampler
from agent.realtime.driver import converse
from agent.realtime.items import text_of
from agent.realtime.line import Line
from agent.realtime.parts import Turn, Voice
from agent.realtime.response import Plan
from agent.realtime.server_events import Usage
from agent.sessions import over_websocket

__all__ = ["RepeatingModel", "realtime"]

# Implementation constants
PIECE_MS = 100


@needs_pcm
@over_websocket
async def realtime(call: Call | Line) -> None:
    await converse(call, RepeatingModel())


class RepeatingModel:
    """Sound for sound, words for words."""

    async def respond(self, plan: Plan, turn: Turn | None, voice: Voice) -> Usage | None:
        words = await turn.words() if turn is not None else text_of(plan.items[-1]) if plan.items else None
        if words:
            voice.say(words)
        if turn is not None and plan.speaks:
            piece = turn.rate * PIECE_MS // 1000 * 2
            resampler = Resampler(turn.rate, voice.rate)
            for place in range(0, len(turn.pcm), piece):
                await voice.play(resampler.feed(turn.pcm[place : place + piece]))
            await voice.play(resampler.finish())
        return None
