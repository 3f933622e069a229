"""Our DTLS endpoints on real loopback sockets, and the command-line tools of other implementations at the far end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from protocol.dtls import (
    ApplicationData,
    Closed,
    Connected,
    CookieExchange,
    Datagram,
    DtlsConfig,
    DtlsEndpoint,
    Fingerprint,
    Identity,
    Role,
    VerifiedHello,
)

WALL = datetime(2026, 11, 22, tzinfo=UTC)
OURS = Identity.generate(WALL)
LABEL = b"EXTRACTOR-dtls_srtp"
SECONDS = 20  # for whatever a test waits for

KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa4096": lambda: rsa.generate_private_key(65537, 4096),
}


@dataclass(frozen=True)
class Credentials:
    """A self-signed certificate of the other side, as files for its command line."""

    certificate: str
    key: str
    fingerprint: Fingerprint


def make_credentials(directory: Path, kind: str) -> Credentials:
    key = KEYS[kind]()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, kind)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(WALL).not_valid_after(WALL.replace(year=2036))
    certificate = builder.sign(key, None if kind == "ed25519" else hashes.SHA256())
    files = directory / f"{kind}.pem", directory / f"{kind}-key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Credentials(str(files[0]), str(files[1]), Fingerprint.of(certificate.public_bytes(Encoding.DER)))


@dataclass
class Ours:
    """One of our endpoints on a socket, and what it has given out."""

    role: Role
    socket: trio.socket.SocketType
    peer: tuple[str, int] | None = None
    options: dict = field(default_factory=dict)
    cookies: CookieExchange | None = None  # a server that sees to the address itself
    endpoint: DtlsEndpoint | None = None
    connected: Connected | None = None
    closed: Closed | None = None
    received: bytes = b""
    sizes: list[int] = field(default_factory=list)  # of the datagrams that the endpoint sent
    challenges: int = 0  # cookies sent
    lost: tuple[str, int] = ("none", 0)  # the datagram that the network loses: "sent" or "received", and which
    counts: dict[str, int] = field(default_factory=lambda: {"sent": 0, "received": 0})

    @property
    def port(self) -> int:
        return self.socket.getsockname()[1]

    def make(self, verified: VerifiedHello | None = None) -> DtlsEndpoint:
        self.endpoint = DtlsEndpoint(self.role, OURS, entropy=os.urandom, verified=verified, **self.options)
        self.endpoint.start(trio.current_time())
        return self.endpoint

    async def run(self) -> None:
        if self.cookies is None:
            self.make()
        while True:
            await self._flush()
            with trio.move_on_at(self.endpoint.next_timeout() if self.endpoint else float("inf")):
                data, address = await self.socket.recvfrom(65_536)
                await self._take(data, address)
                continue
            self.endpoint.handle_timeout(trio.current_time())

    def is_lost(self, way: str) -> bool:
        number = self.counts[way]
        self.counts[way] += 1
        return self.lost == (way, number) and self.connected is None  # nobody makes up for lost application data

    async def _take(self, data: bytes, address: tuple[str, int]) -> None:
        if self.is_lost("received"):
            return
        if self.endpoint is None:
            answer = self.cookies.receive_untrusted(data, repr(address).encode(), trio.current_time())
            if isinstance(answer, Datagram):
                self.challenges += 1
                await self.socket.sendto(answer.data, address)
            if not isinstance(answer, VerifiedHello):
                return
            self.make(answer)
        self.peer = self.peer or address
        if address == self.peer:
            self.endpoint.receive_untrusted(data, trio.current_time())

    async def _flush(self) -> None:
        for output in self.endpoint.poll() if self.endpoint else ():
            match output:
                case Datagram(data):
                    self.sizes.append(len(data))
                    if not self.is_lost("sent"):
                        await self.socket.sendto(data, self.peer)
                case ApplicationData(data):
                    self.received += data
                case Connected():
                    self.connected = output
                case Closed():
                    self.closed = output

    async def say(self, data: bytes) -> None:
        self.endpoint.send(data, trio.current_time())
        await self._flush()

    def export(self, length: int) -> bytes:
        return self.endpoint.export_keying_material(LABEL, None, length)


@asynccontextmanager
async def our_endpoint(
    role: Role,
    theirs: Fingerprint | None = None,
    *,
    srtp: tuple[int, ...] = (7, 8, 1),
    port: int | None = None,
    cookies: bool = False,
    config: DtlsConfig | None = None,
    lost: tuple[str, int] = ("none", 0),
) -> AsyncIterator[Ours]:
    """Driven in the background. `port`: where the server is that our client calls."""
    options = {"peer_fingerprints": (theirs,) if theirs else (), "srtp_profiles": srtp, "config": config}
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
        await socket.bind(("127.0.0.1", 0))
        exchange = CookieExchange(os.urandom, trio.current_time()) if cookies else None
        ours = Ours(role, socket, ("127.0.0.1", port) if port else None, options, exchange, lost=lost)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.run)
            yield ours
            nursery.cancel_scope.cancel()


@dataclass
class Tool:
    """A running command. `said` is all that it has printed."""

    process: trio.Process
    said: str = ""

    async def collect(self) -> None:
        async for chunk in self.process.stdout:
            self.said += chunk.decode(errors="replace")

    async def tell(self, line: str) -> None:
        await self.process.stdin.send_all(line.encode())


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Tool]:
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    tool = Tool(process)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tool.collect)
        try:
            yield tool
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()
            nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object], tool: Tool | None = None) -> None:
    with trio.move_on_after(SECONDS) as waiting:
        while not condition():
            await trio.sleep(0.005)
    assert not waiting.cancelled_caught, tool.said if tool else "nothing came"
