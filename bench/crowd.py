"""Many senders on one socket: datagrams made once, sent over and over by sendmmsg, each from an address of its own.

All of 127.0.0.0/8 is this machine, and IP_PKTINFO (ip(7)) lets every datagram choose its source, so one socket plays
thousands of clients. Everything is laid out beforehand; a turn costs one system call and no Python for each packet, and
what comes back is only counted, or kept to be looked at afterwards: a generator must be faster than what it measures.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple

from protocol.address import TransportAddress

__all__ = ["Arrival", "Crowd", "Post", "to_pair"]

# Implementation constants
RECEIVE_COUNT = 128
SLOT = 9216  # a jumbo frame
BUFFER = 8 << 20
_SO_SNDBUFFORCE = 32
_SO_RCVBUFFORCE = 33
_IP_PKTINFO = 8  # Linux; missing from the socket module of Python 3.11
_PKTINFO_SPACE = 32  # CMSG_SPACE of a struct in_pktinfo
_PKTINFO_LENGTH = 28  # CMSG_LEN
_PKTINFO_ADDRESS = 24  # where ipi_addr begins, the address that a datagram came to
_NAME = 16  # bytes of a struct sockaddr_in


class _MessageHeader(ctypes.Structure):
    _fields_ = [
        ("msg_name", ctypes.c_void_p),
        ("msg_namelen", ctypes.c_uint32),
        ("msg_iov", ctypes.c_void_p),
        ("msg_iovlen", ctypes.c_size_t),
        ("msg_control", ctypes.c_void_p),
        ("msg_controllen", ctypes.c_size_t),
        ("msg_flags", ctypes.c_int),
    ]


class _MultiMessageHeader(ctypes.Structure):
    _fields_ = [("msg_hdr", _MessageHeader), ("msg_len", ctypes.c_uint)]


class _IoVector(ctypes.Structure):
    _fields_ = [("iov_base", ctypes.c_void_p), ("iov_len", ctypes.c_size_t)]


_HEADER_SIZE = ctypes.sizeof(_MultiMessageHeader)
_LENGTH_AT = _MultiMessageHeader.msg_len.offset // 4
_libc = ctypes.CDLL(None, use_errno=True)
_sendmmsg, _recvmmsg = _libc.sendmmsg, _libc.recvmmsg
_sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
_recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]


class Arrival(NamedTuple):
    data: bytes
    source: TransportAddress
    host: bytes
    """Of ours, that it came to: 4 bytes."""


class Post:
    """Datagrams in a ring, made once: `(source, payload)` each, all to one target or each to its own."""

    def __init__(
        self, letters: Sequence[tuple[str, bytes]], target: tuple[str, int] | Sequence[tuple[str, int]]
    ) -> None:
        self._keep: list[object] = []
        count = len(letters)
        self.count = count
        self._headers = (_MultiMessageHeader * count)()
        vectors = (_IoVector * count)()
        control_bytes = bytearray(count * _PKTINFO_SPACE)
        control = (ctypes.c_char * len(control_bytes)).from_buffer(control_bytes)
        targets = [target] * count if isinstance(target, tuple) else list(target)
        names = {target: ctypes.create_string_buffer(_name(target)) for target in set(targets)}
        self._keep += [vectors, control, names]
        for i, (source, payload) in enumerate(letters):
            buffer = ctypes.create_string_buffer(payload, len(payload))
            self._keep.append(buffer)
            vectors[i] = _IoVector(ctypes.addressof(buffer), len(payload))
            at = i * _PKTINFO_SPACE
            head = _PKTINFO_LENGTH.to_bytes(8, "little")
            head += socket.IPPROTO_IP.to_bytes(4, "little") + _IP_PKTINFO.to_bytes(4, "little")
            head += bytes(4) + socket.inet_aton(source)  # any interface, this source
            control_bytes[at : at + len(head)] = head
            self._headers[i].msg_hdr = _MessageHeader(
                ctypes.addressof(names[targets[i]]),
                _NAME,
                ctypes.addressof(vectors) + i * ctypes.sizeof(_IoVector),
                1,
                ctypes.addressof(control) + at,
                _PKTINFO_SPACE,
                0,
            )
        self._address = ctypes.addressof(self._headers)
        self._next = 0

    @property
    def next_letter(self) -> int:
        """Its place in the ring."""
        return self._next

    def send(self, fd: int, count: int) -> int:
        """The next `count` of the ring; how many the kernel took."""
        sent = 0
        while sent < count:
            chunk = min(count - sent, self.count - self._next, 1024)
            taken = _sendmmsg(fd, self._address + self._next * _HEADER_SIZE, chunk, socket.MSG_DONTWAIT)
            if taken <= 0:
                if ctypes.get_errno() == errno.EINTR:
                    continue
                break
            sent += taken
            self._next = (self._next + taken) % self.count
        return sent


def to_pair(address: TransportAddress) -> tuple[str, int]:
    """Of an IPv4 address: as sockets take it."""
    return socket.inet_ntoa(address[2:6]), int.from_bytes(address[:2], "big")


def _name(target: tuple[str, int]) -> bytes:
    """A struct sockaddr_in."""
    family, port = socket.AF_INET.to_bytes(2, sys.byteorder), target[1].to_bytes(2, "big")
    return family + port + socket.inet_aton(target[0]) + bytes(8)


class Crowd:
    """One socket that hears what is sent to any address of 127.0.0.0/8 at its port."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        for option, force in ((socket.SO_RCVBUF, _SO_RCVBUFFORCE), (socket.SO_SNDBUF, _SO_SNDBUFFORCE)):
            self._socket.setsockopt(socket.SOL_SOCKET, option, BUFFER)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, force, BUFFER)
            except PermissionError:
                continue  # what the system grants must do
        self._socket.bind(("0.0.0.0", 0))
        self.port: int = self._socket.getsockname()[1]
        self.fd = self._socket.fileno()
        self._arena = bytearray(RECEIVE_COUNT * SLOT)
        self._view = memoryview(self._arena)
        pin = (ctypes.c_char * len(self._arena)).from_buffer(self._arena)
        self._headers = (_MultiMessageHeader * RECEIVE_COUNT)()
        self._vectors = (_IoVector * RECEIVE_COUNT)()
        for i in range(RECEIVE_COUNT):
            self._vectors[i] = _IoVector(ctypes.addressof(pin) + i * SLOT, SLOT)
            self._headers[i].msg_hdr.msg_iov = ctypes.addressof(self._vectors) + i * ctypes.sizeof(_IoVector)
            self._headers[i].msg_hdr.msg_iovlen = 1
        self._names, self._controls = bytearray(RECEIVE_COUNT * _NAME), bytearray(RECEIVE_COUNT * _PKTINFO_SPACE)
        self._address = ctypes.addressof(self._headers)
        self._lengths = memoryview(self._headers).cast("B").cast("I")

    def granted(self) -> int:
        """Bytes of receive buffer, in the kernel's own counting."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def receive_lengths(self) -> list[int]:
        """Of the datagrams that wait, RECEIVE_COUNT at most."""
        count = _recvmmsg(self.fd, self._address, RECEIVE_COUNT, socket.MSG_DONTWAIT, None)
        return self._lengths[_LENGTH_AT : count * (_HEADER_SIZE // 4) : _HEADER_SIZE // 4].tolist() if count > 0 else []

    def hear_to_whom(self) -> None:
        """From now on `receive` can be used."""
        self._socket.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        names = ctypes.addressof((ctypes.c_char * len(self._names)).from_buffer(self._names))
        controls = ctypes.addressof((ctypes.c_char * len(self._controls)).from_buffer(self._controls))
        for i, header in enumerate(self._headers):
            header.msg_hdr.msg_name, header.msg_hdr.msg_namelen = names + i * _NAME, _NAME
            header.msg_hdr.msg_control = controls + i * _PKTINFO_SPACE
            header.msg_hdr.msg_controllen = _PKTINFO_SPACE

    def receive(self) -> list[Arrival]:
        """What waits, RECEIVE_COUNT at most."""
        lengths, arena, names, controls = self.receive_lengths(), self._arena, self._names, self._controls
        arrivals = []
        for i, length in enumerate(lengths):
            name, host = i * _NAME, i * _PKTINFO_SPACE + _PKTINFO_ADDRESS
            arrivals.append(
                Arrival(
                    bytes(arena[i * SLOT : i * SLOT + length]),
                    TransportAddress(bytes(names[name + 2 : name + 8])),
                    bytes(controls[host : host + 4]),
                )
            )
            self._headers[i].msg_hdr.msg_controllen = _PKTINFO_SPACE  # the kernel put there what it used
        return arrivals

    def close(self) -> None:
        self._socket.close()

    def datagram(self, index: int, length: int) -> memoryview:
        """Of those whose lengths `receive_lengths` gave last; good until it is called again."""
        return self._view[index * SLOT : index * SLOT + length]

    def receive_one(self) -> tuple[bytes, TransportAddress] | None:
        """For what is not measured."""
        try:
            data, (host, port) = self._socket.recvfrom(SLOT)
        except BlockingIOError:
            return None
        return data, TransportAddress(port.to_bytes(2, "big") + socket.inet_aton(host))

    def send_one(self, data: bytes, source: str, target: tuple[str, int]) -> None:
        """For what is not measured."""
        info = bytes(4) + socket.inet_aton(source) + bytes(4)
        self._socket.sendmsg([data], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, target)
