"""Taking the addresses that a process is to serve on, and saying in one line which of them it cannot have."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVarTuple

import trio

from service.addresses import parse_host_port

__all__ = ["CannotListen", "naming", "open_tcp_at", "run_service"]

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
