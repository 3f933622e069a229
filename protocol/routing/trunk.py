"""The trunk: how client datagrams travel between a relay and a transceiver, both ways.

    datagram   0xC5 | version (4 bits) kind (4 bits) | tag (8) | body
    kind 0     body = one or more frames
    frame      IPv6 (1 bit) ingress (7 bits) | client port (2) | client IP (4 or 16) | length (2) | payload

All frames of one receive batch for one destination share datagrams up to the MTU; nothing ever waits for more. The
client's address and the ingress (which public address of the relay it spoke to) are in every frame, and a reply
frame repeats both: the relay needs no state to deliver it.

The tag is keyed BLAKE2s over everything but itself, so that only relays and transceivers can speak here. It does not
cover the sender's address (a relay may see its own address differently) and does not forbid replay: a receiver that
learns from a frame checks the source against the prefix, and what is inside has its own protection (STUN, DTLS, SRTP).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from hmac import compare_digest
from typing import NamedTuple

from protocol.address import TransportAddress
from protocol.demux import TRUNK_FIRST_BYTE
from protocol.errors import DecodeError, LocalError
from protocol.routing.config import RoutingConfig
from protocol.routing.token import derive_key, parse_secret

__all__ = ["DATAGRAM_OVERHEAD", "MAX_INGRESS", "Bundle", "Frame", "Trunk", "frame_head"]

# Specification constants

VERSION = 1
KIND_FRAMES = 0
TAG_LENGTH = 8
DATAGRAM_OVERHEAD = 2 + TAG_LENGTH
MAX_INGRESS = 127
MAX_PAYLOAD = 0xFFFF

# Implementation constants

_FRAMES_HEAD = bytes((TRUNK_FIRST_BYTE, VERSION << 4 | KIND_FRAMES))
_IPV6 = 0x80
_HEAD_LENGTHS = (1 + 6, 1 + 18)
# The two length bytes of every usual payload, made once: encoding is the relay's hot path.
_LENGTHS = tuple(length.to_bytes(2, "big") for length in range(2049))


class Frame(NamedTuple):
    """One datagram of a client. A tuple, not a dataclass: one is made for every packet."""

    client: TransportAddress
    ingress: int
    payload: bytes | memoryview


def frame_head(client: TransportAddress, ingress: int) -> bytes:
    """What precedes the length in a frame: worth keeping with a flow."""
    if not 0 <= ingress <= MAX_INGRESS or len(client) not in (6, 18):
        raise LocalError(f"no frame for ingress {ingress}, {len(client)} address bytes")
    return bytes((ingress | _IPV6 if len(client) == 18 else ingress,)) + client


class Bundle:
    """Collects frames for one destination into as few datagrams as the MTU allows."""

    __slots__ = ("_limit", "_parts", "_ready", "_size", "_trunk")

    def __init__(self, trunk: Trunk, mtu: int) -> None:
        self._trunk = trunk
        self._limit = mtu - DATAGRAM_OVERHEAD
        self._parts: list[bytes | memoryview] = []
        self._size = 0
        self._ready: list[bytes] = []

    def add(self, head: bytes, payload: bytes | memoryview) -> None:
        """A frame larger than the MTU gets a datagram of its own, left to IP fragmentation."""
        length = len(payload)
        size = self._size + len(head) + 2 + length
        if size > self._limit and self._size:
            self._ready.append(self._trunk.sign_frames(b"".join(self._parts)))
            self._parts.clear()
            size -= self._size
        self._parts += (head, _LENGTHS[length] if length <= 2048 else length.to_bytes(2, "big"), payload)
        self._size = size

    def finish(self) -> list[bytes]:
        """The datagrams; the payload views given to `add` are needed no longer."""
        if self._parts:
            self._ready.append(self._trunk.sign_frames(b"".join(self._parts)))
            self._parts.clear()
            self._size = 0
        ready, self._ready = self._ready, []
        return ready


class Trunk:
    """Encoder and decoder with the trunk's keys: the first signs, all are accepted."""

    __slots__ = ("_signer", "_verifiers")

    def __init__(self, key: bytes, *accept: bytes) -> None:
        self._verifiers = tuple(
            hashlib.blake2s(
                _FRAMES_HEAD, key=derive_key(secret, b"antiphon trunk v1"), digest_size=TAG_LENGTH, person=b"trunk"
            )
            for secret in (key, *accept)
        )
        self._signer = self._verifiers[0]

    @classmethod
    def parse(cls, config: RoutingConfig) -> Trunk:
        """From the `[routing]` section. Raises ValueError with a sentence that names the key of the section."""
        if not config.trunk_keys:
            raise ValueError("routing.trunk_keys: at least one key is needed")
        if not 576 <= config.trunk_mtu <= 65507:
            raise ValueError("routing.trunk_mtu: must be 576-65507")
        return cls(*(parse_secret(text, "routing.trunk_keys") for text in config.trunk_keys))

    def bundle(self, mtu: int) -> Bundle:
        return Bundle(self, mtu)

    def encode(self, frames: Iterable[Frame], mtu: int) -> list[bytes]:
        """As few datagrams as possible, frames in order."""
        bundle = Bundle(self, mtu)
        for client, ingress, payload in frames:
            bundle.add(frame_head(client, ingress), payload)
        return bundle.finish()

    def sign_frames(self, body: bytes) -> bytes:
        state = self._signer.copy()
        state.update(body)
        return b"".join((_FRAMES_HEAD, state.digest(), body))

    def decode_untrusted(self, datagram: bytes | memoryview) -> list[Frame]:
        """All frames of a datagram, payloads as views into it; or DecodeError and none of them."""
        view = memoryview(datagram)
        if len(view) < DATAGRAM_OVERHEAD:
            raise DecodeError("trunk_truncated")
        if view[:2] != _FRAMES_HEAD:
            raise DecodeError("trunk_kind" if view[0] == TRUNK_FIRST_BYTE else "trunk_foreign")
        tag, body = view[2:DATAGRAM_OVERHEAD], view[DATAGRAM_OVERHEAD:]
        for verifier in self._verifiers:
            state = verifier.copy()
            state.update(body)
            if compare_digest(state.digest(), tag):
                break
        else:
            raise DecodeError("trunk_forged")
        frames = []
        position, end = 0, len(body)
        while position < end:
            first = body[position]
            start = position + _HEAD_LENGTHS[first >> 7] + 2
            if start > end:
                raise DecodeError("trunk_truncated")
            stop = start + (body[start - 2] << 8 | body[start - 1])
            if stop > end:
                raise DecodeError("trunk_truncated")
            client = TransportAddress(bytes(body[position + 1 : start - 2]))
            frames.append(Frame(client, first & MAX_INGRESS, body[start:stop]))
            position = stop
        return frames
