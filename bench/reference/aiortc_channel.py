"""One end of a data channel of aiortc, in a process of its own: `python -m bench.reference.aiortc_channel client|server`.

The counterpart of `bench.channel_end`: the same orders, the same messages.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import msgspec
from aiortc import RTCConfiguration, RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdatachannel import RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

from service.ready import announce

HOW_MANY = "how many?"
HIGH, LOW = 262144, 65536  # bytes buffered: where the sender waits, and until when; as ours does


class End:
    def __init__(self) -> None:
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._channel: RTCDataChannel | None = None
        self._count = 0
        self._answer: asyncio.Future[str] | None = None
        self._echo: asyncio.Future[None] | None = None
        self._opened = asyncio.Event()
        self._low = asyncio.Event()
        self._connection.on("datachannel", self._serve)

    def _serve(self, channel: RTCDataChannel) -> None:
        @channel.on("message")
        def receive(message: str | bytes) -> None:
            if message == HOW_MANY:
                channel.send(str(self._count))
                self._count = 0
            elif isinstance(message, str):
                channel.send(message.encode())
            else:
                self._count += 1

    async def offer(self) -> str:
        channel = self._channel = self._connection.createDataChannel("bench")
        channel.bufferedAmountLowThreshold = LOW
        channel.on("open", self._opened.set)
        channel.on("bufferedamountlow", self._low.set)

        @channel.on("message")
        def receive(message: str | bytes) -> None:
            if isinstance(message, bytes):
                if self._echo is not None and not self._echo.done():
                    self._echo.set_result(None)
            elif self._answer is not None:
                self._answer.set_result(message)

        await self._connection.setLocalDescription(await self._connection.createOffer())
        return str(self._connection.localDescription.sdp)

    async def answer(self, offer: str) -> str:
        await self._connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await self._connection.setLocalDescription(await self._connection.createAnswer())
        return str(self._connection.localDescription.sdp)

    async def connect(self, answer: str) -> None:
        await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def opened(self) -> None:
        await self._opened.wait()

    async def flood(self, size: int, seconds: float) -> dict[str, float]:
        channel = self._channel
        assert channel is not None
        message, began = bytes(size), time.monotonic()
        sent = 0
        while time.monotonic() - began < seconds:
            if channel.bufferedAmount > HIGH - size and channel.bufferedAmount > LOW:
                self._low.clear()
                await self._low.wait()
            channel.send(message)
            sent += 1
        self._answer = asyncio.get_running_loop().create_future()
        channel.send(HOW_MANY)
        came = await self._answer
        return {"sent": sent, "came": int(came), "seconds": time.monotonic() - began}

    async def ping(self, size: int, seconds: float) -> dict[str, Any]:
        channel = self._channel
        assert channel is not None
        text, began = "x" * size, time.monotonic()
        trips: list[float] = []
        while (start := time.monotonic()) - began < seconds:
            self._echo = asyncio.get_running_loop().create_future()
            channel.send(text)
            await self._echo
            trips.append(time.monotonic() - start)
        return {"trips": trips}

    async def close(self) -> None:
        await self._connection.close()


class Nothing:
    """Stands where aiortc expects its DTLS transport: hands packets to the other one by way of a queue."""

    state = "connected"

    def __init__(self, role: str) -> None:
        self._role = role
        self._packets: asyncio.Queue[bytes] = asyncio.Queue()
        self._receiver: Any = None
        self.other: Nothing

    async def pump(self) -> None:
        while True:
            data = await self._packets.get()
            if self._receiver is not None:
                await self._receiver._handle_data(data)

    async def _send_data(self, data: bytes) -> None:
        self.other._packets.put_nowait(data)

    def _register_data_receiver(self, receiver: Any) -> None:  # noqa: ANN401
        self._receiver = receiver

    def _unregister_data_receiver(self, receiver: Any) -> None:  # noqa: ANN401
        self._receiver = None


async def cores(size: int, seconds: float) -> dict[str, float]:
    """Two associations in this process, with nothing between them but a queue."""
    lines = [Nothing("client"), Nothing("server")]
    lines[0].other, lines[1].other = lines[1], lines[0]
    ends = [RTCSctpTransport(line) for line in lines]  # type: ignore[arg-type]
    pumps = [asyncio.create_task(line.pump()) for line in lines]
    came = 0
    opened, low, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @ends[1].on("datachannel")
    def serve(channel: RTCDataChannel) -> None:
        @channel.on("message")
        def receive(message: str | bytes) -> None:
            nonlocal came
            if isinstance(message, str):
                done.set()
            else:
                came += 1

    channel = RTCDataChannel(ends[0], RTCDataChannelParameters(label="bench"))
    channel.bufferedAmountLowThreshold = LOW
    channel.on("open", opened.set)
    channel.on("bufferedamountlow", low.set)
    for end in ends:
        await end.start(RTCSctpCapabilities(maxMessageSize=262144), 5000)
    await opened.wait()
    message, began, cpu = bytes(size), time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds:
        if channel.bufferedAmount > HIGH - size and channel.bufferedAmount > LOW:
            low.clear()
            await low.wait()
        channel.send(message)
    channel.send(HOW_MANY)
    await done.wait()
    cpu = time.process_time() - cpu
    for end in ends:
        await end.stop()
    for pump in pumps:
        pump.cancel()
    return {"came": came, "cpu": cpu}


async def main(role: str) -> None:
    end = End()
    announce()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.buffer.readline):
        order = msgspec.json.decode(line)
        said: dict[str, Any] = {}
        match order["do"]:
            case "offer":
                said = {"signal": await end.offer()}
            case "answer":
                said = {"signal": await end.answer(order["signal"])}
            case "connect":
                await end.connect(order["signal"])
            case "opened":
                await end.opened()
            case "flood":
                said = await end.flood(order["size"], order["seconds"])
            case "ping":
                said = await end.ping(order["size"], order["seconds"])
            case "cores":
                said = await cores(order["size"], order["seconds"])
        sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
        sys.stdout.flush()
    await end.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
