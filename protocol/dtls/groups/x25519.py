"""X25519: RFC 7748 §6.1, RFC 8422 §5.11."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocol.dtls.groups.group import Group
from protocol.dtls.registry import NamedGroup
from protocol.errors import DecodeError
from protocol.wire import Entropy

__all__ = ["X25519"]

_LENGTH = 32


class _Exchange:
    __slots__ = ("_private", "public")

    def __init__(self, entropy: Entropy) -> None:
        self._private = X25519PrivateKey.from_private_bytes(entropy(_LENGTH))
        self.public = self._private.public_key().public_bytes_raw()

    def shared_untrusted(self, peer_public: bytes) -> bytes:
        if len(peer_public) != _LENGTH:
            raise DecodeError("key_share")
        try:
            # The library refuses an all-zero result, as RFC 8422 §5.11 demands.
            return self._private.exchange(X25519PublicKey.from_public_bytes(peer_public))
        except ValueError:
            raise DecodeError("key_share") from None


X25519 = Group(NamedGroup.X25519, "x25519", _Exchange)
