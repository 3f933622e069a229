"""What a session wants of the world around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agent.realtime.response import Plan
from agent.realtime.settings import TurnDetection

__all__ = ["CutAudio", "DetectTurns", "Generate", "Hear", "Order", "SendEvent", "StopModel", "Transcribe"]


@dataclass(frozen=True, slots=True)
class SendEvent:
    """`data`: JSON. `client`: the only one it is for; None: all."""

    data: str
    client: int | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    plan: Plan


@dataclass(frozen=True, slots=True)
class StopModel:
    response_id: str


@dataclass(frozen=True, slots=True)
class CutAudio:
    """Be silent at once, and tell `was_cut`."""

    response_id: str


@dataclass(frozen=True, slots=True)
class Transcribe:
    """The caller's audio between these moments, in milliseconds since the session began; then `transcribed`."""

    item_id: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Hear:
    """Audio of the caller that came in an event, in the session's input format; then `heard`."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class DetectTurns:
    """From now on this way; None: not at all."""

    how: TurnDetection | None


Order: TypeAlias = SendEvent | Generate | StopModel | CutAudio | Transcribe | Hear | DetectTurns
