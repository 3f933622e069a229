"""The transcript of a handshake: RFC 6347 §4.2.6.

Every message counts as if it had come in one fragment, with the DTLS header. The bytes themselves are kept until the
handshake is done, since an Ed25519 CertificateVerify signs the transcript and not a hash of it (RFC 8422 §5.10). Their
number is bounded by the sizes the reassembly admits.
"""

from __future__ import annotations

import hashlib

from protocol.dtls.fragments import HandshakeMessage

__all__ = ["Transcript"]


class Transcript:
    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def add(self, message: HandshakeMessage) -> None:
        self._data += message.header()
        self._data += message.body

    def restart(self) -> None:
        """After a HelloVerifyRequest: it and the first hello do not count (RFC 6347 §4.2.1). And when all is done."""
        self._data.clear()

    def content(self) -> bytes:
        return bytes(self._data)

    def hash(self, hash_name: str) -> bytes:
        return hashlib.new(hash_name, self._data).digest()
