"""Media beside storms of STUN, in one real relay: only the kernel loses any, and every datagram is accounted for."""

from __future__ import annotations

import base64
import os
import select
import socket
import struct
import time
from pathlib import Path

import pytest
from relay_process import ROUTING, RelayProcess, relay_process, waited

from bench.handover import Traffic
from protocol.address import TransportAddress, pack_address, unpack_address
from protocol.routing import Frame, KeyRing, Trunk, TrunkKind
from protocol.stun import Class, Message, Method
from service.addresses import parse_host_port
from udpio import open_udp

pytestmark = pytest.mark.thorough

KEYS, TRUNK = KeyRing.parse(ROUTING), Trunk.parse(ROUTING)
SECONDS = 6.0
MEDIA_RATE = 1000.0
CHECKS = 16  # a second, of each caller
IP_PKTINFO = 8  # not named by the socket module before Python 3.12
HEAD = b"\0\1\0\x3c\x21\x12\xa4\x42"
FRAMES = 8  # of media, in a trunk datagram
DROPS, ERRORS = "antiphon_relay_drops_total", "antiphon_relay_socket_errors_total"


def check(token: str) -> bytes:
    request = Message(Method.BINDING, Class.REQUEST, os.urandom(12), {"USERNAME": f"{token}:peer"})
    request.add_message_integrity(KEYS.derive_password(token).encode())
    return bytes(request)


class Callers:
    """A process: callers with calls of their own send checks; somebody sends forged tokens, and trunk datagrams, too."""

    def __init__(self, relay: RelayProcess, *, callers: int, forged: int, trunk: int) -> None:
        self._listen, self._trunk = parse_host_port(relay.listen), parse_host_port(relay.bound["trunk"])
        self._callers, self._forged, self._forged_trunk = callers, forged, trunk
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if not self.pid:
            status = 1
            try:
                ours.close()
                self._run(theirs)
                status = 0
            finally:
                os._exit(status)
        theirs.close()
        self._pipe = ours
        self._pipe.settimeout(30)
        assert self._pipe.recv(16) == b"ready"

    def stop(self) -> tuple[int, int]:
        """How many datagrams they have sent to the clients' side, and forged ones to the trunk's."""
        self._pipe.sendall(b"stop")
        sent, forged = map(int, self._pipe.recv(32).split())
        os.waitpid(self.pid, 0)
        self._pipe.close()
        return sent, forged

    def _run(self, pipe: socket.socket) -> None:
        transceiver = open_udp("127.0.0.1", 0)
        tokens = [new_token(transceiver.address) for _ in range(self._callers)]
        checks = [check(token) for token in tokens]
        # One socket with a thousand addresses: a process may have few descriptors.
        everybody = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        everybody.bind(("0.0.0.0", 0))
        sources = [
            [(socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=i4s4x", 0, bytes((127, 3, number >> 8, number & 255))))]
            for number in range(self._callers)
        ]

        def send(number: int) -> bool:
            return everybody.sendmsg([checks[number]], sources[number], 0, self._listen) > 0

        sent = 0
        # Each opens its flow; the transceiver answers once, and hears the rest without a word.
        for start in range(0, self._callers, 50):
            time.sleep(0.01)  # the relay opens 10 000 tokens a second at most, and we ask only once
            some = range(start, start + 50)
            for number in some:
                sent += send(number)
            waiting, deadline = set(some), time.monotonic() + 5
            while waiting:
                assert time.monotonic() < deadline
                select.select([transceiver.fileno()], [], [], 0.1)
                for data, relay in transceiver.receive_batch():
                    if TRUNK.open_untrusted(data).kind is not TrunkKind.FRAMES:
                        continue  # the relay greets a transceiver that it hears for the first time
                    for client, ingress, _ in TRUNK.decode_untrusted(data):
                        host, _ = unpack_address(client)
                        waiting.discard(int(host.split(".")[2]) << 8 | int(host.split(".")[3]))
                        [answer] = TRUNK.encode([Frame(client, ingress, b"\x01\x01answer")], 1452)
                        transceiver.send_batch([(answer, relay)])
        head = base64.b64decode(tokens[0])[
            :3
        ]  # key and cluster are in the clear: only opening it shows that it is forged
        stranger, liar = connected("127.0.0.1", self._listen), connected("127.0.0.1", self._trunk)
        [genuine] = TRUNK.encode([Frame(pack_address("192.0.2.1", 9), 0, b"\x80voice")], 1452)
        pipe.sendall(b"ready")
        began = time.monotonic()
        checked = forged = lies = 0
        while not select.select([pipe], [], [], 0.002)[0]:
            age = time.monotonic() - began
            while checked < int(age * CHECKS * self._callers):
                sent += send(checked % self._callers)
                checked += 1
            while forged < int(age * self._forged):
                ufrag = base64.b64encode(head + os.urandom(33))
                sent += bool(stranger.send(HEAD + os.urandom(12) + b"\0\6\0\x35" + ufrag + b":abcd" + bytes(3)))
                forged += 1
            while lies < int(age * self._forged_trunk):
                liar.send(genuine[:8] + os.urandom(8) + genuine[16:])
                lies += 1
            while transceiver.receive_batch():
                pass
        pipe.sendall(f"{sent} {lies}".encode())


def new_token(transceiver: TransportAddress) -> str:
    return KEYS.seal(transceiver, incarnation=1, wall_time=time.time(), entropy=os.urandom)


def connected(host: str, to: tuple[str, int]) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.connect(to)
    return sock


def dropped_by_the_kernel(listen: str) -> int:
    """At sockets of this port, for want of room."""
    port = f":{parse_host_port(listen)[1]:04X} "
    return sum(
        int(line.split()[-1])
        for line in Path("/proc/net/udp").read_text().splitlines()
        if f"{port}00000000:0000" in line
    )


@pytest.mark.parametrize(
    ("callers", "forged", "trunk"),
    [(1000, 0, 0), (50, 15_000, 0), (50, 0, 15_000), (1000, 10_000, 5000)],
    ids=["checks", "forged tokens", "forged trunk datagrams", "all"],
)
def test_media_goes_on_beside_a_storm_and_every_datagram_is_accounted_for(callers: int, forged: int, trunk: int):
    """16 checks a second from each of a thousand callers in calls; tokens that only opening shows to be forged."""
    with relay_process() as relay, Traffic(relay.listen, ROUTING, rate=MEDIA_RATE) as traffic:
        storm = Callers(relay, callers=callers, forged=forged, trunk=trunk)
        [worker] = relay.status()["workers"]
        before = waited(worker, os.getpid())
        time.sleep(SECONDS)
        late = waited(worker, os.getpid()) - before  # of the relay, and of both ends of the media
        passage = traffic.stop()
        sent, lies = storm.stop()
        time.sleep(0.2)
        metrics = relay.metrics()
        lost = [dropped_by_the_kernel(address) for address in (relay.listen, relay.bound["trunk"])]
        assert relay.stop()[0] == 0
    drops = {name[len(DROPS) + 9 : -2]: int(value) for name, value in metrics.items() if name.startswith(DROPS)}
    print(f"\n{(sent + lies) / SECONDS:.0f} a second beside media: {passage}, drops {drops}, kernel {lost}")
    assert sent + lies > SECONDS * (CHECKS * callers + forged + trunk) / 2  # or it was no storm
    assert drops.pop("trunk_forged", 0) in range(lies - lost[1], lies + 1)
    assert drops.keys() <= {"token_forged", "stun_budget"}
    assert (sum(drops.values()) > 0) == (forged > 0)
    up = int(metrics['antiphon_relay_frames_total{direction="up"}'])
    assert up + sum(drops.values()) + lost[0] - sent - passage.sent in range(50, 500)  # the checks by which media began
    # A busy machine makes the kernel drop; then this must be all that is missing. A trunk datagram carries eight frames.
    refused = sum(int(value) for name, value in metrics.items() if name.startswith(ERRORS))
    assert passage.lost <= sum(lost) + FRAMES * (passage.overflowed + refused), (passage, lost, refused)
    if not any(lost) and not passage.overflowed:
        assert passage.longest_gap_of_one < 500 + 1000 * late, (passage, late)
