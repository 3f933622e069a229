"""A load-generator call and the server it talks to, in virtual time: the server is a Peer with IceLite that echoes."""

from __future__ import annotations

import heapq
import itertools
import os
import random
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import pytest
import trio

from loadgen.call import Call, CallFigures
from protocol import dtls
from protocol.address import Path, pack_address
from protocol.ice import Candidate, IceCredentials, IceFullConfig, IceLite, PathSelected, SendTo, candidate_priority
from protocol.peer import AudioParameters, AudioReceived, DataParameters, DtlsConnected, Peer
from protocol.sctp import ChannelMessage
from protocol.sdp import Capabilities, answer, parse_untrusted, read_offer
from protocol.srtp import SERVER_PREFERENCE
from udpio import PlainSocket, SocketOptions, bind_udp

WALL = datetime(2026, 11, 1, tzinfo=UTC)
SERVER_HOST, SERVER_PORT = "192.0.2.10", 3478
SERVER = pack_address(SERVER_HOST, SERVER_PORT)
CLIENT = pack_address("198.51.100.7", 40001)
DELAY = 0.010
TICK = 0.020


def _candidate(address: str, port: int) -> Candidate:
    return Candidate("1", 1, "udp", candidate_priority("host"), address, port, "host")


class EchoServer:
    """Answers one offer. `echo` may change what goes back; `listening` says whether an agent is there already."""

    def __init__(self, offer: str, entropy: Callable[[int], bytes], now: float, *, candidates) -> None:
        identity = dtls.Identity.generate(WALL)
        capabilities = Capabilities(
            ice=IceCredentials.generate(entropy),
            fingerprint=identity.fingerprint(),
            session_id=1,
            ssrc=77,
            cname="server",
            candidates=candidates,
        )
        settled = answer(read_offer(parse_untrusted(offer)), capabilities)
        assert settled.audio is not None
        assert settled.data is not None
        self.answer = settled.sdp
        self.codec = settled.audio.codec.name
        self.peer = Peer(
            ice=IceLite(capabilities.ice, settled.remote_ice, entropy=entropy),
            dtls=dtls.DtlsEndpoint(
                dtls.Role.SERVER,
                identity,
                peer_fingerprints=settled.remote_fingerprints,
                srtp_profiles=SERVER_PREFERENCE,
                entropy=entropy,
            ),
            audio=AudioParameters(settled.audio.payload_type, settled.audio.codec.clock_rate, 77, "server"),
            data=DataParameters(settled.data.remote_sctp_port, settled.data.remote_max_message_size),
            entropy=entropy,
        )
        self.echo: Callable[[bytes], list[bytes]] = lambda payload: [payload]
        self.listening = True
        self.channel: int | None = None
        self.frames = 0

    def drain(self, now: float) -> list[bytes]:
        datagrams = []
        while outputs := self.peer.poll():
            for output in outputs:
                if isinstance(output, SendTo):
                    datagrams.append(output.data)
                elif isinstance(output, PathSelected):
                    self.peer.start_dtls(now)
                elif isinstance(output, DtlsConnected):
                    self.peer.start_media()
                elif isinstance(output, ChannelMessage):
                    self.channel = output.channel
                    self.peer.send_message(output.channel, output.data, now)
                elif isinstance(output, AudioReceived) and self.listening:
                    self.frames += 1
                    for payload in self.echo(output.packet.payload):
                        self.peer.send_audio(payload, output.packet.timestamp, now)
        return datagrams


class World:
    """A call, its server, and 10 ms of network each way; `pass_up` and `pass_down` may lose datagrams."""

    def __init__(self, *, number: int = 3, seed: int = 5, candidates: tuple[Candidate, ...] | None = None) -> None:
        self.now = 100.0
        self.entropy = random.Random(seed).randbytes
        self.figures = CallFigures(b"run1")
        self.call = Call(number, self.figures, ice=IceFullConfig(), now=self.now, now_wall=WALL, entropy=self.entropy)
        candidates = (_candidate(SERVER_HOST, SERVER_PORT),) if candidates is None else candidates
        self.server = EchoServer(self.call.offer(), self.entropy, self.now, candidates=candidates)
        self.pass_up: Callable[[bytes], bool] = lambda data: True
        self.pass_down: Callable[[bytes], bool] = lambda data: True
        self.destinations: set[bytes] = set()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._start = self.now
        self._tick = 0

    def dial(self) -> None:
        self.call.answered(self.server.answer.encode(), self.now)
        self._carry()

    def run_until(self, condition: Callable[[], bool], limit: float = 5.0) -> None:
        deadline = self.now + limit
        while not condition():
            assert self.step() <= deadline, "it did not happen in time"

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while self.next_step() <= end:
            self.step()
        self.now = end

    def next_step(self) -> float:
        events = self._events[0][0] if self._events else float("inf")
        timers = min(self.call.next_timeout(), self.server.peer.next_timeout())
        return max(self.now, min(events, timers, self._tick_time()))

    def step(self) -> float:
        self.now = now = self.next_step()
        while self._events and self._events[0][0] <= now:
            heapq.heappop(self._events)[2]()
        if self.call.next_timeout() <= now:
            self.call.handle_timeout(now)
        if self.server.peer.next_timeout() <= now:
            self.server.peer.handle_timeout(now)
        if self._tick_time() <= now:
            self.call.tick(self._tick, 0.0, now)
            self._tick += 1
        self._carry()
        return now

    def _tick_time(self) -> float:
        return self._start + self._tick * TICK

    def _carry(self) -> None:
        for data, destination in self.call.take_datagrams():
            self.destinations.add(destination)
            if destination == SERVER and self.pass_up(data):
                self._later(lambda data=data: self.server.peer.receive_untrusted(data, Path(b"", CLIENT), self.now))
        for data in self.server.drain(self.now):
            if self.pass_down(data):
                self._later(lambda data=data: self.call.receive_untrusted(data, SERVER, self.now))

    def _later(self, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + DELAY, next(self._order), action))


class LocalServer:
    """Signalling and media of calls that echo. `offer_status` and `hangup_status` are what it answers."""

    def __init__(self, server_type, candidate, *, offer_status: int = 201, hangup_status: int = 200) -> None:
        self.offer_status = offer_status
        self.hangup_status = hangup_status
        self.media = True
        self.hung_up: list[str] = []
        self._server_type = server_type
        self._candidate = candidate
        self._servers: dict[str, tuple[object, PlainSocket]] = {}
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status=trio.TASK_STATUS_IGNORED) -> None:
        try:
            async with trio.open_nursery() as self._nursery:
                serve = partial(trio.serve_tcp, self._respond, 0, host="127.0.0.1")
                (listener,) = await self._nursery.start(serve)
                task_status.started(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")
        finally:
            for _, sock in self._servers.values():
                sock.close()

    async def _respond(self, stream: trio.SocketStream) -> None:
        heard = b""
        while True:
            while b"\r\n\r\n" not in heard:
                if not (chunk := await stream.receive_some()):
                    return
                heard += chunk
            head, _, heard = heard.partition(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head.lower())
            length = int(found[1]) if found else 0
            while len(heard) < length:
                heard += await stream.receive_some()
            body, heard = heard[:length], heard[length:]
            await stream.send_all(self._answer(head.split(b" ")[1].decode(), body.decode()))

    def _answer(self, path: str, body: str) -> bytes:
        if path.endswith("/hangup"):
            call = path.split("/")[-2]
            self.hung_up.append(call)
            if self.hangup_status == 200:
                server, sock = self._servers[call]
                server.peer.close(trio.current_time())
                sock.send_batch([(data, server.source) for data in server.drain(trio.current_time())])
            return f"HTTP/1.1 {self.hangup_status} X\r\ncontent-length: 0\r\n\r\n".encode()
        if self.offer_status != 201:
            return f"HTTP/1.1 {self.offer_status} X\r\ncontent-length: 0\r\n\r\n".encode()
        call = f"call{len(self._servers)}"
        sock = PlainSocket(bind_udp("127.0.0.1", 0, SocketOptions()), SocketOptions())
        port = int.from_bytes(sock.address[:2], "big")
        candidates = (self._candidate("127.0.0.1", port),)
        server = self._server_type(body, os.urandom, trio.current_time(), candidates=candidates)
        server.source = None
        self._servers[call] = server, sock
        if self.media:
            self._nursery.start_soon(self._serve_media, server, sock)
        head = f"HTTP/1.1 201 Created\r\nlocation: /v1/realtime/calls/{call}\r\ncontent-length: {len(server.answer)}\r\n\r\n"
        return head.encode() + server.answer.encode()

    async def _serve_media(self, server, sock: PlainSocket) -> None:
        while True:
            with trio.move_on_at(server.peer.next_timeout()):
                await sock.wait_readable()
            now = trio.current_time()
            for data, source in sock.receive_batch():
                server.source = source
                server.peer.receive_untrusted(bytes(data), Path(b"", source), now)
            server.peer.handle_timeout(now)
            sock.send_batch([(data, server.source) for data in server.drain(now)])


@pytest.fixture
def new_world() -> type[World]:
    return World


@pytest.fixture
def world() -> World:
    """A call that is set up and talks."""
    found = World()
    found.dial()
    found.run_until(lambda: found.call.is_ready)
    return found


@pytest.fixture
def candidate() -> Callable[[str, int], Candidate]:
    return _candidate


@pytest.fixture
def new_server(new_world, candidate):
    world = new_world()
    return partial(LocalServer, type(world.server), candidate)
