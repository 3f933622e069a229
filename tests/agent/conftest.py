"""The transceiver's end of a link, small enough to read: sends what a transceiver sends, keeps what it hears."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio
from trio.testing import memory_stream_pair
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from agent.link import Link
from agent.live import Agent
from agent.statistics import Statistics
from protocol.agentlink import (
    LINK_VERSION,
    MAX_MESSAGE_BYTES,
    AgentMessage,
    CallAccept,
    CallClient,
    CallFlush,
    CallPlayed,
    CallRefuse,
    CallStart,
    ChannelOpen,
    DataMessage,
    MediaRecord,
    PlayedReason,
    TransceiverHello,
    TransceiverMessage,
    decode_agent_message_untrusted,
    decode_binary_untrusted,
    encode_data,
    encode_media,
    encode_message,
    encode_played,
)
from protocol.codecs import codec_by_name
from service.websocket import accept

FRAME_SECONDS = 0.02


class LinkClient:
    """What a transceiver is to an agent."""

    def __init__(self, connection: WebSocketConnection, statistics: Statistics | None = None) -> None:
        self.connection = connection
        self.statistics = statistics
        self.control: list[AgentMessage] = []
        self.media: list[MediaRecord] = []
        self.data: list[DataMessage] = []
        self.media_messages = 0
        self.is_closed = False
        self.players: dict[int, Player] = {}
        self._heard = trio.lowlevel.ParkingLot()

    async def listen(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                self._hear(await self.connection.get_message())
                self._heard.unpark_all()
        self.is_closed = True
        self._heard.unpark_all()

    def _hear(self, message: str | bytes) -> None:
        if isinstance(message, str):
            decoded = decode_agent_message_untrusted(message)
            self.control.append(decoded)
            if isinstance(decoded, CallFlush) and decoded.handle in self.players:
                self.players[decoded.handle].flush()
            return
        content = decode_binary_untrusted(message)
        if isinstance(content, DataMessage):
            self.data.append(content)
            return
        self.media_messages += 1
        self.media += content
        for record in content:
            if record.handle in self.players:
                self.players[record.handle].put(record)

    async def until(self, condition: Callable[[], object], seconds: float = 5.0) -> None:
        with trio.fail_after(seconds):
            while not condition():
                await self._heard.park()

    async def send(self, *messages: TransceiverMessage | CallPlayed) -> None:
        for message in messages:
            [encoded] = encode_played([message]) if isinstance(message, CallPlayed) else [encode_message(message)]
            await self.connection.send_message(encoded)

    async def send_data(self, handle: int, channel: int, data: str | bytes) -> None:
        await self.connection.send_message(encode_data(DataMessage(handle, channel, data)))

    async def send_frames(self, *records: MediaRecord) -> None:
        for message in encode_media(records):
            await self.connection.send_message(message)

    async def start_call(
        self,
        handle: int = 1,
        codec: str = "PCMU",
        session: dict[str, object] | None = None,
        client: CallClient | None = None,
        expires_at: int = 0,
    ) -> None:
        known = codec_by_name(codec)
        rate, channels = (known.clock_rate, known.channels) if known else (0, 0)
        await self.send(CallStart(handle, f"rtc_{handle}", codec, rate, channels, session, client, expires_at))
        answers = (CallAccept(handle), CallRefuse)
        await self.until(lambda: any(m == answers[0] or isinstance(m, CallRefuse) for m in self.control))

    async def open_channel(self, handle: int = 1, channel: int = 1, label: str = "oai-events") -> None:
        await self.send(ChannelOpen(handle, channel, label, ""))

    async def say(self, frames: list[bytes], handle: int = 1, codec: str = "PCMU", start: int = 0) -> int:
        """One frame every 20 ms, as a caller does. Returns the RTP time after the last."""
        known = codec_by_name(codec)
        assert known is not None
        for frame in frames:
            await self.send_frames(MediaRecord(handle, start, 0, frame))
            start += known.frame_samples
            await trio.sleep(FRAME_SECONDS)
        return start

    def of(self, kind: type) -> list[AgentMessage]:
        return [message for message in self.control if isinstance(message, kind)]

    def payloads(self, handle: int = 1) -> list[bytes]:
        return [record.payload for record in self.media if record.handle == handle]


class Player:
    """Plays a call's audio in (virtual) time and reports as a transceiver does."""

    def __init__(self, client: LinkClient, handle: int, frame_samples: int, reports: bool = True) -> None:
        self._client = client
        self._handle = handle
        self._frame_samples = frame_samples
        self._reports = reports
        self._waiting: list[MediaRecord] = []
        self._flushes = 0
        self._wake = trio.Event()
        self._position = 0
        self.played: list[bytes] = []
        client.players[handle] = self

    def put(self, record: MediaRecord) -> None:
        self._waiting.append(record)
        self._wake.set()

    def flush(self) -> None:
        self._waiting.clear()
        self._flushes += 1
        self._wake.set()

    async def run(self) -> None:
        last_report = -math.inf
        while True:
            if self._flushes:
                self._flushes -= 1
                await self._report(PlayedReason.FLUSHED)
            elif self._waiting:
                record = self._waiting.pop(0)
                self.played.append(record.payload)
                self._position = record.rtp_time + self._frame_samples
                await trio.sleep(FRAME_SECONDS)
                if not self._waiting and not self._flushes:
                    await self._report(PlayedReason.DRAINED)
                elif trio.current_time() - last_report >= 0.2:
                    last_report = trio.current_time()
                    await self._report(PlayedReason.PROGRESS)
            else:
                self._wake = trio.Event()
                await self._wake.wait()

    async def _report(self, reason: PlayedReason) -> None:
        if self._reports:
            buffered = len(self._waiting) * 20
            await self._client.send(CallPlayed(self._handle, self._position, buffered, reason))


@pytest.fixture
def open_link(nursery: trio.Nursery) -> Callable[..., Awaitable[LinkClient]]:
    """`client = await open_link(agent)`: a link over a memory stream, greeted. Tests ask for virtual time themselves."""

    async def open_link(agent: Agent, *, max_calls: int = 100, greet: bool = True) -> LinkClient:
        near, far = memory_stream_pair()
        statistics = Statistics()

        async def serve() -> None:
            async with trio.open_nursery() as inner:
                connection = await accept(inner, far, max_message_bytes=MAX_MESSAGE_BYTES)
                assert connection is not None
                await Link(connection, agent, "under-test", statistics, max_calls).run()
                await connection.close()

        nursery.start_soon(serve)
        connection = await wrap_client_stream(nursery, near, "agent", "/")
        client = LinkClient(connection, statistics)
        nursery.start_soon(client.listen)
        if greet:
            await client.send(TransceiverHello(LINK_VERSION, "t-test"))
            await client.until(lambda: client.control)
        return client

    return open_link


@pytest.fixture
def play(nursery: trio.Nursery) -> Callable[..., Player]:
    """`player = play(client)`: the audio of a call is now played, and reported."""

    def play(client: LinkClient, handle: int = 1, frame_samples: int = 160, *, reports: bool = True) -> Player:
        player = Player(client, handle, frame_samples, reports)
        nursery.start_soon(player.run)
        return player

    return play


@pytest.fixture(scope="session")
def link_client() -> type[LinkClient]:
    return LinkClient
