"""What BatchSocket and PlainSocket have in common: the kernel socket behind them, its options, its end."""

from __future__ import annotations

import errno
import socket
import sys
from dataclasses import dataclass

import trio

from protocol.address import TransportAddress, pack_address
from udpio.interface import UdpCounters

__all__ = ["KernelSocket", "SocketOptions", "bind_udp", "errno_name"]

# Linux: above net.core.[rw]mem_max for a process with CAP_NET_ADMIN. Missing from the socket module.
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO_LENGTH, _MEMINFO_DROPS = 36, 32  # nine words of four bytes; the last one, SK_MEMINFO_DROPS


@dataclass(frozen=True, slots=True)
class SocketOptions:
    """How to open a UDP socket; the defaults suit a port that carries a few hundred calls."""

    batch_size: int = 64  # datagrams a system call; more holds the loop for longer than a millisecond
    slot_size: int = 2048  # longer datagrams are dropped and counted
    receive_buffer: int = 4 << 20  # bytes asked of the kernel: the burst that a busy loop may sleep through
    send_buffer: int = 4 << 20
    reuse_port: bool = False
    dual_stack: bool = False  # an IPv6 socket that speaks IPv4 too; addresses stay 6 bytes long for IPv4 peers


def errno_name(number: int | None) -> str:
    """A word for the counters."""
    return errno.errorcode.get(number or 0, f"errno_{number}")


def bind_udp(host: str, port: int, options: SocketOptions) -> socket.socket:
    """A bound, non-blocking socket; `host` is an IP address. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        if options.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not options.dual_stack)
        _size_buffer(sock, socket.SO_RCVBUF, _SO_RCVBUFFORCE, options.receive_buffer)
        _size_buffer(sock, socket.SO_SNDBUF, _SO_SNDBUFFORCE, options.send_buffer)
        sock.setblocking(False)
        sock.bind((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _size_buffer(sock: socket.socket, option: int, force: int, wanted: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, option, wanted)  # silently cut to the system's limit
    if _granted(sock, option) < wanted and hasattr(socket, "SO_PEERCRED"):  # Linux
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, wanted)
        except OSError:
            return  # no privilege; `relay doctor` tells the operator


def _granted(sock: socket.socket, option: int) -> int:
    # Linux doubles the value for its own bookkeeping and returns the double.
    value = sock.getsockopt(socket.SOL_SOCKET, option)
    return value // 2 if hasattr(socket, "SO_PEERCRED") else value


class KernelSocket:
    """Owner of one bound socket."""

    def __init__(self, sock: socket.socket, options: SocketOptions) -> None:
        self.counters = UdpCounters()
        self._socket = sock
        self._ipv6 = sock.family == socket.AF_INET6
        self._batch_size = options.batch_size
        self._slot_size = options.slot_size
        host, port = sock.getsockname()[:2]
        self._address = pack_address(host, port)
        self._closed = False
        self._overflow_before = self._drops()

    @property
    def address(self) -> TransportAddress:
        return self._address

    @property
    def family(self) -> int:
        return int(self._socket.family)

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def batch_size(self) -> int:
        return self._batch_size

    @property
    def buffer_sizes(self) -> tuple[int, int]:
        """(receive, send) bytes that the kernel really granted."""
        return _granted(self._socket, socket.SO_RCVBUF), _granted(self._socket, socket.SO_SNDBUF)

    async def wait_readable(self) -> None:
        await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if trio.lowlevel.in_trio_run():
                trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def ask_overflow(self) -> int:
        """How many datagrams the kernel dropped at this socket since this object has it; 0 if it does not say (not Linux).

        Nearly always because the receive buffer was full, but those with a bad checksum count as well. What was lost before it
        reached the socket (network card, backlog of a CPU, firewall) nobody can tell from here.
        """
        if not self._closed:
            self.counters.overflowed = self._drops() - self._overflow_before & 0xFFFFFFFF
        return self.counters.overflowed

    def resume_overflow(self, counted: int) -> None:
        """`ask_overflow` counts from there on: what former owners have counted, of all that this socket ever lost."""
        self._overflow_before = counted & 0xFFFFFFFF

    def _drops(self) -> int:
        if sys.platform != "linux":
            return 0
        raw = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO_LENGTH)
        return int.from_bytes(raw[_MEMINFO_DROPS:], sys.byteorder)

    def _send_one(self, data: bytes | memoryview, address: TransportAddress) -> int:
        """One datagram by sendto; returns 1 if the kernel accepted it."""
        if len(address) == 18:
            host = socket.inet_ntop(socket.AF_INET6, address[2:])
        else:
            host = ("::ffff:" if self._ipv6 else "") + socket.inet_ntop(socket.AF_INET, address[2:])
        try:
            self._socket.sendto(data, (host, address[0] << 8 | address[1]))
        except OSError as error:
            # An IPv6 address on an IPv4 socket fails as a name look-up (gaierror, whose errno is none).
            number = errno.EAFNOSUPPORT if isinstance(error, socket.gaierror) else error.errno
            self.counters.send_errors[errno_name(number)] += 1
            return 0
        self.counters.datagrams_sent += 1
        self.counters.bytes_sent += len(data)
        return 1

    def _drop_all(self, count: int) -> int:
        """Sending on a closed socket, as the kernel would call it."""
        self.counters.send_errors["EBADF"] += count
        return 0
