"""The connection to a service over real sockets and TLS."""

from __future__ import annotations

import datetime
import ssl
from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from realtime_service import Service
from wsproto.utilities import generate_accept_token

from agent.upstream.config import Access
from agent.upstream.connection import RECEIVE_BYTES, Connection, Dialler, dial
from service.websocket import Message, WebSocket


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed one of 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "service")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "service.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


async def serve(nursery: trio.Nursery, service: Service, certificate: Path) -> int:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def handle(stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await service.serve(stream)
        except* trio.BrokenResourceError:
            pass

    [listener] = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1", https_compatible=True)
    nursery.start_soon(trio.serve_listeners, handle, [listener])
    port: int = listener.transport_listener.socket.getsockname()[1]
    return port


async def idle(socket: WebSocket) -> None:
    await trio.sleep_forever()


def connection(access: Access, dialler: Dialler, messages: list[Message], scope: trio.CancelScope) -> Connection:
    async def receive(message: Message) -> None:
        messages.append(message)
        scope.cancel()
        await trio.lowlevel.checkpoint()

    return Connection(access, dialler, receive, idle, max_event_bytes=1 << 20, ping_seconds=20)


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    nursery: trio.Nursery, service: Service, certificate: Path
):
    port = await serve(nursery, service, certificate)
    failure = await connection(Access(f"wss://127.0.0.1:{port}/", "", "k"), dial, [], trio.CancelScope()).run()
    assert (failure.word, failure.detail) == ("unreachable", "its certificate cannot be verified")
    assert service.requests == []


async def test_a_certificate_of_another_name_is_refused(nursery: trio.Nursery, service: Service, certificate: Path):
    port = await serve(nursery, service, certificate)
    trusting = partial(dial, context=ssl.create_default_context(cafile=certificate))
    failure = await connection(Access(f"wss://localhost:{port}/", "", "k"), trusting, [], trio.CancelScope()).run()
    assert failure.detail == "its certificate cannot be verified"


async def test_a_certificate_that_is_right_opens_the_service(
    nursery: trio.Nursery, service: Service, certificate: Path
):
    port = await serve(nursery, service, certificate)
    trusting = partial(dial, context=ssl.create_default_context(cafile=certificate))
    messages: list[Message] = []
    with trio.fail_after(30), trio.CancelScope() as scope:
        await connection(Access(f"wss://127.0.0.1:{port}/v1/realtime", "m", "sk-1"), trusting, messages, scope).run()
    assert '"session.created"' in str(messages[0])
    assert service.requests[0][1][b"authorization"] == b"Bearer sk-1"


async def test_a_port_where_nobody_listens_is_said(nursery: trio.Nursery):
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    failure = await connection(Access(f"ws://127.0.0.1:{port}/", "", ""), dial, [], trio.CancelScope()).run()
    assert failure.word == "unreachable"


async def test_a_flood_of_small_frames_leaves_other_calls_their_turns(nursery: trio.Nursery):
    ours, theirs = trio.testing.memory_stream_pair()
    pieces: list[int] = []

    class Stream(trio.abc.Stream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
            data = await ours.receive_some(max_bytes)
            pieces.append(len(data))
            return data

        async def send_all(self, data: bytes | bytearray | memoryview) -> None:
            await ours.send_all(data)

        async def wait_send_all_might_not_block(self) -> None:
            await ours.wait_send_all_might_not_block()

        async def aclose(self) -> None:
            await ours.aclose()

    async def service() -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await theirs.receive_some(4096)
        key = head.lower().partition(b"sec-websocket-key: ")[0]
        token = generate_accept_token(head[len(key) :].partition(b": ")[2].partition(b"\r\n")[0])
        answer = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        await theirs.send_all(answer + token + b"\r\n\r\n")
        await trio.testing.wait_all_tasks_blocked()
        await theirs.send_all(b"\x8a\x00" * (64 * 1024))
        await theirs.aclose()

    async def dialled(access: Access) -> trio.abc.Stream:
        return Stream()

    nursery.start_soon(service)
    with trio.fail_after(30):
        failure = await connection(Access("ws://127.0.0.1:9/", "", ""), dialled, [], trio.CancelScope()).run()
    assert failure.word == "closed"
    assert max(pieces) <= RECEIVE_BYTES
    assert sum(pieces) > 128 * 1024
