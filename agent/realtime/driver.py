"""A call whose agent is a session of the Realtime API: brings the session, the call and the parts together.

One task takes what comes from the call and tells the session; what the session orders is carried out at once, or by a task
of its own: one for each response at work, each turn that is listened to, each cut. One task sends the events, in order.

A client that does not read its events loses its call, not the other way round: so many bytes of them wait.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import AsyncIterator

import trio

from agent.call import Call
from agent.codecs import Encoder
from agent.events import ChannelOpened, Digit, Event, Frame, Message, Played
from agent.realtime.errors import ApiError
from agent.realtime.listening import Listening
from agent.realtime.orders import CutAudio, DetectTurns, Generate, Order, SendEvent, StopModel, Transcribe
from agent.realtime.parts import Model, ModelFailed, Recognizer, Turn
from agent.realtime.response import Plan
from agent.realtime.session import RealtimeSession
from agent.realtime.settings import Settings, update_settings
from agent.voice import Turn as TurnOf
from protocol.wire import Entropy
from service.logs import get_logger

__all__ = ["converse"]

log = get_logger()

# Implementation constants
MAX_WAITING_BYTES = 4 * 1024 * 1024  # of events that the client does not read
EVENT_OVERHEAD = 256  # bytes that an event costs besides its text
MAX_MODELS = 8  # at work for one call, those included that are slow to stop
MAX_RECOGNITIONS = 4  # of one call at a time; what is said meanwhile has no words
NO_AUDIO_SECONDS = 0.6
MAX_EARLY_EVENTS = 256  # before a channel opens


async def converse(
    call: Call, model: Model, recognizer: Recognizer | None = None, *, entropy: Entropy = os.urandom
) -> None:
    """Until the call ends."""
    await _Driver(call, model, recognizer, entropy).run()


class _Driver:
    def __init__(self, call: Call, model: Model, recognizer: Recognizer | None, entropy: Entropy) -> None:
        self._call = call
        self._model = model
        self._recognizer = recognizer
        self._session = RealtimeSession(entropy=entropy, settings=_settings_of(call))
        self._listening = Listening(call.decoder()) if call.codec is not None else None
        self._events: deque[str] = deque()
        self._event_bytes = 0
        self._gives_up = False
        self._recognitions = 0  # under way
        self._event_waits = trio.Event()
        self._channel_open = trio.Event()
        self._models: dict[str, trio.CancelScope] = {}
        self._turn: Turn | None = None  # the last one
        self._sound: dict[
            str, tuple[float, float]
        ] = {}  # response → where its sound begins and ends, as `call.played` counts
        self._draining: set[str] = set()
        self._sending: set[trio.CancelScope] = set()  # of frames that wait for room
        self._cuts = 0  # under way
        self._cut_done = trio.Event()
        self._nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._send_events)
            self._session.start()
            self._carry_out()
            await self._follow_call()
            self._nursery.cancel_scope.cancel()

    # What comes from the call

    async def _follow_call(self) -> None:
        events = self._call.__aiter__()
        silent_since = trio.current_time()
        while True:
            event: Event | None = None
            deadline = min(silent_since + NO_AUDIO_SECONDS, self._session.next_timeout())
            with trio.move_on_at(max(deadline, trio.current_time())):
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
            now = trio.current_time()
            self._session.handle_timeout(now)
            if isinstance(event, Frame):
                silent_since = now
                self._hear(event, now)
            elif event is not None:
                self._handle(event, now)
            if now >= silent_since + NO_AUDIO_SECONDS:
                silent_since = float("inf")  # told once
                if self._listening is not None:
                    self._tell_turns(self._listening.silence(), now)
            self._carry_out()

    def _hear(self, frame: Frame, now: float) -> None:
        if self._listening is not None:
            milliseconds, turns = self._listening.hear(frame)
            self._session.heard(milliseconds)
            self._tell_turns(turns, now)

    def _tell_turns(self, turns: list[TurnOf], now: float) -> None:
        assert self._listening is not None
        for turn in turns:
            if turn is TurnOf.STARTED:
                self._session.speech_began(self._listening.began_at(), now)
            else:
                self._session.speech_ended(self._listening.heard_ms, now)

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case Message():
                self._session.receive_untrusted(event.data, now)
            case ChannelOpened():
                self._channel_open.set()
            case Played():
                self._note_played(now)
            case Digit():
                pass  # no event of the API over WebRTC
            case _:
                pass  # a channel closed, a drain: the call goes on

    def _note_played(self, now: float) -> None:
        played = self._call.played
        for response_id in list(self._draining):
            if played >= self._sound[response_id][1] - 1:  # it counts whole samples
                self._draining.discard(response_id)
                del self._sound[response_id]
                self._session.played_out(response_id, now)

    # What the session orders

    def _carry_out(self) -> None:
        while orders := self._session.poll():
            self._carry_out_these(orders)

    def _carry_out_these(self, orders: list[Order]) -> None:
        for output in orders:
            match output:
                case SendEvent():
                    self._queue_event(output.data)
                case Generate() if len(self._models) >= MAX_MODELS:
                    self._session.failed(output.plan.response_id, "too many models are at work", trio.current_time())
                case Generate():
                    # From here on: it may be told to stop before its task has run.
                    self._models[output.plan.response_id] = scope = trio.CancelScope()
                    self._nursery.start_soon(self._respond, output.plan, self._turn_of(output.plan), scope)
                case StopModel():
                    if (model := self._models.get(output.response_id)) is not None:
                        model.cancel()
                case CutAudio():
                    self._cuts += 1
                    for sending in self._sending:
                        sending.cancel()
                    self._draining.discard(output.response_id)
                    self._nursery.start_soon(self._cut, output.response_id, self._sound.pop(output.response_id, None))
                case Transcribe():
                    self._keep_turn(output)
                case DetectTurns():
                    if self._listening is not None:
                        self._listening.detect(output.how)

    def _queue_event(self, data: str) -> None:
        if not self._channel_open.is_set() and len(self._events) >= MAX_EARLY_EVENTS:
            return  # a client without a channel reads none
        if self._event_bytes > MAX_WAITING_BYTES:
            if not self._gives_up:
                self._gives_up = True
                log.warning("the client reads its events too slowly", call=self._call.id)
                self._nursery.start_soon(self._call.end, "events_unread")
            return
        self._events.append(data)
        self._event_bytes += len(data) + EVENT_OVERHEAD
        self._event_waits.set()

    async def _send_events(self) -> None:
        await self._channel_open.wait()
        while True:
            await self._event_waits.wait()
            self._event_waits = trio.Event()
            while self._events:
                data = self._events.popleft()
                self._event_bytes -= len(data) + EVENT_OVERHEAD
                await self._call.send_message(data)

    def _keep_turn(self, order: Transcribe) -> None:
        listening = self._listening
        if listening is None:
            return
        self._turn = turn = Turn(order.item_id, listening.audio(order.start_ms, order.end_ms), listening.rate)
        if self._recognizer is None or self._recognitions >= MAX_RECOGNITIONS:
            turn.settle(None)
            why = "there is no recognizer here" if self._recognizer is None else "the recognizer is too slow"
            self._session.transcription_failed(order.item_id, why)
        else:
            self._recognitions += 1
            self._nursery.start_soon(self._recognize, self._recognizer, turn)

    async def _recognize(self, recognizer: Recognizer, turn: Turn) -> None:
        transcription = self._session.settings.audio.input.transcription
        language = transcription.language if transcription is not None else None
        try:
            words = await recognizer.transcribe(_at_once(turn.pcm), turn.rate, language)
        except Exception as error:
            log.error("the recognizer failed", call=self._call.id, exc_info=error)
            turn.settle(None)
            self._session.transcription_failed(turn.item_id, "the recognizer failed")
        else:
            turn.settle(words)
            self._session.transcribed(turn.item_id, words, len(turn.pcm) / (2 * turn.rate))
        self._recognitions -= 1
        self._carry_out()

    def _turn_of(self, plan: Plan) -> Turn | None:
        """The caller's last turn, if that is what this response answers."""
        turn = self._turn
        return turn if turn is not None and plan.items and plan.items[-1].id == turn.item_id else None

    async def _respond(self, plan: Plan, turn: Turn | None, scope: trio.CancelScope) -> None:
        response_id, voice = plan.response_id, _Voice(self, plan)
        try:
            with scope:
                usage = await self._model.respond(plan, turn, voice)
                await voice.finish()
                self._session.completed(response_id, trio.current_time(), usage)
        except ModelFailed as failure:
            self._session.failed(response_id, str(failure), trio.current_time())
        except Exception as error:
            if self._call.ended is not None:  # it is only told that there is nobody to speak to
                raise
            log.error("the model failed", call=self._call.id, exc_info=error)
            self._session.failed(response_id, "the model failed", trio.current_time())
        finally:
            del self._models[response_id]
        self._carry_out()  # what failed is cut, and does not drain
        if response_id in self._sound:
            self._draining.add(response_id)
            self._note_played(trio.current_time())
            self._carry_out()

    async def _cut(self, response_id: str, sound: tuple[float, float] | None) -> None:
        """`sound`: as in `_sound`. Nothing new is played before the old is gone."""
        try:
            played = await self._call.flush()
        finally:
            self._cuts -= 1
            if not self._cuts:
                self._cut_done.set()
                self._cut_done = trio.Event()
        self._session.was_cut(response_id, played - sound[0] if sound is not None else 0.0, trio.current_time())
        self._carry_out()

    async def play_frame(self, response_id: str, payload: bytes, milliseconds: float) -> None:
        while self._cuts:
            await self._cut_done.wait()
        if not self._session.sound(response_id, milliseconds, trio.current_time()):
            await trio.lowlevel.checkpoint()
            return
        end = self._call.played + self._call.ahead
        began = self._sound[response_id][0] if response_id in self._sound else end
        self._sound[response_id] = began, end + milliseconds
        self._carry_out()
        with trio.CancelScope() as scope:  # what is cut while it waits is not played after all
            self._sending.add(scope)
            try:
                await self._call.send_frame(payload)
            finally:
                self._sending.discard(scope)

    def may_sound(self, response_id: str) -> bool:
        return self._session.may_sound(response_id)

    def say(self, response_id: str, text: str) -> None:
        self._session.say(response_id, text)
        self._carry_out()

    def call_function(self, response_id: str, name: str) -> str:
        call_id = self._session.call(response_id, name)
        self._carry_out()
        return call_id

    def argue(self, response_id: str, text: str) -> None:
        self._session.argue(response_id, text)
        self._carry_out()

    @property
    def encoder(self) -> Encoder:
        return self._call.encoder()


class _Voice:
    """`parts.Voice` of one response."""

    def __init__(self, driver: _Driver, plan: Plan) -> None:
        self._driver = driver
        self._response_id = plan.response_id
        self._encoder: Encoder | None = None
        self._rest = b""

    @property
    def rate(self) -> int:
        return self._open_encoder().rate

    def say(self, text: str) -> None:
        self._driver.say(self._response_id, text)

    async def play(self, pcm: bytes) -> None:
        if not self._driver.may_sound(self._response_id):
            await trio.lowlevel.checkpoint()
            return
        encoder = self._open_encoder()
        size = encoder.frame_samples * 2
        data = self._rest + pcm
        whole = len(data) - len(data) % size
        self._rest = data[whole:]
        for place in range(0, whole, size):
            payload = encoder.encode(data[place : place + size])
            await self._driver.play_frame(self._response_id, payload, 20.0)

    async def finish(self) -> None:
        """The last piece of sound, filled up with silence."""
        if self._rest:
            size = self._open_encoder().frame_samples * 2
            await self.play(bytes(size - len(self._rest)))

    def call(self, name: str, arguments: str = "") -> str:
        call_id = self._driver.call_function(self._response_id, name)
        self.argue(arguments)
        return call_id

    def argue(self, text: str) -> None:
        self._driver.argue(self._response_id, text)

    def _open_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._driver.encoder
        return self._encoder


async def _at_once(pcm: bytes) -> AsyncIterator[bytes]:
    yield pcm


def _settings_of(call: Call) -> Settings:
    """What the client sent with its offer; what of it cannot be is as if it had not been sent."""
    settings = Settings()
    if call.session is not None:
        try:
            return update_settings(settings, call.session)
        except (ApiError, RecursionError) as error:
            log.warning("the session of the offer is refused", call=call.id, reason=str(error))
    return settings
