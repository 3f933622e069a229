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
import sys
import time
from collections.abc import Iterator

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
PACKET = bytes((0x80, 111)) + bytes(158)  # an RTP packet, to a relay: 160 bytes
MIN_LETTERS = 1024
SERVER = "127.0.0.1"
FRAME_LENGTH = frame_overhead(pack_address(SERVER, 1)) + len(PACKET)
BUNDLED = 8  # frames of 168 bytes that share one datagram of 1452
PATIENCE = 0.25  # seconds without an arrival: what is missing is lost (or we share the CPUs with too many others)
OPEN_SECONDS = 5.0
MAX_BURST = 1024
SKB = 1024  # bytes of receive buffer that a small datagram takes, rounded up
BEHIND = 0.005  # seconds by which a paced packet may be late before it counts as such


class Forwarder(msgspec.Struct, frozen=True):
    """What is measured: `trunk` says whether it speaks the trunk or forwards datagram for datagram."""

    pid: int
    listen: str
    trunk_address: str
    trunk: bool
    tokens: bool
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
    wall_ns: int = 0
    late: int = 0
    written_off: int = 0


def client_host(index: int) -> str:
    return f"127.1.{index >> 8}.{index & 255}"


def server_host(index: int) -> str:
    """What a forwarder without a trunk tells flows apart by, at the server's side."""
    return f"127.2.{index >> 8}.{index & 255}"


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
        self._trunked = forwarder.trunk
        listen, trunk_at = parse_host_port(forwarder.listen), parse_host_port(forwarder.trunk_address)
        repeated = [i % self._flows for i in range(max(MIN_LETTERS, self._flows))]
        self._up = Post([(client_host(i), PACKET) for i in repeated], listen)
        if not forwarder.trunk:
            self._down = {1: Post([(server_host(i), PACKET) for i in repeated], trunk_at)}
            return
        routing = load({"routing": RoutingConfig}, None, os.environ)[RoutingConfig]
        trunk = Trunk.parse(routing)
        if forwarder.tokens:
            self._open_flows(KeyRing.parse(routing), trunk, listen)
        self._down = {}
        for bundled in (1, BUNDLED):
            groups = [repeated[at : at + bundled] for at in range(0, len(repeated) - bundled + 1, bundled)]
            self._down[bundled] = Post(
                [(SERVER, datagram) for group in groups for datagram in trunk.encode(map(self._frame, group), 1452)],
                trunk_at,
            )

    def run(self, order: Round) -> Counts:
        rounds = {"backlog": self._backlog, "paced": self._paced}
        for _ in self._arrivals():  # of an earlier round
            pass
        counts = Counts()
        began, cpu = time.perf_counter_ns(), self._accounts.cpu_ns()
        rounds[order.load](order, counts)
        counts.cpu_ns = self._accounts.cpu_ns() - cpu
        counts.wall_ns = time.perf_counter_ns() - began
        return counts

    # The loads

    def _backlog(self, order: Round, counts: Counts) -> None:
        burst = min(MAX_BURST, self.server.granted() // SKB // 2)
        up = burst // 2 if order.both_ways else burst
        bundled = BUNDLED if self._trunked else 1
        down = self._down[bundled]
        end = time.perf_counter() + order.seconds
        while time.perf_counter() < end:
            self._accounts.stop()
            counts.sent += self._up.send(self.clients.fd, up)
            if order.both_ways:
                counts.sent += down.send(self.server.fd, (burst - up) // bundled) * bundled
            self._accounts.resume()
            self._collect(counts)
        if counts.written_off:  # perhaps only late
            counts.written_off = 0
            self._collect(counts)

    def _paced(self, order: Round, counts: Counts) -> None:
        gap = 1 / order.rate
        down = self._down[1]
        began = time.perf_counter()
        for number in range(int(order.seconds * order.rate)):
            due = began + number * gap
            while (now := time.perf_counter()) < due:
                self._count_arrivals(counts)
            counts.late += now - due > BEHIND
            if order.both_ways and number & 1:
                counts.sent += down.send(self.server.fd, 1)
            else:
                counts.sent += self._up.send(self.clients.fd, 1)
        self._collect(counts)

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
            if upward and self._trunked:
                counts.received += (sum(lengths) - DATAGRAM_OVERHEAD * len(lengths)) // FRAME_LENGTH
            else:
                counts.received += sum(lengths) // len(PACKET)
        return came

    def _arrivals(self) -> Iterator[tuple[bool, list[int]]]:
        for upward, crowd in ((True, self.server), (False, self.clients)):
            if lengths := crowd.receive_lengths():
                yield upward, lengths

    # Flows

    def _frame(self, index: int) -> Frame:
        return Frame(pack_address(client_host(index), self.clients.port), 0, PACKET)

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
                try:
                    frames = trunk.decode_untrusted(datagram)
                except DecodeError:
                    continue
                source = SERVER, int.from_bytes(relay[:2], "big")
                for answer in trunk.encode([Frame(client, index, PACKET) for client, index, _ in frames], 1452):
                    self.server.send_one(answer, SERVER, source)
                for client, _, _ in frames:
                    missing.pop(client, None)


def main() -> int:
    generator = Generator(int(sys.argv[1]))
    announce(plain=generator.flow_table(False).hex(), trunk=generator.flow_table(True).hex())
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
