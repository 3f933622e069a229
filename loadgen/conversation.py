"""One caller's conversation, without a clock or a network: frames and events come and go, times are arguments.

1. When the channel is open and `session.created` has come, the session is told our functions. Then the caller thinks, and
   speaks when nobody else does.
2. A turn begins with the first frame of a sentence. Its answer is timed from the last voiced frame that left: see `turns`.
3. It is completed when all its responses are done and were heard to the end; functions that they call are answered, and the
   response to that belongs to the turn. Whatever else happens is the reason of its failure.
4. In every Nth turn the caller speaks the next sentence over the answer. That is honoured if no more of it comes after
   HONOURED_WITHIN, and an event says that its buffer was cleared.

Where sound begins is told by the frames themselves (`sound.py`), looked at only until the answer has begun.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from loadgen.realtime import Body, Event, House, read_event_untrusted, reason_of, response_create, session_update
from loadgen.script import Habits, Script
from loadgen.sound import is_sound_untrusted
from loadgen.tables import (
    Answered,
    Caller,
    Does,
    HungUp,
    Interrupted,
    Said,
    SessionReady,
    SoundCame,
    TurnFailed,
    new_caller,
)
from loadgen.turns import STILL_SOUNDS, Interruption, Response, Turn, TurnFigures, Verdict, count_word

__all__ = ["Conversation"]

# Implementation constants, seconds
INTERRUPT_AFTER = 0.5  # of the answer
BUSY = 0.1  # until it is looked again whether the agent still speaks

MAX_OPEN = 32  # responses that are not over; the oldest are forgotten
MAX_WAITING = 64  # messages to be sent; more fail the turn
MAX_CALLS = 16  # functions called by one response


class Conversation:
    """`number`: of the call; it decides with which sentence the caller begins."""

    def __init__(self, number: int, script: Script, figures: TurnFigures, habits: Habits) -> None:
        self.messages: list[str] = []
        """To be sent, in order."""
        self.due = math.inf
        """When `handle_timeout` has something to do; 0 while messages wait."""
        self.asked = self.completed = self.failed = 0
        self._script = script
        self._figures = figures
        self._habits = habits
        self._number = number
        self._house = House()
        self._machine = new_caller()
        self._timeout_at = math.inf  # of the present state
        self._codec, self._silence = "", b""
        self._frames: tuple[bytes, ...] = ()  # of the sentence that is being said, its silence behind included
        self._place = 0
        self._turn: Turn | None = None
        self._responses: dict[str, Response] = {}
        self._interruption: Interruption | None = None
        self._interrupt_at = math.inf
        self._last_frame_at = self._others_at = -math.inf  # of any answer; of one that is not to the present turn
        self._listens = False  # for the first sound of an answer
        self._configured = False
        self._no_more = False

    @property
    def is_ready(self) -> bool:
        return self._machine.state(Caller) is not Caller.WAITING

    @property
    def is_over(self) -> bool:
        return self._machine.state(Caller) is Caller.FINISHED and self._interruption is None

    def counts(self) -> dict[str, int]:
        return {"asked": self.asked, "completed": self.completed, "failed": self.failed}

    # What the call says of itself

    def use_codec(self, name: str) -> None:
        self._codec, self._silence = name, self._script.silence[name]

    def finish(self, now: float) -> None:
        """Begin no further turn; the present one may come to its end."""
        self._no_more = True
        self._interrupt_at = math.inf
        if self._turn is None:
            self._fire(HungUp(), now)
        self._set_due()

    def hang_up(self, now: float) -> None:
        """At once: a turn that is not over has failed."""
        if self._interruption is not None:
            self._judge(self._interruption, now, at_last=True)
        self._fire(HungUp(), now, "call_ended")
        self._set_due()

    # Frames of ours

    def frame(self) -> bytes:
        """The next one; the same until `frame_left`."""
        return self._frames[self._place] if self._place < len(self._frames) else self._silence

    def frame_left(self, now: float) -> None:
        place = self._place
        if place >= len(self._frames):
            return
        self._place = place + 1
        turn, interruption = self._turn, self._interruption
        if turn is None or self._machine.state(Caller) is not Caller.SPEAKING:
            return
        if place == turn.sentence.begins and interruption is not None and interruption.began_at == math.inf:
            interruption.began_at = now
            self._set_due()
        if place == turn.sentence.ends:
            turn.ended_at = now
            self._listens = True
            self._fire(Said(), now)
            self._set_due()

    # What the agent says

    def hear_untrusted(self, payload: bytes, now: float) -> None:
        self._last_frame_at = now
        if self._listens:
            self._listen(payload, now)

    def _listen(self, payload: bytes, now: float) -> None:
        turn = self._turn
        others_sound = turn is None or any(one.sounds and one.turn != turn.number for one in self._responses.values())
        if turn is None or others_sound or now - self._others_at < STILL_SOUNDS:
            self._others_at = now
            return
        if math.isnan(turn.frame_at):
            turn.frame_at = now
        if is_sound_untrusted(self._codec, payload):
            turn.sound_at = now
            self._listens = False
            every = self._habits.interrupt_every
            if every and turn.number % every == 0 and not self._no_more:
                self._interrupt_at = now + INTERRUPT_AFTER
            self._fire(SoundCame(), now)
            self._settle(now)
            self._set_due()

    def receive_untrusted(self, message: str | bytes, now: float) -> None:
        event = read_event_untrusted(message)
        if event is None:
            self._figures.unread += 1
            return
        handler = _HANDLERS.get(event.type)
        if handler is not None:
            handler(self, event, now)
            self._set_due()

    def _session_created(self, event: Event, now: float) -> None:
        if not self._configured:
            self._configured = True
            self._send(session_update(), now)

    def _session_updated(self, event: Event, now: float) -> None:
        self._fire(SessionReady(), now)

    def _speech_stopped(self, event: Event, now: float) -> None:
        turn = self._turn
        if turn is not None:
            turn.was_heard = True
            if self._machine.state(Caller) is Caller.LISTENING and math.isnan(turn.created_at):
                turn.stopped_at = now

    def _transcribed(self, event: Event, now: float) -> None:
        words = (event.transcript or "").strip()
        count_word(self._figures.heard, words)
        if self._turn is not None:
            self._turn.no_words = not words

    def _response_created(self, event: Event, now: float) -> None:
        if event.response is None:
            return
        turn = self._turn
        if turn is None or not turn.was_heard:  # a greeting, a timer: no answer to what has not been heard yet
            turn = None
            self._figures.unasked += 1
        elif self._machine.state(Caller) is Caller.SPEAKING:
            turn.answered_early = True
        else:
            turn.expected = max(0, turn.expected - 1)
            if math.isnan(turn.created_at):
                turn.created_at = now
            if self._interruption is not None:  # what comes from now on is another answer
                self._judge(self._interruption, now, at_last=True)
        while len(self._responses) >= MAX_OPEN:
            del self._responses[next(iter(self._responses))]
        self._responses[event.response.id] = Response(turn.number if turn is not None else 0, now)

    def _response_done(self, event: Event, now: float) -> None:
        body = event.response
        response = self._responses.get(body.id) if body is not None else None
        if body is None or response is None:
            return
        response.is_done = True
        if self._is_of_turn(response):
            self._judge_response(body, now)
        self._close(now)

    def _judge_response(self, body: Body, now: float) -> None:
        turn = self._turn
        assert turn is not None
        if body.status != "completed":
            error = body.status_details.error if body.status_details is not None else None
            self._fail(reason_of(error, {"cancelled": "cut"}.get(body.status, f"response_{body.status[:20]}")), now)
            return
        calls = [item for item in body.output if item.type == "function_call"][:MAX_CALLS]
        for call in calls:
            self._send(self._house.run_untrusted(call).event(), now)
        if calls:
            self._send(response_create(), now)
            self._figures.functions += len(calls)
            turn.expected += 1
            if self._machine.state(Caller) is Caller.LISTENING:
                self._timeout_at = now + self._habits.patience

    def _buffer_started(self, event: Event, now: float) -> None:
        if (response := self._responses.get(event.response_id or "")) is not None:
            response.sounds = True

    def _buffer_stopped(self, event: Event, now: float) -> None:
        if (response := self._responses.get(event.response_id or "")) is None:
            return
        response.sounds = False
        interruption = self._interruption_of(response)
        if interruption is not None:
            interruption.is_over = True
            self._judge(interruption, now)
        self._close(now)

    def _buffer_cleared(self, event: Event, now: float) -> None:
        if (response := self._responses.get(event.response_id or "")) is None:
            return
        response.sounds, response.is_done = False, True
        interruption = self._interruption_of(response)
        if interruption is not None:
            interruption.cleared_at = min(interruption.cleared_at, now)
            self._judge(interruption, now)
        elif self._is_of_turn(response):
            self._fail("cut", now)
        self._close(now)

    def _interruption_of(self, response: Response) -> Interruption | None:
        interruption = self._interruption
        return interruption if interruption is not None and interruption.turn == response.turn else None

    def _error(self, event: Event, now: float) -> None:
        self._fail("error_" + reason_of(event.error, "unknown"), now)

    def _is_of_turn(self, response: Response) -> bool:
        """Of the present turn, and no answer to half of its sentence."""
        turn = self._turn
        return turn is not None and response.turn == turn.number and response.created_at >= turn.ended_at

    # Time

    def handle_timeout(self, now: float) -> None:
        interruption = self._interruption
        if interruption is not None and now >= interruption.due:
            self._judge(interruption, now, at_last=not math.isnan(interruption.silent_from))
        if now >= self._interrupt_at:
            self._interrupt_at = math.inf
            turn = self._turn
            if turn is not None and not turn.expected and self._machine.state(Caller) is Caller.HEARING:
                self._fire(Interrupted(), now)
        if now >= self._timeout_at:
            self._run_out(now)
        self._set_due()

    def _run_out(self, now: float) -> None:
        ((state, deadline),) = self._machine.deadlines()
        if state is Caller.THINKING and any(not one.is_done or one.sounds for one in self._responses.values()):
            self._timeout_at = now + BUSY  # a caller lets others finish; what never ends is forgotten
            for name, one in list(self._responses.items()):
                if now - one.created_at > self._habits.answer:
                    del self._responses[name]
            return
        self._fire(deadline.event(), now, self._turn.missing() if self._turn is not None else "")

    # Turns

    def _close(self, now: float) -> None:
        """After a response may have come to its end."""
        over = [name for name, one in self._responses.items() if one.is_done and not one.sounds]
        for name in over:
            del self._responses[name]
        self._settle(now)

    def _settle(self, now: float) -> None:
        """If the turn has been answered, and that was all."""
        turn = self._turn
        if turn is None or turn.expected or any(one.turn == turn.number for one in self._responses.values()):
            return
        is_heard = self._machine.state(Caller) is Caller.HEARING
        if not math.isnan(turn.created_at):
            if is_heard:
                self._fire(Answered(), now)
            else:
                self._fail(turn.missing(), now)
        elif is_heard and turn.answered_early:
            self._fail("answered_early", now)

    def _fail(self, reason: str, now: float) -> None:
        self._fire(TurnFailed(), now, reason)

    def _fire(self, event: object, now: float, reason: str = "") -> None:
        before = self._machine.state(Caller)
        effects = self._machine.fire(event)
        if self._machine.state(Caller) is not before:
            deadlines = self._machine.deadlines()
            self._timeout_at = now + getattr(self._habits, deadlines[0][1].timeout) if deadlines else math.inf
        for effect in effects:
            self._carry_out(effect, now, reason)
        if self._no_more and self._machine.state(Caller) is Caller.THINKING:
            self._fire(HungUp(), now)

    def _carry_out(self, effect: object, now: float, reason: str) -> None:
        turn = self._turn
        match effect:
            case Does.ASK:
                self._begin_turn()
            case Does.COMPLETE if turn is not None:
                self._figures.completed += 1
                self.completed += 1
                self._end_turn(turn)
            case Does.CUT if turn is not None:
                if self._interruption is not None:
                    self._judge(self._interruption, now, at_last=True)
                self._interruption = Interruption(turn.number)
                self._end_turn(turn)
            case Does.FAIL:
                self._count_failure(reason)
                self._frames = self._frames[: self._place]  # nobody speaks on who is not understood
                self._turn, self._listens, self._interrupt_at = None, False, math.inf

    def _begin_turn(self) -> None:
        sentences = self._script.sentences
        sentence = sentences[(self._number + self.asked) % len(sentences)]
        self.asked += 1
        self._figures.asked += 1
        self._turn = Turn(self.asked, sentence)
        self._frames, self._place = sentence.frames[self._codec], 0

    def _end_turn(self, turn: Turn) -> None:
        turn.measure(self._figures)
        self._turn, self._listens, self._interrupt_at = None, False, math.inf

    def _judge(self, interruption: Interruption, now: float, *, at_last: bool = False) -> None:
        verdict = interruption.judge(self._last_frame_at, now, at_last=at_last)
        if verdict is Verdict.OPEN:
            return
        self._interruption = None
        if interruption.measure(self._figures, verdict):
            self.completed += 1
        else:
            self._count_failure(verdict.name.lower())

    def _count_failure(self, reason: str) -> None:
        self.failed += 1
        count_word(self._figures.failed, reason)

    def _send(self, message: str, now: float) -> None:
        if len(self.messages) < MAX_WAITING:
            self.messages.append(message)
        else:
            self._fail("events_unsent", now)

    def _set_due(self) -> None:
        interruption = self._interruption
        judged_at = interruption.due if interruption is not None else math.inf
        self.due = 0.0 if self.messages else min(self._timeout_at, self._interrupt_at, judged_at)


_HANDLERS: dict[str, Callable[[Conversation, Event, float], None]] = {
    "session.created": Conversation._session_created,
    "session.updated": Conversation._session_updated,
    "input_audio_buffer.speech_stopped": Conversation._speech_stopped,
    "conversation.item.input_audio_transcription.completed": Conversation._transcribed,
    "conversation.item.input_audio_transcription.failed": Conversation._transcribed,
    "response.created": Conversation._response_created,
    "response.done": Conversation._response_done,
    "output_audio_buffer.started": Conversation._buffer_started,
    "output_audio_buffer.stopped": Conversation._buffer_stopped,
    "output_audio_buffer.cleared": Conversation._buffer_cleared,
    "error": Conversation._error,
}
