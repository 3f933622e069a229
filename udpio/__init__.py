"""UDP sockets for packet loops: whole batches in and out, errors counted. Linux gets recvmmsg/sendmmsg.

Beside them, for tests and the load generator: a network in memory, and what bad networks do to datagrams.
"""

import socket

from udpio.arena import ReceiveArena, SendRing, is_batch_supported, name_words
from udpio.batch import BatchSocket
from udpio.interface import Datagram, UdpCounters, UdpSocket
from udpio.kernel import KernelSocket, SocketOptions, bind_udp
from udpio.memory import MemoryNetwork, MemorySocket
from udpio.nat import Nat
from udpio.plain import PlainSocket
from udpio.shaper import Conditions, Shaper
from udpio.tick import Tick

__all__ = [
    "BatchSocket",
    "Conditions",
    "Datagram",
    "KernelSocket",
    "MemoryNetwork",
    "MemorySocket",
    "Nat",
    "PlainSocket",
    "ReceiveArena",
    "SendRing",
    "Shaper",
    "SocketOptions",
    "Tick",
    "UdpCounters",
    "UdpSocket",
    "adopt_udp",
    "bind_udp",
    "is_batch_supported",
    "name_words",
    "open_udp",
]

DEFAULTS = SocketOptions()


def adopt_udp(sock: socket.socket, options: SocketOptions = DEFAULTS) -> BatchSocket | PlainSocket:
    """The best socket this system has, around one that `bind_udp` made, here or in another process; it owns it from now."""
    return (BatchSocket if is_batch_supported() else PlainSocket)(sock, options)


def open_udp(host: str, port: int, options: SocketOptions = DEFAULTS) -> BatchSocket | PlainSocket:
    """Bound to an IP address. Raises OSError."""
    return adopt_udp(bind_udp(host, port, options), options)
