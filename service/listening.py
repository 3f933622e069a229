"""Taking the addresses that a process is to serve on, and saying in one line which of them it cannot have."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVarTuple

import trio

from service.addresses import parse_host_port

__all__ = [
    "EXIT_FAILED",
    "CannotListen",
    "naming",
    "open_shared_tcp_at",
    "open_tcp_at",
    "open_unix_at",
    "reserve_tcp_at",
    "run_service",
]

Arguments = TypeVarTuple("Arguments")

EXIT_FAILED = 1


class CannotListen(OSError):
    """An address is taken, not ours, or not allowed; the message names it."""

    def __init__(self, address: str, error: OSError) -> None:
        super().__init__(error.errno, f"{address}: {error.strerror or error}")

    def __str__(self) -> str:
        return str(self.strerror)


async def open_tcp_at(address: str, backlog: int | None = None) -> list[trio.SocketListener]:
    """Listeners at `127.0.0.1:8080`. Raises CannotListen."""
    host, port = parse_host_port(address)
    with naming(address):
        return await trio.open_tcp_listeners(port, host=host, backlog=backlog)


def reserve_tcp_at(address: str) -> list[socket.socket]:
    """Sockets bound at `address`, so that processes of ours can share it (`open_shared_tcp_at`). They do not listen: nothing
    arrives at them. Raises CannotListen, also if another service of ours shares it among its own."""
    if parse_host_port(address)[1]:
        for sock in _bind_tcp(address, shared=False):
            sock.close()
    return _bind_tcp(address, shared=True)


def _bind_tcp(address: str, *, shared: bool) -> list[socket.socket]:
    host, port = parse_host_port(address)
    taken: list[socket.socket] = []
    with naming(address):
        for family, kind, protocol, _, place in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            sock = socket.socket(family, kind, protocol)
            taken.append(sock)
            try:
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
                )  # what is left of old connections does not count
                if shared:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(place)
            except OSError:
                for opened in taken:
                    opened.close()
                raise
    return taken


async def open_shared_tcp_at(address: str, backlog: int) -> list[trio.SocketListener]:
    """Listeners that share their address with other processes of ours: the kernel gives each connection to one of them."""
    listeners = []
    for sock in _bind_tcp(address, shared=True):
        with naming(address):
            sock.listen(backlog)
        listeners.append(trio.SocketListener(trio.socket.from_stdlib_socket(sock)))
    return listeners


def open_unix_at(path: str, backlog: int) -> trio.SocketListener:
    """A listener at a path; one that a process before us left there is removed. Raises CannotListen."""
    with naming(path), suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with naming(path):
            sock.bind(path)
            sock.listen(backlog)
        return trio.SocketListener(trio.socket.from_stdlib_socket(sock))
    except BaseException:
        sock.close()
        raise


@contextmanager
def naming(address: str) -> Iterator[None]:
    """Around whatever binds `address`: an OSError becomes CannotListen."""
    try:
        yield
    except OSError as error:
        raise CannotListen(address, error) from None


def run_service(process: str, main: Callable[[*Arguments], Awaitable[object]], *arguments: *Arguments) -> int:
    """`trio.run`, and the exit status: 1 with one line on standard error if an address cannot be had."""
    refused: list[str] = []
    try:
        trio.run(main, *arguments)
    except* CannotListen as group:
        refused += _words(group)
    for words in refused:
        print(f"{process}: cannot listen on {words}", file=sys.stderr)
    return EXIT_FAILED if refused else 0


def _words(error: BaseException) -> list[str]:
    if isinstance(error, BaseExceptionGroup):
        return [words for inner in error.exceptions for words in _words(inner)]
    return [str(error)]
