# ruff: noqa: ANN401
"""aiortc's SCTP over UDP on loopback, without its DTLS. Run as a script: asyncio stays out of the test process.

Arguments: DTLS role to play, UDP port of the other side. Prints its own port. Then: echoes every message of every
channel; opens a channel "theirs", sends MESSAGES on it, and closes it once all of them came back unchanged.
Lines on standard output say what happened. A message "stop" ends the association and the process.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from aiortc.rtcdatachannel import RTCDataChannel, RTCDataChannelParameters
from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport

MESSAGES: list[str | bytes] = ["grüß dich ☎", b"\x00\x01\xff", "", b"", bytes(range(256)) * 256, "é" * 32768]


class PlainTransport(asyncio.DatagramProtocol):
    """Stands where aiortc expects its DTLS transport."""

    state = "connected"

    def __init__(self, role: str, port: int) -> None:
        self._role = role
        self._remote = ("127.0.0.1", port)
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._receiver: Any = None
        self.socket: Any = None

    def connection_made(self, transport: Any) -> None:
        self.socket = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._queue.put_nowait(data)

    async def pump(self) -> None:
        while True:
            data = await self._queue.get()
            if self._receiver is not None:
                await self._receiver._handle_data(data)

    async def _send_data(self, data: bytes) -> None:
        self.socket.sendto(data, self._remote)

    def _register_data_receiver(self, receiver: Any) -> None:
        self._receiver = receiver

    def _unregister_data_receiver(self, receiver: Any) -> None:
        self._receiver = None


def say(*words: object) -> None:
    print(*words, flush=True)


async def main(role: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    plain = PlainTransport(role, port)
    await loop.create_datagram_endpoint(lambda: plain, local_addr=("127.0.0.1", 0))
    sctp = RTCSctpTransport(plain)  # type: ignore[arg-type]
    stopped = asyncio.Event()

    @sctp.on("datachannel")
    def opened(channel: RTCDataChannel) -> None:
        say("opened", channel.label, channel.protocol, channel.ordered, channel.id)

        @channel.on("message")
        def echo(message: str | bytes) -> None:
            if message == "stop":
                stopped.set()
            else:
                channel.send(message)

        @channel.on("close")
        def closed() -> None:
            say("closed", channel.label)

    theirs = RTCDataChannel(sctp, RTCDataChannelParameters(label="theirs", protocol="p"))
    negotiated = RTCDataChannel(sctp, RTCDataChannelParameters(label="agreed", negotiated=True, id=500))
    returned: list[str | bytes] = []

    @theirs.on("open")
    def send() -> None:
        for message in MESSAGES:
            theirs.send(message)

    @theirs.on("message")
    def came_back(message: str | bytes) -> None:
        returned.append(message)
        if len(returned) == len(MESSAGES):
            say("returned", returned == MESSAGES)
            theirs.close()

    @theirs.on("close")
    def theirs_closed() -> None:
        say("closed theirs")

    @negotiated.on("message")
    def agreed(message: str | bytes) -> None:
        negotiated.send(message)

    say(plain.socket.get_extra_info("sockname")[1])
    pump = asyncio.create_task(plain.pump())
    await sctp.start(RTCSctpCapabilities(maxMessageSize=262144), 5000)
    await stopped.wait()
    await sctp.stop()
    pump.cancel()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
