# ruff: noqa: ANN401  (what is in JSON is anything)
"""A Realtime service in virtual time, whose words are built by `openai`'s own types; a caller whose call is bridged to it."""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import numpy as np
import trio
from openai.types.realtime import (
    InputAudioBufferSpeechStartedEvent,
    RealtimeClientEvent,
    RealtimeResponse,
    ResponseAudioDeltaEvent,
    ResponseAudioDoneEvent,
    ResponseCreatedEvent,
    ResponseDoneEvent,
    SessionCreatedEvent,
    SessionUpdatedEvent,
)
from pydantic import BaseModel, TypeAdapter
from realtime_client import OFFICIAL
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from agent.codecs import open_decoder, open_encoder
from agent.upstream.config import Access
from protocol.codecs import Codec

RATE = 24_000
FROM_CLIENTS: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)

_numbers = itertools.count()


def event_id() -> str:
    return f"event_{next(_numbers)}"


def tone(milliseconds: int, frequency: float = 440.0, rate: int = RATE) -> bytes:
    time = np.arange(rate * milliseconds // 1000) / rate
    return (8000 * np.sin(2 * np.pi * frequency * time)).astype(np.int16).tobytes()


def frequency_of(pcm: bytes, rate: int) -> float:
    """The loudest one."""
    samples = np.frombuffer(pcm, np.int16).astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


class Session:
    """One WebSocket as the service sees it."""

    def __init__(self, connection: WebSocketConnection, number: int) -> None:
        self.connection = connection
        self.id = f"sess_{number}"
        self.number = number
        self.received: list[dict[str, Any]] = []
        self.pcm = b""
        self.appends: list[int] = []
        self.is_closed = False
        self.answers_updates = True
        self._heard = trio.lowlevel.ParkingLot()

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                data = await self.connection.get_message()
                FROM_CLIENTS.validate_json(data)
                event = json.loads(data)
                if event["type"] == "input_audio_buffer.append":
                    pcm = base64.b64decode(event["audio"], validate=True)
                    self.appends.append(len(pcm))
                    self.pcm += pcm
                else:
                    self.received.append(event)
                    if event["type"] == "session.update" and self.answers_updates:
                        await self.update(event["session"])
                self._heard.unpark_all()
        self.is_closed = True
        self._heard.unpark_all()

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        with trio.fail_after(seconds):
            while not condition():
                await self._heard.park()

    async def read(self, kind: str) -> dict[str, Any]:
        await self.until(lambda: kind in self.types)
        return next(event for event in self.received if event["type"] == kind)

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.received]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.received if event["type"] == kind]

    async def send(self, event: BaseModel | str | bytes) -> None:
        data = event.model_dump_json(exclude_unset=True) if isinstance(event, BaseModel) else event
        await self.connection.send_message(data)

    async def send_dict(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": event_id(), **fields}
        OFFICIAL.validate_python(event)
        await self.send(json.dumps(event))

    # What a service says.

    async def greet(self, **settings: Any) -> None:
        session = {"type": "realtime", "audio": audio_settings(), **settings}
        await self.send(SessionCreatedEvent(event_id=event_id(), type="session.created", session=session))

    async def update(self, session: dict[str, Any]) -> None:
        session = {"type": "realtime", **session}
        await self.send(SessionUpdatedEvent(event_id=event_id(), type="session.updated", session=session))

    async def begin_response(self, response_id: str = "resp_1") -> None:
        response = RealtimeResponse(id=response_id, object="realtime.response", status="in_progress", output=[])
        await self.send(ResponseCreatedEvent(event_id=event_id(), type="response.created", response=response))

    async def speak(
        self, pcm: bytes, response_id: str = "resp_1", item_id: str = "item_1", piece_ms: int = 200
    ) -> None:
        size = RATE * piece_ms // 1000 * 2
        for place in range(0, len(pcm), size):
            await self.send(
                ResponseAudioDeltaEvent(
                    event_id=event_id(),
                    type="response.output_audio.delta",
                    response_id=response_id,
                    item_id=item_id,
                    output_index=0,
                    content_index=0,
                    delta=base64.b64encode(pcm[place : place + size]).decode(),
                )
            )

    async def end_sound(self, response_id: str = "resp_1", item_id: str = "item_1") -> None:
        await self.send(
            ResponseAudioDoneEvent(
                event_id=event_id(),
                type="response.output_audio.done",
                response_id=response_id,
                item_id=item_id,
                output_index=0,
                content_index=0,
            )
        )

    async def end_response(self, response_id: str = "resp_1", status: str = "completed") -> None:
        response = RealtimeResponse(id=response_id, object="realtime.response", status=status, output=[])  # type: ignore[arg-type]
        await self.send(ResponseDoneEvent(event_id=event_id(), type="response.done", response=response))

    async def hear_speech(self, at_ms: int = 0, item_id: str = "item_of_caller") -> None:
        await self.send(
            InputAudioBufferSpeechStartedEvent(
                event_id=event_id(), type="input_audio_buffer.speech_started", audio_start_ms=at_ms, item_id=item_id
            )
        )

    async def say_words(self, item_id: str, transcript: str, role: str = "assistant") -> None:
        """A message of the conversation, done."""
        kind = {"assistant": "output_audio", "user": "input_audio"}[role]
        content = [{"type": kind, "transcript": transcript}]
        item = {"id": item_id, "type": "message", "role": role, "status": "completed", "content": content}
        await self.send_dict("conversation.item.added", item={**item, "content": []}, previous_item_id=None)
        await self.send_dict("conversation.item.done", item=item)


def audio_settings(**turn_detection: Any) -> dict[str, Any]:
    pcm = {"type": "audio/pcm", "rate": RATE}
    detection = {"type": "server_vad", **turn_detection}
    return {"input": {"format": pcm, "turn_detection": detection}, "output": {"format": pcm, "voice": "marin"}}


class Service:
    """Where calls are bridged to. `faults`: what happens to the next connections instead of a greeting."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.sessions: list[Session] = []
        self.requests: list[tuple[str, dict[bytes, bytes]]] = []
        self.faults: list[Callable[[Any], Awaitable[None]] | Exception] = []
        self.stream_pair: Callable[[], tuple[Any, Any]] = memory_stream_pair
        self.greets = True
        self.attempts: list[float] = []
        self._came = trio.lowlevel.ParkingLot()

    async def dial(self, access: Access) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.attempts.append(trio.current_time())
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        near, far = self.stream_pair()
        self._nursery.start_soon(fault or self.serve, far)
        return near

    async def serve(self, stream: Any) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            self.requests.append((request.path, {name.lower(): value for name, value in request.headers}))
            session = Session(await request.accept(), len(self.sessions) + 1)
            self.sessions.append(session)
            self._came.unpark_all()
            if self.greets:
                await session.greet()
            await session.listen()

    async def session(self, number: int = 1) -> Session:
        with trio.fail_after(200):
            while len(self.sessions) < number:
                await self._came.park()
        return self.sessions[number - 1]


class Caller:
    def __init__(self, client: Any, player: Any, codec: Codec | None, service: Service, agent: Any) -> None:
        self.client = client
        self.player = player
        self.service = service
        self.agent = agent
        self._encoder = open_encoder(codec) if codec is not None else None
        self._decoder = open_decoder(codec) if codec is not None else None
        self._codec = codec
        self._rtp_time = 0

    async def speak(self, pcm: bytes) -> None:
        """At the codec's rate."""
        assert self._encoder is not None
        assert self._codec is not None
        size = self._encoder.frame_samples * 2
        frames = [self._encoder.encode(pcm[at : at + size]) for at in range(0, len(pcm) - size + 1, size)]
        self._rtp_time = await self.client.say(frames, codec=self._codec.name, start=self._rtp_time)

    def tone(self, milliseconds: int, frequency: float = 440.0) -> bytes:
        assert self._encoder is not None
        return tone(milliseconds, frequency, self._encoder.rate)

    def heard(self) -> bytes:
        assert self._decoder is not None
        return b"".join(self._decoder.decode(payload) for payload in self.player.played)

    @property
    def rate(self) -> int:
        assert self._decoder is not None
        return self._decoder.rate

    @property
    def played_ms(self) -> int:
        return len(self.player.played) * 20

    async def write(self, kind: str, **fields: Any) -> None:
        await self.client.send_data(1, 1, json.dumps({"type": kind, **fields}))

    @property
    def events(self) -> list[dict[str, Any]]:
        for message in self.client.data:
            OFFICIAL.validate_json(message.data)
        return [json.loads(message.data) for message in self.client.data]

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def read(self, kind: str, count: int = 1, seconds: float = 20.0) -> dict[str, Any]:
        """The event of that type that is the so-manieth."""
        await self.client.until(lambda: len(self.of(kind)) >= count, seconds)
        return self.of(kind)[count - 1]

    def counted(self, name: str) -> dict[str, float]:
        """A metric of the bridge: its samples by reason, or "" alone."""
        return {
            sample.labels.get("reason", ""): sample.value
            for family in self.agent.metrics()
            for sample in family.samples
            if family.name == f"antiphon_agent_upstream_{name}" and not sample.name.endswith("_created")
        }
