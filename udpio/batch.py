"""Many datagrams in one system call: recvmmsg and sendmmsg through ctypes, into buffers made once. Linux only.

No compiler is needed at install. One arena each way, cut into slots; the headers, vectors and socket addresses of all
slots are laid out at construction and never move, so that a call costs a few memory writes per datagram:

    mmsghdr[i] ──▶ iovec[i] ──▶ arena[i * slot_size]
        └──▶ name[i * 32]   sockaddr_in: family, PORT(2) IP(4)    sockaddr_in6: family, PORT(2), flow(4), IP(16), scope

In a sockaddr_in the port and the address stand side by side in network order: they *are* our TransportAddress.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import sys
from collections.abc import Sequence

from protocol.address import TransportAddress
from udpio.interface import Datagram
from udpio.kernel import KernelSocket, SocketOptions, errno_name

__all__ = ["BatchSocket", "is_batch_supported"]

_NAME_STRIDE = 32
_IPV4_NAME_LENGTH = 16
_IPV6_NAME_LENGTH = 28
_MAPPED_PREFIX = b"\0" * 10 + b"\xff\xff"


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
_LENGTH_INDEX = _MultiMessageHeader.msg_len.offset // 4
_LENGTH_STRIDE = _HEADER_SIZE // 4

try:
    _libc = ctypes.CDLL(None, use_errno=True)
    _recvmmsg = _libc.recvmmsg
    _sendmmsg = _libc.sendmmsg
except (OSError, AttributeError, TypeError):  # not this system
    _HAVE_CALLS = False
else:
    _HAVE_CALLS = True
    _recvmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    _sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]


def is_batch_supported() -> bool:
    """Whether this system has the calls (a sandbox may have the names and still answer ENOSYS)."""
    if not _HAVE_CALLS or not hasattr(socket, "SO_PEERCRED"):
        return False
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        return not (
            _recvmmsg(probe.fileno(), None, 0, socket.MSG_DONTWAIT, None) < 0 and ctypes.get_errno() == errno.ENOSYS
        )


class _Ring:
    """Headers, vectors, names and payload slots of one direction."""

    def __init__(self, count: int, slot_size: int, family: int) -> None:
        self.arena = bytearray(count * slot_size)
        self.names = bytearray(count * _NAME_STRIDE)
        self.headers = (_MultiMessageHeader * count)()
        self.vectors = (_IoVector * count)()
        # from_buffer pins the bytearrays: they can no longer be resized, so that the addresses stay true.
        self._pins = [(ctypes.c_char * len(buffer)).from_buffer(buffer) for buffer in (self.arena, self.names)]
        arena, names = (ctypes.addressof(pin) for pin in self._pins)
        self.address = ctypes.addressof(self.headers)
        name_length = _IPV6_NAME_LENGTH if family == socket.AF_INET6 else _IPV4_NAME_LENGTH
        for i in range(count):
            self.vectors[i] = _IoVector(arena + i * slot_size, slot_size)
            header = self.headers[i].msg_hdr
            header.msg_name = names + i * _NAME_STRIDE
            header.msg_namelen = name_length
            header.msg_iov = ctypes.addressof(self.vectors) + i * ctypes.sizeof(_IoVector)
            header.msg_iovlen = 1
            start = i * _NAME_STRIDE
            self.names[start : start + 2] = family.to_bytes(2, sys.byteorder)
        whole = memoryview(self.arena)
        self.slots = [whole[i * slot_size : (i + 1) * slot_size] for i in range(count)]
        self.message_lengths = memoryview(self.headers).cast("B").cast("I")
        self.vector_words = memoryview(self.vectors).cast("B").cast("L")  # size_t on Linux


class BatchSocket(KernelSocket):
    """UdpSocket by recvmmsg/sendmmsg."""

    def __init__(self, sock: socket.socket, options: SocketOptions) -> None:
        super().__init__(sock, options)
        self._fd = sock.fileno()
        self._in = _Ring(options.batch_size, options.slot_size, sock.family)
        self._out = _Ring(options.batch_size, options.slot_size, sock.family)

    def close(self) -> None:
        self._fd = -1  # the number may soon belong to another socket
        super().close()

    def receive_batch(self) -> list[tuple[memoryview, TransportAddress]]:
        if self._fd < 0:
            return []
        ring = self._in
        # MSG_TRUNC: the real length comes back even when it did not fit, which tells the truncated ones apart.
        flags = socket.MSG_DONTWAIT | socket.MSG_TRUNC
        count = _recvmmsg(self._fd, ring.address, self._batch_size, flags, None)
        if count <= 0:
            number = ctypes.get_errno()
            if count < 0 and number not in (errno.EAGAIN, errno.EINTR):
                self.counters.receive_errors[errno_name(number)] += 1
            return []
        lengths = ring.message_lengths[_LENGTH_INDEX : count * _LENGTH_STRIDE : _LENGTH_STRIDE].tolist()
        names = bytes(ring.names[: count * _NAME_STRIDE])
        slots, size = ring.slots, self._slot_size
        batch = []
        position = 0
        for i, length in enumerate(lengths):
            if length > size:
                self.counters.truncated += 1
            elif self._ipv6:
                ip = names[position + 8 : position + 24]
                if ip.startswith(_MAPPED_PREFIX):
                    ip = ip[12:]
                batch.append((slots[i][:length], TransportAddress(names[position + 2 : position + 4] + ip)))
            else:
                batch.append((slots[i][:length], TransportAddress(names[position + 2 : position + 8])))
            position += _NAME_STRIDE
        self.counters.datagrams_received += count
        self.counters.bytes_received += sum(lengths)
        return batch

    def send_batch(self, datagrams: Sequence[Datagram]) -> int:
        if self._fd < 0:
            return self._drop_all(len(datagrams))
        size = self._batch_size
        if len(datagrams) <= size:
            return self._send_some(datagrams)
        return sum(self._send_some(datagrams[start : start + size]) for start in range(0, len(datagrams), size))

    def _send_some(self, datagrams: Sequence[Datagram]) -> int:
        ring = self._out
        slots, names, words, size = ring.slots, ring.names, ring.vector_words, self._slot_size
        count = position = sent = volume = 0
        for data, address in datagrams:
            length = len(data)
            if length > size:
                sent += self._send_one(data, address)  # rare; the kernel fragments it or refuses it
                continue
            if not self._ipv6:
                if len(address) != 6:
                    self.counters.send_errors["EAFNOSUPPORT"] += 1
                    continue
                names[position + 2 : position + 8] = address
            else:
                ip = address[2:] if len(address) == 18 else _MAPPED_PREFIX + address[2:6]
                names[position + 2 : position + 4] = address[:2]
                names[position + 8 : position + 24] = ip
            slots[count][:length] = data
            words[2 * count + 1] = length
            volume += length
            count += 1
            position += _NAME_STRIDE
        done = 0
        while done < count:
            accepted = _sendmmsg(self._fd, ring.address + done * _HEADER_SIZE, count - done, socket.MSG_DONTWAIT)
            if accepted > 0:
                done += accepted
                sent += accepted
                self.counters.datagrams_sent += accepted
                continue
            number = ctypes.get_errno()
            if number == errno.EINTR:
                continue
            lost = count - done if number == errno.EAGAIN else 1
            self.counters.send_errors[errno_name(number)] += lost
            volume -= sum(words[2 * i + 1] for i in range(done, done + lost))
            done += lost
        self.counters.bytes_sent += volume
        return sent
