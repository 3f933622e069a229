"""What a session wants of the world around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agent.realtime.response import Plan
from protocol.realtime.settings import TurnDetection

__all__ = [
    "CutAudio",
    "DetectTurns",
    "Forget",
    "Generate",
    "Hear",
    "Listen",
    "Order",
    "SendEvent",
    "StopModel",
    "Transcribe",
]


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
class Listen:
    """A turn begins at that moment, in milliseconds of the caller's audio since the session began: hear what is said."""

    item_id: str
    start_ms: float


@dataclass(frozen=True, slots=True)
class Transcribe:
    """The caller's audio between these moments is a turn; then `transcribed`. Of most there was a Listen before."""

    item_id: str
    start_ms: float
    end_ms: float


@dataclass(frozen=True, slots=True)
class Forget:
    """That turn is none."""

    item_id: str


@dataclass(frozen=True, slots=True)
class Hear:
    """Audio of the caller that came in an event, in the session's input format; then `heard`."""

    audio: bytes


@dataclass(frozen=True, slots=True)
class DetectTurns:
    """From now on this way; None: not at all. What has come since `since_ms` counts; `in_turn`: the caller is speaking."""

    how: TurnDetection | None
    since_ms: float = 0.0
    in_turn: bool = False


Order: TypeAlias = SendEvent | Generate | StopModel | CutAudio | Listen | Transcribe | Forget | Hear | DetectTurns
