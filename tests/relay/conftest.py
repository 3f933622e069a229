"""A relay core in virtual time, with transceivers and clients that are only addresses."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from protocol.address import TransportAddress, pack_address
from protocol.errors import DecodeError
from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk
from protocol.stun import Class, Message, Method
from relay.config import RelayConfig
from relay.core import RelayCore

WALL = 1_795_000_000.0
ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,), prefix="10.0.0.0/8")
DTLS = b"\x16\xfe\xfd" + bytes(60)
RTP = b"\x80\x6f" + bytes(168)


class Bench:
    """One relay core with a clock that tests turn; what it sends is decoded again."""

    A = pack_address("10.0.0.1", 5001)
    B = pack_address("10.0.0.2", 5002)
    CLIENT = pack_address("198.51.100.7", 40001)
    DTLS = DTLS
    RTP = RTP

    def __init__(self, routing: RoutingConfig = ROUTING, **settings: object) -> None:
        self.routing = routing
        self.keys = KeyRing.parse(routing)
        self.trunk = Trunk.parse(routing)
        self.now = 1000.0
        self.wall = WALL
        self._random = random.Random(7)
        self.core = self._new_core(settings)

    def _new_core(self, settings: dict[str, object]) -> RelayCore:
        settings.setdefault("listen", ("127.0.0.1:1", "[::1]:1"))
        config = RelayConfig(**settings)  # type: ignore[arg-type]
        return RelayCore(config, self.keys, self.trunk, wall_time=lambda: self.wall)

    def restart(self, **settings: object) -> None:
        """A new relay process: the same keys, an empty table."""
        self.core = self._new_core(settings)

    def token(self, transceiver: TransportAddress = A, *, age: float = 0.0) -> str:
        return self.keys.seal(transceiver, incarnation=1, wall_time=self.wall - age, entropy=self._random.randbytes)

    def check(self, token: str, *, password: str | None = None, padding: int = 0) -> bytes:
        """A client's Binding request, as a browser sends it."""
        attributes: dict[str, object] = {"USERNAME": f"{token}:abcd", "PRIORITY": 1, "ICE-CONTROLLING": 5}
        if padding:
            attributes["SOFTWARE"] = "x" * padding
        request = Message(Method.BINDING, Class.REQUEST, self._random.randbytes(12), attributes)
        try:
            key = self.keys.derive_password(token) if password is None else password
        except DecodeError:
            key = "no password of ours"
        request.add_message_integrity(key.encode())
        return bytes(request)

    def answer(self, kind: Class = Class.RESPONSE) -> bytes:
        return bytes(Message(Method.BINDING, kind, self._random.randbytes(12), {}))

    def up(
        self, *datagrams: bytes, client: TransportAddress = CLIENT, ingress: int = 0
    ) -> list[tuple[TransportAddress, Frame]]:
        """A batch from one client; returns (transceiver, frame) for each that went on."""
        sent = self.core.receive_clients_untrusted([(memoryview(d), client) for d in datagrams], ingress, self.now)
        return [(to, frame) for data, to in sent for frame in self.trunk.decode_untrusted(data)]

    def down(
        self, payload: bytes, transceiver: TransportAddress = A, client: TransportAddress = CLIENT, ingress: int = 0
    ) -> list[tuple[int, bytes, TransportAddress]]:
        """A reply frame; returns (ingress, payload, client) for each datagram that leaves."""
        datagrams = self.trunk.encode([Frame(client, ingress, payload)], 1452)
        return self.down_raw(*datagrams, source=transceiver)

    def down_raw(self, *datagrams: bytes, source: TransportAddress = A) -> list[tuple[int, bytes, TransportAddress]]:
        out = self.core.receive_trunk_untrusted([(memoryview(d), source) for d in datagrams], self.now)
        return [(ingress, bytes(data), to) for ingress, sent in enumerate(out) for data, to in sent]

    def establish(self, transceiver: TransportAddress = A, client: TransportAddress = CLIENT) -> str:
        token = self.token(transceiver)
        assert self.targets(self.check(token), client=client) == [transceiver]
        self.down(self.answer(), transceiver, client)
        return token

    def targets(self, *datagrams: bytes, client: TransportAddress = CLIENT, ingress: int = 0) -> list[bytes]:
        return [to for to, _ in self.up(*datagrams, client=client, ingress=ingress)]

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.wall += seconds
        self.core.handle_timeout(self.now)
        while self.core.next_timeout() <= self.now:
            self.core.handle_timeout(self.now)

    @property
    def size(self) -> int:
        return self.core.flows.established + self.core.flows.probationary


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    return Bench
