"""Numbered datagrams through a running relay while something happens to it: which were lost, and for how long nothing came.

A thread plays both ends: a crowd of clients, each with a flow of its own, and the transceiver, which answers every frame along
the trunk at once and tells a relay that has begun anew its calls, as the real one does (transceiver.relays). The relay is a
process of its own; whoever wants to kill or upgrade it does so meanwhile. With `talks` the transceiver also sends something of
its own to each client every 20 ms; otherwise it only answers, as an agent that waits for the caller.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.address import Path, TransportAddress, pack_address
from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk, is_notice
from protocol.stun import Class, Message, Method
from service.addresses import parse_host_port
from transceiver.outbox import relay_local
from transceiver.relays import Relays
from udpio import KernelSocket, UdpSocket, open_udp

__all__ = ["Passage", "Traffic"]

# Implementation constants
SETUP_SECONDS = 5.0
DRAIN_SECONDS = 0.5
HEAD = b"\x80\x6f"  # RTP, by its first byte
SPEECH = b"\x80\x70" + bytes(158)
GOODBYE = b"\x15goodbye"  # begins as a DTLS alert does
SPEECH_SECONDS = 0.02
MTU = 1452


@dataclass(frozen=True, slots=True)
class Passage:
    """What became of the datagrams. Gaps are of all flows together, in milliseconds."""

    sent: int
    arrived: int  # at the transceiver
    returned: int  # to their client
    longest_gap: float  # between two that came back
    longest_gap_of_one: float  # between two that came back to the same client
    overflowed: int  # what the kernel dropped at sockets of ours, on either end; of the trunk, datagrams

    @property
    def lost(self) -> int:
        """Either way."""
        return self.sent - self.returned


class Traffic:
    """Use it as a context: the flows exist when it is entered; `stop` returns the Passage."""

    def __init__(
        self,
        listen: str,
        routing: RoutingConfig,
        *,
        rate: float,
        clients: int = 50,
        size: int = 160,
        talks: bool = False,
    ) -> None:
        """`rate`: datagrams a second, of all clients together."""
        self._keys, self._trunk = KeyRing.parse(routing), Trunk.parse(routing)
        self._listen = pack_address(*parse_host_port(listen))
        host = parse_host_port(listen)[0]
        self._clients: list[UdpSocket] = [open_udp(host, 0) for _ in range(clients)]
        self._transceiver: UdpSocket = open_udp("127.0.0.1", 0)
        self._rate = rate
        self._talks = talks
        self._paths: dict[Path, None] = {}
        self._relays = Relays(self._trunk, MTU, lambda: iter(list(self._paths)))
        self._padding = bytes(size - len(HEAD) - 4)
        self._arrived: set[int] = set()
        self._returned: set[int] = set()
        self._last = [0.0] * clients
        self._gap = [0.0] * clients
        self._last_of_all = self._gap_of_all = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._sent = 0

    def __enter__(self) -> Traffic:
        self._open_flows()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        # Or the next client with one of these ports would be taken for one that talks in two calls.
        for path in self._paths:
            self._reply([Frame(path.remote, path.local[-1], GOODBYE)], TransportAddress(path.local[:-1]))
        for sock in (*self._clients, self._transceiver):
            sock.close()

    def stop(self) -> Passage:
        """Send no more, wait for what is under way."""
        self._stopping.set()
        self._thread.join()
        ours = *self._clients, self._transceiver
        overflowed = sum(sock.ask_overflow() for sock in ours if isinstance(sock, KernelSocket))
        gaps = self._gap_of_all * 1e3, max(self._gap) * 1e3
        return Passage(self._sent, len(self._arrived), len(self._returned), *gaps, overflowed)

    def _open_flows(self) -> None:
        """A check from each client; the transceiver's answer establishes its flow. Raises TimeoutError."""
        address, wall_time = self._transceiver.address, time.time()
        tokens = [  # one for each: a relay lets a token have only so many flows
            self._keys.seal(address, incarnation=1, wall_time=wall_time, entropy=os.urandom) for _ in self._clients
        ]
        waiting = set(range(len(self._clients)))
        deadline = time.monotonic() + SETUP_SECONDS
        while waiting:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} flows were not opened")
            for index in waiting:
                token = tokens[index]
                request = Message(Method.BINDING, Class.REQUEST, os.urandom(12), {"USERNAME": f"{token}:peer"})
                request.add_message_integrity(self._keys.derive_password(token).encode())
                self._clients[index].send_batch([(bytes(request), self._listen)])
            time.sleep(0.05)
            for frame, relay in self._frames():
                self._paths[Path(relay_local(relay, frame.ingress), frame.client)] = None
                self._reply([Frame(frame.client, frame.ingress, b"\x01\x01answer")], relay)
            time.sleep(0.02)
            waiting -= {index for index, client in enumerate(self._clients) if client.receive_batch()}

    def _run(self) -> None:
        began = time.monotonic()
        self._last = [began] * len(self._clients)
        self._last_of_all = speak_at = began
        while not self._stopping.is_set():
            now = time.monotonic()
            due = int((now - began) * self._rate)
            while self._sent < due:
                data = HEAD + self._sent.to_bytes(4, "big") + self._padding
                self._clients[self._sent % len(self._clients)].send_batch([(data, self._listen)])
                self._sent += 1
            if self._talks and now >= speak_at:
                speak_at += SPEECH_SECONDS
                for path in self._paths:
                    words = Frame(path.remote, path.local[-1], SPEECH)
                    self._reply([words], TransportAddress(path.local[:-1]))
            self._pass_on()
            time.sleep(0.001)
        deadline = time.monotonic() + DRAIN_SECONDS
        while time.monotonic() < deadline and len(self._returned) < self._sent:
            self._pass_on()
            time.sleep(0.001)

    def _pass_on(self) -> None:
        for frame, relay in self._frames():
            self._arrived.add(int.from_bytes(frame.payload[2:6], "big"))
            self._reply([frame], relay)
        for index, client in enumerate(self._clients):
            while batch := client.receive_batch():
                now = time.monotonic()
                self._gap[index] = max(self._gap[index], now - self._last[index])
                self._gap_of_all = max(self._gap_of_all, now - self._last_of_all)
                self._last[index] = self._last_of_all = now
                self._returned.update(int.from_bytes(data[2:6], "big") for data, _ in batch if data[:2] == HEAD)

    def _frames(self) -> list[tuple[Frame, TransportAddress]]:
        found: list[tuple[Frame, TransportAddress]] = []
        while batch := self._transceiver.receive_batch():
            for data, relay in batch:
                now = time.monotonic()
                if is_notice(data):
                    self._relays.hear_untrusted(data, relay, now)
                    continue
                self._relays.heard(relay, now)
                frames = self._trunk.decode_untrusted(data)
                found += [(Frame(client, ingress, bytes(payload)), relay) for client, ingress, payload in frames]
        self._transceiver.send_batch(self._relays.handle_timeout(time.monotonic()))
        return found

    def _reply(self, frames: Sequence[Frame], relay: TransportAddress) -> None:
        self._transceiver.send_batch([(datagram, relay) for datagram in self._trunk.encode(frames, MTU)])
