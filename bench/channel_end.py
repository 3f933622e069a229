"""One end of a data channel, ours, in a process of its own: `python -m bench.channel_end client|server`.

It is told what to do by lines of JSON, as its counterpart of aiortc is (`bench.reference.aiortc_channel`), and does the same:

offer, answer, connect   what signalling would carry, as one opaque text each
flood                    the client sends messages of `size` bytes for `seconds`, then asks the server how many came
ping                     the client sends a message of `size` bytes and waits for it to come back, again and again
cores                    an association with another in this process, nothing between them: what SCTP alone costs
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio
from google_crc32c import value as crc32c

from protocol.address import Path, unpack_address
from protocol.dtls import DtlsEndpoint, Fingerprint, Identity, Role
from protocol.ice import Candidate, IceCredentials, IceFull, IceLite
from protocol.peer import DataParameters, DtlsConnected, PathSelected, Peer, SendTo
from protocol.sctp import Association, ChannelMessage, ChannelOpened, ChannelWritable, Packet
from service.ready import announce
from udpio import open_udp

HOW_MANY = "how many?"


class Signal(msgspec.Struct):
    """What an offer or an answer says."""

    ufrag: str
    password: str
    port: int
    fingerprint: str


class End:
    def __init__(self, *, is_client: bool) -> None:
        self._is_client = is_client
        self._identity = Identity.generate(datetime.now(UTC))
        self._credentials = IceCredentials(os.urandom(3).hex(), os.urandom(12).hex())
        self._socket = open_udp("127.0.0.1", 0)
        self._peer: Peer | None = None
        self._channel = 0
        self._count = 0
        self._answer = ""  # to how many
        self._changed = trio.Event()
        self._opened = self._writable = False
        self._echoes = 0
        self._wait = trio.CancelScope()

    def signal(self) -> str:
        _, port = unpack_address(self._socket.address)
        sent = Signal(self._credentials.ufrag, self._credentials.pwd, port, self._identity.fingerprint().value.hex())
        return msgspec.json.encode(sent).decode()

    def begin(self, other: str) -> None:
        """With what the other side's `signal` said."""
        remote = msgspec.json.decode(other, type=Signal)
        theirs = IceCredentials(remote.ufrag, remote.password)
        ice: IceFull | IceLite
        if self._is_client:
            ice = IceFull(self._credentials, theirs, controlling=True, entropy=os.urandom)
            ice.add_remote_candidate(Candidate("1", 1, "udp", 1, "127.0.0.1", remote.port, "host"))
        else:
            ice = IceLite(self._credentials, theirs, entropy=os.urandom)
        dtls = DtlsEndpoint(
            Role.CLIENT if self._is_client else Role.SERVER,
            self._identity,
            peer_fingerprints=(Fingerprint("sha-256", bytes.fromhex(remote.fingerprint)),),
            srtp_profiles=(),
            entropy=os.urandom,
        )
        self._peer = Peer(ice=ice, dtls=dtls, audio=None, data=DataParameters(), entropy=os.urandom)
        if isinstance(ice, IceFull):
            ice.start(time.monotonic())

    async def carry(self) -> None:
        """The packet loop, as the transceiver's is: batches in, cores, batches out."""
        peer = self._peer
        assert peer is not None
        while True:
            self._drain(peer)
            with trio.CancelScope() as self._wait:
                self._set_alarm(peer)
                await self._socket.wait_readable()
            now = time.monotonic()
            for data, source in self._socket.receive_batch():
                peer.receive_untrusted(data, Path(b"", source), now)
            if peer.next_timeout() <= now:
                peer.handle_timeout(now)

    def _set_alarm(self, peer: Peer) -> None:
        self._wait.deadline = trio.current_time() + max(peer.next_timeout() - time.monotonic(), 0.0)

    def _drain(self, peer: Peer) -> None:
        datagrams = []
        while outputs := peer.poll():
            for output in outputs:
                match output:
                    case SendTo():
                        datagrams.append((output.data, output.path.remote))
                    case ChannelMessage():
                        self._receive(peer, output)
                    case PathSelected():
                        peer.start_dtls(time.monotonic())
                    case DtlsConnected() if self._is_client:
                        self._channel = peer.open_channel("bench", time.monotonic())
                    case ChannelOpened():
                        self._opened = True
                        self._changed.set()
                    case ChannelWritable():
                        self._writable = True
                        self._changed.set()
        if datagrams:
            self._socket.send_batch(datagrams)

    def _receive(self, peer: Peer, message: ChannelMessage) -> None:
        now = time.monotonic()
        if self._is_client:
            if isinstance(message.data, str):
                self._answer = message.data
            else:
                self._echoes += 1
            self._changed.set()
        elif message.data == HOW_MANY:
            peer.send_message(message.channel, str(self._count), now)
            self._count = 0
        elif isinstance(message.data, str):
            peer.send_message(message.channel, message.data.encode(), now)
        else:
            self._count += 1

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed = trio.Event()
            await self._changed.wait()

    async def opened(self) -> None:
        await self._until(lambda: self._opened)

    async def _send(self, data: str | bytes) -> None:
        peer = self._peer
        assert peer is not None
        while True:
            self._writable = False
            accepted = peer.send_message(self._channel, data, time.monotonic())
            self._drain(peer)
            self._set_alarm(peer)
            if accepted:
                return
            await self._until(lambda: self._writable)

    async def flood(self, size: int, seconds: float) -> dict[str, float]:
        message, began = bytes(size), time.monotonic()
        sent = 0
        while time.monotonic() - began < seconds:
            await self._send(message)
            sent += 1
        self._answer = ""
        await self._send(HOW_MANY)
        await self._until(lambda: bool(self._answer))
        return {"sent": sent, "came": int(self._answer), "seconds": time.monotonic() - began}

    async def ping(self, size: int, seconds: float) -> dict[str, Any]:
        text, began = "x" * size, time.monotonic()
        trips: list[float] = []
        while (start := time.monotonic()) - began < seconds:
            seen = self._echoes
            await self._send(text)
            await self._until(lambda seen=seen: self._echoes > seen)  # type: ignore[misc]
            trips.append(time.monotonic() - start)
        return {"trips": trips}


def cores(size: int, seconds: float) -> dict[str, float]:
    """Two associations in this process, with nothing between them but a list."""
    ends = [Association(is_client=first, max_message_size_remote=0, entropy=os.urandom) for first in (True, False)]
    came, packets, some = 0, 0, [b""] * 1000

    def carry(now: float) -> None:
        nonlocal came, packets
        busy = True
        while busy:
            busy = False
            for one, other in (ends, ends[::-1]):
                for output in one.poll():
                    busy = True
                    if isinstance(output, Packet):
                        some[packets % len(some)] = output.data
                        packets += 1
                        other.receive_untrusted(output.data, now)
                    elif isinstance(output, ChannelMessage):
                        came += 1
        for end in ends:
            if end.next_timeout() <= now:
                end.handle_timeout(now)

    ends[0].connect(time.monotonic())
    channel = ends[0].open_channel("bench", now=time.monotonic())
    carry(time.monotonic())
    message, began, cpu = bytes(size), time.monotonic(), time.process_time()
    while time.monotonic() - began < seconds or not ends[0].drained:
        now = time.monotonic()
        while now - began < seconds and ends[0].send(channel, message, now):
            pass
        carry(now)
    cpu = time.process_time() - cpu
    began = time.process_time()
    for packet in some:
        crc32c(packet)
    checksum = (time.process_time() - began) / len(some)
    return {"came": came, "cpu": cpu, "checksums": 2 * packets * checksum / cpu}  # made and checked


async def main(role: str) -> None:
    end = End(is_client=role == "client")
    announce()
    async with trio.open_nursery() as nursery:
        while line := await trio.to_thread.run_sync(sys.stdin.buffer.readline, abandon_on_cancel=True):
            order = msgspec.json.decode(line)
            said: dict[str, Any] = {}
            match order["do"]:
                case "offer":
                    said = {"signal": end.signal()}
                case "answer" | "connect":
                    end.begin(order["signal"])
                    nursery.start_soon(end.carry)
                    said = {"signal": end.signal()}
                case "opened":
                    await end.opened()
                case "flood":
                    said = await end.flood(order["size"], order["seconds"])
                case "ping":
                    said = await end.ping(order["size"], order["seconds"])
                case "cores":
                    said = cores(order["size"], order["seconds"])
            sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
            sys.stdout.flush()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
