"""The whole edge in one process and in virtual time: callers, their networks, a relay, a transceiver and an agent.

    caller ── its network: NAT, shapers ──▶ relay core ══ trunk: shapers ══▶ engine, registry, sessions ── agent

1. Everything that has a deadline says when; the world jumps to the earliest and lets all that are due act, in a fixed
   order. Nothing sleeps, no clock is read, no entropy drawn: a world and its seed are one film.
2. Datagrams are bytes, as on a wire. Each that is sent, arrives or is lost by translation goes into `trace`, a running
   digest: two runs with equal traces were equal in every byte and every microsecond.
3. Processes die (`kill_relay`) and come back empty (`start_relay`), as processes do.

What is not in the loop: sockets and the kernel, HTTP signalling (an offer is handed over), and, unless the world is
made with one, the agent's own process (see `sim.linked`).
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import math
import struct
from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from sim.agents import EchoBackend
from sim.caller import Caller, Habit
from sim.identities import identity

from loadgen.call import CallFigures
from protocol.address import TransportAddress, format_address, pack_address
from protocol.demux import Kind, classify_untrusted
from protocol.ice import Candidate, candidate_priority
from protocol.routing import KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from relay.core import RelayCore
from transceiver.backends.base import Backend, Inbox
from transceiver.config import TransceiverConfig
from transceiver.engine import Engine
from transceiver.registry import Registry
from transceiver.signalling import CallRequest
from udpio import Conditions, MemoryNetwork, MemorySocket, Nat, Shaper

__all__ = ["World"]

ROUTING = RoutingConfig(keys=("1:" + "11" * 32,), prefix="10.0.0.0/8", trunk_keys=("22" * 32,))
RELAY_HOST, RELAY_PORT = "198.51.100.1", 3478
RELAY = pack_address(RELAY_HOST, RELAY_PORT)
TRUNK = ("10.0.0.1", 3479)
TRANSCEIVER = ("10.0.1.1", 4000)
PERFECT = Conditions()
LAN = Conditions(delay=0.0002)
WALL = 1_795_000_000.0
_MOMENT = struct.Struct(">dI")
_STUN_TYPES = {b"\x00\x01": "request", b"\x01\x01": "answer", b"\x01\x11": "error"}
_RECORD_TYPES = {20: "change cipher spec", 21: "alert", 22: "handshake", 23: "data"}
STUCK = 10_000  # steps at one moment: a deadline that never passes is a bug


class World:
    """`seed` decides everything that is left to chance. `now` starts at `start`."""

    def __init__(
        self,
        seed: object = 0,
        *,
        up: Conditions = PERFECT,
        down: Conditions | None = None,
        trunk: Conditions = LAN,
        rebind_every: float = math.inf,
        start: float = 1000.0,
        backend: Callable[[Inbox], Backend] = EchoBackend,
        transceiver: Mapping[str, Any] | None = None,
    ) -> None:
        self.seed = str(seed)
        self.now = start
        self.wall_offset = WALL - start  # may jump
        self.steps = 0
        self._still = 0  # steps without any time passing
        self.callers: list[Caller] = []
        self.figures = CallFigures(b"sim!")
        self.log: list[str] | None = None  # a list: every datagram is written into it, for eyes
        self.strays: dict[TransportAddress, list[bytes]] = {}  # what arrived where nobody of ours lives
        self._up, self._down = up, down or up
        self._digest = hashlib.sha256()
        self._actions: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ports = itertools.count(50_000)
        self._hosts = itertools.count(10)
        self._host = next(self._hosts)
        self._owners: dict[TransportAddress, Caller] = {}  # of every outer address there ever was
        self.nat: Nat[int, TransportAddress] = Nat(self._bind, rebind_every=rebind_every)
        self.network = MemoryNetwork(self._deliver)
        self.trunk_up: Shaper[tuple[TransportAddress, bytes, TransportAddress]] = Shaper(
            trunk, Random(f"{self.seed} trunk up")
        )
        self.trunk_down: Shaper[tuple[TransportAddress, bytes, TransportAddress]] = Shaper(
            trunk, Random(f"{self.seed} trunk down")
        )
        self._sockets: dict[TransportAddress, MemorySocket] = {}
        self._keys, self._trunk = KeyRing.parse(ROUTING), Trunk.parse(ROUTING)
        self._new_backend = backend
        self._transceiver = transceiver or {}
        self.relay: RelayCore | None = None
        self.engine: Engine | None = None
        self._boots = 0
        self.start_relay()
        self.start_transceiver()

    # Processes

    def start_relay(self) -> None:
        """A relay with an empty table, at the addresses of the last one."""
        self._relay_socket = self._open(*TRUNK)
        config = RelayConfig(listen=(f"{RELAY_HOST}:{RELAY_PORT}",))
        self._boots += 1
        boot = self._boots.to_bytes(8, "big")
        self.relay = RelayCore(config, self._keys, self._trunk, wall_time=self.wall_time, boot=boot)

    def kill_relay(self) -> None:
        self.relay = None
        self._close(self._relay_socket)

    def start_transceiver(self) -> None:
        """A transceiver without calls, at the address of the last one."""
        self._engine_socket = self._open(*TRANSCEIVER)
        self.engine = engine = Engine(self._engine_socket, self._trunk, direct=False, strict=True)
        self.backend = self._new_backend(engine)
        self.registry = Registry(
            TransceiverConfig(advertise=(f"{RELAY_HOST}:{RELAY_PORT}",), **self._transceiver),
            engine=engine,
            backend=self.backend,
            keys=self._keys,
            identity=identity("transceiver"),
            address=self._engine_socket.address,
            candidates=(Candidate("1", 1, "udp", candidate_priority("host"), RELAY_HOST, RELAY_PORT, "host"),),
            clock=lambda: self.now,
            wall_time=self.wall_time,
            entropy=Random(f"{self.seed} transceiver {self.now}").randbytes,
        )

    def kill_transceiver(self) -> None:
        self.engine = None
        self._close(self._engine_socket)

    def wall_time(self) -> float:
        return self.now + self.wall_offset

    # Callers

    def new_caller(
        self, habit: Habit = Habit.CHROMIUM, *, up: Conditions | None = None, down: Conditions | None = None
    ) -> Caller:
        number = len(self.callers)
        caller = Caller(
            number,
            f"{self.seed} {number}",
            self.figures,
            now=self.now,
            address=pack_address(f"192.168.0.{number + 1}", 5000),
            up=up or self._up,
            down=down or self._down,
            habit=habit,
        )
        self.callers.append(caller)
        return caller

    def dial(self, caller: Caller | None = None) -> Caller:
        """Offer and answer change hands at once; from then on the call's datagrams travel."""
        caller = caller or self.new_caller()
        created = self.registry.create(CallRequest(caller.call.offer().encode()))
        caller.call_id = created.call_id
        caller.dialled_at = self.now
        caller.call.answered(created.answer.encode(), self.now)
        caller.start_microphone(self.now)
        self._settle(caller)
        return caller

    def talk(self, caller: Caller | None = None, limit: float = 15.0) -> Caller:
        """Dial, and run until the call is ready."""
        caller = self.dial(caller)
        assert self.run_until(lambda: caller.call.is_ready, limit), f"not set up: no {caller.call.missing_stage}"
        return caller

    def hang_up(self, caller: Caller) -> None:
        caller.call.hung_up = True
        caller.call.stop_talking(self.now)
        self.registry.hang_up(caller.call_id)

    def outer(self, caller: Caller) -> TransportAddress:
        """Where the caller's datagrams come from at present, for the relay."""
        return self.nat.outward(caller.number, self.now)

    def rebind(self, caller: Caller, *, host: bool = False) -> None:
        """Another source port from now on, or another source host, too."""
        if host:
            self._host = next(self._hosts)
        self._owners[self.nat.rebind(caller.number, self.now)] = caller

    def inject(self, data: bytes, source: TransportAddress, delay: float = 0.0) -> None:
        """Somebody sends a datagram to the relay; answers to him are in `strays`."""
        self.after(delay, lambda: self._from_clients([(memoryview(data), source)]))

    # Time

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._actions, (self.now + seconds, next(self._order), action))

    def run_for(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.next_timeout()) <= end:
            self._advance(due)
        self.now = end

    def run_until(self, condition: Callable[[], bool], limit: float) -> bool:
        """Whether it came true within `limit` seconds."""
        end = self.now + limit
        while not condition():
            if (due := self.next_timeout()) > end:
                self.now = end
                return condition()
            self._advance(due)
        return True

    def next_timeout(self) -> float:
        due = min(self.trunk_up.next_timeout(), self.trunk_down.next_timeout(), self.nat.next_timeout())
        if self._actions:
            due = min(due, self._actions[0][0])
        for caller in self.callers:
            due = min(due, caller.next_timeout(), caller.up.next_timeout(), caller.down.next_timeout())
        if self.relay is not None:
            due = min(due, self.relay.next_timeout())
        if self.engine is not None:
            due = min(due, self.engine.next_timeout())
        return max(due, self.now)

    def step(self) -> None:
        """Jump to the next moment at which something is due, and let it happen."""
        self._advance(self.next_timeout())

    def _advance(self, due: float) -> None:
        self._still = self._still + 1 if due == self.now else 0
        if self._still > STUCK:
            raise RuntimeError(f"time stands still at {self.now}")
        self.now = now = due
        self.steps += 1
        while self._actions and self._actions[0][0] <= now:
            heapq.heappop(self._actions)[2]()
        if self.nat.next_timeout() <= now:
            self.nat.handle_timeout(now)
        self._turn_relay(now)
        self._turn_transceiver(now)
        for caller in self.callers:
            self._turn_caller(caller, now)

    @property
    def trace(self) -> str:
        """Everything that has travelled so far, in one number."""
        return self._digest.hexdigest()

    # What happens in a step

    def _turn_relay(self, now: float) -> None:
        for caller in self.callers:
            if caller.up.next_timeout() <= now:
                self._from_clients([(memoryview(data), source) for source, data in caller.up.poll(now)])
        relay = self.relay
        arrived = self._arrive(self.trunk_down, now)
        if relay is None:
            return
        while arrived and (batch := self._relay_socket.receive_batch()):
            for datagrams in relay.receive_trunk_untrusted(batch, now):
                for data, destination in datagrams:
                    self._to_client(bytes(data), destination)
            self._relay_socket.send_batch(relay.greeter.take())
        if relay.next_timeout() <= now:
            relay.handle_timeout(now)

    def _from_clients(self, batch: list[tuple[memoryview, TransportAddress]]) -> None:
        for data, source in batch:
            self._note("relay", source, data)
        if self.relay is not None:
            self._relay_socket.send_batch(self.relay.receive_clients_untrusted(batch, 0, self.now))

    def _to_client(self, data: bytes, destination: TransportAddress) -> None:
        caller = self._owners.get(destination)
        if caller is None:
            self.strays.setdefault(destination, []).append(data)
            return
        for item in caller.down_plan.apply(data):
            caller.down.send((destination, item), len(item), self.now)

    def _turn_transceiver(self, now: float) -> None:
        arrived = self._arrive(self.trunk_up, now)
        if self.engine is not None and (arrived or self.engine.next_timeout() <= now):
            self.engine.turn(now)

    def _turn_caller(self, caller: Caller, now: float) -> None:
        busy = False
        if caller.down.next_timeout() <= now:
            busy = True
            for outer, data in caller.down.poll(now):
                if self.nat.inward(outer) is None:
                    self._note("nobody", outer, data)
                    continue
                self._note("caller", outer, data)
                caller.receive_untrusted(data, RELAY, now)
        if caller.next_timeout() <= now:
            busy = True
            caller.handle_timeout(now)
        if busy:
            self._settle(caller)

    def _settle(self, caller: Caller) -> None:
        """The caller was changed: send what it has to say, and see when it wants to act next."""
        for data, destination in caller.take_datagrams(self.now):
            if destination != RELAY:
                self.strays.setdefault(destination, []).append(data)
                continue
            outer = self.nat.outward(caller.number, self.now)
            self._owners[outer] = caller
            self._note("sent", outer, data)
            for item in caller.up_plan.apply(data):
                caller.up.send((outer, item), len(item), self.now)
        caller.settle()

    # The trunk

    def _open(self, host: str, port: int) -> MemorySocket:
        sock = self.network.open(host, port)
        self._sockets[sock.address] = sock
        return sock

    def _close(self, sock: MemorySocket) -> None:
        del self._sockets[sock.address]
        sock.close()

    def _deliver(self, source: TransportAddress, destination: TransportAddress, data: bytes) -> bool:
        shaper = self.trunk_down if destination == self._relay_socket.address else self.trunk_up
        shaper.send((destination, data, source), len(data), self.now)
        return False  # not yet

    def _arrive(self, trunk: Shaper[tuple[TransportAddress, bytes, TransportAddress]], now: float) -> bool:
        if trunk.next_timeout() > now:
            return False
        items = trunk.poll(now)
        for destination, data, source in items:
            if (sock := self._sockets.get(destination)) is not None:
                sock.put(data, source)
        return True

    def _bind(self) -> TransportAddress:
        return pack_address(f"203.0.113.{self._host}", next(self._ports))

    def _note(self, what: str, address: TransportAddress, data: bytes | memoryview) -> None:
        self._digest.update(_MOMENT.pack(self.now, len(data)) + address)
        self._digest.update(data)
        if self.log is not None:
            self.log.append(f"{self.now:.6f} {what:7} {format_address(address):22} {len(data):5} {_name(data)}")


def _name(data: bytes | memoryview) -> str:
    """What a datagram is, for eyes: of DTLS its first record tells."""
    kind = classify_untrusted(data)
    first = {Kind.STUN: _STUN_TYPES.get(bytes(data[:2])), Kind.DTLS: _RECORD_TYPES.get(data[0] if data else 0)}
    return " ".join(filter(None, (kind.name, first.get(kind))))
