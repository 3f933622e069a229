"""The state cookie (RFC 9260 §5.1.3): what we must remember of an INIT, carried by the peer.

    nonce (8) || fields XOR HMAC(mask key, nonce) (29) || HMAC-SHA-256(key, nonce || masked fields), first 16 bytes

1. The fields are those of both INITs and the age of our clock since the first cookie; no address, no pointer, no
   key and no absolute time is in it (the usrsctp cookies of CVE-2020-6514 held kernel addresses), and they are
   masked besides, so a cookie tells its bearer nothing.
2. Both keys are of one association: a cookie of another call is a wrong cookie.
3. The tag is compared in constant time; the lifetime is judged only after it.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass

from protocol.errors import DecodeError
from protocol.sctp.chunks import ChunkType
from protocol.sctp.parameters import Init
from protocol.wire import Entropy

__all__ = ["CookieJar", "StateCookie"]

# Implementation constants
NONCE_LENGTH = 8
TAG_LENGTH = 16

_FIELDS = struct.Struct("!LLLLLLHHB")
COOKIE_LENGTH = NONCE_LENGTH + _FIELDS.size + TAG_LENGTH

_RECONFIG = 1
_FORWARD_TSN = 2


@dataclass(frozen=True, slots=True)
class StateCookie:
    local_tag: int
    peer: Init  # without its cookie and unrecognised parameters
    age: float  # seconds


class CookieJar:
    """Bakes and tastes the cookies of one association."""

    __slots__ = ("_entropy", "_epoch", "_key", "_mask_key")

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._key = entropy(32)
        self._mask_key = entropy(32)
        self._epoch: float | None = None

    def bake(self, peer: Init, local_tag: int, local_tsn: int, now: float) -> bytes:
        if self._epoch is None:
            self._epoch = now
        fields = _FIELDS.pack(
            int((now - self._epoch) * 1000) & 0xFFFFFFFF,
            local_tag,
            local_tsn,
            peer.tag,
            peer.tsn,
            peer.window,
            peer.outbound_streams,
            peer.inbound_streams,
            (_RECONFIG if ChunkType.RE_CONFIG in peer.extensions else 0) | (_FORWARD_TSN if peer.forward_tsn else 0),
        )
        nonce = self._entropy(NONCE_LENGTH)
        body = nonce + self._mask(nonce, fields)
        return body + self._tag(body)

    def taste_untrusted(self, cookie: bytes, now: float) -> StateCookie:
        """Raises DecodeError unless this association baked it; its age is for the caller to judge."""
        if len(cookie) != COOKIE_LENGTH:
            raise DecodeError("cookie_length")
        body, tag = cookie[:-TAG_LENGTH], cookie[-TAG_LENGTH:]
        if self._epoch is None or not hmac.compare_digest(self._tag(body), tag):
            raise DecodeError("cookie_mac")
        fields = _FIELDS.unpack(self._mask(body[:NONCE_LENGTH], body[NONCE_LENGTH:]))
        made, local_tag, _, tag_, tsn, window, outbound_streams, inbound_streams, bits = fields
        peer = Init(
            tag_,
            window,
            outbound_streams,
            inbound_streams,
            tsn,
            extensions=frozenset({int(ChunkType.RE_CONFIG)}) if bits & _RECONFIG else frozenset(),
            forward_tsn=bool(bits & _FORWARD_TSN),
        )
        return StateCookie(local_tag, peer, ((int((now - self._epoch) * 1000) - made) & 0xFFFFFFFF) / 1000)

    def _mask(self, nonce: bytes, fields: bytes) -> bytes:
        stream = hmac.digest(self._mask_key, nonce, "sha256")
        return bytes(a ^ b for a, b in zip(fields, stream))

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:TAG_LENGTH]
