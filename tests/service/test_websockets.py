# ruff: noqa: ANN401  (events are of any kind)
"""WebSockets of `service.http`: where they are allowed, and what they may do."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder
from wsproto.utilities import RemoteProtocolError

from service.http import HttpFaults, HttpLimits, WebSocketLimits, serve_http

LIMITS = WebSocketLimits(
    paths=frozenset({"/echo", "/refuse", "/fail", "/close", "/busy"}),
    max_message_bytes=100_000,
    ping_seconds=0.1,
    silence_seconds=0.35,
)


class Peer:
    """A client that does nothing by itself."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.events: list[Any] = []
        self.is_gone = False
        self.answers_pings = True

    async def send(self, event: Any) -> None:
        await self.stream.send_all(self.protocol.send(event))

    async def read(self, kind: type, seconds: float = 5.0) -> Any:
        """The next event of that kind; None: the connection is gone."""
        with trio.fail_after(seconds):
            while True:
                while self.events:
                    event = self.events.pop(0)
                    if isinstance(event, Ping) and self.answers_pings:
                        with suppress(trio.BrokenResourceError):
                            await self.send(event.response())
                    if isinstance(event, kind):
                        return event
                if self.is_gone:
                    return None
                await self._receive()

    async def _receive(self) -> None:
        data = b""
        with suppress(trio.BrokenResourceError):
            data = bytes(await self.stream.receive_some(65536))
        self.is_gone = not data
        if data:
            self.protocol.receive_data(data)
            self.events += self.protocol.events()

    async def text(self) -> str:
        """The next message, whole."""
        whole = ""
        while True:
            event = await self.read(TextMessage)
            whole += event.data
            if event.message_finished:
                return whole


class Server:
    """What its applications saw."""

    def __init__(self) -> None:
        self.faults = HttpFaults()
        self.goodbyes: list[tuple[int, str]] = []
        self.received = 0
        self.may_read = trio.Event()
        self.address = ("", 0)


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    server = Server()

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept("realtime" if "realtime" in websocket.scope["subprotocols"] else None)
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as closed:
            server.goodbyes.append((closed.code, closed.reason))

    async def refuse(websocket: WebSocket) -> None:
        await websocket.send_denial_response(JSONResponse({"error": "no"}, 404))

    async def fail(websocket: WebSocket) -> None:
        await websocket.accept()
        raise ValueError("a bug")

    async def close(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close(4001, "that was it")

    async def busy(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await server.may_read.wait()
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            server.received += 1

    routes = [WebSocketRoute("/" + app.__name__, app) for app in (echo, refuse, fail, close, busy)]
    app = Starlette(routes=[*routes, WebSocketRoute("/elsewhere", echo)])
    limits = HttpLimits(header_seconds=5, read_seconds=5, write_seconds=0.3)

    async def serve(*, task_status: trio.TaskStatus[list[str]]) -> None:
        await serve_http(
            app, ("127.0.0.1:0",), limits=limits, faults=server.faults, websockets=LIMITS, task_status=task_status
        )

    (url,) = await nursery.start(serve)
    server.address = ("127.0.0.1", int(url.rpartition(":")[2]))
    return server


class Counted(trio.abc.Instrument):
    """The frames that servers parsed, in all and in one step of a task."""

    def __init__(self) -> None:
        self.of_servers = self.most_at_once = self._in_step = 0

    def note(self) -> None:
        self.of_servers += 1
        self._in_step += 1
        self.most_at_once = max(self.most_at_once, self._in_step)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._in_step = 0


@pytest.fixture
async def frames(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Counted]:
    counted = Counted()
    parse = FrameDecoder.process_buffer

    def process_buffer(decoder: FrameDecoder) -> Any:
        frame = parse(decoder)
        if frame is not None and not decoder.client:
            counted.note()
        return frame

    monkeypatch.setattr(FrameDecoder, "process_buffer", process_buffer)
    trio.lowlevel.add_instrument(counted)
    yield counted
    trio.lowlevel.remove_instrument(counted)


@asynccontextmanager
async def opened(server: Server, path: str, **options: Any) -> Any:
    async with await trio.open_tcp_stream(*server.address) as stream:
        peer = Peer(stream)
        await peer.send(Request(host="x", target=path, **options))
        await peer._receive()
        yield peer


async def test_messages_go_both_ways_whole_or_in_pieces_and_nothing_is_compressed(server: Server) -> None:
    async with opened(server, "/echo", subprotocols=["x", "realtime"], extensions=[PerMessageDeflate()]) as peer:
        accepted = await peer.read(AcceptConnection)
        assert accepted.subprotocol == "realtime"
        assert not accepted.extensions
        await peer.send(TextMessage("whole"))
        assert await peer.text() == "whole"
        for piece, last in (("in ", False), ("", False), ("pieces ä", True)):
            await peer.send(TextMessage(piece, message_finished=last))
        assert await peer.text() == "in pieces ä"
        large = "y" * 100_000
        await peer.send(TextMessage(large))
        assert await peer.text() == large
        await peer.send(Ping(b"are you there?"))
        assert (await peer.read(Pong)).payload == b"are you there?"
        await peer.send(CloseConnection(code=4000, reason="enough"))
        assert (await peer.read(CloseConnection)).code == 4000
        assert await peer.read(Message) is None
    assert server.goodbyes == [(4000, "enough")]
    assert not server.faults.count


async def test_elsewhere_an_upgrade_is_passed_over(server: Server) -> None:
    async with opened(server, "/elsewhere") as peer:
        assert (await peer.read(RejectConnection)).status_code == 404


async def test_an_application_refuses_by_http(server: Server) -> None:
    async with opened(server, "/refuse") as peer:
        assert (await peer.read(RejectConnection)).status_code == 404
        assert (await peer.read(RejectData)).data == b'{"error":"no"}'


async def test_an_application_that_fails_costs_its_own_connection(server: Server) -> None:
    async with opened(server, "/fail") as peer:
        await peer.read(AcceptConnection)
        assert (await peer.read(CloseConnection)).code == CloseReason.INTERNAL_ERROR
        assert await peer.read(Message) is None


async def test_a_goodbye_of_ours_arrives_though_the_client_is_still_sending(server: Server) -> None:
    async with opened(server, "/close") as peer:
        with suppress(trio.BrokenResourceError):
            for _ in range(3):
                await peer.stream.send_all(frame(b"z" * 5000))
        closed = await peer.read(CloseConnection)
        assert (closed.code, closed.reason) == (4001, "that was it")
        await peer.send(closed.response())
        assert await peer.read(Message) is None


def frame(payload: bytes) -> bytes:
    """Of text, masked by nothing."""
    return b"\x81\xfe" + len(payload).to_bytes(2, "big") + bytes(4) + payload


@pytest.mark.slow
async def test_who_does_not_say_goodbye_is_not_waited_for_long(server: Server) -> None:
    async with opened(server, "/close") as peer:
        await peer.read(CloseConnection)
        peer.answers_pings = False
        began = trio.current_time()
        assert await peer.read(Message) is None
        assert trio.current_time() - began < 3


async def test_a_message_beyond_the_limit_is_answered_by_1009_and_never_kept(server: Server) -> None:
    async with opened(server, "/echo") as peer:
        await peer.read(AcceptConnection)
        for _ in range(12):
            await peer.send(TextMessage("x" * 10_000, message_finished=False))
        assert (await peer.read(CloseConnection)).code == CloseReason.MESSAGE_TOO_BIG
    await until(lambda: server.goodbyes)
    assert server.goodbyes[0][0] == 1009


@pytest.mark.parametrize("seed", range(4))
async def test_pieces_large_and_small_become_the_message_that_they_were(server: Server, seed: int) -> None:
    entropy = random.Random(seed)
    words = ["", "a", "ä\r\n", "\U0001f600", "x" * 70, "y" * 5000]
    async with opened(server, "/echo") as peer:
        for _ in range(6):
            pieces = [entropy.choice(words) for _ in range(entropy.randrange(1, 12))]
            for at, piece in enumerate(pieces, 1):
                await peer.send(TextMessage(piece, message_finished=at == len(pieces)))
            assert await peer.text() == "".join(pieces)


FLOODS = {
    "pongs": (b"", b"\x8a\x80" + bytes(4)),
    "pings": (b"", b"\x89\x80" + bytes(4)),
    "empty fragments": (b"\x01\x80" + bytes(4), b"\x00\x80" + bytes(4)),
    "small fragments": (b"\x02\x80" + bytes(4), b"\x00\x82" + bytes(4) + b"ab"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FLOODS)
async def test_many_frames_that_say_nothing_are_answered_by_1008_and_the_rest_is_not_looked_at(
    server: Server, kind: str, frames: Counted
) -> None:
    first, unit = FLOODS[kind]
    async with opened(server, "/echo") as peer, trio.open_nursery() as nursery:
        await peer.read(AcceptConnection)
        began = trio.current_time()

        async def flood() -> None:
            with suppress(trio.BrokenResourceError):
                await peer.stream.send_all(first)
                while True:
                    await peer.stream.send_all(unit * 5000)

        nursery.start_soon(flood)
        assert (await peer.read(CloseConnection)).code == CloseReason.POLICY_VIOLATION
        assert await peer.read(Message) is None
        assert trio.current_time() - began < 4  # though it went on
    await until(lambda: server.goodbyes)
    assert server.goodbyes[0][0] == 1008
    assert frames.of_servers < 1000  # of some millions


async def test_a_few_frames_are_read_at_a_time_and_then_others_have_their_turn(server: Server, frames: Counted) -> None:
    async with opened(server, "/busy") as peer:
        await peer.read(AcceptConnection)
        await peer.stream.send_all(FLOODS["pongs"][1] * 150)
        await until(lambda: frames.of_servers >= 150)
    assert frames.most_at_once <= 17


async def test_of_pings_that_come_at_once_the_last_is_answered(server: Server) -> None:
    async with opened(server, "/echo") as peer:
        await peer.read(AcceptConnection)
        await peer.stream.send_all(b"".join(b"\x89\x81" + bytes(4) + bytes([number]) for number in range(10)))
        assert (await peer.read(Pong)).payload == b"\x09"
        await peer.send(TextMessage("on"))
        assert await peer.text() == "on"


async def test_fragments_count_against_the_limit_of_a_message_besides_their_bytes(server: Server) -> None:
    async with opened(server, "/echo") as peer:
        await peer.read(AcceptConnection)
        for _ in range(900):  # of 70 bytes: 63 000
            await peer.send(BytesMessage(bytes(70), message_finished=False))
        assert (await peer.read(CloseConnection)).code == CloseReason.MESSAGE_TOO_BIG


@pytest.mark.slow
async def test_a_client_that_answers_pings_may_be_silent_and_one_that_does_not_is_dropped(server: Server) -> None:
    async with opened(server, "/echo") as peer:
        with trio.move_on_after(1.0):
            await peer.read(TextMessage)
        await peer.send(TextMessage("still here"))
        assert await peer.text() == "still here"
        peer.answers_pings = False
        began = trio.current_time()
        assert await peer.read(TextMessage) is None
        assert 0.2 < trio.current_time() - began < 2
    await until(lambda: server.goodbyes)
    assert server.goodbyes[0][0] == 1006


@pytest.mark.slow
async def test_an_application_that_reads_slowly_makes_its_client_wait_and_loses_neither_it_nor_a_message(
    server: Server,
) -> None:
    sent = 0
    async with opened(server, "/busy") as peer, trio.open_nursery() as nursery:
        await peer.read(AcceptConnection)

        async def flood() -> None:
            nonlocal sent
            for _ in range(400):
                await peer.send(TextMessage("x" * 50_000))
                sent += 1

        nursery.start_soon(flood)
        await trio.sleep(0.8)  # longer than any silence that is borne
        assert sent < 400
        server.may_read.set()
        await until(lambda: server.received == 400, 20)


@pytest.mark.slow
async def test_a_client_that_reads_nothing_is_dropped(server: Server) -> None:
    async with opened(server, "/echo") as peer:
        await peer.read(AcceptConnection)
        with trio.fail_after(10), suppress(trio.BrokenResourceError):
            while True:
                await peer.send(TextMessage("x" * 100_000))
    assert not server.faults.count


@pytest.mark.parametrize("seed", range(8))
async def test_no_bytes_harm_more_than_their_connection(server: Server, seed: int) -> None:
    entropy = random.Random(seed)
    async with opened(server, "/echo") as peer:
        await peer.read(AcceptConnection)
        with suppress(trio.BrokenResourceError):
            for _ in range(20):
                await peer.stream.send_all(entropy.randbytes(entropy.randrange(1, 400)))
            await peer.stream.send_eof()
        with trio.fail_after(5):
            while not peer.is_gone:
                try:
                    await peer._receive()
                except RemoteProtocolError:  # it says goodbye twice, perhaps, to one who has lost the thread
                    break
    async with opened(server, "/echo") as peer:
        await peer.send(TextMessage("as before"))
        assert await peer.text() == "as before"
    assert not server.faults.count


@pytest.mark.parametrize(
    "head",
    [
        "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: x\r\n"
        "Sec-WebSocket-Version: 8\r\n\r\n",
        "GET /echo HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_a_handshake_that_is_none_is_answered_with_400(server: Server, head: str) -> None:
    async with await trio.open_tcp_stream(*server.address) as stream:
        await stream.send_all(head.encode())
        answer = b""
        with trio.fail_after(5):
            while piece := await stream.receive_some(65536):
                answer += piece
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert not server.faults.count


async def test_only_a_get_is_an_upgrade(server: Server) -> None:
    async with await trio.open_tcp_stream(*server.address) as stream:
        head = "POST /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 0\r\n"
        head += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        await stream.send_all(head.encode())
        assert (await stream.receive_some(12)) == b"HTTP/1.1 404"


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.005)
