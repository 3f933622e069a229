"""A call bridged to a Realtime service: brings the session's core, the call and the connection together.

One task takes what comes from the call; one for each client sends it the events, in order (`Clients`); one speaks; one minds
the clocks; and while there is a connection, it has its own. What the core orders is carried out at once, or by a task.

A client that does not read its events loses its call, not the other way round: so many bytes of them wait.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NoReturn, TypeVarTuple

import trio

from agent.call import Call
from agent.events import CallEnded, ChannelClosed, ChannelOpened, Event, Frame, Message, Played
from agent.realtime.clients import Clients
from agent.upstream.audio import FRAME_MS, Ear, Mouth
from agent.upstream.config import Access, UpstreamConfig
from agent.upstream.connection import Connection, Dialler
from agent.upstream.contact import Reach
from agent.upstream.orders import Dial, EndCall, Flush, HangUp, Order, ToClient
from agent.upstream.playing import Cut
from agent.upstream.session import BridgeSession
from agent.upstream.sound import Piece
from agent.upstream.statistics import UpstreamStatistics
from agent.upstream.uplink import Uplink
from protocol.wire import Entropy
from service.logs import get_logger
from service.websocket import Message as ServiceMessage
from service.websocket import WebSocket

__all__ = ["bridge"]

log = get_logger()
Arguments = TypeVarTuple("Arguments")

# Implementation constants
LAST_WORDS_SECONDS = 1.0
RATE_WITHOUT_AUDIO = 16_000


async def bridge(
    call: Call,
    config: UpstreamConfig,
    access: Access,
    dialler: Dialler,
    statistics: UpstreamStatistics,
    *,
    entropy: Entropy = os.urandom,
) -> None:
    """Until the call ends."""
    await _Bridge(call, config, access, dialler, statistics, entropy).run()


class _Bridge:
    def __init__(
        self,
        call: Call,
        config: UpstreamConfig,
        access: Access,
        dialler: Dialler,
        statistics: UpstreamStatistics,
        entropy: Entropy,
    ) -> None:
        self._call = call
        self._config = config
        self._statistics = statistics
        self._ear = Ear(call.decoder()) if call.codec is not None else None
        self._mouth = Mouth(call.encoder()) if call.codec is not None else None
        rate = self._ear.rate if self._ear is not None else RATE_WITHOUT_AUDIO
        self._uplink = Uplink(rate, statistics, lambda: self._uplink_waits.set())
        self._uplink_waits = trio.Event()
        reach = Reach(config.connect_seconds, config.give_up_seconds, entropy, trio.current_time())
        self._session = BridgeSession(
            reach,
            self._uplink,
            statistics,
            offered=call.session,
            has_audio=call.codec is not None,
            max_sound_bytes=config.max_sound_bytes,
            entropy=entropy,
        )
        self._connection = Connection(
            access,
            dialler,
            self._receive,
            self._write,
            max_event_bytes=config.max_event_bytes,
            ping_seconds=config.ping_seconds,
            headers=_headers_of(call),
        )
        self._is_over = False
        self._attempt = trio.CancelScope()
        self._speech = trio.CancelScope()
        self._clients = Clients(self._send, self._give_up, statistics.drops, entropy)
        self._sound_moves = trio.lowlevel.ParkingLot()  # it came, or was taken
        self._clock_moves = trio.Event()
        self._clock = self._session.next_timeout()
        self._nursery: trio.Nursery

    async def run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._start(self._clients.write_to_caller)
            self._nursery.start_soon(self._mind_clocks)
            if self._mouth is not None:
                self._start(self._speak, self._mouth)
            self._carry_out()
            await self._follow_call()
            self._is_over = True
            await self._connection.close()
            self._nursery.cancel_scope.cancel()

    def _start(self, task: Callable[[*Arguments], Awaitable[None]], *arguments: *Arguments) -> None:
        """A task that may find the call ended: there is still a goodbye to say to the service."""

        async def run() -> None:
            with suppress(CallEnded):
                await task(*arguments)

        self._nursery.start_soon(run)

    # What comes from the call

    async def _follow_call(self) -> None:
        events = self._call.__aiter__()
        ear = self._ear
        while True:
            event: Event | None = None
            with trio.move_on_at(ear.due if ear is not None else float("inf")):
                try:
                    event = await anext(events)
                except StopAsyncIteration:
                    return
            if isinstance(event, Frame):
                if ear is not None:
                    self._uplink.hear(ear.hear(event, trio.current_time()))
            elif event is None:
                assert ear is not None
                self._uplink.hear(ear.silence(trio.current_time()))
            else:
                self._handle(event)
                self._carry_out()

    def _handle(self, event: Event) -> None:
        match event:
            case Message():
                self._session.receive_client_untrusted(event.data, self._clients.number_of(event.channel))
            case Played():
                self._session.playing.play_to(self._call.played)
            case ChannelOpened(sideband=True):
                self._clients.join(event.channel, self._nursery)
                self._session.greet(event.channel)
            case ChannelOpened():
                self._clients.reach_caller()
            case ChannelClosed():
                self._clients.leave(event.channel)
            case _:
                pass  # a key, a drain: the call goes on

    # The service

    async def _attempt_connection(self, scope: trio.CancelScope) -> None:
        with scope:
            self._statistics.open += 1
            try:
                failure = await self._connection.run()
            finally:
                self._statistics.open -= 1
                self._uplink.close()
            if self._is_over:
                return
            log.warning("no connection to the service", call=self._call.id, reason=failure.word, detail=failure.detail)
            self._session.lost(failure, trio.current_time())
        self._carry_out()

    async def _receive(self, message: ServiceMessage) -> None:
        self._session.receive_service_untrusted(message, trio.current_time())
        self._carry_out()
        playing = self._session.playing
        if playing:
            self._sound_moves.unpark_all()
        if playing.is_full:
            self._statistics.sound_waits += 1
            while playing.is_full:
                await self._sound_moves.park()

    async def _write(self, socket: WebSocket) -> None:
        while True:
            while messages := self._uplink.take():
                with trio.fail_after(self._config.write_seconds):
                    await socket.send(messages)
            self._uplink_waits = trio.Event()
            await self._uplink_waits.wait()

    async def _mind_clocks(self) -> NoReturn:
        while True:
            with trio.move_on_at(self._clock):
                await self._clock_moves.wait()
            self._clock_moves = trio.Event()
            self._session.handle_timeout(trio.current_time())
            self._carry_out()

    # What is heard

    async def _speak(self, mouth: Mouth) -> None:
        playing = self._session.playing
        while True:
            with trio.CancelScope() as self._speech:
                while (piece := playing.take()) is not None:
                    await self._play(mouth, piece)
            if self._speech.cancelled_caught:
                mouth.stop()
            if not playing:
                await self._sound_moves.park()

    async def _play(self, mouth: Mouth, piece: Piece) -> None:
        call, playing, sound = self._call, self._session.playing, piece.sound
        self._sound_moves.unpark_all()  # there is room
        frames = mouth.speak(sound, piece.pcm) if piece.pcm else mouth.finish(sound)
        for frame in frames:
            if not playing.sounding(sound, call.played + call.ahead, FRAME_MS):
                return
            self._carry_out()
            await call.send_frame(frame)
        playing.sent(piece)
        self._carry_out()

    async def _flush(self, cut: Cut) -> None:
        played = await self._call.flush()
        self._session.was_cut(cut, played)
        self._carry_out()
        self._sound_moves.unpark_all()

    # What the core orders

    def _carry_out(self) -> None:
        while orders := self._session.poll():
            for order in orders:
                self._carry_out_one(order)
        clock = self._session.next_timeout()
        if clock != self._clock:
            self._clock = clock
            self._clock_moves.set()

    def _carry_out_one(self, order: Order) -> None:
        match order:
            case ToClient():
                self._clients.put(order.text, order.client)
            case Flush():
                self._speech.cancel()
                self._start(self._flush, order.cut)
            case Dial():
                self._attempt = trio.CancelScope()
                self._nursery.start_soon(self._attempt_connection, self._attempt)
            case HangUp():
                log.warning("the service did not begin in time", call=self._call.id)
                self._attempt.cancel()
            case EndCall():
                log.warning("the service is given up", call=self._call.id, reason=order.reason)
                self._nursery.start_soon(self._end, order.reason)

    async def _end(self, reason: str) -> None:
        with trio.move_on_after(LAST_WORDS_SECONDS):
            await self._clients.wait_sent()
        await self._call.end(reason)

    async def _send(self, text: str, channel: int | None) -> bool:
        with suppress(CallEnded):
            return await self._call.send_message(text, channel)
        return False

    def _give_up(self) -> None:
        log.warning("the client reads its events too slowly", call=self._call.id)
        self._nursery.start_soon(self._call.end, "events_unread")


def _headers_of(call: Call) -> list[tuple[bytes, bytes]]:
    """Who the caller is, for the service to tell abusers apart."""
    identifier = call.client.safety_identifier
    if not identifier or not identifier.isascii() or not identifier.isprintable():
        return []
    return [(b"OpenAI-Safety-Identifier", identifier.strip().encode())]
