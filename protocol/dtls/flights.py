"""Flights of handshake messages and their retransmission: RFC 6347 §4.2.4, §4.1.1.1.

1. `send` packs a flight into datagrams and starts the timer; the flight is kept.
2. No answer in time: the whole flight again under new record numbers, the timer doubled. After some attempts in vain
   the datagrams become smaller: perhaps the large ones do not pass. The next flight begins with the size that did.
3. The peer repeats the flight that ours answered: it has not seen ours, so send it again, without touching the timer's
   growth, and not more than once for the several datagrams of one repetition.
4. The last flight of a handshake has no timer: it is only sent again on 3, as long as it is remembered.

All sendings of one flight, whatever their cause, are bounded in number: we are no amplifier.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.dtls.config import DtlsConfig
from protocol.dtls.epochs12 import Epochs12
from protocol.dtls.fragments import HANDSHAKE_HEADER_LENGTH, HandshakeMessage
from protocol.dtls.registry import ContentType, HandshakeType, ProtocolVersion

__all__ = ["FlightItem", "Retransmitter", "pack_flight"]

_CHANGE_CIPHER_SPEC = b"\1"
_SMALLEST_PIECE = 32  # bytes of a message worth a record of their own at the end of a datagram
_REPEAT_GAP = 0.01  # seconds; the datagrams of one repetition arrive closer together than this


@dataclass(frozen=True, slots=True)
class FlightItem:
    """A handshake message, or a ChangeCipherSpec if there is none."""

    message: HandshakeMessage | None
    epoch: int = 0


def pack_flight(items: Sequence[FlightItem], epochs: Epochs12, mtu: int) -> list[bytes]:
    """The datagrams of a flight: one record for each message or fragment, as many records in a datagram as fit."""
    datagrams: list[bytes] = []
    current = bytearray()

    def flush() -> None:
        if current:
            datagrams.append(bytes(current))
            current.clear()

    for item in items:
        if item.message is None:
            if len(current) + epochs.overhead(0) + len(_CHANGE_CIPHER_SPEC) > mtu:
                flush()
            current += epochs.seal_clear(ContentType.CHANGE_CIPHER_SPEC, _CHANGE_CIPHER_SPEC)
            continue
        message, overhead = item.message, epochs.overhead(item.epoch) + HANDSHAKE_HEADER_LENGTH
        offset, length = 0, len(message.body)
        while True:
            room = mtu - len(current) - overhead
            if current and room < length - offset and room < _SMALLEST_PIECE:
                flush()
                continue
            piece = message.fragment(offset, room)
            if item.epoch:
                current += epochs.seal(ContentType.HANDSHAKE, piece)
            else:
                # The version of a first hello's record is that of DTLS 1.0, for servers that know no better
                # (RFC 6347 §4.2.1); browsers do the same.
                first = message.message_type == HandshakeType.CLIENT_HELLO
                version = ProtocolVersion.DTLS_1_0 if first else ProtocolVersion.DTLS_1_2
                current += epochs.seal_clear(ContentType.HANDSHAKE, piece, version)
            offset += room
            if offset >= length:
                break
    flush()
    return datagrams


class Retransmitter:
    """Holds the flight that waits for its answer (or, after the handshake, the last one)."""

    __slots__ = (
        "_config",
        "_epochs",
        "_forget_at",
        "_interval",
        "_is_final",
        "_items",
        "_mtu_step",
        "_sendings",
        "_sent_at",
        "deadline",
        "repetitions",
    )

    def __init__(self, config: DtlsConfig, epochs: Epochs12) -> None:
        self._config = config
        self._epochs = epochs
        self._items: Sequence[FlightItem] = ()
        self._is_final = False
        self._interval = config.retransmit_initial
        self._sendings = 0
        self._mtu_step = 0  # fallbacks taken
        self._sent_at = -math.inf
        self._forget_at = math.inf
        self.deadline = math.inf
        self.repetitions = 0  # of all flights: a statistic

    def send(self, items: Sequence[FlightItem], now: float, *, is_final: bool) -> list[bytes]:
        self._items = items
        self._is_final = is_final
        self._interval = self._config.retransmit_initial
        self._sendings = 0
        self._forget_at = now + self._config.last_flight_memory if is_final else math.inf
        return self._pack(now)

    def stop(self) -> None:
        """The flight was answered, or nobody waits any more."""
        self._items = ()
        self.deadline = math.inf

    def handle_timeout(self, now: float) -> list[bytes]:
        """The timer ran out."""
        self._interval = min(self._interval * 2, self._config.retransmit_maximum)
        return self._again(now, self._config.flight_sendings)

    def repeat(self, now: float, *, is_proven: bool) -> list[bytes]:
        """The peer repeated itself. What is not proven to be the peer's gets only half of the allowance."""
        if now - self._sent_at < _REPEAT_GAP:
            return []
        if now > self._forget_at:
            self.stop()
        allowance = self._config.flight_sendings if is_proven else self._config.flight_sendings // 2
        if self._sendings >= allowance:
            return []  # and the timer stays as it is: a stranger must not put it off
        return self._again(now, allowance)

    def _again(self, now: float, allowance: int) -> list[bytes]:
        if not self._items or self._sendings >= allowance:
            self.deadline = math.inf if self._is_final or not self._items else now + self._interval
            return []
        self.repetitions += 1
        return self._pack(now)

    def _pack(self, now: float) -> list[bytes]:
        config = self._config
        if self._sendings and self._sendings % config.mtu_attempts == 0:
            self._mtu_step = min(self._mtu_step + 1, len(config.mtu_fallbacks))
        mtu = min((config.mtu, *config.mtu_fallbacks[: self._mtu_step]))
        self._sendings += 1
        self._sent_at = now
        self.deadline = math.inf if self._is_final else now + self._interval
        return pack_flight(self._items, self._epochs, mtu)
