"""ICE credentials: the user fragment and password of one side (RFC 8445 §5.3, RFC 8839 §5.4)."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field

from protocol.errors import DecodeError
from protocol.wire import Entropy

__all__ = ["IceCredentials"]

# Specification constants (RFC 8839 §5.4): ufrag = 4*256ice-char, pwd = 22*256ice-char.
_UFRAG = re.compile(r"[A-Za-z0-9+/]{4,256}")
_PWD = re.compile(r"[A-Za-z0-9+/]{22,256}")

# Implementation constants, in bytes of entropy: 48 bits (24 are demanded), 192 bits (128 are demanded). Multiples of
# three, so that base64 needs no padding and is all ice-chars.
_UFRAG_ENTROPY = 6
_PWD_ENTROPY = 24


@dataclass(frozen=True, slots=True)
class IceCredentials:
    """A checked pair. Raises ValueError when the grammar is broken; the password stays out of the repr."""

    ufrag: str
    pwd: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _UFRAG.fullmatch(self.ufrag):
            raise ValueError("an ICE ufrag is 4 to 256 ice-chars")
        if not _PWD.fullmatch(self.pwd):
            raise ValueError("an ICE password is 22 to 256 ice-chars")

    @classmethod
    def parse_untrusted(cls, ufrag: str, pwd: str) -> IceCredentials:
        """The values of the a=ice-ufrag and a=ice-pwd lines of a peer; raises DecodeError."""
        if not _UFRAG.fullmatch(ufrag):
            raise DecodeError("ice_ufrag", "an ICE ufrag is 4 to 256 ice-chars")
        if not _PWD.fullmatch(pwd):
            raise DecodeError("ice_pwd", "an ICE password is 22 to 256 ice-chars")
        return cls(ufrag, pwd)

    @classmethod
    def generate(cls, entropy: Entropy) -> IceCredentials:
        """Fresh random credentials, for an agent whose ufrag carries no route token."""
        ufrag = base64.b64encode(entropy(_UFRAG_ENTROPY)).decode()
        return cls(ufrag, base64.b64encode(entropy(_PWD_ENTROPY)).decode())
