"""Key schedule of DTLS 1.2: RFC 5246 §5, §6.3, §8.1; RFC 7627 (extended master secret); RFC 5705 (exporter).

pre-master secret ─┬─ PRF("extended master secret", hash of the transcript) ─▶ master secret
                   │
master secret ─────┼─ PRF("key expansion", server random + client random) ──▶ keys and IVs of both directions
                   ├─ PRF("client finished" | "server finished", hash of the transcript) ─▶ 12 bytes each
                   └─ PRF(label, client random + server random [+ context]) ─▶ exported keys
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.hmac import HMAC

from protocol.dtls.suites import CipherSuite

__all__ = ["KeyBlock", "Schedule12", "prf"]

_MASTER_SECRET_LENGTH = 48
_VERIFY_DATA_LENGTH = 12
_HASHES: dict[str, HashAlgorithm] = {"sha256": SHA256(), "sha384": SHA384()}


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """P_hash of RFC 5246 §5."""
    keyed = HMAC(secret, _HASHES[hash_name])  # the key is taken in once
    seed = label + seed
    chain, output = seed, b""
    while len(output) < length:
        chain = _mac(keyed, chain)
        output += _mac(keyed, chain + seed)
    return output[:length]


def _mac(keyed: HMAC, data: bytes) -> bytes:
    mac = keyed.copy()
    mac.update(data)
    return mac.finalize()


@dataclass(frozen=True, slots=True)
class KeyBlock:
    client_key: bytes
    server_key: bytes
    client_iv: bytes
    server_iv: bytes


@dataclass(frozen=True, slots=True, repr=False)
class Schedule12:
    suite: CipherSuite
    client_random: bytes
    server_random: bytes
    master_secret: bytes

    @classmethod
    def extended(
        cls, suite: CipherSuite, client_random: bytes, server_random: bytes, pre_master: bytes, session_hash: bytes
    ) -> Schedule12:
        """RFC 7627 §4: the master secret is bound to the whole handshake, not to the two randoms alone."""
        master = prf(suite.hash_name, pre_master, b"extended master secret", session_hash, _MASTER_SECRET_LENGTH)
        return cls(suite, client_random, server_random, master)

    def key_block(self) -> KeyBlock:
        suite = self.suite
        key, iv = suite.key_length, suite.fixed_iv_length
        seed = self.server_random + self.client_random
        block = prf(suite.hash_name, self.master_secret, b"key expansion", seed, 2 * (key + iv))
        return KeyBlock(block[:key], block[key : 2 * key], block[2 * key : 2 * key + iv], block[2 * key + iv :])

    def finished(self, is_client: bool, transcript_hash: bytes) -> bytes:
        label = b"client finished" if is_client else b"server finished"
        return prf(self.suite.hash_name, self.master_secret, label, transcript_hash, _VERIFY_DATA_LENGTH)

    def export(self, label: bytes, context: bytes | None, length: int) -> bytes:
        """RFC 5705 §4. No context and an empty context differ."""
        seed = self.client_random + self.server_random
        if context is not None:
            seed += len(context).to_bytes(2, "big") + context
        return prf(self.suite.hash_name, self.master_secret, label, seed, length)
