"""What the processes of one relay say to each other, over SOCK_SEQPACKET pairs: a message is a datagram of MessagePack.

supervisor → host      Start, then one Place with descriptors for each worker; Serve; Kill; Retire
host → supervisor      Loaded; Forked and Died as they happen; Failed, and it ends
supervisor → worker    Serve, Stop, Report
worker → supervisor    Ready, Stopped, Reported
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

import msgspec

from relay.settings import Settings

__all__ = [
    "Died",
    "Failed",
    "Forked",
    "Kill",
    "Loaded",
    "Message",
    "Place",
    "Ready",
    "Report",
    "Reported",
    "Retire",
    "Serve",
    "Start",
    "Stop",
    "Stopped",
    "decode",
    "open_pair",
    "receive",
    "send",
]

MAX_MESSAGE = 65536  # a configuration is the longest
MAX_DESCRIPTORS = 200  # the kernel takes 253 with one message; a worker has up to 128 listen sockets and a few more


class Start(msgspec.Struct, frozen=True, tag=True):
    """The first word to a host. Without `settings` it reads the configuration itself; it must agree with `kept`."""

    workers: int
    kept: dict[str, object]
    settings: Settings | None


class Place(msgspec.Struct, frozen=True, tag=True):
    """Of one worker. Its descriptors, in order: listen sockets, trunk socket, channel, ledger, flow table."""

    index: int
    cpu: int | None


class Serve(msgspec.Struct, frozen=True, tag=True):
    """Read packets from now on; to a host: so shall whoever is forked later."""


class Retire(msgspec.Struct, frozen=True, tag=True):
    """Fork nobody any more; end with the last worker."""


class Kill(msgspec.Struct, frozen=True, tag=True):
    """This worker answers no more."""

    index: int


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The configuration that this generation runs with."""

    settings: Settings


class Forked(msgspec.Struct, frozen=True, tag=True):
    """A worker has begun."""

    index: int
    pid: int


class Died(msgspec.Struct, frozen=True, tag=True):
    """A worker is no more; `status` as of subprocess: negative is the signal."""

    index: int
    status: int


class Failed(msgspec.Struct, frozen=True, tag=True):
    """This generation cannot be; one sentence for the operator."""

    reason: str


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Finish the batch, read no more, and end."""


class Report(msgspec.Struct, frozen=True, tag=True):
    """Bring the ledger up to date."""

    number: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    """A worker could serve."""

    pid: int


class Stopped(msgspec.Struct, frozen=True, tag=True):
    """Whatever waits in the sockets is for the next one."""


class Reported(msgspec.Struct, frozen=True, tag=True):
    """Answers Report."""

    number: int


Message = (
    Start | Place | Serve | Retire | Kill | Loaded | Forked | Died | Failed | Stop | Report | Ready | Stopped | Reported
)

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def open_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: Message, descriptors: Sequence[int] = ()) -> bool:
    """False if the other end is gone or does not read."""
    try:
        socket.send_fds(sock, [msgspec.msgpack.encode(message)], descriptors, socket.MSG_NOSIGNAL)
    except OSError:
        return False
    return True


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """None at the end. Raises BlockingIOError when nothing waits, if `sock` does not block."""
    try:
        data, descriptors, _flags, _address = socket.recv_fds(sock, MAX_MESSAGE, MAX_DESCRIPTORS)
    except ConnectionError:
        return None
    if not data:
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return _decoder.decode(data), descriptors


def decode(data: bytes) -> Message:
    return _decoder.decode(data)
