"""The UDP socket of one call, so that to a relay and to whoever is behind it the calls are as many callers.

One system call for one datagram: a call has one every 20 ms each way, and a batch of one costs more than none. What is
shared by all calls, the buffers and the addresses as the kernel wants them, is in `Addresses`.

Once a call knows that all its datagrams go to one address, its socket is connected to that: then no address has to be put
into words, and read, for each of them.

Sampled sockets ask the kernel when each datagram came (SO_TIMESTAMPNS, socket(7)): the only way to know how long it then
waited for us.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections import Counter

from protocol.address import TransportAddress, pack_address, unpack_address
from protocol.srtp import library_named
from udpio import SocketOptions, bind_udp
from udpio.kernel import errno_name

__all__ = ["Addresses", "CallSocket"]

# Implementation constants
MAX_DATAGRAM = 2048  # longer ones are dropped and counted
MAX_ADDRESSES = 4096  # known at once; then all are forgotten
DUAL_STACK = SocketOptions(receive_buffer=256 * 1024, send_buffer=256 * 1024, dual_stack=True)
IPV4 = SocketOptions(receive_buffer=256 * 1024, send_buffer=256 * 1024)
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; missing from the socket module
NOWHERE = TransportAddress(b"")
_TIMESPEC = struct.Struct("@qq")

_KernelAddress = tuple[str, int] | tuple[str, int, int, int]


class Addresses:
    """Transport addresses and their kernel forms, each made once; and the buffers that every socket uses."""

    def __init__(self) -> None:
        library = library_named()
        # One byte more than a datagram may have, which one that does not fit fills.
        self.incoming = library.arena(bytearray(MAX_DATAGRAM + 1))
        self.outgoing = library.arena(bytearray(MAX_DATAGRAM))
        self._known: dict[_KernelAddress, TransportAddress] = {}
        self._kernel: tuple[dict[TransportAddress, _KernelAddress], ...] = ({}, {})  # for IPv4 sockets, for IPv6

    def of_source(self, source: _KernelAddress) -> TransportAddress:
        found = self._known.get(source)
        if found is None:
            if len(self._known) >= MAX_ADDRESSES:
                self._known.clear()
            found = self._known[source] = pack_address(source[0], source[1])
        return found

    def for_kernel(self, address: TransportAddress, ipv6: bool) -> _KernelAddress:
        known = self._kernel[ipv6]
        found = known.get(address)
        if found is None:
            if len(known) >= MAX_ADDRESSES:
                known.clear()
            host, port = unpack_address(address)
            found = known[address] = ("::ffff:" + host if ipv6 and len(address) == 6 else host), port
        return found


class CallSocket:
    """Nothing raises but the constructor: OSError, when the system gives no socket."""

    __slots__ = (
        "_addresses",
        "_incoming",
        "_ipv6",
        "_receive_from",
        "_receive_into",
        "_remote",
        "_send",
        "_sendto",
        "_socket",
        "address",
        "errors",
        "received",
        "sampled",
        "sent",
    )

    def __init__(self, addresses: Addresses, *, sampled: bool = False) -> None:
        try:
            self._socket = bind_udp("::", 0, DUAL_STACK)
        except OSError:  # no IPv6 here
            self._socket = bind_udp("0.0.0.0", 0, IPV4)
        self.sampled = sampled and sys.platform == "linux"
        if self.sampled:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._addresses = addresses
        self._incoming = addresses.incoming.view
        self._ipv6 = self._socket.family == socket.AF_INET6
        self._remote: TransportAddress | None = None
        self._receive_from = self._socket.recvfrom_into
        self._receive_into = self._socket.recv_into
        self._send = self._socket.send
        self._sendto = self._socket.sendto
        self.address = pack_address(*self._socket.getsockname()[:2])
        self.sent = 0
        self.received = 0
        self.errors: Counter[str] = Counter()

    def fileno(self) -> int:
        return self._socket.fileno()

    def connect(self, remote: TransportAddress) -> None:
        """From now on nothing comes from elsewhere. If the system does not want to, all goes on as before."""
        try:
            self._socket.connect(self._addresses.for_kernel(remote, self._ipv6))
        except OSError as error:
            self.errors[errno_name(error.errno)] += 1
        else:
            self._remote = remote

    def receive(self) -> tuple[int, TransportAddress]:
        """The next datagram, at the beginning of the incoming arena: its length; 0 when none waits, or none of use."""
        source = self._remote
        try:
            if source is not None:
                length = self._receive_into(self._incoming)
            else:
                length, name = self._receive_from(self._incoming)
                source = self._addresses.of_source(name)
        except (BlockingIOError, InterruptedError):
            return 0, NOWHERE
        except OSError as error:
            self.errors[errno_name(error.errno)] += 1
            return 0, NOWHERE
        self.received += 1
        if length > MAX_DATAGRAM:
            self.errors["truncated"] += 1
            return 0, NOWHERE
        return length, source

    def receive_sampled(self) -> tuple[int, TransportAddress, float]:
        """The same with the seconds that it waited in the kernel."""
        try:
            length, notes, _flags, source = self._socket.recvmsg_into([self._incoming], 64)
        except (BlockingIOError, InterruptedError):
            return 0, NOWHERE, 0.0
        except OSError as error:
            self.errors[errno_name(error.errno)] += 1
            return 0, NOWHERE, 0.0
        waited = 0.0
        for level, kind, value in notes:
            if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS and len(value) >= _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack_from(value)
                waited = max(0.0, time.time() - seconds - nanoseconds / 1e9)
        self.received += 1
        if length > MAX_DATAGRAM:
            self.errors["truncated"] += 1
            return 0, NOWHERE, waited
        return length, self._addresses.of_source(source), waited

    def send(self, data: bytes | memoryview, destination: TransportAddress) -> None:
        """A datagram that the kernel refuses is counted and forgotten."""
        try:
            if destination == self._remote:
                try:
                    self._send(data)
                except ConnectionRefusedError:  # of a datagram that left before: this one has not
                    self._send(data)
            else:
                self._sendto(data, self._addresses.for_kernel(destination, self._ipv6))
        except OSError as error:
            self.errors[errno_name(error.errno)] += 1
        else:
            self.sent += 1

    def close(self) -> None:
        self._socket.close()
