"""ECDH over the NIST prime curves: RFC 8422 §5.4, §5.10; uncompressed points only (§5.1.2).

The private key comes from the library's own generator, not from the injected entropy: the one place where a call does
not replay from its seed.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from protocol.errors import DecodeError

__all__ = ["NistExchange"]

_UNCOMPRESSED = 4


class NistExchange:
    __slots__ = ("_curve", "_private", "public")

    def __init__(self, curve: ec.EllipticCurve) -> None:
        self._curve = curve
        self._private = ec.generate_private_key(curve)
        self.public = self._private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def shared_untrusted(self, peer_public: bytes) -> bytes:
        if len(peer_public) != len(self.public) or peer_public[0] != _UNCOMPRESSED:
            raise DecodeError("key_share")
        try:
            # from_encoded_point refuses what is not on the curve (RFC 8422 §5.11: MUST validate).
            point = ec.EllipticCurvePublicKey.from_encoded_point(self._curve, peer_public)
            return self._private.exchange(ec.ECDH(), point)
        except ValueError:
            raise DecodeError("key_share") from None
