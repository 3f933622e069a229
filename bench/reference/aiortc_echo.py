"""aiortc as an echo server, in a process of its own (it is asyncio): `python -m bench.reference.aiortc_echo passing|coding`.

It answers the same HTTP requests as our transceiver, with the same HTTP server, and returns audio and data messages.

passing   Opus frames go back as they came: aiortc's decoder is replaced by one that hands the packet on, which its sender takes
          as it is. This is the work that our transceiver and agent do.
coding    As aiortc does it by itself: decoded in its worker thread and encoded anew. What it encoded is thrown away and the
          packet that came is sent, because our caller knows its frames again only as they were; the work is the same.
"""

from __future__ import annotations

import asyncio
import fractions
import os
import signal
import socket
import sys
from typing import Any

import aioice.ice
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import av
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.codecs import get_decoder, get_encoder
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.ready import announce

RATE = 48_000


class PassingDecoder:
    """In place of aiortc's: the packet is the frame."""

    def __init__(self, decoder: Any) -> None:  # noqa: ANN401 - aiortc's own, None if nothing is to be decoded
        self._decoder = decoder

    def decode(self, encoded: Any) -> list[Any]:  # noqa: ANN401
        packet: Any = av.Packet(encoded.data)
        packet.pts = encoded.timestamp
        packet.time_base = fractions.Fraction(1, RATE)
        packet.opaque = self._decoder.decode(encoded) if self._decoder is not None else ()
        return [packet]


class CodingEncoder:
    """In place of aiortc's: encodes what was decoded, and sends the packet."""

    def __init__(self, encoder: Any) -> None:  # noqa: ANN401
        self._encoder = encoder

    def pack(self, packet: Any) -> Any:  # noqa: ANN401
        for frame in packet.opaque:
            self._encoder.encode(frame)
        return self._encoder.pack(packet)


class Echo(MediaStreamTrack):
    kind = "audio"

    def __init__(self, source: MediaStreamTrack) -> None:
        super().__init__()
        self._source = source

    async def recv(self) -> Any:  # noqa: ANN401
        return await self._source.recv()


def replace_codecs(coding: bool) -> None:
    receiver: Any = aiortc.rtcrtpreceiver
    sender: Any = aiortc.rtcrtpsender
    receiver.get_decoder = lambda codec: PassingDecoder(get_decoder(codec) if coding else None)
    if coding:
        sender.get_encoder = lambda codec: CodingEncoder(get_encoder(codec))


class Server:
    def __init__(self) -> None:
        self._peers: dict[str, RTCPeerConnection] = {}

    async def create(self, request: Request) -> Response:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.on("track", lambda track: peer.addTrack(Echo(track)))
        peer.on("datachannel", lambda channel: channel.on("message", channel.send))
        offer = (await request.body()).decode()
        await peer.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        number = str(id(peer))
        self._peers[number] = peer
        headers = {"Location": f"/v1/realtime/calls/{number}"}
        return Response(peer.localDescription.sdp, 201, headers, media_type="application/sdp")

    async def hang_up(self, request: Request) -> Response:
        await self._peers.pop(request.path_params["call"]).close()
        return Response(status_code=200)


async def main(kind: str) -> None:
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]  # it leaves loopback out by itself
    replace_codecs(kind == "coding")
    server = Server()
    routes = [
        Route("/v1/realtime/calls", server.create, methods=["POST"]),
        Route("/v1/realtime/calls/{call}/hangup", server.hang_up, methods=["POST"]),
    ]
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.errorlog = None
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    announce(http=[f"http://127.0.0.1:{listener.getsockname()[1]}/"])
    await serve(Starlette(routes=routes), config, shutdown_trigger=end.wait)  # type: ignore[arg-type]
    os._exit(0)  # connections that are still closing would be complained about, each by itself


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
