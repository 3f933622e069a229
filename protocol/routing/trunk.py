"""The trunk: how client datagrams travel between a relay and a transceiver, both ways. Version 2, network byte order.

    datagram      head (16) | count descriptors | the payloads, one after another
    head          0xC5 | version (4 bits) kind (4 bits) | flags | ingress | count (2) | zero (2) | tag (8)
    descriptor    IPv4: length (2) | client port (2) | client IP (4)
                  IPv6: length (2) | client port (2) | zero (4) | client IP (16)
    flags         bit 0: the addresses are IPv6
    kind 0        frames: descriptors and payloads
    kind 1        hello: a body instead, no descriptors
    kind 2        announce: descriptors alone, their lengths 0
                  (what hello and announce say is in protocol.routing.notices)

The ingress says which public address of the relay the clients spoke to; a reply repeats it, and with the client's address
in the descriptor the relay needs no state to deliver it. All frames of a datagram share ingress and address family, as
those of one receive batch do. They share datagrams up to the MTU; nothing ever waits for more. Descriptors have the shape
of a socket address, and payloads stand apart from them, so that a batch is read and written without touching a payload.

The tag is keyed BLAKE2s over head, descriptors (of a hello: the body) and the datagram's length; the length stands where
the head has its zero bytes, so that seven IPv4 frames cost one block of the hash. It keeps everyone without the key from
speaking here, and ties each address to a length. It covers no payload: what is inside has its own protection (STUN, DTLS,
SRTP), see ADR 14. It does not cover the sender's address (a relay may see its own address differently) and does not forbid
replay: a receiver that learns from a frame checks the source against the prefix.
"""

from __future__ import annotations

import enum
import hashlib
import struct
from collections.abc import Iterable
from hmac import compare_digest
from typing import NamedTuple

from protocol.address import TransportAddress
from protocol.demux import TRUNK_FIRST_BYTE
from protocol.errors import DecodeError, LocalError
from protocol.routing.config import RoutingConfig
from protocol.routing.token import derive_key, parse_secret

__all__ = [
    "DATAGRAM_OVERHEAD",
    "MAX_INGRESS",
    "VERSION",
    "Bundle",
    "Frame",
    "Trunk",
    "TrunkHead",
    "TrunkKind",
    "frame_overhead",
]

# Specification constants

VERSION = 2
TAG_LENGTH = 8
DATAGRAM_OVERHEAD = 16
MAX_INGRESS = 127
IPV6 = 0x01  # flag


class TrunkKind(enum.IntEnum):
    FRAMES = 0
    HELLO = 1
    ANNOUNCE = 2


# Implementation constants

_KINDS = {VERSION << 4 | kind: kind for kind in TrunkKind}
_HEAD = struct.Struct("!BBBBHH")
_SIGNED_FIRST = bytes((TRUNK_FIRST_BYTE,))
_IPV4_DESCRIPTOR = struct.Struct("!H6s")
_IPV6_DESCRIPTOR = struct.Struct("!H2s4x16s")


class Frame(NamedTuple):
    """One datagram of a client. A tuple, not a dataclass: one is made for every packet."""

    client: TransportAddress
    ingress: int
    payload: bytes | memoryview


class TrunkHead(NamedTuple):
    """What the head of a genuine datagram says; the body begins at DATAGRAM_OVERHEAD."""

    kind: TrunkKind
    is_ipv6: bool
    ingress: int
    frames: int


def frame_overhead(client: TransportAddress) -> int:
    """Bytes of the descriptor. Raises LocalError when this is no transport address."""
    if len(client) == 6:
        return _IPV4_DESCRIPTOR.size
    if len(client) == 18:
        return _IPV6_DESCRIPTOR.size
    raise LocalError(f"no frame for {len(client)} address bytes")


class Bundle:
    """Collects frames for one destination and ingress into as few datagrams as the MTU and their order allow."""

    __slots__ = ("_descriptors", "_ingress", "_limit", "_overhead", "_payloads", "_ready", "_size", "_trunk")

    def __init__(self, trunk: Trunk, mtu: int, ingress: int) -> None:
        if not 0 <= ingress <= MAX_INGRESS:
            raise LocalError(f"no frame for ingress {ingress}")
        self._trunk = trunk
        self._limit = mtu - DATAGRAM_OVERHEAD
        self._ingress = ingress
        self._descriptors: list[bytes] = []
        self._payloads: list[bytes | memoryview] = []
        self._overhead = 0  # of each descriptor in the open datagram
        self._size = 0
        self._ready: list[bytes] = []

    def add(self, client: TransportAddress, payload: bytes | memoryview) -> None:
        """A frame larger than the MTU gets a datagram of its own, left to IP fragmentation."""
        length = len(payload)
        overhead = frame_overhead(client)
        size = overhead + length
        if self._payloads and (self._size + size > self._limit or overhead != self._overhead):
            self._close()
        self._overhead = overhead
        self._size += size
        if overhead == _IPV4_DESCRIPTOR.size:
            self._descriptors.append(_IPV4_DESCRIPTOR.pack(length, client))
        else:
            self._descriptors.append(_IPV6_DESCRIPTOR.pack(length, client[:2], client[2:]))
        self._payloads.append(payload)

    def finish(self) -> list[bytes]:
        """The datagrams; the payload views given to `add` are needed no longer."""
        if self._payloads:
            self._close()
        ready, self._ready = self._ready, []
        return ready

    def _close(self) -> None:
        is_ipv6 = self._overhead == _IPV6_DESCRIPTOR.size
        head = TrunkHead(TrunkKind.FRAMES, is_ipv6, self._ingress, len(self._payloads))
        self._ready.append(self._trunk.seal(head, b"".join(self._descriptors), b"".join(self._payloads)))
        self._descriptors.clear()
        self._payloads.clear()
        self._size = 0


class Trunk:
    """Encoder and decoder with the trunk's keys: the first signs, all are accepted."""

    __slots__ = ("_signer", "_verifiers")

    def __init__(self, key: bytes, *accept: bytes) -> None:
        # The first byte is always the same. Hashed here, it makes BLAKE2s take in the block of the key here, too.
        self._verifiers = tuple(
            hashlib.blake2s(
                _SIGNED_FIRST, key=derive_key(secret, b"antiphon trunk v2"), digest_size=TAG_LENGTH, person=b"trunk"
            )
            for secret in (key, *accept)
        )
        self._signer = self._verifiers[0]

    @classmethod
    def parse(cls, config: RoutingConfig) -> Trunk:
        """From the `[routing]` section. Raises ValueError with a sentence that names the key of the section."""
        if not config.trunk_keys:
            raise ValueError("routing.trunk_keys: at least one key is needed")
        if config.trunk_mtu and not 576 <= config.trunk_mtu <= 65507:
            raise ValueError("routing.trunk_mtu: must be 576-65507, or 0")
        return cls(*(parse_secret(text, "routing.trunk_keys") for text in config.trunk_keys))

    def bundle(self, mtu: int, ingress: int = 0) -> Bundle:
        return Bundle(self, mtu, ingress)

    def encode(self, frames: Iterable[Frame], mtu: int) -> list[bytes]:
        """Frames in order; a datagram ends where the MTU, the ingress or the address family does."""
        datagrams: list[bytes] = []
        bundle, at = Bundle(self, mtu, 0), 0
        for client, ingress, payload in frames:
            if ingress != at:
                datagrams += bundle.finish()
                bundle, at = Bundle(self, mtu, ingress), ingress
            bundle.add(client, payload)
        return datagrams + bundle.finish()

    def seal(self, head: TrunkHead, body: bytes, payloads: bytes = b"") -> bytes:
        """A whole datagram. `body`: the descriptors, or of a hello everything; it is what the tag covers."""
        return b"".join((self.seal_head(head, body, len(payloads)), body, payloads))

    def seal_head(self, head: TrunkHead, body: bytes, payload_length: int) -> bytes:
        """Its first DATAGRAM_OVERHEAD bytes, for who sends the pieces without joining them."""
        total = DATAGRAM_OVERHEAD + len(body) + payload_length
        fields = TRUNK_FIRST_BYTE, VERSION << 4 | head.kind, head.is_ipv6, head.ingress, head.frames
        tag = self.tag(_HEAD.pack(*fields, total & 0xFFFF)[1:] + body)  # nothing longer than 65535 can be sent
        return _HEAD.pack(*fields, 0) + tag

    def tag(self, signed: bytes | memoryview) -> bytes:
        """The tag over what is signed: the first 8 bytes of the head but the very first one, the datagram's length in
        the place of the zero bytes; then the descriptors."""
        state = self._signer.copy()
        state.update(signed)
        return state.digest()

    def tags(self, memory: memoryview, starts: Iterable[int], ends: Iterable[int]) -> bytes:
        """The tags over several pieces of one memory, one after another: for whole batches of datagrams."""
        copy = self._signer.copy
        made = []
        for start, end in zip(starts, ends):
            state = copy()
            state.update(memory[start:end])
            made.append(state.digest())
        return b"".join(made)

    def is_genuine(self, signed: bytes | memoryview, tag: bytes | memoryview) -> bool:
        """Whether `tag` is `tag(signed)` under any of our keys."""
        for verifier in self._verifiers:
            state = verifier.copy()
            state.update(signed)
            if compare_digest(state.digest(), tag):
                return True
        return False

    def open_untrusted(self, datagram: bytes | memoryview) -> TrunkHead:
        """The head of a datagram of any kind whose tag is right; or DecodeError.

        What was signed is there: `count` descriptors, or the body of a hello. Whether the lengths of the descriptors add up
        is for `decode_untrusted` to see.
        """
        view = memoryview(datagram)
        total = len(view)
        if total < DATAGRAM_OVERHEAD:
            raise DecodeError("trunk_truncated")
        first, second, flags, ingress, count, zero = _HEAD.unpack_from(view)
        kind = _KINDS.get(second)
        if first != TRUNK_FIRST_BYTE:
            raise DecodeError("trunk_foreign")
        if kind is None:
            raise DecodeError("trunk_kind")
        if flags & ~IPV6 or zero:
            raise DecodeError("trunk_flags")
        if ingress > MAX_INGRESS:
            raise DecodeError("trunk_ingress")
        end = total
        if kind is not TrunkKind.HELLO:
            end = DATAGRAM_OVERHEAD + count * (_IPV6_DESCRIPTOR if flags else _IPV4_DESCRIPTOR).size
        if end > total or (count == 0) is not (kind is TrunkKind.HELLO):
            raise DecodeError("trunk_count")
        signed = b"".join((view[1:6], total.to_bytes(4, "big")[2:], view[DATAGRAM_OVERHEAD:end]))
        if not self.is_genuine(signed, view[8:DATAGRAM_OVERHEAD]):
            raise DecodeError("trunk_forged")
        return TrunkHead(kind, bool(flags), ingress, count)

    def decode_untrusted(self, datagram: bytes | memoryview) -> list[Frame]:
        """All frames of a datagram of kind FRAMES, payloads as views into it; or DecodeError and none of them.

        An announcement is such a datagram with nothing in its frames; it is not taken for one here (`trunk_kind`).
        """
        ingress, position, clients = self.split_untrusted(datagram)
        view = memoryview(datagram)
        frames = []
        for length, client in clients:
            stop = position + length
            frames.append(Frame(TransportAddress(client), ingress, view[position:stop]))
            position = stop
        return frames

    def split_untrusted(self, datagram: bytes | memoryview) -> tuple[int, int, list[tuple[int, bytes]]]:
        """The same without the payloads: (ingress, where the first payload begins, (its length, its client) of each)."""
        kind, is_ipv6, ingress, count = self.open_untrusted(datagram)
        if kind is not TrunkKind.FRAMES:
            raise DecodeError("trunk_kind")
        view = memoryview(datagram)
        start = DATAGRAM_OVERHEAD + count * (_IPV6_DESCRIPTOR if is_ipv6 else _IPV4_DESCRIPTOR).size
        descriptors = view[DATAGRAM_OVERHEAD:start]
        clients: list[tuple[int, bytes]]
        if is_ipv6:
            clients = [(length, port + ip) for length, port, ip in _IPV6_DESCRIPTOR.iter_unpack(descriptors)]
        else:
            clients = list(_IPV4_DESCRIPTOR.iter_unpack(descriptors))
        if start + sum([length for length, _ in clients]) != len(view):
            raise DecodeError("trunk_length")
        return ingress, start, clients
