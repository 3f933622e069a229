# ruff: noqa: ANN401  (what is in JSON is anything)
"""A server of the OpenAI API that does as it is told: HTTP/1.1 by h11 over any stream, what it says made of the `openai`
package's own types, so that it is as the API has it.

`script` has what it does with the next requests, one each; afterwards it answers as a good server does.
"""

from __future__ import annotations

import itertools
import json
import struct
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import h11
import httpcore
import httpx
import trio
from httpcore._backends.trio import TrioStream
from openai.types.audio import Transcription
from openai.types.chat import ChatCompletionChunk, CompletionCreateParams
from openai.types.completion_usage import CompletionUsage
from pydantic import TypeAdapter
from trio.testing import memory_stream_pair

CREATE: TypeAdapter[Any] = TypeAdapter(CompletionCreateParams)
"""What the API takes; every request for a completion is held against it."""

JSON = "application/json"
SSE = "text/event-stream; charset=utf-8"
PCM = "audio/pcm"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, Message]:
        """The parts of a multipart body, by name."""
        whole = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode() + self.body
        parts = BytesParser(policy=HTTP).parsebytes(whole).iter_parts()
        return {part.get_param("name", header="content-disposition"): part for part in parts}


class Exchange:
    """One request, and the way of its answer."""

    def __init__(self, request: Request, connection: h11.Connection, stream: trio.abc.Stream) -> None:
        self.request = request
        self._connection = connection
        self._stream = stream

    async def start(self, status: int = 200, content_type: str = JSON, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        await self._send(
            h11.Response(status_code=status, headers=[*{"content-type": content_type, **names}.items()])  # type: ignore[arg-type]
        )

    async def send(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def answer(self, body: bytes, status: int = 200, content_type: str = JSON, **headers: str) -> None:
        await self.start(status, content_type, content_length=str(len(body)), **headers)
        await self.send(body)
        await self.end()

    async def event(self, data: str) -> None:
        await self.send(f"data: {data}\n\n".encode())

    async def drop(self) -> None:
        """Hang up, whatever was promised."""
        await self._stream.aclose()

    async def _send(self, event: Any) -> None:
        data = self._connection.send(event)
        if data:
            await self._stream.send_all(data)


Act = Callable[[Exchange], Awaitable[None]]


@dataclass
class OpenAiServer:
    words: Sequence[str] = ("It is ", "noon.")
    transcript: str = "what time is it"
    sound: bytes = b""
    script: deque[Act] = field(default_factory=deque)
    requests: list[Request] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    is_down: bool = False
    hangups: list[float] = field(default_factory=list)
    """When clients left before the answer's end."""

    async def serve(self, stream: trio.abc.Stream) -> None:
        """One connection, until either side ends it."""
        self.connections += 1
        self.open += 1
        try:
            async with stream:
                await self._serve(stream)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, h11.ProtocolError):
            pass
        finally:
            self.open -= 1

    async def _serve(self, stream: trio.abc.Stream) -> None:
        connection = h11.Connection(h11.SERVER)
        while (request := await self._read(connection, stream)) is not None:
            self.requests.append(request)
            self.times.append(trio.current_time())
            exchange = Exchange(request, connection, stream)
            act = self.script.popleft() if self.script else self._usual(request.path)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, stream, nursery.cancel_scope)
                await act(exchange)
                nursery.cancel_scope.cancel()
            if connection.our_state is not h11.DONE:
                return
            connection.start_next_cycle()

    async def _watch(self, stream: trio.abc.Stream, scope: trio.CancelScope) -> None:
        """Whether the client leaves; it sends nothing before it has the answer."""
        try:
            data = await stream.receive_some(1)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        assert not data
        self.hangups.append(trio.current_time())
        scope.cancel()

    @staticmethod
    async def _read(connection: h11.Connection, stream: trio.abc.Stream) -> Request | None:
        head, body = None, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(65536))
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Request(head.method.decode(), head.target.decode(), headers, body)
            else:
                return None

    def _usual(self, path: str) -> Act:
        match path.rpartition("/v1/")[2]:
            case "chat/completions":
                return completion(says(*self.words), usage=usage(12, 5))
            case "audio/transcriptions":
                return transcription(self.transcript)
            case "audio/speech":
                return speech(self.sound)
        return refuse(404, {"error": {"message": f"no such path: {path}"}})

    def transport(self, nursery: trio.Nursery) -> httpx.AsyncHTTPTransport:
        """The way to it through memory: httpx, its pool and its HTTP are the real ones."""
        transport = httpx.AsyncHTTPTransport(verify=False)
        transport._pool = httpcore.AsyncConnectionPool(
            max_connections=10, max_keepalive_connections=10, network_backend=_Memory(self, nursery)
        )
        return transport


@contextmanager
def served_beside(server: OpenAiServer) -> Iterator[int]:
    """On loopback, by a thread: for tests that are several runs of trio. The port."""
    ports: list[int] = []
    bound, scope = threading.Event(), trio.CancelScope()
    token: list[trio.lowlevel.TrioToken] = []

    async def serve() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        ports.append(listeners[0].socket.getsockname()[1])
        token.append(trio.lowlevel.current_trio_token())
        bound.set()
        with scope:
            await trio.serve_listeners(server.serve, listeners)

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    bound.wait()
    try:
        yield ports[0]
    finally:
        token[0].run_sync_soon(scope.cancel)
        thread.join()


class _Memory(httpcore.AsyncNetworkBackend):
    def __init__(self, server: OpenAiServer, nursery: trio.Nursery) -> None:
        self._server = server
        self._nursery = nursery

    async def connect_tcp(self, host: str, port: int, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        await trio.lowlevel.checkpoint()
        if self._server.is_down:
            raise httpcore.ConnectError("nobody listens")
        near, far = memory_stream_pair()
        self._nursery.start_soon(self._server.serve, far)
        return _MemoryStream(near)


class _MemoryStream(TrioStream):
    def get_extra_info(self, info: str) -> Any:
        return False if info == "is_readable" else None


# What it says


def chunk(delta: dict[str, Any] | None = None, finish_reason: str | None = None, **fields: Any) -> str:
    """One piece of a completion, as the API has it."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    made = ChatCompletionChunk.model_validate(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_800_000_000,
            "model": "m",
            "choices": choices,
            **fields,
        },
        strict=True,
    )
    return made.model_dump_json(exclude_unset=True)


def says(*words: str) -> list[str]:
    return [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in words)]


def calls(name: str, *arguments: str, index: int = 0, call_id: str | None = None) -> list[str]:
    """The pieces of one call of a function."""
    head = {"index": index, "id": call_id or f"call_{index}", "type": "function"}
    pieces = [{**head, "function": {"name": name, "arguments": ""}}]
    pieces += [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return [chunk({"tool_calls": [piece]}) for piece in pieces]


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    counted = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
    }
    return CompletionUsage.model_validate(counted, strict=True).model_dump(exclude_unset=True)


def completion(
    chunks: Iterable[str],
    finish_reason: str | None = "stop",
    usage: dict[str, Any] | None = None,
    *,
    pause: float = 0.0,
    done: bool = True,
) -> Act:
    """A good answer; `pause`: seconds before each piece."""

    async def act(exchange: Exchange) -> None:
        CREATE.validate_python(exchange.request.json)
        await exchange.start(content_type=SSE)
        last = [chunk({}, finish_reason)] if finish_reason else []
        counted = [chunk(usage=usage)] if usage is not None else []
        for data in itertools.chain(chunks, last, counted, ["[DONE]"] if done else []):
            await trio.sleep(pause)
            await exchange.event(data)
        await exchange.end()

    return act


def transcription(text: str) -> Act:
    body = Transcription.model_validate(
        {"text": text, "usage": {"type": "duration", "seconds": 1.0}}, strict=True
    ).model_dump_json(exclude_unset=True)
    return lambda exchange: exchange.answer(body.encode())


def speech(sound: bytes, piece: int = 9601, pause: float = 0.0) -> Act:
    """In pieces that do not end with whole samples."""

    async def act(exchange: Exchange) -> None:
        await exchange.start(content_type=PCM)
        for at in range(0, len(sound), piece):
            await trio.sleep(pause)
            await exchange.send(sound[at : at + piece])
        await exchange.end()

    return act


def refuse(status: int, body: Any, **headers: str) -> Act:
    return lambda exchange: exchange.answer(json.dumps(body).encode(), status, **headers)


def tone(seconds: float, rate: int = 24_000) -> bytes:
    """Not silence: a saw."""
    count = int(seconds * rate)
    return struct.pack(f"<{count}h", *((n % 100) * 100 - 5000 for n in range(count)))
