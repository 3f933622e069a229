"""Client secrets: what a server gives to its user's browser, so that it may place calls without the server's API key.

There is no store. A secret is its own contents, sealed with the key that all processes of a deployment share:

    ek_v1_ | base64url of:  synthetic IV of AES-SIV (RFC 5297), 16 bytes: also the authentication tag
                            sealed: 16 random bytes, then `SecretContents` as a MessagePack array

1. A server asks for one with its API key; the session it wants goes in, and comes out of nobody's reach: a browser's user
   may hold the secret, and must not read the instructions.
2. Calls that come with it have that session. It is good as often as it is used, until it expires: nobody remembers it.

AES-SIV is misuse-resistant: a failure of entropy gives equal secrets for equal contents, and no more. Contents are not
compressed: the length of the secret would tell a user whether his words are among ours.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64encode

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from protocol.errors import DecodeError
from protocol.routing.token import derive_key
from protocol.wire import Entropy

__all__ = ["MAX_SESSION_BYTES", "PREFIX", "ClientSecrets", "SecretContents"]

# Specification constants
PREFIX = "ek_v1_"  # clients look for `ek_`; the rest is the version of the format
RANDOM_BYTES = 16
_STANDARD = str.maketrans("-_+/=", "+/!!!")  # from the alphabet of RFC 4648 §5 to that of §4

# Implementation constants
# A secret travels in a header, or in a WebSocket's subprotocol, and all headers of a request have 16 KiB together.
MAX_SESSION_BYTES = 8 * 1024
MAX_SECRET_BYTES = 12 * 1024


class SecretContents(msgspec.Struct, frozen=True, array_like=True):
    """What a client secret carries."""

    expires_at: int
    """Seconds since 1970."""
    fingerprint: bytes
    """Of the API key that it was made with (`ApiKey.fingerprint`); empty with open access."""
    safety_identifier: str
    session: bytes | None
    """JSON text of an object."""


class ClientSecrets:
    """Seals and opens them; `key` has at least 32 bytes."""

    def __init__(self, key: bytes, entropy: Entropy) -> None:
        self._cipher = AESSIV(derive_key(key, b"antiphon client secret v1"))
        self._entropy = entropy
        self._decoder = msgspec.msgpack.Decoder(SecretContents)

    def seal(self, contents: SecretContents) -> str:
        plain = self._entropy(RANDOM_BYTES) + msgspec.msgpack.encode(contents)
        sealed = self._cipher.encrypt(plain, [PREFIX.encode()])
        return PREFIX + _encode(sealed)

    def open_untrusted(self, secret: str, now: float) -> SecretContents:
        """`now` in seconds since 1970. Raises DecodeError: secret_malformed, secret_forged, secret_expired."""
        text = secret.removeprefix(PREFIX)
        if text == secret or len(secret) > MAX_SECRET_BYTES:
            raise DecodeError("secret_malformed")
        try:
            plain = self._cipher.decrypt(_decode_untrusted(text), [PREFIX.encode()])
        except (InvalidTag, ValueError):  # the latter for what is too short to have a tag
            raise DecodeError("secret_forged") from None
        try:
            contents = self._decoder.decode(plain[RANDOM_BYTES:])
        except msgspec.DecodeError:  # sealed with our key, by a process of another version
            raise DecodeError("secret_malformed") from None
        if now >= contents.expires_at:
            raise DecodeError("secret_expired")
        return contents


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _decode_untrusted(text: str) -> bytes:
    """What `_encode` would give this text for, and no other. Raises DecodeError."""
    try:
        data = binascii.a2b_base64(text.translate(_STANDARD) + "=" * (-len(text) % 4), strict_mode=True)
    except ValueError:  # of which binascii.Error is one
        raise DecodeError("secret_malformed") from None
    odd = len(data) % 3
    if odd and _encode(data[-odd:]) != text[-odd - 1 :]:  # the last letter has bits that belong to no byte
        raise DecodeError("secret_malformed")
    return data
