"""The service's responses as far as they are heard: their sound waits, is played, is heard to its end or cut.

The player takes pieces, tells of each frame where on the caller's timeline it lies, and of each piece that it was sent. It gets
none while a cut is under way: nothing new is played before the old is gone.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from agent.upstream.events import ServiceEvent, number, word
from agent.upstream.sound import Backlog, Piece, Sound, Timeline
from agent.upstream.tables import AllSent, Cleared, Effect, Playback, PlayedOut, Sounded, new_playback_machine
from protocol.errors import DecodeError
from protocol.fsm import Machine

__all__ = ["Cut", "Playing"]

# Implementation constants
MAX_ANSWERS = 64  # responses that are not over, or not heard to their end; of more no sound is played
MAX_SOUNDS = 64  # content parts with sound, of one response
MAX_FINISHED = 64  # responses that are remembered so that what comes late of them is known as such
MAX_CREATED = 64 * 1024  # bytes of a `response.created` that is kept

_LIVE = (Playback.QUEUED, Playback.PLAYING, Playback.DRAINING)
_ENDED = (Playback.HEARD, Playback.CUT)
_KINDS = {
    Effect.TELL_STARTED: "output_audio_buffer.started",
    Effect.TELL_STOPPED: "output_audio_buffer.stopped",
    Effect.TELL_CLEARED: "output_audio_buffer.cleared",
}


class _Answer:
    """A response."""

    __slots__ = ("created", "id", "is_over", "machine", "sounds", "waiting")

    def __init__(self, response_id: str) -> None:
        self.id = response_id
        self.created = b""
        """What `response.created` said of it."""
        self.is_over = False
        self.machine: Machine | None = None  # once it has sound
        self.sounds: dict[tuple[str, int], Sound] = {}
        self.waiting = 0  # pieces of it

    @property
    def playback(self) -> Playback | None:
        return self.machine.state(Playback) if self.machine is not None else None


@dataclass(frozen=True, slots=True)
class Cut:
    """What is to be silent, and of which responses the client shall hear that they are."""

    sounds: tuple[Sound, ...]
    told: tuple[str, ...]


class Playing:
    def __init__(self, max_bytes: int, tell: Callable[[str, str], None]) -> None:
        """`tell` the client an event of that type about that response."""
        self._tell = tell
        self._answers: dict[str, _Answer] = {}
        self._finished: deque[str] = deque(maxlen=MAX_FINISHED)
        self._backlog = Backlog(max_bytes)
        self._timeline = Timeline()
        self._cuts = 0  # under way

    # What the service says

    def begin_session(self) -> None:
        """Its responses may have names that those of an earlier one had."""
        self._finished.clear()

    @property
    def is_full(self) -> bool:
        """So much waits that the service shall wait, too."""
        return self._backlog.is_full

    def created(self, response_id: str, response: bytes) -> None:
        answer = self._find(response_id)
        if answer is not None and len(response) <= MAX_CREATED:
            answer.created = response

    def put_sound_untrusted(self, event: ServiceEvent, session: int) -> None:
        """A piece of sound. Raises DecodeError."""
        response_id, item_id, index = word(event.response_id), word(event.item_id), number(event.content_index or 0)
        if response_id is None or item_id is None or index is None or not isinstance(event.delta, str):
            raise DecodeError("bad_audio")
        answer = self._find(response_id)
        if answer is None or answer.is_over or answer.playback is Playback.CUT:
            raise DecodeError("late_audio")
        try:
            pcm = a2b_base64(event.delta, strict_mode=True)
        except (Base64Error, ValueError):
            raise DecodeError("bad_audio") from None
        if not pcm:
            return
        sound = answer.sounds.get((item_id, index))
        if sound is None:
            if len(answer.sounds) >= MAX_SOUNDS:
                raise DecodeError("too_many_sounds")
            sound = answer.sounds[item_id, index] = Sound(response_id, item_id, index, session)
        if answer.machine is None:
            answer.machine = new_playback_machine()
        sound.received_bytes += len(pcm)
        sound.is_whole = False
        answer.waiting += self._backlog.put(sound, pcm)

    def part_done(self, event: ServiceEvent) -> None:
        """All sound of a part is there."""
        answer = self._answers.get(word(event.response_id) or "")
        sound = (
            answer.sounds.get((word(event.item_id) or "", number(event.content_index or 0) or 0)) if answer else None
        )
        if answer is not None and sound is not None:
            self._end(answer, sound)

    def done(self, response_id: str) -> None:
        """The response is over; what is there of its sound is still to be heard."""
        answer = self._answers.get(response_id)
        if answer is None:
            self._finished.append(response_id)
            return
        answer.is_over = True
        for sound in answer.sounds.values():
            self._end(answer, sound)
        self._settle(answer)

    def under_way(self) -> list[tuple[str, bytes]]:
        """Responses that are not over, and what `response.created` said of each."""
        return [(answer.id, answer.created) for answer in self._answers.values() if not answer.is_over]

    # What the player does

    def __bool__(self) -> bool:
        """Is there something to take?"""
        return bool(self._backlog) and not self._cuts

    def take(self) -> Piece | None:
        return self._backlog.take() if not self._cuts else None

    def sounding(self, sound: Sound, at: float, milliseconds: float) -> bool:
        """A frame of it goes out, and will lie there on the timeline. False: it must not."""
        answer = self._answers.get(sound.response_id)
        if answer is None or answer.machine is None or answer.playback is Playback.CUT:
            return False
        self._carry_out(answer, answer.machine.fire(Sounded()))
        self._timeline.place(sound, at, milliseconds)
        return True

    def sent(self, piece: Piece) -> None:
        answer = self._answers.get(piece.sound.response_id)
        if answer is not None and answer.waiting:
            answer.waiting -= 1
            self._settle(answer)

    def play_to(self, position: float) -> None:
        """So much of the timeline has been played."""
        self._timeline.play_to(position)
        for answer in list(self._answers.values()):
            self._settle(answer)

    # Silence

    def cut(self) -> Cut | None:
        """Everything that is not played yet shall not be. None if there is nothing; else `was_cut` must follow."""
        sounds: list[Sound] = []
        told = []
        for answer in self._answers.values():
            if answer.machine is None or answer.playback not in _LIVE:
                continue
            if Effect.TELL_CLEARED in answer.machine.fire(Cleared()):
                told.append(answer.id)
            sounds += answer.sounds.values()
            answer.waiting = 0
        if not sounds:
            return None
        self._backlog.clear()
        self._cuts += 1
        return Cut(tuple(sounds), tuple(told))

    def was_cut(self, cut: Cut, position: float) -> list[Sound]:
        """The caller is silent, and has heard the timeline up to there: what was not heard to its end."""
        self._cuts -= 1
        self._timeline.cut(position)
        for response_id in cut.told:
            self._tell(_KINDS[Effect.TELL_CLEARED], response_id)
        for answer in list(self._answers.values()):
            self._settle(answer)
        return [sound for sound in cut.sounds if not sound.is_whole or sound.heard_ms < sound.received_ms - 1]

    def _find(self, response_id: str) -> _Answer | None:
        """None: it is over, or there are too many."""
        answer = self._answers.get(response_id)
        if answer is not None or response_id in self._finished:
            return answer
        if len(self._answers) >= MAX_ANSWERS:
            self._end_silent_one()
            if len(self._answers) >= MAX_ANSWERS:
                return None
        answer = self._answers[response_id] = _Answer(response_id)
        return answer

    def _end_silent_one(self) -> None:
        """A service that never says response.done must not use up all places."""
        for answer in self._answers.values():
            if not answer.waiting and not self._timeline.holds(answer.id):
                for sound in answer.sounds.values():
                    sound.is_whole = True
                self.done(answer.id)
                return

    def _end(self, answer: _Answer, sound: Sound) -> None:
        if not sound.is_whole:
            sound.is_whole = True
            if answer.playback in _LIVE:
                answer.waiting += self._backlog.put(sound, b"")

    def _settle(self, answer: _Answer) -> None:
        if not answer.is_over:
            return
        machine = answer.machine
        if machine is not None and not answer.waiting:
            self._carry_out(answer, machine.fire(AllSent()))
            if not self._timeline.holds(answer.id):
                self._carry_out(answer, machine.fire(PlayedOut()))
        if answer.playback is None or answer.playback in _ENDED:
            del self._answers[answer.id]
            self._finished.append(answer.id)

    def _carry_out(self, answer: _Answer, effects: tuple[object, ...]) -> None:
        for effect in effects:
            assert isinstance(effect, Effect)
            self._tell(_KINDS[effect], answer.id)
