"""The epochs of a DTLS 1.2 association: RFC 6347 §4.1. Epoch 0 is in the clear, epoch 1 under the negotiated keys.

There is no epoch 2: renegotiation does not exist here (RFC 8827 §6.5). Record numbers of epoch 0 are *not* checked for
replay: they are not authenticated, some peers repeat them when they retransmit, and the handshake layer discards
duplicates by message number anyway.
"""

from __future__ import annotations

from protocol.dtls.protection12 import Protection12
from protocol.dtls.record12 import EPOCH_SHIFT, RECORD_HEADER_LENGTH, Record, pack_record
from protocol.dtls.registry import ProtocolVersion
from protocol.dtls.replay import ReplayWindow
from protocol.errors import DecodeError, LocalError

__all__ = ["Epochs12"]

_EPOCH_1 = 1 << EPOCH_SHIFT


class Epochs12:
    __slots__ = ("_next", "_read", "_window", "_write")

    def __init__(self, first: int = 0) -> None:
        self._read: Protection12 | None = None
        self._write: Protection12 | None = None
        self._window = ReplayWindow()
        self._next = [first, _EPOCH_1]  # the next record number of each epoch; never reused, retransmissions included

    @property
    def can_read(self) -> bool:
        return self._read is not None

    @property
    def write_epoch(self) -> int:
        return 0 if self._write is None else 1

    def install_read(self, protection: Protection12) -> None:
        self._read = protection

    def install_write(self, protection: Protection12) -> None:
        self._write = protection

    def overhead(self, epoch: int) -> int:
        """What a record of this epoch adds to its payload."""
        if epoch == 0 or self._write is None:
            return RECORD_HEADER_LENGTH
        return RECORD_HEADER_LENGTH + self._write.overhead

    def seal_clear(self, content_type: int, payload: bytes, version: int = ProtocolVersion.DTLS_1_2) -> bytes:
        """A record of epoch 0."""
        number = self._next[0]
        self._next[0] = number + 1
        return pack_record(content_type, number, payload, version)

    def seal(self, content_type: int, payload: bytes) -> bytes:
        """A record of epoch 1. (2^48 of them are out of any call's reach, so the number never runs over.)"""
        if self._write is None:
            raise LocalError("no keys to write with")
        number = self._next[1]
        self._next[1] = number + 1
        return self._write.seal(content_type, number, payload)

    def open_untrusted(self, record: Record) -> bytes:
        """The plaintext of a record of epoch 1, once and only once."""
        number = record.number
        if self._read is None or number >> EPOCH_SHIFT != 1:
            raise DecodeError("record_epoch")
        if not self._window.fresh(number):
            raise DecodeError("record_replay")
        plaintext = self._read.open_untrusted(record)
        self._window.mark(number)
        return plaintext
