"""The line of a session that came by WebSocket: the API's events, with the audio in them.

1. What the client appends comes back as frames, in short pieces: an event may hold minutes, and other calls wait meanwhile.
2. Whatever its format, the session hears it at 16 kHz. It answers in the session's output format, in pieces of 100 ms, as
   fast as the client takes them.
3. Audio comes when the client likes: a pause between two events is no silence.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import trio

from agent.codecs import Encoder
from agent.codecs.g711 import G711Decoder, G711Encoder
from agent.codecs.resampling import Resampler
from agent.events import CallEnded, ChannelOpened, Event, Frame, Message
from agent.realtime.clients import CALLER
from agent.realtime.line import FrameDecoder, Player
from agent.statistics import Statistics
from protocol.agentlink import CallClient, SessionStart
from protocol.realtime.settings import AudioFormat, Pcm, Pcma, Pcmu, Settings
from service.websocket import WebSocket, WebSocketClosed

__all__ = ["SocketLine"]

# Implementation constants
HEARD_RATE = 16_000  # samples a second: what detectors and recognizers know
PIECE_MS = 100
LATENCY_MS = 40  # of resampling from a higher rate: what is heard is late by it, so that no piece is ever missing
QUICK_LATENCY_MS = 1  # from a lower one
GRACE_SECONDS = 5.0  # for the agent, once its client is gone
FAREWELL_SECONDS = 1.0
NORMAL, GOING_AWAY, INTERNAL_ERROR = 1000, 1001, 1011  # RFC 6455 §7.4.1
_CODES = {"agent_failed": INTERNAL_ERROR, "agent_stopped": GOING_AWAY}
_LAWS: dict[type[AudioFormat], str] = {Pcmu: "PCMU", Pcma: "PCMA"}


class _Steady:
    """From one rate to another: as much comes out as goes in, always, a little late."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        quick = from_rate < to_rate
        self._resampler = Resampler(from_rate, to_rate, quick=quick)
        self._ready = bytearray(2 * to_rate * (QUICK_LATENCY_MS if quick else LATENCY_MS) // 1000)
        self._ratio = to_rate / from_rate
        self._owed = 0.0  # samples

    def feed(self, pcm: bytes) -> bytes:
        self._ready += self._resampler.feed(pcm)
        self._owed += len(pcm) / 2 * self._ratio
        size = min(2 * int(self._owed), len(self._ready))
        self._owed -= size / 2
        piece = bytes(self._ready[:size])
        del self._ready[:size]
        return piece


class _Decoder:
    """`FrameDecoder` of what clients append."""

    rate = HEARD_RATE

    def __init__(self, form: AudioFormat) -> None:
        law = _LAWS.get(type(form))
        self._law = G711Decoder(law) if law is not None else None
        self._steady = _Steady(_rate(form), HEARD_RATE)

    def decode_frame(self, frame: Frame) -> bytes:
        return self._steady.feed(self._law.decode_untrusted(frame.payload) if self._law is not None else frame.payload)


class _Changeable:
    """The decoder of the present format."""

    rate = HEARD_RATE

    def __init__(self, form: AudioFormat) -> None:
        self.form = form
        self._decoder = _Decoder(form)

    def change(self, form: AudioFormat) -> None:
        self.form = form
        self._decoder = _Decoder(form)

    def decode_frame(self, frame: Frame) -> bytes:
        return self._decoder.decode_frame(frame)


class _PcmEncoder:
    rate = Pcm().rate
    frame_samples = rate * PIECE_MS // 1000

    def encode(self, pcm: bytes) -> bytes:
        return pcm


class _LawEncoder(G711Encoder):
    frame_samples = G711Encoder.rate * PIECE_MS // 1000


class SocketLine:
    """`Line`. `scope` is that of the agent's task: it is given some time once the client is gone."""

    player: Player | None = None
    pause_seconds = math.inf

    def __init__(self, connection: WebSocket, start: SessionStart, statistics: Statistics) -> None:
        self.id = start.call_id
        self.session = start.session
        self.client = start.client or CallClient()
        self.expires_at = start.expires_at
        self.ended: str | None = None
        self.scope = trio.CancelScope()
        self._connection = connection
        self._statistics = statistics
        self._is_greeted = False
        self._audio = bytearray()  # that came in an event, and was not heard yet
        self._decoder = _Changeable(Pcm())
        self._output: AudioFormat = Pcm()

    def events(self) -> AsyncIterator[Event]:
        return self

    def __aiter__(self) -> SocketLine:
        return self

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint_if_cancelled()
        if not self._is_greeted:
            self._is_greeted = True
            return ChannelOpened(CALLER, "", "")
        if (size := self._piece_size()) > 0:
            await trio.lowlevel.checkpoint()
            piece = bytes(self._audio[:size])
            del self._audio[:size]
            return Frame(piece, 0, size / self._bytes_of_ms)
        try:
            message = await self._connection.receive()
        except WebSocketClosed:
            self._close("peer_closed")
            raise StopAsyncIteration from None
        self._statistics.messages_received += 1
        return Message(message, CALLER)

    def decoder(self) -> FrameDecoder | None:
        return self._decoder

    def encoder(self) -> Encoder:
        law = _LAWS.get(type(self._output))
        return _LawEncoder(law) if law is not None else _PcmEncoder()

    def configure(self, settings: Settings) -> None:
        self._output = settings.audio.output.format
        if settings.audio.input.format != self._decoder.form:
            self._audio.clear()  # half a sample
            self._decoder.change(settings.audio.input.format)

    def hear(self, audio: bytes) -> None:
        self._audio += audio

    async def send_message(self, data: str, channel: int | None = None) -> bool:
        """Raises CallEnded."""
        if self.ended is not None:
            raise CallEnded(self.ended)
        try:
            await self._connection.send([data])
        except WebSocketClosed:
            raise CallEnded(self._close("peer_closed")) from None
        self._statistics.messages_sent += 1
        return True

    async def end(self, reason: str) -> None:
        if self.ended is None:
            self._close(reason)
            with trio.move_on_after(FAREWELL_SECONDS):
                await self._connection.close(_CODES.get(reason, NORMAL), reason)

    def _close(self, reason: str) -> str:
        if self.ended is None:
            self.ended = reason
            self.scope.deadline = min(self.scope.deadline, trio.current_time() + GRACE_SECONDS)
        return self.ended

    @property
    def _bytes_of_ms(self) -> float:
        form = self._decoder.form
        return _rate(form) * (2 if isinstance(form, Pcm) else 1) / 1000

    def _piece_size(self) -> int:
        size = min(len(self._audio), round(self._bytes_of_ms * PIECE_MS))
        return size & ~1 if isinstance(self._decoder.form, Pcm) else size


def _rate(form: AudioFormat) -> int:
    return form.rate if isinstance(form, Pcm) else G711Decoder.rate
