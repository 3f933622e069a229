"""The parts that come with Antiphon, under the names by which `[agent]` chooses them: `detector`, `recognizer`,
`dialogue`, `speaker`.

To add one: a file with the part, and its entry here: a function from the configuration to the part, which serves all calls
of the process. The contract suite (tests/agent/realtime/test_parts.py) runs over every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from agent.config import AgentConfig
from agent.offline.espeak import Espeak, EspeakMissing
from agent.offline.recognizer import PocketSphinx
from agent.offline.small import SmallDialogue
from agent.offline.sphinx import SphinxMissing
from agent.offline.webrtc import WebRtcVad
from agent.openai_http.dialogue import OpenAiDialogue
from agent.openai_http.recognizer import OpenAiRecognizer
from agent.openai_http.speaker import OpenAiSpeaker
from agent.realtime.parts import Detectors, Dialogue, Recognizer, Speaker

__all__ = [
    "DETECTORS",
    "DIALOGUES",
    "RECOGNIZERS",
    "SPEAKERS",
    "Factory",
    "PartUnavailable",
    "make_detectors",
    "make_dialogue",
    "make_recognizer",
    "make_speaker",
]

Part = TypeVar("Part")
Factory: TypeAlias = Callable[[AgentConfig], Part]


class PartUnavailable(Exception):
    """One sentence that says what is missing, for a part of that name."""


DETECTORS: dict[str, Factory[Detectors]] = {"webrtcvad": lambda _: WebRtcVad()}
RECOGNIZERS: dict[str, Factory[Recognizer]] = {"pocketsphinx": PocketSphinx.of, "openai": OpenAiRecognizer.of}
DIALOGUES: dict[str, Factory[Dialogue]] = {"small": SmallDialogue.of, "openai": OpenAiDialogue.of}
SPEAKERS: dict[str, Factory[Speaker]] = {"espeak": Espeak.of, "openai": OpenAiSpeaker.of}

HOW_TO_GET = (
    "the offline voice is the extra `voice`: `./just up --agent voice` installs it, or `./just _env voice` into .venv/ "
    "(pocketsphinx has wheels for Python 3.11 and 3.13)"
)


def make_detectors(config: AgentConfig) -> Detectors:
    """Raises PartUnavailable."""
    return _make("detector", DETECTORS, config.detector, config)


def make_recognizer(config: AgentConfig) -> Recognizer | None:
    """None: the session works without. Raises PartUnavailable."""
    return None if config.recognizer == "none" else _make("recognizer", RECOGNIZERS, config.recognizer, config)


def make_dialogue(config: AgentConfig) -> Dialogue:
    """Raises PartUnavailable."""
    return _make("dialogue", DIALOGUES, config.dialogue, config)


def make_speaker(config: AgentConfig) -> Speaker:
    """Raises PartUnavailable."""
    return _make("speaker", SPEAKERS, config.speaker, config)


def _make(kind: str, parts: Mapping[str, Factory[Part]], name: str, config: AgentConfig) -> Part:
    factory = parts.get(name)
    if factory is None:
        raise PartUnavailable(f"agent.{kind}: {name!r} is none of {', '.join(parts) or '(there are none)'}")
    try:
        return factory(config)
    except (SphinxMissing, EspeakMissing) as error:
        raise PartUnavailable(f"{error}; {HOW_TO_GET}") from None
