"""Clients and transceiver of a relay under measurement, in a process of their own: `python -m bench.generator`.

1. It binds a crowd of clients and a server's socket and says their ports. 2. It is told where the forwarder is, and opens
the flows there: through our relay by STUN with real route tokens, each answered over the trunk; the reference got a table.
3. For each line on standard input it makes one round of load and answers with counts and CPU time.

The loads:

backlog   The forwarder is stopped (SIGSTOP), its sockets are filled with a burst, and it is let go; nothing but work until
          all has arrived. So it is saturated however slow this generator is, and its batches are full.
paced     Packets evenly in time, one by one, as from very many calls: wake-ups weigh most.

CPU time is the forwarder's between the beginning and the end of the round, divided by the packets that really arrived.
"""

from __future__ import annotations

import os
import secrets
import statistics
import struct
import sys
import time
from collections.abc import Iterator
from typing import Literal

import msgspec

from bench.accounts import ProcessAccounts
from bench.crowd import Crowd, Post
from protocol.address import TransportAddress, pack_address
from protocol.errors import DecodeError
from protocol.routing import DATAGRAM_OVERHEAD, Frame, KeyRing, RoutingConfig, Trunk, frame_overhead
from protocol.stun import binding_request
from service.addresses import parse_host_port
from service.config import load
from service.ready import announce

# Implementation constants
LENGTH = 160
MIN_LETTERS = 1024
SERVER = "127.0.0.1"
DESCRIPTOR = frame_overhead(pack_address(SERVER, 1))
FRAME_LENGTH = DESCRIPTOR + LENGTH
NUMBER = struct.Struct("!I")
NUMBER_AT = 4
PATIENCE = 0.25  # seconds without an arrival: what is missing is lost (or we share the CPUs with too many others)
OPEN_SECONDS = 15.0
MAX_BURST = 1024
SKB = 1024  # bytes of receive buffer that a small datagram takes, rounded up
BEHIND = 0.005  # seconds by which a paced packet may be late before it counts as such


class Forwarder(msgspec.Struct, frozen=True):
    """What is measured."""

    pid: int
    listen: str
    speaks: Literal["trunk", "plain", "sessions"]
    """The trunk; or datagram for datagram, either by a table of both sides' addresses, or as nginx does it: towards the server
    each client has a port that the forwarder chose."""
    trunk_address: str = ""
    """Where the server sends to, unless there are sessions."""
    tokens: bool = False
    """Flows open by STUN; else by the table it got."""


class Round(msgspec.Struct, frozen=True):
    load: str
    both_ways: bool
    seconds: float
    rate: float = 0.0


class Counts(msgspec.Struct, kw_only=True):
    sent: int = 0
    received: int = 0
    upward_datagrams: int = 0
    cpu_ns: int = 0
    own_ns: int = 0
    """Of it, in the forwarder's own code; coarse."""
    wall_ns: int = 0
    late: int = 0
    written_off: int = 0
    trip_us: float = 0.0
    """Of a paced packet, one way, the median; with our own turn-around."""


def packet(number: int) -> bytes:
    """RTP, to a relay. No two of a ring are alike, so that trips can be timed."""
    return bytes((0x80, 111, 0, 0)) + NUMBER.pack(number) + bytes(LENGTH - NUMBER_AT - NUMBER.size)


def bundled(mtu: int) -> int:
    """Frames that share a datagram."""
    return max(1, (mtu - DATAGRAM_OVERHEAD) // FRAME_LENGTH)


def client_host(index: int) -> str:
    return f"127.1.{index >> 8}.{index & 255}"


def server_host(index: int) -> str:
    """What a forwarder without a trunk tells flows apart by, at the server's side."""
    return f"127.2.{index >> 8}.{index & 255}"


class Trips:
    """When each letter of both rings left last, and how long those took that arrived."""

    def __init__(self, upward: int, downward: int) -> None:
        self.upward = [0.0] * upward
        self.downward = [0.0] * downward
        self.taken: list[float] = []


class Generator:
    def __init__(self, flows: int) -> None:
        self.clients, self.server = Crowd(), Crowd()
        self._flows = flows

    def flow_table(self, trunk: bool) -> bytes:
        """As the reference forwarder reads it: client address, server address."""
        return b"".join(
            pack_address(client_host(i), self.clients.port)
            + pack_address(SERVER if trunk else server_host(i), self.server.port)
            for i in range(self._flows)
        )

    def attach(self, forwarder: Forwarder) -> None:
        """Raises TimeoutError when the flows do not open."""
        self._accounts = ProcessAccounts(forwarder.pid)
        self._speaks = forwarder.speaks
        listen, routing = parse_host_port(forwarder.listen), load({"routing": RoutingConfig}, None, os.environ)
        repeated = [i % self._flows for i in range(max(MIN_LETTERS, self._flows))]
        self._up = Post([(client_host(i), packet(number)) for number, i in enumerate(repeated)], listen)
        if forwarder.speaks == "sessions":
            ports = self._open_sessions(listen)
            letters = [(SERVER, packet(number)) for number in range(len(repeated))]
            self._down = {1: Post(letters, [(listen[0], ports[i]) for i in repeated])}
            self._bundled = 1
            return
        trunk_at = parse_host_port(forwarder.trunk_address)
        if forwarder.speaks == "plain":
            letters = [(server_host(i), packet(number)) for number, i in enumerate(repeated)]
            self._down = {1: Post(letters, trunk_at)}
            self._bundled = 1
            return
        config = routing[RoutingConfig]
        trunk = Trunk.parse(config)
        if forwarder.tokens:
            self._open_flows(KeyRing.parse(config), trunk, listen)
        self._bundled = bundled(config.trunk_mtu)
        self._down = {}
        for count in {1, self._bundled}:
            frames = [self._frame(index, number) for number, index in enumerate(repeated)]
            groups = [frames[at : at + count] for at in range(0, len(frames) - count + 1, count)]
            datagrams = [trunk.encode(group, config.trunk_mtu) for group in groups]
            self._down[count] = Post([(SERVER, datagram) for [datagram] in datagrams], trunk_at)

    def run(self, order: Round) -> Counts:
        rounds = {"backlog": self._backlog, "paced": self._paced}
        for _ in self._arrivals():  # of an earlier round
            pass
        counts = Counts()
        began, cpu, own = time.perf_counter_ns(), self._accounts.cpu_ns(), self._accounts.own_seconds()
        rounds[order.load](order, counts)
        counts.cpu_ns = self._accounts.cpu_ns() - cpu
        counts.own_ns = round((self._accounts.own_seconds() - own) * 1e9)
        counts.wall_ns = time.perf_counter_ns() - began
        return counts

    # The loads

    def _backlog(self, order: Round, counts: Counts) -> None:
        burst = min(MAX_BURST, self.server.granted() // SKB // 2)
        up = burst // 2 if order.both_ways else burst
        count = self._bundled
        down = self._down[count]
        end = time.perf_counter() + order.seconds
        while time.perf_counter() < end:
            self._accounts.stop()
            counts.sent += self._up.send(self.clients.fd, up)
            if order.both_ways:
                counts.sent += down.send(self.server.fd, (burst - up) // count) * count
            self._accounts.resume()
            self._collect(counts)
        if counts.written_off:  # perhaps only late
            counts.written_off = 0
            self._collect(counts)

    def _paced(self, order: Round, counts: Counts) -> None:
        gap = 1 / order.rate
        down = self._down[1]
        trips = Trips(self._up.count, down.count)
        began = time.perf_counter()
        for number in range(int(order.seconds * order.rate)):
            due = began + number * gap
            while (now := time.perf_counter()) < due:
                self._time_arrivals(counts, trips)
            counts.late += now - due > BEHIND
            if order.both_ways and number & 1:
                trips.downward[down.next_letter] = now
                counts.sent += down.send(self.server.fd, 1)
            else:
                trips.upward[self._up.next_letter] = now
                counts.sent += self._up.send(self.clients.fd, 1)
        self._collect(counts)
        counts.trip_us = statistics.median(trips.taken) * 1e6 if trips.taken else 0.0

    # Arrivals

    def _collect(self, counts: Counts) -> None:
        deadline = time.perf_counter() + PATIENCE
        while counts.received + counts.written_off < counts.sent:
            if self._count_arrivals(counts):
                deadline = time.perf_counter() + PATIENCE
            elif time.perf_counter() > deadline:
                counts.written_off = counts.sent - counts.received

    def _count_arrivals(self, counts: Counts) -> bool:
        came = False
        for upward, lengths in self._arrivals():
            came = True
            if upward:
                counts.upward_datagrams += len(lengths)
            if upward and self._speaks == "trunk":
                counts.received += (sum(lengths) - DATAGRAM_OVERHEAD * len(lengths)) // FRAME_LENGTH
            else:
                counts.received += sum(lengths) // LENGTH
        return came

    def _time_arrivals(self, counts: Counts, trips: Trips) -> None:
        now = time.perf_counter()
        for upward, lengths in self._arrivals():
            crowd, sent_at = (self.server, trips.upward) if upward else (self.clients, trips.downward)
            for index, length in enumerate(lengths):
                data, at = crowd.datagram(index, length), NUMBER_AT
                frames = 1
                if upward:
                    counts.upward_datagrams += 1
                    if self._speaks == "trunk":
                        frames = (length - DATAGRAM_OVERHEAD) // FRAME_LENGTH
                        at += DATAGRAM_OVERHEAD + frames * DESCRIPTOR
                counts.received += frames
                for frame in range(frames):
                    trips.taken.append(now - sent_at[NUMBER.unpack_from(data, at + frame * LENGTH)[0]])

    def _arrivals(self) -> Iterator[tuple[bool, list[int]]]:
        for upward, crowd in ((True, self.server), (False, self.clients)):
            if lengths := crowd.receive_lengths():
                yield upward, lengths

    # Flows

    def _frame(self, index: int, number: int) -> Frame:
        return Frame(pack_address(client_host(index), self.clients.port), 0, packet(number))

    def _open_sessions(self, listen: tuple[str, int]) -> list[int]:
        """The port that the forwarder took for each client, told by what the client sent. Lost ones are repeated."""
        ports: dict[int, int] = {}
        deadline = time.monotonic() + OPEN_SECONDS
        while len(ports) < self._flows:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self._flows - len(ports)} of {self._flows} sessions did not open")
            for index in [index for index in range(self._flows) if index not in ports][:64]:
                self.clients.send_one(packet(index), client_host(index), listen)
            time.sleep(0.005)
            while (heard := self.server.receive_one()) is not None:
                data, source = heard
                ports[NUMBER.unpack_from(data, NUMBER_AT)[0]] = int.from_bytes(source[:2], "big")
        return [ports[index] for index in range(self._flows)]

    def _open_flows(self, keys: KeyRing, trunk: Trunk, listen: tuple[str, int]) -> None:
        """As calls do: a check with a token of its own, answered over the trunk. Lost ones are repeated."""
        address, now = pack_address(SERVER, self.server.port), time.time()
        missing: dict[TransportAddress, int] = {
            pack_address(client_host(i), self.clients.port): i for i in range(self._flows)
        }
        deadline = time.monotonic() + OPEN_SECONDS
        while missing:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(missing)} of {self._flows} flows did not open")
            for index in list(missing.values())[:64]:
                ufrag = keys.seal(address, incarnation=1, wall_time=now, entropy=secrets.token_bytes)
                check = binding_request(
                    secrets.token_bytes(12),
                    f"{ufrag}:bench".encode(),
                    keys.derive_password(ufrag).encode("ascii"),
                    priority=1,
                    controlling=True,
                    tie_breaker=1,
                    use_candidate=True,
                )
                self.clients.send_one(check, client_host(index), listen)
            time.sleep(0.002)
            while (heard := self.server.receive_one()) is not None:
                datagram, relay = heard
                source = SERVER, int.from_bytes(relay[:2], "big")
                try:
                    frames = trunk.decode_untrusted(datagram)
                except DecodeError:
                    self.server.send_one(datagram, SERVER, source)  # its hello, sent back: it asks no more
                    continue
                for answer in trunk.encode([Frame(client, index, packet(0)) for client, index, _ in frames], 1452):
                    self.server.send_one(answer, SERVER, source)
                for client, _, _ in frames:
                    missing.pop(client, None)


def main() -> int:
    generator = Generator(int(sys.argv[1]))
    server = f"{SERVER}:{generator.server.port}"
    announce(server=server, plain=generator.flow_table(False).hex(), trunk=generator.flow_table(True).hex())
    for line in sys.stdin.buffer:
        order = msgspec.json.decode(line)
        try:
            if "pid" in order:
                generator.attach(msgspec.convert(order, Forwarder))
                answer: object = {"attached": True}
            else:
                answer = generator.run(msgspec.convert(order, Round))
        except (OSError, TimeoutError) as error:
            answer = {"failed": str(error)}
        sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
        sys.stdout.buffer.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
