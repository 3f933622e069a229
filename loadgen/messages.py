"""What the processes of one generator say to each other, over pipes: a length of four bytes, and so much msgpack.

parent   Order     what to do, and which part of it
worker   Ready     the program is loaded, the HTTP client is there
parent   Begin     when the run begins, on the clock that all processes of the machine share
worker   Progress  now and then
worker   Result    when its calls have ended
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import trio

from loadgen.distribution import Histogram
from loadgen.options import Options
from loadgen.result import Progress, Result
from loadgen.script import Script

__all__ = ["Begin", "Order", "Ready", "read_from_worker", "read_to_worker", "say"]

# Implementation constants
CHUNK = 1 << 16


class Order(msgspec.Struct, tag=True, kw_only=True):
    options: Options
    url: str
    run: bytes
    """The mark that tells the frames of this run from those of any other."""
    first: int
    every: int
    """Which calls: every so manieth, from the first on."""
    cpu: int | None = None
    """The only one to run on."""
    script: Script | None = None
    """What is said, if calls converse."""


class Begin(msgspec.Struct, tag=True):
    at: float
    """On CLOCK_MONOTONIC."""


class Ready(msgspec.Struct, tag=True):
    pass


def _encode_hook(value: object) -> object:
    if isinstance(value, Histogram):
        return value.counts(), value.maximum
    raise NotImplementedError(type(value).__name__)


def _decode_hook(kind: type, value: object) -> object:
    if kind is not Histogram:
        raise NotImplementedError(kind.__name__)
    histogram = Histogram()
    histogram.fill(*msgspec.convert(value, tuple[dict[int, int], float]))
    return histogram


_ENCODER = msgspec.msgpack.Encoder(enc_hook=_encode_hook)
_TO_WORKER = msgspec.msgpack.Decoder(Order | Begin, dec_hook=_decode_hook)
_FROM_WORKER = msgspec.msgpack.Decoder(Ready | Progress | Result, dec_hook=_decode_hook)


async def say(stream: trio.abc.SendStream, message: object) -> None:
    body = _ENCODER.encode(message)
    await stream.send_all(len(body).to_bytes(4, "big") + body)


async def read_to_worker(stream: trio.abc.ReceiveStream) -> AsyncIterator[Order | Begin]:
    async for body in _read_bodies(stream):
        yield _TO_WORKER.decode(body)


async def read_from_worker(stream: trio.abc.ReceiveStream) -> AsyncIterator[Ready | Progress | Result]:
    async for body in _read_bodies(stream):
        yield _FROM_WORKER.decode(body)


async def _read_bodies(stream: trio.abc.ReceiveStream) -> AsyncIterator[bytes]:
    """Until the stream ends; a last one that is cut off is not among them."""
    heard = bytearray()
    while chunk := await stream.receive_some(CHUNK):
        heard += chunk
        while len(heard) >= 4 and len(heard) >= 4 + (length := int.from_bytes(heard[:4], "big")):
            yield bytes(heard[4 : 4 + length])
            del heard[: 4 + length]
