"""Two endpoints and a network between them, in virtual time; a DTLS peer of OpenSSL behind the same face."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from protocol.dtls import (
    ApplicationData,
    Closed,
    Connected,
    Datagram,
    DtlsConfig,
    DtlsEndpoint,
    Fingerprint,
    Identity,
    Role,
)

sys.path.insert(0, str(Path(__file__).parent))  # for dtls_rogues

WALL = datetime(2026, 11, 22, tzinfo=UTC)
SRTP = (7, 8, 1)


@dataclass
class Side:
    """An endpoint and what it has given out."""

    endpoint: DtlsEndpoint
    sent: list[bytes] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)

    def drain(self) -> list[bytes]:
        datagrams = []
        for output in self.endpoint.poll():
            if isinstance(output, Datagram):
                datagrams.append(output.data)
            else:
                self.events.append(output)
        self.sent += datagrams
        return datagrams

    def receive(self, data: bytes, now: float = 0.0) -> list[bytes]:
        self.endpoint.receive_untrusted(data, now)
        return self.drain()

    def timeout(self, now: float) -> list[bytes]:
        self.endpoint.handle_timeout(now)
        return self.drain()

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def connected(self) -> Connected | None:
        return next(iter(self.of(Connected)), None)

    @property
    def closed(self) -> Closed | None:
        return next(iter(self.of(Closed)), None)

    @property
    def received(self) -> list[bytes]:
        return [event.data for event in self.of(ApplicationData)]


Fate = Callable[[int, int, bytes], list[float]]
"""(direction 0 from the first side or 1, number of the datagram in that direction, data) -> delays of its copies."""


def run(first: Side, second: Side, fate: Fate | None = None, until: float = 20.0, now: float = 0.0) -> float:
    """Carries datagrams and fires timers until nothing happens any more; returns the time."""
    sides = (first, second)
    queue: list[tuple[float, int, int, bytes]] = []
    counts = [0, 0]
    order = 0

    def post(direction: int, datagrams: list[bytes]) -> None:
        nonlocal order
        for data in datagrams:
            delays = [0.001] if fate is None else fate(direction, counts[direction], data)
            counts[direction] += 1
            for delay in delays:
                queue.append((now + delay, order, direction, data))
                order += 1

    post(0, first.drain())
    post(1, second.drain())
    while True:
        queue.sort()
        arrival = queue[0][0] if queue else math.inf
        timer = min(side.endpoint.next_timeout() for side in sides)
        if min(arrival, timer) > until:
            return now
        now = max(now, min(arrival, timer))
        if arrival <= timer:
            _, _, direction, data = queue.pop(0)
            post(1 - direction, sides[1 - direction].receive(data, now))
        else:
            for index, side in enumerate(sides):
                post(index, side.timeout(now))


def lossy(seed: int, loss: float, duplicates: float, jitter: float) -> Fate:
    chance = random.Random(seed)

    def fate(_direction: int, _number: int, _data: bytes) -> list[float]:
        if chance.random() < loss:
            return []
        copies = 2 if chance.random() < duplicates else 1
        return [0.001 + chance.random() * jitter for _ in range(copies)]

    return fate


SERVER_IDENTITY = Identity.generate(WALL)
CLIENT_IDENTITY = Identity.generate(WALL)


def make_side(
    role: Role,
    *,
    identity: Identity | None = None,
    peer: tuple[Fingerprint, ...] | None = None,
    srtp: tuple[int, ...] = SRTP,
    seed: int = 1,
    config: DtlsConfig | None = None,
) -> Side:
    own, other = (SERVER_IDENTITY, CLIENT_IDENTITY) if role is Role.SERVER else (CLIENT_IDENTITY, SERVER_IDENTITY)
    source = random.Random(f"{seed} {role}")
    endpoint = DtlsEndpoint(
        role,
        identity or own,
        peer_fingerprints=(other.fingerprint(),) if peer is None else peer,
        srtp_profiles=srtp,
        entropy=source.randbytes,
        config=config or DtlsConfig(),
    )
    return Side(endpoint)


def make_pair(**options) -> tuple[Side, Side]:
    """(client, server); options with the prefix client_ or server_ go to one of them only."""
    common = {k: v for k, v in options.items() if not k.startswith(("client_", "server_"))}
    client = make_side(Role.CLIENT, **common, **{k[7:]: v for k, v in options.items() if k.startswith("client_")})
    server = make_side(Role.SERVER, **common, **{k[7:]: v for k, v in options.items() if k.startswith("server_")})
    client.endpoint.start(0.0)
    server.endpoint.start(0.0)
    return client, server


def connect(**options) -> tuple[Side, Side]:
    client, server = make_pair(**options)
    run(client, server)
    assert client.connected
    assert server.connected
    return client, server


@pytest.fixture
def dtls() -> SimpleNamespace:
    """The helpers above, for tests that cannot import this file."""
    return SimpleNamespace(
        Side=Side,
        run=run,
        lossy=lossy,
        make_side=make_side,
        make_pair=make_pair,
        connect=connect,
        server_identity=SERVER_IDENTITY,
        client_identity=CLIENT_IDENTITY,
        wall=WALL,
        srtp=SRTP,
    )
