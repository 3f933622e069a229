"""A session of the Realtime API at work: brings the session, its line and the parts together.

One task takes what comes from the line and tells the session; what the session orders is carried out at once, or by a task
of its own: one for each response at work, each turn that is listened to (hearing.py), each cut. A task for each client sends
it the events, in order (clients.py); one greets, if it is to.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio

from agent.call import Call
from agent.codecs import Encoder
from agent.events import ChannelClosed, ChannelOpened, Digit, Event, Frame, Message, Played
from agent.offline.webrtc import WebRtcVad
from agent.realtime.clients import Clients
from agent.realtime.hearing import Hearing
from agent.realtime.line import CallLine, Line
from agent.realtime.listening import Listening, TurnAt
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
from agent.realtime.parts import CutShort, Detectors, Model, ModelFailed, Recognizer, SpeakUp, Turn, patience_of
from agent.realtime.response import Plan
from agent.realtime.session import RealtimeSession
from agent.voice import Turn as TurnOf
from protocol.realtime.errors import ApiError
from protocol.realtime.settings import Settings, update_settings
from protocol.wire import Entropy
from service.logs import get_logger

__all__ = ["converse"]

log = get_logger()

# Implementation constants
MAX_MODELS = 8  # at work for one call, those included that are slow to stop
PATIENCE_SECONDS = 60.0  # for a model that says nothing, at least: one that states its own patience may be given more
CHANNEL_SECONDS = 2.0  # for a channel to open, before a client counts as one without
SETTLE_SECONDS = 1.0  # for its first event, once it is open: until then the caller's audio is kept
GREETING_SECONDS = 0.3  # for a client that lets the model speak first itself

Beside: TypeAlias = Callable[[SpeakUp], Awaitable[None]]


async def converse(
    call: Call | Line,
    model: Model,
    recognizer: Recognizer | None = None,
    *,
    greets: bool = False,
    beside: Beside | None = None,
    detectors: Detectors | None = None,
    entropy: Entropy = os.urandom,
) -> None:
    """Until the call, or the session on a WebSocket, ends. `greets`: in a call the model speaks first, unless client or caller
    begin. `beside`: a task that runs as long as the call does, and may let the model speak up. `detectors`: or webrtcvad."""
    line = CallLine(call) if isinstance(call, Call) else call
    await _Driver(line, model, recognizer, detectors or WebRtcVad(), entropy).run(greets, beside)


class _Driver:
    def __init__(
        self, line: Line, model: Model, recognizer: Recognizer | None, detectors: Detectors, entropy: Entropy
    ) -> None:
        self._line = line
        self._player = line.player
        self._model = model
        settings, self._refusal = _settings_of(line)
        self._session = RealtimeSession(
            entropy=entropy,
            settings=settings,
            expires_at=line.expires_at,
            plays=line.player is not None,
        )
        line.configure(self._session.settings)
        self._listening: Listening | None = None
        self._hearing: Hearing | None = None
        if (decoder := line.decoder()) is not None:
            self._listening = Listening(decoder, detectors)
            self._hearing = Hearing(recognizer, self._listening, self._session, self._carry_out, line.id)
        self._clients = Clients(line.send_message, self._give_up, entropy=entropy)
        self._waits = trio.CancelScope()  # for what comes from the line
        self._channel_open = trio.Event()
        self._settled = trio.Event()
        self._models: dict[str, trio.CancelScope] = {}
        self._turn: Turn | None = None  # the last one
        # Response → where its sound begins and ends, as `played` counts.
        self._sound: dict[str, tuple[float, float]] = {}
        self._draining: set[str] = set()
        self._audio_due = math.inf  # then, without any, the caller counts as silent
        self._sending: set[trio.CancelScope] = set()  # of frames that wait for room
        self._cuts = 0  # under way
        self._cut_done = trio.Event()
        self._nursery: trio.Nursery

    async def run(self, greets: bool, beside: Beside | None) -> None:
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._clients.write_to_caller)
            # Whether the client has said with its offer how it wants to be heard.
            is_settled = "audio" in (self._line.session or {})
            self._session.start(0.0 if is_settled else trio.current_time() + CHANNEL_SECONDS, self._refusal)
            self._carry_out()
            if greets and self._player is not None:
                self._nursery.start_soon(self._greet)
            if beside is not None:
                self._nursery.start_soon(beside, self._speak_up)
            await self._follow_line()
            self._nursery.cancel_scope.cancel()
        if self._hearing is not None and self._hearing.counters:
            log.info("the recognizer's work", call=self._line.id, **self._hearing.counters)
        if self._clients.counters:
            log.info("events that were not told", call=self._line.id, **self._clients.counters)

    async def _greet(self) -> None:
        with trio.move_on_after(CHANNEL_SECONDS):
            await self._channel_open.wait()
        await self._settled.wait()
        await trio.sleep(GREETING_SECONDS)
        self._session.speak_first(trio.current_time())
        self._carry_out()

    def _speak_up(self) -> None:
        self._session.speak_up(trio.current_time())
        self._carry_out()

    # What comes from the line

    async def _follow_line(self) -> None:
        events = self._line.events()
        pause = self._line.pause_seconds
        silent_since = trio.current_time()
        while True:
            event: Event | None = None
            self._audio_due = silent_since + pause
            with trio.CancelScope() as self._waits:
                self._set_alarm()
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
            now = trio.current_time()
            self._session.handle_timeout(now)
            if isinstance(event, Frame):
                silent_since = now
                self._hear(event, now)
            elif isinstance(event, Message):
                await self._read(event, now)
            elif event is not None:
                self._handle(event, now)
            if now >= silent_since + pause:
                silent_since = float("inf")  # told once
                if self._listening is not None:
                    self._tell_turns(self._listening.silence(), now)
            self._carry_out()

    def _hear(self, frame: Frame, now: float) -> None:
        if self._listening is not None:
            milliseconds, turns = self._listening.hear(frame)
            self._session.heard(milliseconds)
            self._tell_turns(turns, now)
            if self._player is None:
                self._session.handle_timeout(now)  # a pause is as long as its audio
        if self._hearing is not None:
            self._hearing.heard()

    def _set_alarm(self) -> None:
        self._waits.deadline = max(min(self._audio_due, self._session.next_timeout()), trio.current_time())

    def _tell_turns(self, turns: list[TurnAt], now: float) -> None:
        for turn, moment in turns:
            if turn is TurnOf.STARTED:
                self._session.speech_began(moment, now)
            else:
                self._session.speech_ended(moment, now)

    async def _read(self, message: Message, now: float) -> None:
        number = self._clients.number_of(message.channel)
        for _ in self._session.receive_in_steps_untrusted(message.data, now, client_number=number):
            await trio.lowlevel.checkpoint()
        self._line.configure(self._session.settings)

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case ChannelOpened(sideband=True):
                self._clients.join(event.channel, self._nursery)
                self._session.greet(event.channel)
            case ChannelOpened():
                self._channel_open.set()
                self._clients.reach_caller()
                self._session.settle_by(now + SETTLE_SECONDS)
            case ChannelClosed():
                self._clients.leave(event.channel)
            case Played():
                self._note_played(now)
            case Digit():
                pass  # no event of the API over WebRTC
            case _:
                pass  # a drain: the call goes on

    def _note_played(self, now: float) -> None:
        if self._player is None:
            return
        played = self._player.played
        for response_id in list(self._draining):
            if played >= self._sound[response_id][1] - 1:  # it counts whole samples
                self._draining.discard(response_id)
                del self._sound[response_id]
                self._session.played_out(response_id, now)

    # What the session orders

    def _carry_out(self) -> None:
        while orders := self._session.poll():
            self._carry_out_these(orders)
        self._set_alarm()

    def _carry_out_these(self, orders: list[Order]) -> None:
        for output in orders:
            match output:
                case SendEvent():
                    self._clients.put(output.data, output.client)
                case Hear():
                    self._line.hear(output.audio)
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
                case Listen() if self._hearing is not None:
                    self._hearing.begin(output.item_id, output.start_ms, self._nursery)
                case Transcribe() if self._hearing is not None:
                    self._turn = self._hearing.end(output.item_id, output.start_ms, output.end_ms, self._nursery)
                case Forget() if self._hearing is not None:
                    self._hearing.drop(output.item_id)
                case DetectTurns():
                    self._settled.set()
                    if self._listening is not None:
                        found = self._listening.detect(output.how, output.since_ms, in_turn=output.in_turn)
                        self._tell_turns(found, trio.current_time())

    def _give_up(self) -> None:
        log.warning("the client reads its events too slowly", call=self._line.id)
        self._nursery.start_soon(self._line.end, "events_unread")

    def _turn_of(self, plan: Plan) -> Turn | None:
        """The caller's last turn, if that is what this response answers."""
        turn = self._turn
        return turn if turn is not None and plan.items and plan.items[-1].id == turn.item_id else None

    async def _respond(self, plan: Plan, turn: Turn | None, scope: trio.CancelScope) -> None:
        response_id, voice = plan.response_id, _Voice(self, plan, max(PATIENCE_SECONDS, patience_of(self._model, 0.0)))
        if turn is not None and not turn.is_settled and self._hearing is not None:
            voice.patience.deadline += self._hearing.patience_seconds
        try:
            with scope:
                with voice.patience:
                    usage = await self._model.respond(plan, turn, voice)
                if voice.patience.cancelled_caught:
                    raise ModelFailed(f"the model said nothing for {voice.seconds:g} s")
                await voice.finish()
                self._session.completed(response_id, trio.current_time(), usage)
        except CutShort as cut:
            await voice.finish()
            self._session.cut_short(response_id, trio.current_time(), cut.usage, cut.reason)
        except ModelFailed as failure:
            self._session.failed(response_id, str(failure), trio.current_time())
        except Exception as error:
            if self._line.ended is not None:  # it is only told that there is nobody to speak to
                raise
            log.error("the model failed", call=self._line.id, exc_info=error)
            self._session.failed(response_id, "the model failed", trio.current_time())
        finally:
            del self._models[response_id]
        self._carry_out()  # what was cancelled is cut, and does not drain
        if response_id in self._sound:
            self._draining.add(response_id)
            self._note_played(trio.current_time())
            self._carry_out()

    async def _cut(self, response_id: str, sound: tuple[float, float] | None) -> None:
        """`sound`: as in `_sound`. Nothing new is played before the old is gone."""
        assert self._player is not None
        try:
            played = await self._player.flush()
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
        player = self._player
        in_event = payload if player is None else None
        if not self._session.sound(response_id, milliseconds, trio.current_time(), in_event):
            await trio.lowlevel.checkpoint()
            return
        if player is None:
            self._carry_out()
            await self._clients.wait_room()
            return
        end = player.played + player.ahead
        began = self._sound[response_id][0] if response_id in self._sound else end
        self._sound[response_id] = began, end + milliseconds
        self._carry_out()
        with trio.CancelScope() as scope:  # what is cut while it waits is not played after all
            self._sending.add(scope)
            try:
                await player.send_frame(payload)
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
        return self._line.encoder()

    @property
    def plays(self) -> bool:
        return self._player is not None


class _Voice:
    """`parts.Voice` of one response. `patience` ends when nothing came for `seconds`."""

    def __init__(self, driver: _Driver, plan: Plan, seconds: float) -> None:
        self.seconds = seconds
        self._driver = driver
        self._response_id = plan.response_id
        self._encoder: Encoder | None = None
        self._rest = b""
        self.patience = trio.CancelScope(deadline=trio.current_time() + seconds)

    def _be_patient(self) -> None:
        self.patience.deadline = trio.current_time() + self.seconds

    @property
    def rate(self) -> int:
        return self._open_encoder().rate

    def say(self, text: str) -> None:
        self._be_patient()
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
        self.patience.deadline = math.inf  # who waits for the caller's ear is at work
        for place in range(0, whole, size):
            await self._play_piece(encoder, data[place : place + size])
        self._be_patient()

    async def finish(self) -> None:
        """The last piece of sound; that of a codec is filled up with silence."""
        rest, self._rest = self._rest[: len(self._rest) & ~1], b""
        if not rest or not self._driver.may_sound(self._response_id):
            return
        encoder = self._open_encoder()
        if self._driver.plays:
            rest += bytes(encoder.frame_samples * 2 - len(rest))
        await self._play_piece(encoder, rest)

    async def _play_piece(self, encoder: Encoder, pcm: bytes) -> None:
        milliseconds = len(pcm) * 500 / encoder.rate
        await self._driver.play_frame(self._response_id, encoder.encode(pcm), milliseconds)

    def call(self, name: str, arguments: str = "") -> str:
        self._be_patient()
        call_id = self._driver.call_function(self._response_id, name)
        self.argue(arguments)
        return call_id

    def argue(self, text: str) -> None:
        self._be_patient()
        self._driver.argue(self._response_id, text)

    def _open_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = self._driver.encoder
        return self._encoder


def _settings_of(line: Line) -> tuple[Settings, ApiError | None]:
    """What the client sent with its offer; what cannot be is as if nothing had been sent, and why."""
    settings = Settings()
    if line.session is not None:
        try:
            return update_settings(settings, line.session), None
        except ApiError as error:
            log.warning("the session of the offer is refused", call=line.id, reason=str(error))
            return settings, error
    return settings, None
