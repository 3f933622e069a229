"""What answers at an agent's address need be no agent: the link fails, is made again, and the transceiver lives."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace

import pytest
import trio

from protocol.codecs import OPUS
from transceiver.backends.agent_link import AgentLink
from transceiver.backends.base import Attachment, BackendEvent, Call, MediaFrame

PROTOCOL_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 §1.3
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
SWITCH = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


def frame(opcode: int, data: bytes, *, final: bool = True, bits: int = 0, masked: bool = False) -> bytes:
    size = len(data)
    head = bytes((opcode | bits | (0x80 if final else 0),))
    mask = 0x80 if masked else 0
    if size < 126:
        head += bytes((size | mask,))
    elif size < 65536:
        head += bytes((126 | mask,)) + size.to_bytes(2, "big")
    else:
        head += bytes((127 | mask,)) + size.to_bytes(8, "big")
    return head + (bytes(4) if masked else b"") + data


HELLO = frame(TEXT, b'{"type":"hello","version":2,"agent":"x"}')
WORDS = (b"call.accept", b"call.accept", b"call.flush", b"call.refuse", b"call.end", b"call.end")

BEFORE_THE_SWITCH = {
    "noise": os.urandom(3000),
    "another status": b"HTTP/1.1 200 OK\r\n\r\n",
    "elsewhere": b"HTTP/1.1 302 x\r\nLocation: ws://elsewhere/\r\n\r\n",
    "no headers": b"HTTP/1.1 101 x\r\n\r\n",
    "a wrong key": SWITCH + b"Sec-WebSocket-Accept: x\r\n\r\n",
    "headers without end": b"HTTP/1.1 101 x\r\nA: " + b"b" * 100_000,
    "headers in no alphabet": SWITCH.replace(b"Upgrade\r\n", b"\xff\xfe\r\n") + b"Sec-WebSocket-Accept: \xff\r\n\r\n",
    "extensions nobody asked for": SWITCH + b"Sec-WebSocket-Extensions: permessage-deflate; x=y\r\n\r\n",
}
AFTER_THE_SWITCH = {
    "noise": os.urandom(500),
    "masked frames": frame(TEXT, b"{}", masked=True),
    "a hello in binary": frame(BINARY, b'{"type":"hello","version":2,"agent":"x"}'),
    "a hello of another version": frame(TEXT, b'{"type":"hello","version":1,"agent":"x"}'),
    "a hello without measure": frame(TEXT, b'{"type":"hello","version":2,"agent":"' + b"x" * 250_000 + b'"}'),
    "text that is none": HELLO + frame(TEXT, b"\xff\xff"),
    "reserved bits": HELLO + frame(TEXT, b"a", bits=0x40),
    "a message too large": HELLO + frame(BINARY, b"\1" * 300_000),
    "a promise of exabytes": HELLO + b"\x82\x7f\x7f" + b"\xff" * 7,
    "empty fragments": HELLO + frame(BINARY, b"", final=False) + frame(0, b"", final=False) * 5000,
    "pings": HELLO + frame(PING, b"x" * 125) * 2000,
    "a long ping": HELLO + frame(PING, b"x" * 200),
    "a close of one byte": HELLO + frame(CLOSE, b"\0"),
    "words after the close": HELLO + frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"{}") * 20,
    "deep json": HELLO + frame(TEXT, b'{"type":' + b"[" * 100_000),
    "handles of nobody": HELLO
    + frame(TEXT, b'{"type":"call.accept","handle":99}') * 50
    + frame(TEXT, b'{"type":"call.end"}'),
    "all words for one call": HELLO
    + b"".join(frame(TEXT, b'{"type":"%s","handle":1,"reason":"x"}' % word) for word in WORDS),
    "frames by the thousand": HELLO + frame(BINARY, b"\1\0\x4e\x20" + (b"\0\0\0\1" + bytes(8)) * 20_000) * 4,
    "as many frames as a message may have": HELLO
    + frame(BINARY, b"\1\0\x15\x55" + (b"\0\0\0\1" + bytes(8)) * 5461) * 16,
    "reports that are ours to give": HELLO + frame(BINARY, b"\3\0\0\1\0\0\0\1" + bytes(8)) * 20,
}


class Counting:
    def __init__(self) -> None:
        self.posted = 0

    def post(self, call: Call, attachment: Attachment | None, event: BackendEvent) -> None:
        self.posted += 1

    def post_media(self, frames: list[MediaFrame]) -> None:
        self.posted += len(frames)


async def shake_hands(stream: trio.SocketStream) -> None:
    request = b""
    while b"\r\n\r\n" not in request:
        request += await stream.receive_some()
    lines = (line.partition(b":") for line in request.split(b"\r\n"))
    [key] = [value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1(key + PROTOCOL_KEY).digest())
    await stream.send_all(SWITCH + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")


CASES = [(False, data) for data in BEFORE_THE_SWITCH.values()] + [(True, data) for data in AFTER_THE_SWITCH.values()]
NAMES = [*BEFORE_THE_SWITCH, *(f"websocket, {name}" for name in AFTER_THE_SWITCH)]


@pytest.mark.parametrize(("switches", "data"), CASES, ids=NAMES)
async def test_nothing_that_an_agent_says_ends_the_task_of_its_link(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, switches: bool, data: bytes
) -> None:
    monkeypatch.setattr("transceiver.backends.agent_link.RETRY_FIRST", 0.005)
    monkeypatch.setattr("transceiver.backends.agent_link.CONNECT_SECONDS", 0.1)
    visits = 0
    come_again: Callable[[], None] = (again := trio.Event()).set

    async def answer(stream: trio.SocketStream) -> None:
        nonlocal visits
        visits += 1
        if visits == 3:
            come_again()
        try:
            if switches:
                await shake_hands(stream)
            await stream.send_all(data)
            with trio.move_on_after(0.02):
                while await stream.receive_some():
                    pass
        except trio.BrokenResourceError:
            pass

    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(partial(trio.serve_listeners, answer, [listener]))
    inbox = Counting()
    link = AgentLink(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/", "test", inbox, lambda: None)
    nursery.start_soon(link.run)

    async def call_all_the_time() -> None:
        while True:
            if link.is_usable:
                call = SimpleNamespace(call_id="c", codec=OPUS, session=None, client=None, expires_at=0, uplink=None)
                attachment = link.open(call)  # type: ignore[arg-type]
                attachment.message(1, "x" * 1000)
                link.flush()
            await trio.sleep(0.002)

    nursery.start_soon(call_all_the_time)
    with trio.fail_after(5):
        await again.wait()
    assert link._queued_bytes < 1024 * 1024
    nursery.cancel_scope.cancel()
