"""What the client asked of its session, and what the service is told of it: the same but for the formats of sound.

The service hears and speaks 24 kHz PCM, whatever the client asked for: its own sound is media. It sees what it asked, though.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from agent.upstream.events import OURS, encode

__all__ = ["ClientSettings", "interrupts", "with_our_format"]

# Implementation constants
MAX_UNANSWERED = 16  # updates
MAX_SETTINGS = 256 * 1024  # letters of all that the client asked; what makes it more is not told to a further session

Settings: TypeAlias = dict[str, Any]
_WAYS: Final = ("input", "output")


@dataclass(frozen=True, slots=True)
class _Update:
    text: str
    """The event that told it."""
    session: Settings


class ClientSettings:
    """What was asked so far, to be told to a service that does not know it."""

    def __init__(self, offered: Settings | None, drops: Counter[str]) -> None:
        """`drops` counts updates that are too much to be remembered."""
        self._drops = drops
        self._asked: Settings = offered or {}
        self._unanswered: OrderedDict[str, _Update] = OrderedDict()  # in the order in which the service is told
        self._formats: dict[str, Any] = {}
        self._note_formats(self._asked)

    @property
    def is_full(self) -> bool:
        """Too many updates have no answer."""
        return len(self._unanswered) >= MAX_UNANSWERED

    def awaits(self, event_id: str) -> bool:
        return event_id in self._unanswered

    def for_service(self, update: Settings) -> Settings:
        """An update of the client's, as the service is told it."""
        self._note_formats(update)
        return _for_service(update)

    def told(self, event_id: str, text: str, update: Settings) -> None:
        """The service is told, by this event."""
        self._unanswered[event_id] = _Update(text, update)

    def told_all(self, event_id: str, text: str) -> None:
        """A new session is told all that was asked, before anything else."""
        self._unanswered[event_id] = _Update(text, {})
        self._unanswered.move_to_end(event_id, last=False)

    def accepted(self) -> None:
        """The service took the first that it had not answered."""
        if self._unanswered:
            self._add(self._unanswered.popitem(last=False)[1].session)

    def refused(self, event_id: str) -> None:
        self._unanswered.pop(event_id, None)

    def lose_service(self, waits: Callable[[str], bool]) -> None:
        """What it never answered was asked all the same. `waits`: is this event still to be sent?"""
        for event_id, update in list(self._unanswered.items()):
            self._add(update.session)
            if not waits(update.text):
                del self._unanswered[event_id]

    def for_new_session(self) -> Settings | None:
        """All that was asked; None if nothing was."""
        return _for_service(self._asked) if self._asked else None

    def for_client(self, session: Settings) -> Settings:
        """A session of the service's, as the client is told it."""
        return _with_formats(session, self._formats) if self._formats else session

    @property
    def differs(self) -> bool:
        """Must sessions be changed for the client at all?"""
        return bool(self._formats)

    def _add(self, update: Settings) -> None:
        try:
            merged = _merge(self._asked, update)
        except RecursionError:
            merged = None
        text = encode(merged) if merged is not None else None
        if merged is None or text is None or len(text) > MAX_SETTINGS:
            self._drops["update_forgotten"] += 1
        else:
            self._asked = merged

    def _note_formats(self, update: Settings) -> None:
        for way in _WAYS:
            asked = _format(update, way)
            if asked is not None:
                self._formats[way] = asked
                if asked == OURS:
                    del self._formats[way]


def interrupts(session: Settings) -> bool:
    """Does the caller silence the service by speaking?"""
    audio = session.get("audio")
    heard = audio.get("input") if isinstance(audio, dict) else session
    detection = heard.get("turn_detection") if isinstance(heard, dict) else None
    return not isinstance(detection, dict) or detection.get("interrupt_response") is not False


def with_our_format(response: Settings) -> Settings:
    """What a response is asked to be like, in the format that we can play."""
    return _with_formats(response, {"output": OURS})


def _format(settings: Settings, way: str) -> Any:  # noqa: ANN401
    audio = settings.get("audio")
    half = audio.get(way) if isinstance(audio, dict) else None
    return half.get("format") if isinstance(half, dict) else None


def _for_service(settings: Settings) -> Settings:
    # Which model it is, is not the client's choice, but that of whoever pays; an offer names an agent of ours by it, perhaps.
    settings = {key: value for key, value in settings.items() if key != "model"}
    return _with_formats(settings, dict.fromkeys(_WAYS, OURS))


def _with_formats(settings: Settings, formats: Settings) -> Settings:
    """The same with other formats where it has any; nothing inside is changed in place."""
    for way, wanted in formats.items():
        if _format(settings, way) is not None:
            audio = settings["audio"]
            settings = {**settings, "audio": {**audio, way: {**audio[way], "format": wanted}}}
    return settings


def _merge(old: Settings, new: Settings) -> Settings:
    """What the two ask together. Something of another type (server_vad, semantic_vad) replaces what was there."""
    merged = dict(old)
    for key, value in new.items():
        before = merged.get(key)
        if isinstance(before, dict) and isinstance(value, dict) and before.get("type") in (value.get("type"), None):
            merged[key] = _merge(before, value)
        else:
            merged[key] = value
    return merged
