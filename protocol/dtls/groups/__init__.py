"""The key exchange groups, best first. To add one: its file, an import line and an entry here."""

from __future__ import annotations

from protocol.dtls.groups.group import Group, KeyExchange
from protocol.dtls.groups.secp256r1 import SECP256R1
from protocol.dtls.groups.secp384r1 import SECP384R1
from protocol.dtls.groups.x25519 import X25519

__all__ = ["GROUPS", "Group", "KeyExchange"]

GROUPS: tuple[Group, ...] = (X25519, SECP256R1, SECP384R1)
