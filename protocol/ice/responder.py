"""The server half of a connectivity check: is this request authentic, and what is the answer (RFC 8489 §9.1.3).

What does not pass MESSAGE-INTEGRITY gets no answer at all and is counted, instead of a 400 or 401: an answer would
tell a scanner that a call lives behind this address, and would let us be used as a reflector. (RFC 8489 §9.1.3:
"the server MUST generate an error response"; RFC 8445 runs over media ports, where silence is the common practice.)
Authentic requests with a fault are told so:

    401  the password is ours, but the USERNAME is not `our ufrag:their ufrag`     without integrity, as §9.1.3 has it
    400  no USERNAME                                                               without integrity
    420  a comprehension-required attribute that we do not know
    487  both sides claim the same role (decided by the agent, RFC 8445 §7.3.1.1)

No answer is longer than its request: a forged source address never gains bytes by us.
"""

from __future__ import annotations

from protocol.address import TransportAddress
from protocol.errors import DecodeError
from protocol.ice.credentials import IceCredentials
from protocol.stun.binding import Binding, authenticate, binding_error, binding_success

__all__ = ["Responder"]


class Responder:
    """Judges and answers the requests of one peer. Holds no state but the credentials."""

    __slots__ = ("_key", "_username", "prefix")

    def __init__(self, local: IceCredentials, remote: IceCredentials) -> None:
        self._key = local.pwd.encode()
        self.prefix = f"{local.ufrag}:".encode()  # of every USERNAME that is meant for us
        self._username = f"{local.ufrag}:{remote.ufrag}".encode()

    def judge_untrusted(self, data: bytes, binding: Binding) -> bytes | None:
        """None for an authentic request, an error answer for a faulty one; DecodeError where silence is due."""
        if not (binding.integrity or binding.integrity_sha256):
            raise DecodeError("stun_integrity_missing")
        if not authenticate(data, binding, self._key):
            raise DecodeError("stun_integrity")
        if binding.unknown:
            return self._error_untrusted(data, binding, 420, b"Unknown Attribute", binding.unknown)
        if binding.username is None:
            return self._error_untrusted(data, binding, 400, b"Bad Request")
        if binding.username != self._username:
            return self._error_untrusted(data, binding, 401, b"Unauthorized")
        return None

    def role_conflict_untrusted(self, data: bytes, binding: Binding) -> bytes:
        return self._error_untrusted(data, binding, 487, b"Role Conflict")

    def success_untrusted(self, data: bytes, binding: Binding, address: TransportAddress) -> bytes:
        answer = binding_success(binding.transaction_id, address, self._key, binding.integrity_kind)
        if len(answer) > len(data):
            raise DecodeError("stun_answer_length")
        return answer

    def _error_untrusted(
        self, data: bytes, binding: Binding, code: int, reason: bytes, unknown: tuple[int, ...] = ()
    ) -> bytes:
        key = None if code in (400, 401) else self._key
        answer = binding_error(binding.transaction_id, code, reason, key, binding.integrity_kind, unknown)
        if len(answer) > len(data):
            raise DecodeError("stun_answer_length")
        return answer
