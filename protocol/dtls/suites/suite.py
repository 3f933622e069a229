"""What a cipher suite is to us: a record of facts. The code that uses them knows no suite by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["Aead", "CipherSuite"]


class Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class CipherSuite:
    code: int
    name: str  # IANA spelling
    authentication: Literal["ecdsa", "rsa"]  # what the key in the server's certificate signs with
    hash_name: str  # of the pseudo-random function and the transcript, as hashlib spells it
    key_length: int
    fixed_iv_length: int  # bytes of nonce from the key block
    explicit_nonce_length: int  # bytes of nonce in each record: 8 or 0
    aead: Callable[[bytes], Aead]
