"""Memory for recvmmsg and sendmmsg that is also arrays: lengths, addresses and pieces of a whole batch at once. Linux.

All is laid out at construction and never moves. Receiving writes a batch's socket addresses side by side, so that they
are one contiguous array of words, in the machine's (little-endian) order:

    IPv4   1 word    family (2) | port (2) | IP (4)                       port and IP in network order
    IPv6   3 words   family (2) | port (2) | flow label (4) | IP (16)

The kernel writes longer ones (16 and 28 bytes), each over the tail of the one before, and always in their order. What the
tail would say is not needed: eight zero bytes, or a scope.

    ReceiveArena    header[i] ──▶ vector[i] ──▶ slots[i]
                       └──▶ names[i]
    SendRing        header[i] ──▶ vectors[first[i]] … one after another: the pieces of one datagram, wherever they lie
                       └──▶ names[i], or a socket address elsewhere

Nothing here waits, allocates by the packet or raises for what the kernel says: errors are counted.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import sys
from collections import Counter
from typing import Literal

import numpy as np
import numpy.typing as npt

from protocol.address import TransportAddress
from udpio.kernel import errno_name

__all__ = ["MAX_MESSAGES", "ReceiveArena", "SendRing", "is_batch_supported", "name_words"]

# Specification constants: struct mmsghdr, iovec and sockaddr of Linux with pointers of eight bytes

MAX_MESSAGES = 1024  # UIO_MAXIOV, of one call
_HEADER_WORDS = 8  # of eight bytes
_NAME, _NAME_LENGTH, _VECTOR, _VECTOR_COUNT, _RESULT = 0, 1, 2, 3, 7
_NAME_LENGTHS = {socket.AF_INET: 16, socket.AF_INET6: 28}
# sin6_scope_id may be left out (RFC 2133); so what comes behind a name is not read as one.
_SHORT_NAME_LENGTHS = {socket.AF_INET: 16, socket.AF_INET6: 24}
_NAME_WORDS = {socket.AF_INET: 1, socket.AF_INET6: 3}
_MAPPED_PREFIX = b"\0" * 10 + b"\xff\xff"

# Implementation constants

# Plain numbers: an IntFlag takes longer to be put together than a packet to be received.
_RECEIVE_FLAGS = int(getattr(socket, "MSG_DONTWAIT", 0)) | int(getattr(socket, "MSG_TRUNC", 0))
_SEND_FLAGS = int(getattr(socket, "MSG_DONTWAIT", 0))
_VERY_FEW = 4
_FEW = 64  # datagrams: up to here, Python adds up faster than numpy

Words = npt.NDArray[np.uint64]

try:
    _libc = ctypes.CDLL(None, use_errno=True)
    _recvmmsg = _libc.recvmmsg
    _sendmmsg = _libc.sendmmsg
except (OSError, AttributeError, TypeError):  # not this system
    _HAVE_CALLS = False
else:
    _HAVE_CALLS = ctypes.sizeof(ctypes.c_void_p) == 8 and sys.byteorder == "little"
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


def name_words(address: TransportAddress, family: int) -> tuple[int, ...]:
    """One word for an IPv4 socket, three for an IPv6 one (an IPv4 address becomes a mapped one there).

    Raises ValueError for an IPv6 address and an IPv4 socket.
    """
    if family == socket.AF_INET:
        if len(address) != 6:
            raise ValueError("an IPv4 socket reaches no IPv6 address")
        return (family | int.from_bytes(address, "little") << 16,)
    ip = address[2:] if len(address) == 18 else _MAPPED_PREFIX + address[2:]
    first = family | int.from_bytes(address[:2], "little") << 16
    return first, int.from_bytes(ip[:8], "little"), int.from_bytes(ip[8:], "little")


def _address(pointed: npt.NDArray[np.generic]) -> int:
    return int(pointed.ctypes.data)


def _cells(array: npt.NDArray[np.generic], code: Literal["B", "I", "q", "Q"]) -> memoryview[int]:
    """The same memory element by element: numpy takes three times as long for one."""
    return array.data.cast("B").cast(code)


class ReceiveArena:
    """Slots for one batch, and what the kernel says of them. Everything is valid until the next `receive`.

    `slots`      (count, slot_size) bytes
    `names`      (count, 1) words for IPv4, (count, 3) for IPv6
    `lengths`    (count,) true lengths: one above `slot_size` says that the datagram was cut
    `is_cut`, `has_empty`   whether there is such a one, or one of no bytes: see `survey`
    `length`     of each datagram, if all are equally long, else 0
    `memory`     all slots, and what is between them
    `payloads`   a view of each slot; `cells` and `name_cells`: lengths and name words one by one, without numpy
    """

    __slots__ = (
        "_address",
        "_buffer",
        "_headers",
        "_length_cells",
        "_name_bytes",
        "_raw_lengths",
        "_vectors",
        "cells",
        "count",
        "family",
        "has_empty",
        "is_cut",
        "length",
        "lengths",
        "memory",
        "name_cells",
        "names",
        "payloads",
        "slot_addresses",
        "slot_size",
        "slots",
    )

    def __init__(self, count: int, slot_size: int, family: int) -> None:
        if not 1 <= count <= MAX_MESSAGES:
            raise ValueError(f"a batch has 1 to {MAX_MESSAGES} datagrams")
        self.count, self.slot_size, self.family = count, slot_size, family
        self.is_cut = self.has_empty = False
        self.length = 0
        # Slots a power of two apart would all begin in the same few sets of the processor's cache.
        stride = (slot_size // 128 + 1) * 128 + 64
        words = _NAME_WORDS[socket.AddressFamily(family)]
        self._buffer = np.zeros((count, stride), np.uint8)
        self.slots = self._buffer[:, :slot_size]
        self._headers = np.zeros((count, _HEADER_WORDS), np.uint64)
        self._vectors = np.zeros((count, 2), np.uint64)
        names = np.zeros(count * words + 1, np.uint64)  # and the tail of the last
        self.names = names[:-1].reshape(count, words)
        steps = np.arange(count, dtype=np.uint64)
        self.slot_addresses: Words = np.uint64(_address(self._buffer)) + steps * np.uint64(stride)
        self._vectors[:, 0] = self.slot_addresses
        self._vectors[:, 1] = slot_size
        self._headers[:, _NAME] = np.uint64(_address(names)) + steps * np.uint64(8 * words)
        self._headers[:, _NAME_LENGTH] = _NAME_LENGTHS[socket.AddressFamily(family)]
        self._headers[:, _VECTOR] = np.uint64(_address(self._vectors)) + steps * np.uint64(16)
        self._headers[:, _VECTOR_COUNT] = 1
        self._raw_lengths = self._headers.view(np.uint32)[:, 2 * _RESULT]
        self._length_cells = _cells(self._headers, "I")
        self.lengths = np.zeros(count, np.int64)
        self._address = _address(self._headers)
        self.memory = whole = _cells(self._buffer, "B")
        self.payloads = [whole[i * stride : i * stride + slot_size] for i in range(count)]
        self.cells = _cells(self.lengths, "q")
        self.name_cells = _cells(names, "Q")
        self._name_bytes = _cells(names, "B")

    def receive(self, fd: int) -> int:
        """How many datagrams were waiting, `count` at most; below 0: minus the errno. Never blocks."""
        # MSG_TRUNC: the real length comes back even when it did not fit, which tells the truncated ones apart.
        got: int = _recvmmsg(fd, self._address, self.count, _RECEIVE_FLAGS, None)
        if got > 0:
            if got <= _VERY_FEW:
                for index in range(got):
                    self.cells[index] = self._length_cells[16 * index + 2 * _RESULT]
            else:
                self.lengths[:got] = self._raw_lengths[:got]
            return got
        return -ctypes.get_errno() if got < 0 else 0

    def survey(self, count: int) -> int:
        """How many bytes the first `count` slots were sent; whether any of them is empty or was cut is noted."""
        if count <= _FEW:
            lengths = self.cells[:count].tolist()
            total, longest, shortest = sum(lengths), max(lengths), min(lengths)
        else:
            array = self.lengths[:count]
            total, longest, shortest = (
                int(ask(array)) for ask in (np.add.reduce, np.maximum.reduce, np.minimum.reduce)
            )
        self.is_cut = longest > self.slot_size
        self.has_empty = shortest == 0
        self.length = longest if longest == shortest else 0
        return total

    def addresses(self, count: int) -> list[TransportAddress]:
        """Who sent the first `count`. Mapped IPv4 addresses are folded to IPv4."""
        if self.family != socket.AF_INET:
            return [self.address(index) for index in range(count)]
        names = bytes(self._name_bytes[: 8 * count])
        return [TransportAddress(names[at : at + 6]) for at in range(2, 8 * count, 8)]

    def address(self, index: int) -> TransportAddress:
        """Who sent one of them."""
        names = self._name_bytes
        if self.family == socket.AF_INET:
            at = 8 * index
            return TransportAddress(bytes(names[at + 2 : at + 8]))
        at = 24 * index
        ip = bytes(names[at + 8 : at + 24])
        if ip.startswith(_MAPPED_PREFIX):
            ip = ip[12:]
        return TransportAddress(bytes(names[at + 2 : at + 4]) + ip)

    def put(self, index: int, data: bytes | memoryview, address: TransportAddress) -> None:
        """As if `data` had been received from `address`: for who has the datagrams in another way."""
        length = len(data)
        self.cells[index] = length
        if length <= self.slot_size:
            self.payloads[index][:length] = data
        words = name_words(address, self.family)
        at = index * len(words)
        for offset, word in enumerate(words):
            self.name_cells[at + offset] = word


class SendRing:
    """Headers and vectors for one call: each datagram is a row of vectors, so that nothing has to be copied together.

    `vectors`   (vectors, 2): address and length of a piece
    `names`     (messages, 1 or 3) words: where to, as above
    `headers`   (messages, 8); `aim` fills one in, or fill columns: 0 address of the name, 2 of its first vector, 3 how many

    `refused`   which datagrams of the last `send` the kernel did not take

    At construction each message has one vector of its own, and its own name.
    """

    __slots__ = (
        "_address",
        "_result_cells",
        "_results",
        "family",
        "header_cells",
        "headers",
        "name_addresses",
        "name_cells",
        "name_length",
        "names",
        "refused",
        "vector_address",
        "vector_cells",
        "vectors",
    )

    def __init__(self, messages: int, vectors: int, family: int) -> None:
        if not 1 <= messages <= vectors:
            raise ValueError("a datagram has at least one piece")
        self.family = family
        words = _NAME_WORDS[socket.AddressFamily(family)]
        self.headers = np.zeros((messages, _HEADER_WORDS), np.uint64)
        self.vectors = np.zeros((vectors, 2), np.uint64)
        names = np.zeros(messages * words + 1, np.uint64)
        self.names = names[:-1].reshape(messages, words)
        self.names[:, 0] = family
        self.vector_address = _address(self.vectors)
        self.name_length = _SHORT_NAME_LENGTHS[socket.AddressFamily(family)]
        steps = np.arange(messages, dtype=np.uint64)
        self.name_addresses: Words = np.uint64(_address(names)) + steps * np.uint64(8 * words)
        self.headers[:, _NAME] = self.name_addresses
        self.headers[:, _NAME_LENGTH] = self.name_length
        self.headers[:, _VECTOR] = np.uint64(self.vector_address) + steps * np.uint64(16)
        self.headers[:, _VECTOR_COUNT] = 1
        self._result_cells = self.headers.data.cast("B").cast("I")[2 * _RESULT :]
        self._results = self.headers.view(np.uint32)[:, 2 * _RESULT]
        self._address = _address(self.headers)
        self.refused: list[int] = []
        self.header_cells = _cells(self.headers, "Q")
        self.vector_cells = _cells(self.vectors, "Q")
        self.name_cells = _cells(names, "Q")

    def aim(self, message: int, name: int, first: int, count: int) -> None:
        """Datagram `message` goes to the socket address at `name` and is `count` vectors from `first` on."""
        at = message * _HEADER_WORDS
        cells = self.header_cells
        cells[at + _NAME] = name
        cells[at + _VECTOR] = self.vector_address + 16 * first
        cells[at + _VECTOR_COUNT] = count

    def send(self, fd: int, count: int, errors: Counter[str]) -> tuple[int, int]:
        """Send the first `count`; returns how many datagrams and bytes the kernel took.

        What it refuses is counted in `errors` by the name of the errno, each datagram once, and the next one is tried. Only
        EAGAIN ends it: the socket is full, and what is left over counts with it.
        """
        done = sent = volume = 0
        if self.refused:
            self.refused = []
        while done < count:
            accepted: int = _sendmmsg(fd, self._address + 64 * done, min(count - done, MAX_MESSAGES), _SEND_FLAGS)
            if accepted > 0:
                if accepted <= _FEW:
                    volume += sum(self._result_cells[16 * done : 16 * (done + accepted) : 16].tolist())
                else:
                    volume += int(np.add.reduce(self._results[done : done + accepted]))
                done += accepted
                sent += accepted
                continue
            number = ctypes.get_errno()
            if number == errno.EINTR:
                continue
            lost = count - done if number == errno.EAGAIN else 1
            errors[errno_name(number)] += lost
            self.refused += range(done, done + lost)
            done += lost
        return sent, volume
