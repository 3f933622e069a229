# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""A caller made of the protocol cores, an agent of a few lines, and a transceiver between them: in virtual time over a
network in memory, or for real over loopback."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from protocol.address import Path, TransportAddress, pack_address
from protocol.agentlink import DataMessage, MediaRecord
from protocol.codecs import CODECS, OPUS, Codec
from protocol.dtls import DtlsEndpoint, Identity, Role
from protocol.ice import Candidate, IceCredentials, IceFull, PathSelected, SendTo
from protocol.peer import (
    AudioParameters,
    AudioReceived,
    DataParameters,
    DtlsConnected,
    Peer,
    PeerClosed,
    TransportFailed,
)
from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk, TrunkKind
from protocol.rtp import RtpPacket
from protocol.sctp import ChannelMessage, ChannelOpened
from protocol.sdp import Capabilities, create_offer, parse_untrusted, read_answer
from protocol.srtp import SERVER_PREFERENCE
from transceiver.backends.base import Accepted, Backend, BackendEvent, Call, Refused
from transceiver.config import Timeouts, TransceiverConfig
from transceiver.engine import Engine
from transceiver.media import Played
from transceiver.registry import Registry
from transceiver.signalling import CallRequest, Usage
from udpio import MemoryNetwork, UdpSocket

IDENTITY = Identity.generate(datetime(2026, 1, 1, tzinfo=UTC))
OTHER_IDENTITY = Identity.generate(datetime(2026, 1, 1, tzinfo=UTC))
ROUTING = RoutingConfig(keys=("1:" + "11" * 32,), prefix="127.0.0.0/8", trunk_keys=("22" * 32,))


class Caller:
    """A WebRTC client: offer, answer, then `run`. What it heard and was told is kept in lists."""

    def __init__(
        self,
        socket: UdpSocket,
        *,
        audio: bool = True,
        data: bool = True,
        identity: Identity = IDENTITY,
        negotiated: int | None = None,
    ) -> None:
        self.socket = socket
        self.identity = identity
        self.peer: Peer | None = None
        self.remote_ice: IceCredentials | None = None  # of the answer
        self.audio: list[RtpPacket] = []
        self.audio_times: list[float] = []
        self.messages: list[str | bytes] = []
        self.events: list[object] = []
        self.channel = -1
        self.connected = False
        self.ended = ""
        self.stun_only = False
        self.mute_stun = False
        self._sent = 0
        self._with = (audio, data)
        self._negotiated = negotiated  # the stream id of its channel, which it then opens without asking
        self._capabilities = Capabilities(
            ice=IceCredentials.generate(os.urandom),
            fingerprint=IDENTITY.fingerprint(),  # with another identity, this is the lie
            session_id=1,
            ssrc=0x1234,
            cname="caller",
            ice_lite=False,
        )

    @property
    def ufrag(self) -> str:
        return self._capabilities.ice.ufrag

    def offer(self) -> str:
        return create_offer(self._capabilities, audio=self._with[0], data=self._with[1])

    def accept(self, answer: str) -> None:
        settled = read_answer(parse_untrusted(answer), self._capabilities)
        self.remote_ice = settled.remote_ice
        ice = IceFull(self._capabilities.ice, settled.remote_ice, entropy=os.urandom)
        for candidate in settled.remote_candidates:
            ice.add_remote_candidate(candidate)
        self.peer = Peer(
            ice=ice,
            dtls=DtlsEndpoint(
                Role(settled.role),
                self.identity,
                peer_fingerprints=settled.remote_fingerprints,
                srtp_profiles=SERVER_PREFERENCE if settled.audio else (),
                entropy=os.urandom,
            ),
            audio=AudioParameters(settled.audio.payload_type, settled.audio.codec.clock_rate, 0x1234, "caller")
            if settled.audio
            else None,
            data=DataParameters(
                settled.data.remote_sctp_port,
                settled.data.remote_max_message_size,
                negotiated=() if self._negotiated is None else ((self._negotiated, "mine"),),
            )
            if settled.data
            else None,
            entropy=os.urandom,
        )
        ice.start(trio.current_time())

    async def run(self) -> None:
        try:
            while True:
                await self._turn()
        finally:
            self.socket.close()

    async def _turn(self) -> None:
        peer = self.peer
        assert peer is not None
        with trio.move_on_at(min(peer.next_timeout(), trio.current_time() + 0.05)):
            await self.socket.wait_readable()
        for data, source in self.socket.receive_batch():
            peer.receive_untrusted(bytes(data), Path(b"", source), trio.current_time())
            self.drain()
        peer.handle_timeout(trio.current_time())
        self.drain()

    def drain(self) -> None:
        peer = self.peer
        assert peer is not None
        while outputs := peer.poll():
            datagrams = []
            for output in outputs:
                if isinstance(output, SendTo):
                    is_stun = output.data[0] < 4
                    if not (self.stun_only and not is_stun) and not (self.mute_stun and is_stun):
                        datagrams.append((output.data, output.path.remote))
                else:
                    self._react(peer, output)
            self.socket.send_batch(datagrams)

    def _react(self, peer: Peer, output: object) -> None:
        now = trio.current_time()
        match output:
            case AudioReceived():
                self.audio.append(output.packet)
                self.audio_times.append(now)
                return
            case PathSelected():
                peer.start_dtls(now)
            case DtlsConnected():
                peer.start_media()
                self.connected = True
                if self._negotiated is not None:
                    self.channel = self._negotiated
                elif self._with[1]:
                    self.channel = peer.open_channel("oai-events", now)
            case ChannelMessage():
                self.messages.append(output.data)
            case PeerClosed() | TransportFailed():
                self.ended = output.reason
        self.events.append(output)

    def speak(self, payload: bytes = OPUS.silence) -> bool:
        assert self.peer is not None
        self._sent += 1
        sent = self.peer.send_audio(payload, self._sent * 960, trio.current_time(), self._sent == 1)
        self.drain()
        return sent

    def say(self, data: str | bytes) -> None:
        assert self.peer is not None
        assert self.peer.send_message(self.channel, data, trio.current_time())
        self.drain()

    def hang_up(self) -> None:
        assert self.peer is not None
        self.peer.close(trio.current_time())
        self.drain()

    @property
    def channel_is_open(self) -> bool:
        return any(isinstance(event, ChannelOpened) for event in self.events)

    @property
    def told_reason(self) -> str | None:
        """The reason in `antiphon.call.ended`, if it came."""
        for message in self.messages:
            if isinstance(message, str) and "antiphon.call.ended" in message:
                return str(msgspec.json.decode(message)["reason"])
        return None


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something has become true."""
    step = 0.002
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(step)
            step = min(step * 1.2, 0.1)


class ScriptedAttachment:
    """One call at the scripted backend; everything it is told is kept."""

    takes_controllers = True

    def __init__(self, backend: ScriptedBackend, call: Call) -> None:
        self.backend = backend
        self.call = call
        self.audio: list[MediaRecord] = []
        self.messages: list[str | bytes] = []
        self.channels: dict[int, str] = {}
        self.told: list[object] = []
        self.ended: str | None = None
        self.has_room = True

    def audio_waits(self) -> None:
        assert self.call.uplink is not None
        records = self.call.uplink.take(7)
        self.audio += records
        if self.backend.echo:
            assert self.backend.engine is not None
            self.backend.engine.post_media([(self.call, self, record) for record in records])

    def channel_opened(self, channel: int, label: str, protocol: str) -> None:
        self.channels[channel] = label

    def channel_closed(self, channel: int) -> None:
        self.channels.pop(channel, None)

    def channel_blocked(self, channel: int) -> None:
        self.told.append(("blocked", channel))

    def channel_writable(self, channel: int) -> None:
        self.told.append(("writable", channel))

    def message(self, channel: int, data: str | bytes) -> None:
        self.messages.append(data)
        if self.backend.echo:
            self.post(DataMessage(7, channel, data))

    def played(self, played: Played) -> None:
        self.told.append(played)

    def digit(self, digit: str) -> None:
        self.told.append(("digit", digit))

    def end(self, reason: str) -> None:
        self.ended = reason

    def post(self, event: BackendEvent) -> None:
        assert self.backend.engine is not None
        self.backend.engine.post(self.call, self, event)


class ScriptedBackend:
    """A backend without a link: accepts, refuses, is silent or absent as the test says."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.mood = "accept"
        self.echo = True
        self.codecs: tuple[Codec, ...] = CODECS
        self.name = "scripted"
        self.models = ("scripted",)
        self.attachments: list[ScriptedAttachment] = []

    def open(self, call: Call) -> ScriptedAttachment | None:
        if self.mood == "absent":
            return None
        attachment = ScriptedAttachment(self, call)
        self.attachments.append(attachment)
        if self.mood == "accept":
            attachment.post(Accepted())
        elif self.mood == "refuse":
            attachment.post(Refused("busy"))
        return attachment

    @property
    def last(self) -> ScriptedAttachment:
        return self.attachments[-1]


class RelayedSocket:
    """A caller's socket behind a relay of three lines: its datagrams travel as trunk frames."""

    def __init__(self, trunk_socket: UdpSocket, transceiver: TransportAddress, client: TransportAddress) -> None:
        self.counters = trunk_socket.counters
        self.client = client
        self.frames_in_one_datagram = 0
        self._trunk = Trunk.parse(ROUTING)
        self._socket = trunk_socket
        self._transceiver = transceiver
        self._shown = pack_address("198.51.100.1", 3478)  # the relay's public address, as the caller sees it

    address = property(lambda self: self.client)
    batch_size = property(lambda self: self._socket.batch_size)

    def receive_batch(self) -> list[tuple[memoryview, TransportAddress]]:
        received = []
        for datagram, _ in self._socket.receive_batch():
            if self._trunk.open_untrusted(datagram).kind is not TrunkKind.FRAMES:
                continue  # hello: this relay never restarts
            frames = self._trunk.decode_untrusted(datagram)
            self.frames_in_one_datagram = max(self.frames_in_one_datagram, len(frames))
            for client, ingress, payload in frames:
                assert (client, ingress) == (self.client, 3)
                received.append((memoryview(payload), self._shown))
        return received

    def send_batch(self, datagrams: list[tuple[bytes, TransportAddress]]) -> int:
        frames = [Frame(self.client, 3, data) for data, _ in datagrams]
        return self._socket.send_batch([(data, self._transceiver) for data in self._trunk.encode(frames, 1452)])

    async def wait_readable(self) -> None:
        await self._socket.wait_readable()

    def close(self) -> None:
        self._socket.close()


@dataclass
class World:
    """A transceiver's engine and registry on a network in memory, with a scripted backend."""

    nursery: trio.Nursery
    network: MemoryNetwork
    engine: Engine
    registry: Registry
    backend: ScriptedBackend
    address: TransportAddress
    callers: list[Caller] = field(default_factory=list)

    async def call(self, caller: Caller | None = None, **options: Any) -> tuple[Caller, str]:
        """Offer, answer, and the caller running; its call id too."""
        caller = caller or Caller(self.network.open("127.0.0.2"), **options)
        created = self.registry.create(CallRequest(caller.offer().encode()))
        caller.accept(created.answer)
        self.nursery.start_soon(caller.run)
        self.callers.append(caller)
        return caller, created.call_id

    async def live_call(self, **options: Any) -> tuple[Caller, str]:
        caller, call_id = await self.call(**options)
        await until(lambda: caller.connected and (caller.channel_is_open or caller.channel < 0))
        await until(lambda: self.registry.sessions[call_id].life.name == "LIVE")
        return caller, call_id

    def relayed(self, caller_address: TransportAddress) -> RelayedSocket:
        return RelayedSocket(self.network.open("127.0.0.3"), self.address, caller_address)

    def reason_of(self) -> dict[str, int]:
        return dict(self.registry.ended)


@pytest.fixture
def make_world(nursery: trio.Nursery) -> Callable[..., World]:
    def make(
        *,
        timeouts: Timeouts | None = None,
        usage: Usage | None = None,
        agents: Callable[[Engine], Backend] | None = None,
        **config: Any,
    ) -> World:
        """`agents` makes another backend than the scripted one."""
        network = MemoryNetwork()
        socket = network.open("127.0.0.1", 4000)
        engine = Engine(socket, Trunk.parse(ROUTING), direct=True, strict=True)
        backend = ScriptedBackend()
        backend.engine = engine
        registry = Registry(
            TransceiverConfig(direct=True, timeouts=timeouts or Timeouts(), **config),
            engine=engine,
            backend=backend if agents is None else agents(engine),
            keys=KeyRing.parse(ROUTING),
            identity=Identity.generate(datetime(2026, 1, 1, tzinfo=UTC)),
            address=socket.address,
            candidates=(Candidate("1", 1, "udp", 1, "127.0.0.1", 4000, "host"),),
            usage=usage,
        )
        nursery.start_soon(engine.run)
        return World(nursery, network, engine, registry, backend, socket.address)

    return make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    return until


@pytest.fixture
def caller_class() -> type[Caller]:
    return Caller


@pytest.fixture
def other_identity() -> Identity:
    return OTHER_IDENTITY
