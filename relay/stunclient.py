"""A Binding transaction over UDP (RFC 8489 §6.2.1, §6.3), for the doctor: what is our address, seen from outside?"""

from __future__ import annotations

import os

import trio

from protocol.errors import DecodeError
from protocol.stun import Class, Message, Method, parse_message_untrusted

__all__ = ["StunError", "public_address", "resolve"]

# RFC 8489 §6.2.1: RTO starts at 500 ms and doubles. Rc would be 7 (39.5 s): a doctor does not wait that long.
INITIAL_RTO = 0.5
REQUESTS = 4


class StunError(Exception):
    """No usable answer; the text is for the operator."""


async def resolve(server: str, family: int) -> tuple[str, int]:
    """`HOST:PORT` → one numeric address of the family of our socket."""
    host, _, port = server.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal():
        raise StunError(f"{server!r} is not HOST:PORT")
    try:
        found = await trio.socket.getaddrinfo(host, int(port), family, trio.socket.SOCK_DGRAM)
    except OSError as error:
        raise StunError(f"{host}: {error}") from None
    address = found[0][4]
    return str(address[0]), int(address[1])


async def public_address(sock: trio.socket.SocketType, server: tuple[str, int]) -> tuple[str, int]:
    """The XOR-MAPPED-ADDRESS that `server` reports for `sock`. Raises StunError."""
    request = Message(
        message_method=Method.BINDING, message_class=Class.REQUEST, transaction_id=os.urandom(12), attributes={}
    )
    request.add_fingerprint()
    rto = INITIAL_RTO
    try:
        for _ in range(REQUESTS):
            await sock.sendto(bytes(request), server)
            with trio.move_on_after(rto):
                return await _answer(sock, server, request.transaction_id)
            rto *= 2
    except OSError as error:
        raise StunError(f"{server[0]}:{server[1]}: {error.strerror or error}") from None
    raise StunError(f"{server[0]}:{server[1]} did not answer {REQUESTS} requests")


async def _answer(sock: trio.socket.SocketType, server: tuple[str, int], transaction_id: bytes) -> tuple[str, int]:
    while True:
        data, source = await sock.recvfrom(2048)
        if source[:2] != server:
            continue
        try:
            answer = parse_message_untrusted(data)
        except DecodeError:
            continue
        if answer.transaction_id != transaction_id:
            continue
        if answer.message_class != Class.RESPONSE:
            raise StunError(f"{server[0]}:{server[1]} answered with an error")
        mapped = answer.attributes.get("XOR-MAPPED-ADDRESS") or answer.attributes.get("MAPPED-ADDRESS")
        if mapped is None:
            raise StunError(f"{server[0]}:{server[1]} answered without an address")
        return str(mapped[0]), int(mapped[1])
