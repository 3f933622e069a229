"""The transceivers that flows name: a number in the row instead of an address, and its socket address ready to send to.

Numbers begin at 1; 0 is nobody. A number stays with its address while a row holds it, and after that until all others
are taken too. Only addresses out of tokens of our own or of trunk datagrams with our tag come here, so the bound (65535)
is far above any cluster; when all are held at once, a new one is refused and the flow is not stored.
"""

from __future__ import annotations

import socket
import sys

import numpy as np
import numpy.typing as npt

from protocol.address import TransportAddress
from relay.layout import MAX_TRANSCEIVERS, TRANSCEIVERS_WORD, Block

__all__ = ["Transceivers", "read_transceiver"]

_FAMILIES = {6: socket.AF_INET.to_bytes(2, sys.byteorder), 18: socket.AF_INET6.to_bytes(2, sys.byteorder)}


class Transceivers:
    """`addresses[number]`, `numbers[address]`, and `sockaddrs`: shape (65536, 4), words of sockaddr_in or sockaddr_in6."""

    __slots__ = ("_block", "_cells", "_columns", "_head", "_unheld", "addresses", "numbers", "sockaddrs")

    def __init__(self, block: Block) -> None:
        self._block = block
        self._head, self._cells, self._columns = block.head, block.cells, block.columns
        self.sockaddrs: npt.NDArray[np.uint64] = block.columns.sockaddrs.reshape(-1, 4)
        self.addresses: list[TransportAddress] = [TransportAddress(b"")]
        self.numbers: dict[TransportAddress, int] = {}
        self._unheld: dict[int, None] = {}  # in the order in which they were let go
        self.reload()

    def reload(self) -> None:
        """From the block."""
        del self.addresses[1:]
        self.numbers.clear()
        self._unheld.clear()
        for number in range(1, self._head[TRANSCEIVERS_WORD]):
            address = read_transceiver(self._block, number)
            self.addresses.append(address)
            if address:
                self.numbers[address] = number
            if not self._cells.holders[number]:
                self._unheld[number] = None

    def __len__(self) -> int:
        """How many are held by rows."""
        return len(self.addresses) - 1 - len(self._unheld)

    def hold(self, address: TransportAddress) -> int:
        """The number of an address, for one field of one row; 0 if there is no more room."""
        number = self.numbers.get(address) or self._take(address)
        if number:
            holders = self._cells.holders
            holders[number] += 1
            self._unheld.pop(number, None)
        return number

    def release(self, number: int) -> None:
        """A field of a row no longer says this; 0 is nothing."""
        if number:
            holders = self._cells.holders
            holders[number] -= 1
            if not holders[number]:
                self._unheld[number] = None

    def release_all(self, numbers: npt.NDArray[np.uint16]) -> None:
        """Many fields at once."""
        counts = np.bincount(numbers, minlength=len(self.addresses))
        counts[0] = 0
        some = np.flatnonzero(counts)
        holders = self._columns.holders
        holders[some] -= counts[some].astype(np.int32)
        self._unheld.update(dict.fromkeys(some[holders[some] == 0].tolist()))

    def recount(self, numbers: npt.NDArray[np.uint16]) -> None:
        """Exactly these fields name transceivers."""
        counts = np.bincount(numbers, minlength=len(self.addresses))[: len(self.addresses)]
        self._columns.holders[: len(self.addresses)] = counts
        self._unheld = dict.fromkeys((1 + np.flatnonzero(counts[1:] == 0)).tolist())

    def _take(self, address: TransportAddress) -> int:
        number = len(self.addresses)
        if number <= MAX_TRANSCEIVERS:
            self.addresses.append(address)
            self._head[TRANSCEIVERS_WORD] = number + 1
        elif self._unheld:
            number = next(iter(self._unheld))
            self.numbers.pop(self.addresses[number], None)
            self.addresses[number] = address
        else:
            return 0
        sockaddrs = self._cells.sockaddrs
        # port | IPv4, or port | flow label 0 | IPv6
        raw = _FAMILIES[len(address)] + address[:2] + (address[2:] if len(address) == 6 else bytes(4) + address[2:])
        words = memoryview(raw.ljust(32, b"\0")).cast("Q")
        sockaddrs[4 * number] = 0  # no address, until the first word is written again as the last
        for index in (1, 2, 3, 0):
            sockaddrs[4 * number + index] = words[index]
        self.numbers[address] = number
        return number


def read_transceiver(block: Block, number: int) -> TransportAddress:
    """What the block says; empty if this number was never wholly written."""
    if not 0 < number <= MAX_TRANSCEIVERS:
        return TransportAddress(b"")
    raw = block.cells.sockaddrs[4 * number : 4 * number + 4].tobytes()
    for length, family in _FAMILIES.items():
        if raw[:2] == family:
            return TransportAddress(raw[2:8] if length == 6 else raw[2:4] + raw[8:24])
    return TransportAddress(b"")
