"""Two associations over a network in virtual time: seeded loss, delay, reordering and duplication."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from protocol.sctp import Association, AssociationState, Output, Packet, SctpConfig
from protocol.sctp.chunks import ChunkType, Sack, build_data, build_sack
from protocol.sctp.packet import RawChunk, build_chunk, build_packet, parse_packet_untrusted
from protocol.sctp.parameters import Init, build_init, parse_init_untrusted

Filter = Callable[[int, bytes], bool]  # (side that sends, packet) → deliver?


def seeded_entropy(seed: int) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


@dataclass
class Net:
    """Side 0 is the DTLS client."""

    sides: list[Association]
    loss: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.01
    jitter: float = 0.0
    seed: int = 1
    keep: Filter = lambda side, packet: True
    now: float = 100.0
    events: list[list[Output]] = field(default_factory=lambda: [[], []])
    sent: list[list[bytes]] = field(default_factory=lambda: [[], []])
    _queue: list[tuple[float, int, int, bytes]] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def drain(self) -> None:
        for side, association in enumerate(self.sides):
            for output in association.poll():
                if isinstance(output, Packet):
                    assert len(output.data) <= 1150
                    self.sent[side].append(output.data)
                    self._carry(side, output.data)
                else:
                    self.events[side].append(output)

    def _carry(self, side: int, data: bytes) -> None:
        if not self.keep(side, data) or self._random.random() < self.loss:
            return
        for _ in range(2 if self._random.random() < self.duplicate else 1):
            self._count += 1
            arrival = self.now + self.delay + self._random.random() * self.jitter
            heapq.heappush(self._queue, (arrival, self._count, 1 - side, data))

    def run(self, seconds: float = 60.0, until: Callable[[], bool] = lambda: False) -> None:
        """Until nothing happens any more, or the time or the condition has come."""
        end = self.now + seconds
        for _ in range(200_000):
            self.drain()
            if until():
                return
            due = min(self._queue[0][0] if self._queue else math.inf, *(a.next_timeout() for a in self.sides))
            if due > end:
                self.now = end
                return
            self.now = max(self.now, due)
            if self._queue and self._queue[0][0] <= self.now:
                _, _, side, data = heapq.heappop(self._queue)
                self.sides[side].receive_untrusted(data, self.now)
            else:
                for association in self.sides:
                    association.handle_timeout(self.now)
        raise AssertionError("the network does not come to rest")

    def of(self, side: int, kind: type) -> list[Output]:
        return [event for event in self.events[side] if isinstance(event, kind)]


@pytest.fixture
def make_pair() -> Callable[..., Net]:
    def make(
        *,
        entropies: tuple[Callable[[int], bytes], Callable[[int], bytes]] | None = None,
        configs: tuple[SctpConfig | None, SctpConfig | None] = (None, None),
        max_message_size: int = 262144,
        **network: object,
    ) -> Net:
        seed = int(str(network.get("seed", 1)))
        first, second = entropies or (seeded_entropy(seed), seeded_entropy(seed + 1000))
        sides = [
            Association(
                is_client=not side,
                max_message_size_remote=max_message_size,
                entropy=entropy,
                config=configs[side],
            )
            for side, entropy in enumerate((first, second))
        ]
        return Net(sides, **network)  # type: ignore[arg-type]

    return make


@pytest.fixture
def up(make_pair: Callable[..., Net]) -> Callable[..., Net]:
    """A pair that is connected, both having sent INIT."""

    def make(**options: object) -> Net:
        net = make_pair(**options)
        for association in net.sides:
            association.connect(net.now)
        net.run(0.5)
        return net

    return make


class RawPeer:
    """A peer made by hand, which can say anything: it is the DTLS client, opens, and answers nothing by itself."""

    TAG = 0x01020304
    TSN = 1000

    def __init__(
        self,
        config: SctpConfig | None = None,
        extensions: frozenset[int] = frozenset({130, 192}),
        forward_tsn: bool = True,
    ) -> None:
        self.now = 50.0
        self.association = Association(
            is_client=False, max_message_size_remote=262144, entropy=seeded_entropy(9), config=config
        )
        self.events: list[Output] = []
        self.tag = 0
        init = Init(self.TAG, 1 << 20, 1024, 1024, self.TSN, extensions=extensions, forward_tsn=forward_tsn)
        (answer,) = self.say(build_init(ChunkType.INIT, init))
        self.init_ack = parse_init_untrusted(answer.value)
        self.tag = self.init_ack.tag
        assert self.init_ack.cookie is not None
        self.say(build_chunk(ChunkType.COOKIE_ECHO, 0, self.init_ack.cookie))
        assert self.association.state is AssociationState.ESTABLISHED

    def say(self, *chunks: bytes, tag: int | None = None) -> list[RawChunk]:
        packet = build_packet(5000, 5000, self.tag if tag is None else tag, chunks)
        self.association.receive_untrusted(packet, self.now)
        return self.hear()

    def hear(self) -> list[RawChunk]:
        chunks: list[RawChunk] = []
        for output in self.association.poll():
            if isinstance(output, Packet):
                chunks += parse_packet_untrusted(output.data).chunks
            else:
                self.events.append(output)
        return chunks

    def wait(self, seconds: float) -> list[RawChunk]:
        end = self.now + seconds
        heard: list[RawChunk] = []
        while self.association.next_timeout() <= end:
            self.now = max(self.now, self.association.next_timeout())
            self.association.handle_timeout(self.now)
            heard += self.hear()
        self.now = end
        return heard

    def data(
        self, tsn: int, payload: bytes = b"x", *, flags: int = 3, stream: int = 0, ssn: int = 0, ppid: int = 51
    ) -> bytes:
        """`tsn` counts from our first."""
        return build_data(flags, (self.TSN + tsn) & 0xFFFFFFFF, stream, ssn, ppid, payload)

    def ack(self, tsn: int, window: int = 1 << 20, *gaps: tuple[int, int]) -> bytes:
        """Everything up to `tsn`, counted from the association's first."""
        return build_sack(Sack((self.init_ack.tsn + tsn) & 0xFFFFFFFF, window, gaps, ()))


@pytest.fixture
def make_raw_peer() -> type[RawPeer]:
    return RawPeer
