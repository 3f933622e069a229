"""The cookie exchange of a bare listener: RFC 6347 §4.2.1. No state before an address has proved that it can hear us.

    client                                  listener
    ClientHello                  ──▶
                                 ◀──        HelloVerifyRequest: a cookie, and nothing remembered
    ClientHello with the cookie  ──▶        now an endpoint is made for this address and given the same datagram

The cookie is an HMAC over the address and what the client must repeat (version, random, session, suites, compression).
All of that stands at the beginning of a hello, so the first fragment of one that came in pieces will do; the rest of it
is dropped, and comes again with the cookie.

The secret is drawn anew every minute, and the one before is honoured for another. A wrong cookie is treated as none:
the secret may have changed meanwhile. A request is never shorter than its answer, so we are no amplifier.

Nothing of this is used behind ICE: there an address has shown a password before DTLS begins, and until it has shown that
it hears us, too, the peer layer limits what is sent to it.
"""

from __future__ import annotations

import hmac
from collections import Counter
from dataclasses import dataclass

from protocol.dtls.events import Datagram
from protocol.dtls.fragments import Fragment, HandshakeMessage, parse_fragments_untrusted
from protocol.dtls.messages import HelloVerifyRequest
from protocol.dtls.record12 import Record, pack_record, split_records_untrusted
from protocol.dtls.registry import ContentType, HandshakeType, ProtocolVersion
from protocol.errors import DecodeError
from protocol.wire import Entropy, Reader

__all__ = ["CookieExchange", "VerifiedHello"]

# Implementation constants

_SECRET_LENGTH = 32
_SECRET_LIFETIME = 60.0  # seconds; a cookie is good for one to two of them, a handshake needs a round trip
_MAXIMUM_MESSAGE_SEQUENCE = 8  # an honest client is at 1, or a little higher if cookies went stale
_MAXIMUM_RECORD_SEQUENCE = 1 << 32  # our own numbers go on from there and must not run into the next epoch


@dataclass(frozen=True, slots=True)
class VerifiedHello:
    """A hello with a good cookie: where the numbers of the server's messages and records begin."""

    message_sequence: int
    record_sequence: int


class CookieExchange:
    """One for each listening socket. `drops` counts what was no hello, by reason."""

    def __init__(self, entropy: Entropy, now: float) -> None:
        self._entropy = entropy
        self._current = self._previous = entropy(_SECRET_LENGTH)
        self._changes_at = now + _SECRET_LIFETIME
        self.drops: Counter[str] = Counter()

    def receive_untrusted(self, data: bytes, address: bytes, now: float) -> Datagram | VerifiedHello | None:
        """Judges a datagram from an address (host and port, in any unambiguous form) that has no endpoint yet.

        A Datagram goes back to the address. For a VerifiedHello make the endpoint and give it this datagram. None:
        dropped and counted.
        """
        try:
            record, fragment = _first_fragment_untrusted(data)
            bound, presented = _split_cookie_untrusted(fragment.body)
        except DecodeError as error:
            self.drops[error.reason] += 1
            return None
        self._change_secret(now)
        bound = len(address).to_bytes(2, "big") + address + bound
        cookie = hmac.digest(self._current, bound, "sha256")
        # Both are compared, so that time does not tell which secret it was.
        good = hmac.compare_digest(cookie, presented)
        good |= hmac.compare_digest(hmac.digest(self._previous, bound, "sha256"), presented)
        if good:
            return VerifiedHello(fragment.sequence, record.number)
        # The server does not know how often it has been asked: it repeats the client's numbers, so that none comes
        # twice. RFC 6347 §4.2.1 asks for the version of DTLS 1.0 here, whatever will be negotiated.
        answer = HelloVerifyRequest(ProtocolVersion.DTLS_1_0, cookie)
        message = HandshakeMessage(answer.message_type, fragment.sequence, answer.encode())
        payload = message.fragment(0, len(message.body))
        return Datagram(pack_record(ContentType.HANDSHAKE, record.number, payload, ProtocolVersion.DTLS_1_0))

    def _change_secret(self, now: float) -> None:
        late = now - self._changes_at
        if late < 0:
            return
        self._previous = self._current if late < _SECRET_LIFETIME else self._entropy(_SECRET_LENGTH)
        self._current = self._entropy(_SECRET_LENGTH)
        self._changes_at = now + _SECRET_LIFETIME


def _first_fragment_untrusted(data: bytes) -> tuple[Record, Fragment]:
    records, damage = split_records_untrusted(data)
    if not records:
        raise DecodeError(damage or "record_truncated")
    record = records[0]
    if record.content_type != ContentType.HANDSHAKE or record.number > _MAXIMUM_RECORD_SEQUENCE:
        raise DecodeError("not_a_hello")
    fragment = parse_fragments_untrusted(record.fragment)[0]
    if fragment.message_type != HandshakeType.CLIENT_HELLO or fragment.sequence > _MAXIMUM_MESSAGE_SEQUENCE:
        raise DecodeError("not_a_hello")
    if fragment.offset:
        raise DecodeError("not_the_beginning_of_a_hello")
    return record, fragment


def _split_cookie_untrusted(hello: bytes) -> tuple[bytes, bytes]:
    """What a client repeats in its second hello (RFC 6347 §4.2.1), and the cookie in it; extensions are not read."""
    reader = Reader(hello)
    reader.skip(2 + 32)  # version, random
    reader.opaque(1)  # session
    before = reader.position
    cookie = reader.opaque(1)
    after = reader.position
    reader.opaque(2)  # suites
    reader.opaque(1)  # compression
    return hello[:before] + hello[after : reader.position], cookie
