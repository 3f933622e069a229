"""UDP sockets for packet loops: whole batches in and out, errors counted. Linux gets recvmmsg/sendmmsg."""

from udpio.batch import BatchSocket, is_batch_supported
from udpio.interface import Datagram, UdpCounters, UdpSocket
from udpio.kernel import KernelSocket, SocketOptions, bind_udp
from udpio.memory import MemoryNetwork, MemorySocket
from udpio.plain import PlainSocket

__all__ = [
    "BatchSocket",
    "Datagram",
    "KernelSocket",
    "MemoryNetwork",
    "MemorySocket",
    "PlainSocket",
    "SocketOptions",
    "UdpCounters",
    "UdpSocket",
    "bind_udp",
    "is_batch_supported",
    "open_udp",
]

DEFAULTS = SocketOptions()


def open_udp(host: str, port: int, options: SocketOptions = DEFAULTS) -> BatchSocket | PlainSocket:
    """The best socket this system has, bound to an IP address. Raises OSError."""
    kind = BatchSocket if is_batch_supported() else PlainSocket
    return kind(bind_udp(host, port, options), options)
