"""secp256r1, also called P-256: RFC 8422 §5.1.1."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from protocol.dtls.groups.group import Group
from protocol.dtls.groups.nist_curve import NistExchange
from protocol.dtls.registry import NamedGroup
from protocol.wire import Entropy

__all__ = ["SECP256R1"]


def _begin(_entropy: Entropy) -> NistExchange:
    return NistExchange(ec.SECP256R1())


SECP256R1 = Group(NamedGroup.SECP256R1, "secp256r1", _begin)
