"""secp384r1, also called P-384: RFC 8422 §5.1.1."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from protocol.dtls.groups.group import Group
from protocol.dtls.groups.nist_curve import NistExchange
from protocol.dtls.registry import NamedGroup
from protocol.wire import Entropy

__all__ = ["SECP384R1"]


def _begin(_entropy: Entropy) -> NistExchange:
    return NistExchange(ec.SECP384R1())


SECP384R1 = Group(NamedGroup.SECP384R1, "secp384r1", _begin)
