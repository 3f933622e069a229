"""One session of the Realtime API, without I/O: events of clients and what audio, models and players tell go in; events to
clients and orders to those come out of `poll`.

1. `start` tells `session.created`. What clients send is looked at one event at a time: what cannot be is answered with an
   `error` to whoever sent it, and the session goes on. Turns are looked for once the client has had the time to say how.
2. A turn of the caller begins (`Listen`) and ends when the detector says so, or by `input_audio_buffer.commit`; with
   `semantic_vad`, when a pause is longer than what was said so far suggests. It becomes an item, then, if the session wants
   that, words (`Transcribe`) and a response (`Generate`).
3. One response at a time belongs to the conversation; those out of band run beside it. A model is told to stop by
   `StopModel`; what it says afterwards is passed over.
4. When the caller speaks over a response, or a client says so, its sound is cut (`CutAudio`); whoever plays says by
   `was_cut` how much was heard, and the message keeps the words that were.
5. Where the client plays by itself (`plays=False`: no WebRTC), audio comes and goes in events; nothing is told of what was
   played, and what was not heard is the client's to truncate.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import msgspec

from agent.realtime import client_events as client
from agent.realtime import server_events as server
from agent.realtime.client_events import ClientEvent, ResponseSettings, decode_client_event_untrusted
from agent.realtime.conversation import Conversation
from agent.realtime.ids import new_id
from agent.realtime.items import FunctionCallOutput, InputAudio, Message
from agent.realtime.orders import (
    CutAudio,
    DetectTurns,
    Forget,
    Generate,
    Hear,
    Listen,
    Order,
    SendEvent,
    StopModel,
    Transcribe,
)
from agent.realtime.pauses import SHORTEST_PAUSE_MS, allowed_pause_ms, firm_words
from agent.realtime.response import Limit, Plan, Response
from agent.realtime.server_events import ServerEvent, Usage
from agent.realtime.tables import (
    Cancelled,
    Cleared,
    Completed,
    Effect,
    Failed,
    Incomplete,
    Opening,
    Playback,
    PlayedOut,
    Settled,
    SpeechBegan,
    SpeechEnded,
    SpeechPaused,
    Turn,
    TurnDropped,
    new_session_machine,
)
from protocol.realtime.errors import ApiError, Code
from protocol.realtime.settings import KEPT_SECONDS, SemanticVad, ServerVad, Settings, TurnDetection, update_settings
from protocol.wire import Entropy

__all__ = ["RealtimeSession"]

# Implementation constants
MAX_OUT_OF_BAND = 4  # responses at one time
MIN_COMMIT_MS = 100.0
MAX_TOLD_BYTES = 256 * 1024  # of an event, as of a message on a data channel
LOOK_BACK_MS = 1000.0  # when turns are to be found another way: for speech that has just begun


class RealtimeSession:
    def __init__(
        self, *, entropy: Entropy, settings: Settings | None = None, expires_at: int = 0, plays: bool = True
    ) -> None:
        """`expires_at`: seconds since 1970, as clients are told. `plays`: whether our line plays, and not the client."""
        self.settings = settings or Settings()
        self.conversation = Conversation()
        self._entropy = entropy
        self._expires_at = expires_at
        self._plays = plays
        self._plays_until = -math.inf  # a client that plays by itself, if it began at once
        self.id = new_id("sess", entropy)
        self._conversation_id = new_id("conv", entropy)
        self._outputs: list[Order] = []
        self._machine = new_session_machine()
        self._settle_at = math.inf
        self._turn_item = ""  # the item that the present turn will be
        self._turn_from = 0.0
        self._pause_from = 0.0  # when the present pause began, as `_caller_time` counts
        self._pause_until = math.inf
        self._guesses: dict[str, tuple[str, str]] = {}  # turn that has no transcript yet → its words so far, those told
        self._heard_ms = 0.0  # of the caller's audio, in all
        self._buffer_from = 0.0  # what came before it has been committed, or cleared
        self._active: Response | None = None  # of the conversation, while a model is at work on it
        self._responses: dict[str, Response] = {}  # those at work, or heard
        self._wants_response = False  # when the active one has ended
        self._speaks_up = False  # when nobody speaks
        self._greeting = ""  # the response that is one
        self._has_responded = False
        self._has_spoken = False
        self._idle_at = math.inf

    def start(self, settle_by: float = 0.0, refusal: ApiError | None = None) -> None:
        """`settle_by`: by then turns are looked for, from the beginning of the audio, also if the client has sent nothing.
        `refusal`: what was wrong with the settings that the client asked for with its offer."""
        self._tell(server.SessionCreated(session=self._session()))
        self._tell(server.ConversationCreated(conversation=server.Conversation(self._conversation_id)))
        if refusal is not None:
            self._tell(server.ErrorEvent.of(refusal, None))
        if settle_by > 0:
            self._settle_at = settle_by
        else:
            self._settle()

    def settle_by(self, moment: float) -> None:
        """Another moment than `start` was told, if the session is not settled yet."""
        if self._machine.state(Opening) is Opening.UNSETTLED:
            self._settle_at = moment

    def _settle(self) -> None:
        self._settle_at = math.inf
        for effect in self._machine.fire(Settled()):
            assert effect is Effect.DETECT
            self._outputs.append(DetectTurns(self.settings.audio.input.turn_detection, self._buffer_from))

    def greet(self, client_number: int) -> None:
        """A client that comes when the session is under way: it is told what the session is now."""
        self._tell(server.SessionCreated(session=self._session()), client_number)

    def poll(self) -> list[Order]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def next_timeout(self) -> float:
        return min(self._idle_at, self._pause_until if self._plays else math.inf, self._settle_at)

    def handle_timeout(self, now: float) -> None:
        if now >= self._settle_at:
            self._settle()
        if self._caller_time(now) >= self._pause_until:
            self._end_turn(self._heard_ms, now)
        if now >= self._idle_at:
            self._end_silence(now)

    def _end_silence(self, now: float) -> None:
        """The caller has been silent for as long as `idle_timeout_ms` says: the model is to speak again."""
        self._idle_at = math.inf
        item_id = self._new_item_id()
        start, end = self._buffer_from, self._heard_ms
        self._tell(server.TimeoutTriggered(audio_start_ms=round(start), audio_end_ms=round(end), item_id=item_id))
        self._commit(item_id, start, end)
        self._respond_when_free(now)

    # What clients send

    def receive_untrusted(self, data: str | bytes, now: float, *, client_number: int = 0) -> None:
        """Never raises for what is in it."""
        for _ in self.receive_in_steps_untrusted(data, now, client_number=client_number):
            pass

    def receive_in_steps_untrusted(self, data: str | bytes, now: float, *, client_number: int = 0) -> Iterator[None]:
        """The same, with pauses in which others may do something: an event may hold minutes of audio."""
        try:
            event = decode_client_event_untrusted(data, carries_audio=not self._plays)
            if isinstance(event, client.InputAppend) and not self._plays:
                audio = []
                for piece in event.decode():
                    audio.append(Hear(piece))
                    yield
                self._outputs += audio
            else:
                self.handle(event, now)
        except (ApiError, RecursionError) as failure:
            too_deep = ApiError(Code.INVALID_VALUE, "The event is nested too deeply.")
            error = failure if isinstance(failure, ApiError) else too_deep
            self._tell(server.ErrorEvent.of(error, client.event_id_of_untrusted(data)), client_number)

    def handle(self, event: ClientEvent, now: float) -> None:
        """Raises ApiError."""
        self._carry_out_event(event, now)
        if not isinstance(event, client.InputAppend):
            self._settle()
            self._speak_up_when_free(now)  # the turn it waited for may have been dropped

    def _carry_out_event(self, event: ClientEvent, now: float) -> None:
        match event:
            case client.SessionUpdate():
                self._update(event)
            case client.InputAppend():
                if not self._plays:  # else audio is media
                    self._outputs += map(Hear, list(event.decode()))
            case client.InputCommit():
                self._commit_by_hand()
            case client.InputClear():
                self._drop_turn()
                self._buffer_from = self._heard_ms
                self._tell(server.InputCleared())
            case client.ItemCreate():
                self._create_item(event)
            case client.ItemRetrieve():
                self._tell(server.ItemRetrieved(item=self.conversation.get(event.item_id)))
            case client.ItemTruncate():
                if self.conversation.get(event.item_id).status == "in_progress":
                    raise ApiError(
                        Code.INVALID_VALUE, "The item is still being spoken: cancel its response.", "item_id"
                    )
                self._truncate(event.item_id, event.content_index, event.audio_end_ms)
            case client.ItemDelete():
                self.conversation.delete(event.item_id)
                self._tell(server.ItemDeleted(item_id=event.item_id))
            case client.ResponseCreate():
                self._create_response(event.response or ResponseSettings(), now)
            case client.ResponseCancel():
                self._cancel_by_client(event.response_id, now)
            case client.OutputClear() if not self._plays:
                raise ApiError(
                    Code.UNSUPPORTED, "There is no output audio buffer here: the client plays by itself.", "type"
                )
            case client.OutputClear():
                for response in list(self._responses.values()):
                    self._carry_out(response, response.machine.fire(Cleared()), now)

    def _update(self, event: client.SessionUpdate) -> None:
        before = self.settings.audio.input.turn_detection
        self.settings = update_settings(self.settings, event.session, voice_is_fixed=self._has_spoken)
        detection = self.settings.audio.input.turn_detection
        if detection != before:
            self._idle_at = math.inf
            if detection is None:
                self._drop_turn()  # else it goes on: clients configure a session while the caller speaks already
            elif self._machine.state(Turn) is Turn.PAUSING:
                self._judge_pause(detection)
            if self._machine.state(Opening) is Opening.SETTLED:
                since = max(self._buffer_from, self._heard_ms - LOOK_BACK_MS)
                self._outputs.append(DetectTurns(detection, since, self._machine.state(Turn) is Turn.SPEAKING))
        self._tell(server.SessionUpdated(session=self._session()))

    def _create_item(self, event: client.ItemCreate) -> None:
        item = msgspec.structs.replace(event.item, status="completed", id=event.item.id or self._new_item_id())
        if isinstance(item, FunctionCallOutput) and not self.conversation.has_call(item.call_id):
            message = f"Tool call ID '{item.call_id}' not found in conversation."
            raise ApiError(Code.NO_CALL, message, "item.call_id")
        if isinstance(item, Message):
            for part in item.content:
                if isinstance(part, InputAudio):
                    part.audio = msgspec.UNSET  # it is not told again
        previous = self.conversation.insert(item, event.previous_item_id)
        self._tell(server.ItemAdded(previous_item_id=previous, item=item))
        self._tell(server.ItemDone(previous_item_id=previous, item=item))

    def _truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        self.conversation.truncate(item_id, content_index, audio_end_ms)
        self._tell(server.ItemTruncated(item_id=item_id, content_index=content_index, audio_end_ms=audio_end_ms))

    def _cancel_by_client(self, response_id: str | None, now: float) -> None:
        response = self._active if response_id is None else self._responses.get(response_id)
        if response is None or not response.is_generating:
            raise ApiError(Code.NO_RESPONSE, "Cancellation failed: no active response found.", "response_id")
        self._carry_out(response, response.end(Cancelled(), reason="client_cancelled"), now)

    # The caller

    def heard(self, milliseconds: float) -> None:
        """So much more of the caller's audio has come: what turns, commits and transcripts are counted in."""
        self._heard_ms += milliseconds

    def speech_began(self, at_ms: float, now: float) -> None:
        """The caller began to speak at that moment of the audio."""
        detection = self.settings.audio.input.turn_detection
        if detection is None:
            return
        self._idle_at = math.inf
        for effect in self._machine.fire(SpeechBegan()):
            assert effect is Effect.TELL_STARTED
            padding = detection.prefix_padding_ms if isinstance(detection, ServerVad) else 300
            self._turn_from = max(self._buffer_from, at_ms - padding, 0.0)
            self._turn_item = self._new_item_id()
            self._tell(server.SpeechStarted(audio_start_ms=round(self._turn_from), item_id=self._turn_item))
            self._outputs.append(Listen(self._turn_item, self._turn_from))
            self._plays_until = now
            if detection.interrupt_response:
                self._interrupt(now)
        self._pause_until = math.inf

    def speech_ended(self, at_ms: float, now: float) -> None:
        """The caller is silent: for as long as `silence_duration_ms` says at that moment, which ends the turn, or for
        SHORTEST_PAUSE_MS, which may."""
        detection = self.settings.audio.input.turn_detection
        if not isinstance(detection, SemanticVad):
            self._end_turn(at_ms, now)
            return
        for effect in self._machine.fire(SpeechPaused()):
            assert effect is Effect.JUDGE_PAUSE
            self._pause_from = self._caller_time(now) - SHORTEST_PAUSE_MS / 1000
            self._judge_pause(detection)
        if self._caller_time(now) >= self._pause_until:
            self._end_turn(at_ms, now)

    def _caller_time(self, now: float) -> float:
        """Seconds, as pauses are measured: a client that sends audio in events sends it as fast or as slowly as it likes."""
        return now if self._plays else self._heard_ms / 1000

    def _judge_pause(self, detection: TurnDetection) -> None:
        """Until when the caller may pause."""
        if isinstance(detection, SemanticVad):
            words, _ = self._guesses.get(self._turn_item, (None, ""))
            self._pause_until = self._pause_from + allowed_pause_ms(detection.eagerness, words) / 1000

    def _end_turn(self, at_ms: float, now: float) -> None:
        """With the silence that ended it, it goes as far as that moment."""
        self._pause_until = math.inf
        detection = self.settings.audio.input.turn_detection
        if detection is None:
            return
        for effect in self._machine.fire(SpeechEnded()):
            assert effect is Effect.TELL_STOPPED
            self._tell(server.SpeechStopped(audio_end_ms=round(at_ms), item_id=self._turn_item))
            self._commit(self._turn_item, self._turn_from, at_ms)
            if detection.create_response:
                self._respond_when_free(now)
            else:
                self._speak_up_when_free(now)

    def _drop_turn(self) -> None:
        self._pause_until = math.inf
        for effect in self._machine.fire(TurnDropped()):
            assert effect is Effect.FORGET
            self._guesses.pop(self._turn_item, None)
            self._outputs.append(Forget(self._turn_item))
            # Whoever still speaks begins another turn: the detector would say nothing before the next pause.
            self._outputs.append(DetectTurns(self.settings.audio.input.turn_detection, self._heard_ms))

    def guessed(self, item_id: str, words: str, now: float) -> None:
        """What the caller seems to have said so far, in a turn that goes on, or one whose transcript is not there yet."""
        before, told = self._guesses.get(item_id, ("", ""))
        self._guesses[item_id] = words, told
        if item_id not in self.conversation:
            detection = self.settings.audio.input.turn_detection
            if self._machine.state(Turn) is Turn.PAUSING and detection is not None:
                self._judge_pause(detection)
                self.handle_timeout(now)
        elif (firm := firm_words(before, words)).startswith(told):
            self._tell_words(item_id, firm[len(told) :])
            self._guesses[item_id] = words, firm

    def _tell_words(self, item_id: str, words: str) -> None:
        if words and self.settings.audio.input.transcription is not None:
            self._tell(server.TranscriptionDelta(item_id=item_id, content_index=0, delta=words))

    def transcribed(self, item_id: str, transcript: str, seconds: float) -> None:
        """What was said in a turn; `seconds` of audio were listened to."""
        _, before = self._guesses.pop(item_id, ("", ""))
        if item_id not in self.conversation:
            return
        item = self.conversation.get(item_id)
        if isinstance(item, Message) and item.content and isinstance(item.content[0], InputAudio):
            item.content[0].transcript = transcript
            self.conversation.grown(item_id, transcript)
        if self.settings.audio.input.transcription is not None:
            if before and transcript.startswith(before):
                self._tell_words(item_id, transcript[len(before) :])
            usage = server.TranscriptionUsage(seconds)
            told = server.TranscriptionCompleted(item_id=item_id, content_index=0, transcript=transcript, usage=usage)
            self._tell(told)

    def transcription_failed(self, item_id: str, message: str) -> None:
        self._guesses.pop(item_id, None)
        if self.settings.audio.input.transcription is not None:
            error = server.TranscriptionError(type="server_error", code="transcription_failed", message=message)
            self._tell(server.TranscriptionFailed(item_id=item_id, content_index=0, error=error))

    def _commit_by_hand(self) -> None:
        waiting = self._heard_ms - self._buffer_from
        if waiting < MIN_COMMIT_MS:
            message = (
                f"Error committing input audio buffer: buffer too small. Expected at least {MIN_COMMIT_MS:.0f}ms of "
                f"audio, but buffer only has {waiting:.2f}ms of audio."
            )
            raise ApiError(Code.BUFFER_EMPTY, message)
        self._drop_turn()
        self._commit(self._new_item_id(), self._buffer_from, self._heard_ms)
        if waiting >= KEPT_SECONDS * 1000 + 1:
            message = (
                f"The input audio buffer had {waiting / 1000:.1f} s of audio: more than {KEPT_SECONDS} s are not kept, so the "
                f"last {KEPT_SECONDS} s were committed. Commit more often."
            )
            raise ApiError(Code.BUFFER_OVERRUN, message)

    def _commit(self, item_id: str, start: float, end: float) -> None:
        self._buffer_from = end
        item = Message(role="user", content=[InputAudio()], id=item_id)
        previous = self.conversation.last
        self._tell(server.InputCommitted(previous_item_id=previous, item_id=item_id))
        self.conversation.insert(item)
        self._tell(server.ItemAdded(previous_item_id=previous, item=item))
        self._tell(server.ItemDone(previous_item_id=previous, item=item))
        self._outputs.append(Transcribe(item_id, start, end))

    def _interrupt(self, now: float) -> None:
        self._wants_response = False
        for response in list(self._responses.values()):
            if response is self._active or response.has_sound:  # what is out of band and silent disturbs nobody
                self._carry_out(response, response.end(Cancelled(), reason="turn_detected"), now)
                self._carry_out(response, response.machine.fire(Cleared()), now)

    # Responses

    def speak_first(self, now: float) -> None:
        """The model speaks first, unless somebody has begun already."""
        began = any(isinstance(item, Message) and item.role != "system" for item in self.conversation)
        if not (self._has_responded or began or self._machine.state(Turn) is not Turn.QUIET):
            self._create_response(ResponseSettings(), now)
            self._greeting = self._active.id if self._active is not None else ""

    def speak_up(self, now: float) -> None:
        """The model has something to say, as soon as nobody speaks."""
        self._speaks_up = True
        self._speak_up_when_free(now)

    def _speak_up_when_free(self, now: float) -> None:
        if self._speaks_up and self._active is None and self._machine.state(Turn) is Turn.QUIET:
            self._create_response(ResponseSettings(), now)

    def _respond_when_free(self, now: float) -> None:
        if self._active is None:
            self._create_response(ResponseSettings(), now)
        else:
            self._wants_response = True

    def _create_response(self, change: ResponseSettings, now: float) -> None:
        in_band = change.conversation == "auto"
        # A client that asks for a response while the model greets has something better.
        greets = in_band and self._active is not None and self._active.id == self._greeting
        if in_band and self._active is not None and not greets:
            message = (
                f"Conversation already has an active response in progress: {self._active.id}. "
                "Wait until the response is finished before creating a new one."
            )
            raise ApiError(Code.RESPONSE_ACTIVE, message)
        aside = sum(other.is_generating and other is not self._active for other in self._responses.values())
        if not in_band and aside >= MAX_OUT_OF_BAND:
            message = f"No more than {MAX_OUT_OF_BAND} responses out of band are made at a time."
            raise ApiError(Code.TOO_MANY, message, "response.conversation")
        plan = Plan.of(new_id("resp", self._entropy), self.settings, change, self.conversation.select(change.input))
        if self._has_spoken and plan.voice != self.settings.audio.output.voice:
            message = "Cannot update the voice of a session that has already produced audio."
            raise ApiError(Code.VOICE_FIXED, message, "response.audio.output.voice")
        if greets and self._active is not None:
            self._wants_response = self._speaks_up = False  # it is what this response does
            self._carry_out(self._active, self._active.end(Cancelled(), reason="client_cancelled"), now)
        self._idle_at = math.inf
        response = Response(
            plan,
            self.conversation if in_band else Conversation(),
            self._conversation_id if in_band else None,
            self._tell,
            self._new_item_id,
        )
        self._tell(server.RateLimitsUpdated(rate_limits=[]))
        self._responses[response.id] = response
        if in_band:
            self._active = response
            self._wants_response = self._speaks_up = False
            self._has_responded = True
        self._outputs.append(Generate(plan))

    # What models say. Of a response that has ended it comes too late, and is passed over.

    def say(self, response_id: str, text: str) -> None:
        if (response := self._responses.get(response_id)) is not None:
            response.say(text)

    def may_sound(self, response_id: str) -> bool:
        """Whether sound of it would be played."""
        response = self._responses.get(response_id)
        return response is not None and response.may_sound

    def sound(self, response_id: str, milliseconds: float, now: float, audio: bytes | None = None) -> bool:
        """So much sound of it is there. Whether it is to be played: not of a response that has ended, or was cut.
        `audio`: the sound itself, in the session's output format, for a client that plays."""
        response = self._responses.get(response_id)
        if response is None or not response.may_sound:
            return False
        if not self._has_spoken:
            self._has_spoken = True  # the voice it has now is the session's to its end
            self.settings = update_settings(self.settings, {"audio": {"output": {"voice": response.plan.voice}}})
        if not self._plays:
            self._plays_until = max(self._plays_until, now) + milliseconds / 1000
        self._carry_out(response, response.sound(milliseconds, audio), now)
        return True

    def call(self, response_id: str, name: str) -> str:
        """The model calls a function: the id of the call."""
        call_id = new_id("call", self._entropy)
        if (response := self._responses.get(response_id)) is not None:
            response.call(name, call_id)
        return call_id

    def argue(self, response_id: str, text: str) -> None:
        if (response := self._responses.get(response_id)) is not None:
            response.argue(text)

    def completed(self, response_id: str, now: float, usage: Usage | None = None) -> None:
        if (response := self._responses.get(response_id)) is not None:
            self._carry_out(response, response.end(Completed(), usage=usage), now)

    def cut_short(
        self, response_id: str, now: float, usage: Usage | None = None, reason: Limit = "max_output_tokens"
    ) -> None:
        """The model reached a limit of its output."""
        if (response := self._responses.get(response_id)) is not None:
            self._carry_out(response, response.end(Incomplete(), reason=reason, usage=usage), now)

    def failed(self, response_id: str, message: str, now: float) -> None:
        """The model could not."""
        if (response := self._responses.get(response_id)) is None or not response.is_generating:
            return
        failure = ApiError(Code.MODEL_FAILED, message, kind="server_error")
        self._tell(server.ErrorEvent.of(failure, None))
        error = server.ResponseError(type=failure.kind, code=str(failure.code), message=message)
        self._carry_out(response, response.end(Failed(), error=error), now)

    # What players tell

    def played_out(self, response_id: str, now: float) -> None:
        """All sound of it that was handed over has been played."""
        if (response := self._responses.get(response_id)) is not None:
            self._carry_out(response, response.machine.fire(PlayedOut()), now)

    def was_cut(self, response_id: str, heard_ms: float, now: float) -> None:
        """After CutAudio: so much of the sound of this response had been played."""
        response = self._responses.get(response_id)
        if response is None or not response.awaits_cut:
            return
        response.awaits_cut = False
        for item_id, began in response.spoken.items():
            spoken = self.conversation.spoken_ms(item_id)
            heard = max(0.0, heard_ms - began)
            if item_id in self.conversation and heard < spoken:
                with contextlib.suppress(ApiError):  # the client has put something else in its place
                    self._truncate(item_id, 0, int(heard))
        self._tell(server.OutputCleared(response_id=response_id))
        self._await_caller(now)
        self._carry_out(response, (), now)

    def _carry_out(self, response: Response, effects: tuple[object, ...], now: float) -> None:
        for effect in effects:
            match effect:
                case Effect.STOP_MODEL:
                    self._outputs.append(StopModel(response.id))
                case Effect.TELL_AUDIO_STARTED if self._plays:
                    self._tell(server.OutputStarted(response_id=response.id))
                case Effect.TELL_AUDIO_STOPPED:
                    if self._plays:
                        self._tell(server.OutputStopped(response_id=response.id))
                    self._await_caller(now)
                case Effect.CUT_AUDIO if not self._plays:
                    self._await_caller(now)
                case Effect.CUT_AUDIO:
                    response.awaits_cut = True
                    for other in list(self._responses.values()):  # what is played is one row: all of it goes
                        self._carry_out(other, other.machine.fire(Cleared()) if other is not response else (), now)
                    self._outputs.append(CutAudio(response.id))
                case Effect.FINISH:
                    self._finish(response, now)
        if not self._plays and response.machine.state(Playback) is Playback.DRAINING:
            self._carry_out(response, response.machine.fire(PlayedOut()), now)  # the rest is the client's
        if response.is_over:
            self._responses.pop(response.id, None)

    def _finish(self, response: Response, now: float) -> None:
        if response is not self._active:
            return
        self._active = None
        if not response.has_sound:
            self._await_caller(now)
        if self._wants_response:
            self._create_response(ResponseSettings(), now)
        self._speak_up_when_free(now)

    def _await_caller(self, now: float) -> None:
        detection = self.settings.audio.input.turn_detection
        timeout = detection.idle_timeout_ms if isinstance(detection, ServerVad) else None
        if timeout is not None and self._active is None and self._machine.state(Turn) is Turn.QUIET:
            self._idle_at = max(now, self._plays_until) + timeout / 1000

    # Names, and what is told

    def _session(self) -> dict[str, object]:
        told = msgspec.to_builtins(self.settings)
        return {"object": "realtime.session", "id": self.id, "expires_at": self._expires_at, **told}

    def _new_item_id(self) -> str:
        return new_id("item", self._entropy)

    def _tell(self, event: ServerEvent, client_number: int | None = None) -> None:
        event.event_id = new_id("event", self._entropy)
        data = msgspec.json.encode(event)  # as it is now: items change
        if len(data) > MAX_TOLD_BYTES and isinstance(event, server.ResponseDone):  # clients wait for it
            event.response = msgspec.structs.replace(event.response, output=[])
            data = msgspec.json.encode(event)
        if len(data) > MAX_TOLD_BYTES:
            kind = type(event).__struct_config__.tag
            message = f"The event '{kind}' has {len(data)} bytes, more than can be sent."
            event = server.ErrorEvent.of(ApiError(Code.TOO_LARGE, message, kind="server_error"), None)
            event.event_id = new_id("event", self._entropy)
            data = msgspec.json.encode(event)
        self._outputs.append(SendEvent(data.decode(), client_number))
