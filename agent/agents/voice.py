"""`voice`: a voice agent of the parts that `[agent]` names (`detector`, `recognizer`, `dialogue`, `speaker`): the
offline ones by default.

It speaks the OpenAI Realtime API on the data channel, or on a WebSocket; a caller without a channel is heard and answered all
the same.
"""

from __future__ import annotations

from agent.call import Call
from agent.codecs import needs_pcm
from agent.config import AgentConfig
from agent.lifetime import holding
from agent.live import Agent
from agent.realtime.driver import converse
from agent.realtime.line import Line
from agent.realtime.parts import PersonalDialogue
from agent.realtime.registry import make_detectors, make_dialogue, make_recognizer, make_speaker
from agent.realtime.speaking import SpeakingModel
from agent.sessions import over_websocket

__all__ = ["make_voice"]

APOLOGY = "Sorry, I cannot answer at the moment."


def make_voice(config: AgentConfig) -> Agent:
    """Raises PartUnavailable or ConfigError."""
    detectors, recognizer = make_detectors(config), make_recognizer(config)
    dialogue, speaker = make_dialogue(config), make_speaker(config)

    @needs_pcm
    @over_websocket
    async def voice(call: Call | Line) -> None:
        own = dialogue.begin() if isinstance(dialogue, PersonalDialogue) else None
        await converse(
            call,
            SpeakingModel(own or dialogue, speaker, apology=APOLOGY),
            recognizer,
            greets=config.greets,
            beside=own.run if own is not None else None,
            detectors=detectors,
        )

    return holding(voice, recognizer, dialogue, speaker)
