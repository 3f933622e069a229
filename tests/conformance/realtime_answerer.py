"""The least that the Realtime SDK connects to: aiortc, which answers its offer and acknowledges its configuration, in a process
of its own (it is asyncio): `python realtime_answerer.py`. It neither speaks nor listens.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket

import aioice.ice
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from hypercorn.asyncio import serve
from hypercorn.config import Config
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.ready import announce

PATH = "/v1/realtime/calls"


class Server:
    def __init__(self) -> None:
        self._peers: list[RTCPeerConnection] = []

    async def create(self, request: Request) -> Response:
        peer = RTCPeerConnection()
        self._peers.append(peer)
        peer.on("datachannel", self._acknowledge)
        peer.addTrack(AudioStreamTrack())  # silence
        await peer.setRemoteDescription(RTCSessionDescription(sdp=(await request.body()).decode(), type="offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        location = {"Location": f"{PATH}/rtc_{len(self._peers)}"}
        return Response(peer.localDescription.sdp, 201, location, media_type="application/sdp")

    def _acknowledge(self, channel) -> None:
        session = {"type": "realtime", "object": "realtime.session", "id": "sess_1", "model": "none", "tracing": None}
        number = 0

        def tell(kind: str) -> None:
            nonlocal number
            number += 1
            channel.send(json.dumps({"type": kind, "event_id": f"event_{number}", "session": session}))

        @channel.on("message")
        def on_message(message: str) -> None:
            if json.loads(message)["type"] == "session.update":
                tell("session.updated")

        tell("session.created")


async def main() -> None:
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]  # it leaves loopback out by itself
    cors = Middleware(
        CORSMiddleware, allow_origins=["*"], allow_methods=["POST"], allow_headers=["*"], expose_headers=["Location"]
    )
    application = Starlette(routes=[Route(PATH, Server().create, methods=["POST"])], middleware=[cors])
    listener = socket.create_server(("127.0.0.1", 0))
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.errorlog = None
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    announce(url=f"http://127.0.0.1:{listener.getsockname()[1]}/")
    await serve(application, config, shutdown_trigger=end.wait)
    os._exit(0)  # connections that are still open would be complained about, each by itself


if __name__ == "__main__":
    asyncio.run(main())
