"""The route token: 48 ice-chars that are the ufrag of a call and tell any relay which transceiver owns it.

    bytes  0      key id (3 bits) | format (5 bits) = 1        clear, authenticated
           1-2    cluster                                      clear, authenticated
           3-18   synthetic IV of AES-SIV (RFC 5297): also the authentication tag
          19-22   host number, 23-24 port                      sealed
          25-26   incarnation of the transceiver, 27-29 minute of issue since 2024, 30-35 random

36 bytes in strict base64 (its alphabet is exactly RFC 8839's ice-char), so without padding.

1. The transceiver seals its own host number and port into the ufrag of its answer.
2. The client's first check carries it in USERNAME; a relay opens it: address = prefix | host number. No registry.
3. The ICE password is an HMAC of the token, so a relay can verify MESSAGE-INTEGRITY before it stores anything, and a
   restarted transceiver can still answer for a session that it no longer has.

AES-SIV is misuse-resistant: an entropy failure repeats ufrags, but breaks neither key. Who holds the keys can mint
tokens, and still only name addresses inside the prefix. Key id 7 stays unused, as QUIC-LB reserves it for "unroutable".
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from protocol.address import TransportAddress
from protocol.errors import DecodeError, LocalError
from protocol.routing.config import RoutingConfig
from protocol.routing.prefix import Prefix
from protocol.wire import Entropy

__all__ = ["UFRAG_LENGTH", "KeyRing", "RouteToken", "derive_key", "parse_secret"]

# Specification constants

UFRAG_LENGTH = 48
FORMAT = 1
MAX_KEY_ID = 6
EPOCH = 1_704_067_200  # 2024-01-01T00:00:00Z; three bytes of minutes last until 2055
RANDOM_LENGTH = 6

# Implementation constants

_TOKEN_LENGTH = 36
_HEAD_LENGTH = 3
_MIN_SECRET_LENGTH = 32


class RouteToken(NamedTuple):
    """An opened token. Its address has already been found to lie inside the prefix."""

    address: TransportAddress
    incarnation: int
    issued: int  # Unix seconds, a whole minute
    random: bytes
    key_id: int

    def is_stale(self, wall_time: float, max_age: float, tolerance: float) -> bool:
        """Too old, or from further in the future than clocks may differ."""
        return not -tolerance <= wall_time - self.issued <= max_age + tolerance


class _Keys(NamedTuple):
    head: bytes
    route: AESSIV
    password: bytes


class KeyRing:
    """All keys of one cluster that are good now: the first seals, every one opens."""

    __slots__ = ("_config", "_keys", "_prefix", "_sealing")

    def __init__(self, secrets: tuple[tuple[int, bytes], ...], config: RoutingConfig, prefix: Prefix) -> None:
        self._config = config
        self._prefix = prefix
        self._keys: dict[bytes, _Keys] = {}
        cluster = config.cluster.to_bytes(2, "big")
        for key_id, secret in secrets:
            head = bytes([key_id << 5 | FORMAT]) + cluster
            self._keys[head] = _Keys(
                head,
                AESSIV(derive_key(secret, b"antiphon route token v1" + head)),
                derive_key(secret, b"antiphon ice password v1" + head),
            )
        self._sealing = next(iter(self._keys.values()))

    @classmethod
    def parse(cls, config: RoutingConfig) -> KeyRing:
        """From the `[routing]` section. Raises ValueError with a sentence that names the key of the section."""
        if not 0 <= config.cluster <= 0xFFFF:
            raise ValueError("routing.cluster: must be 0-65535")
        try:
            prefix = Prefix(config.prefix)
        except ValueError as error:
            raise ValueError(f"routing.prefix: {error}") from None
        if not config.keys:
            raise ValueError("routing.keys: at least one key, ID:HEX, is needed")
        secrets: dict[int, bytes] = {}
        for text in config.keys:
            number, colon, secret = text.partition(":")
            if not colon or not number.isdecimal() or not 0 <= int(number) <= MAX_KEY_ID:
                raise ValueError(f"routing.keys: each key is ID:HEX with an ID of 0-{MAX_KEY_ID}")
            if int(number) in secrets:
                raise ValueError(f"routing.keys: two keys have the ID {int(number)}")
            secrets[int(number)] = parse_secret(secret, "routing.keys")
        return cls(tuple(secrets.items()), config, prefix)

    @property
    def prefix(self) -> Prefix:
        return self._prefix

    @property
    def config(self) -> RoutingConfig:
        return self._config

    def seal(self, address: TransportAddress, *, incarnation: int, wall_time: float, entropy: Entropy) -> str:
        """A new ufrag for a call owned by the transceiver at `address`. Raises ValueError outside the prefix."""
        minute = int(wall_time - EPOCH) // 60
        if not 0 <= minute < 1 << 24:
            raise LocalError("the wall clock is outside 2024-2055")
        host_number = self._prefix.host_number(address)
        plain = b"".join(
            (
                host_number.to_bytes(4, "big"),
                address[:2],
                (incarnation & 0xFFFF).to_bytes(2, "big"),
                minute.to_bytes(3, "big"),
                entropy(RANDOM_LENGTH),
            )
        )
        keys = self._sealing
        return base64.b64encode(keys.head + keys.route.encrypt(plain, [keys.head])).decode("ascii")

    def open_untrusted(self, ufrag: bytes) -> RouteToken:
        """Raises DecodeError: token_malformed, token_unknown_key, token_forged, token_address."""
        keys, raw = self._unpack(ufrag)
        try:
            plain = keys.route.decrypt(raw[_HEAD_LENGTH:], [keys.head])
        except InvalidTag:
            raise DecodeError("token_forged") from None
        return RouteToken(
            address=self._prefix.address(int.from_bytes(plain[:4], "big"), int.from_bytes(plain[4:6], "big")),
            incarnation=int.from_bytes(plain[6:8], "big"),
            issued=EPOCH + 60 * int.from_bytes(plain[8:11], "big"),
            random=plain[11:],
            key_id=keys.head[0] >> 5,
        )

    def derive_password(self, ufrag: bytes | str) -> str:
        """The ICE password (192 bits) that belongs to a ufrag of ours. Raises DecodeError if it cannot be one.

        It does not say whether the token is authentic: open it first.
        """
        keys, raw = self._unpack(ufrag.encode("ascii", "replace") if isinstance(ufrag, str) else ufrag)
        return base64.b64encode(hmac.digest(keys.password, raw, "sha256")[:24]).decode("ascii")

    def _unpack(self, ufrag: bytes) -> tuple[_Keys, bytes]:
        if len(ufrag) != UFRAG_LENGTH:
            raise DecodeError("token_malformed")
        try:
            raw = binascii.a2b_base64(ufrag, strict_mode=True)
        except binascii.Error:
            raise DecodeError("token_malformed") from None
        if len(raw) != _TOKEN_LENGTH:
            raise DecodeError("token_malformed")
        keys = self._keys.get(raw[:_HEAD_LENGTH])
        if keys is None:
            raise DecodeError("token_unknown_key")
        return keys, raw


def derive_key(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) with an empty salt, 32 bytes."""
    return hmac.digest(hmac.digest(bytes(32), secret, "sha256"), info + b"\x01", "sha256")


def parse_secret(text: str, key: str) -> bytes:
    """A secret of the configuration. The error never repeats the secret."""
    try:
        secret = bytes.fromhex(text)
    except ValueError:
        raise ValueError(f"{key}: the secret must be hexadecimal") from None
    if len(secret) < _MIN_SECRET_LENGTH:
        raise ValueError(f"{key}: the secret must have at least {_MIN_SECRET_LENGTH} bytes (64 hexadecimal digits)")
    return secret
