"""What both roles of a DTLS 1.2 handshake share: RFC 5246 §7.3, RFC 6347 §4.2.

A handshake is fed whole messages in order and gives back actions: flights to send, keys to install, the end. It knows
nothing of records, fragments and timers; the association does, and knows nothing of what messages mean.

1. `expects` tells from the table of the role which messages may come now. Others never get here: before there are
   keys anybody can send one, so they are dropped where RFC 5246 §7.2.2 would end the handshake (unexpected_message).
2. The body is parsed; what cannot be parsed is fatal (decode_error).
3. The table moves and names the step; the step's handler checks the message and gives the actions.

Every message is put into the transcript by its handler, since each handler needs it before or after its own work.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, TypeAlias

from protocol.dtls.alerts import AlertDescription
from protocol.dtls.certificates import PublicKey, public_key_untrusted
from protocol.dtls.config import DtlsConfig
from protocol.dtls.cookies import VerifiedHello
from protocol.dtls.fingerprint import Fingerprint, matches_any
from protocol.dtls.flights import FlightItem
from protocol.dtls.fragments import HandshakeMessage
from protocol.dtls.groups import Group, KeyExchange
from protocol.dtls.identity import Identity
from protocol.dtls.messages import MESSAGE_TYPES, PARSERS, Certificate, Finished, Message
from protocol.dtls.protection12 import Protection12
from protocol.dtls.schedule12 import Schedule12
from protocol.dtls.signatures import verify_untrusted
from protocol.dtls.suites import CipherSuite
from protocol.dtls.transcript import Transcript
from protocol.errors import DecodeError, LocalError, RemoteError
from protocol.fsm import Machine, Region, To
from protocol.wire import Entropy

__all__ = [
    "Action",
    "Established",
    "Handshake12",
    "InstallRead",
    "InstallWrite",
    "Parameters",
    "SendFlight",
    "find_group",
]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a handshake is given."""

    identity: Identity
    peer_fingerprints: tuple[Fingerprint, ...]
    srtp_profiles: tuple[int, ...]  # preference order; none: no SRTP
    entropy: Entropy
    config: DtlsConfig
    verified: VerifiedHello | None = None  # a cookie exchange went before


@dataclass(frozen=True, slots=True)
class SendFlight:
    items: tuple[FlightItem, ...]
    answers: tuple[HandshakeMessage, ...]  # of the peer, whose repetition shows that it has not seen this flight
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class InstallRead:
    protection: Protection12


@dataclass(frozen=True, slots=True)
class InstallWrite:
    protection: Protection12


@dataclass(frozen=True, slots=True)
class Established:
    schedule: Schedule12
    group: Group
    srtp_profile: int | None


Action: TypeAlias = SendFlight | InstallRead | InstallWrite | Established
Handler: TypeAlias = Callable[[Any, HandshakeMessage], list[Action]]


class Handshake12(ABC):
    """One handshake; the roles fill in the table and the handlers."""

    is_client: ClassVar[bool]
    region: ClassVar[Region]
    _expected: ClassVar[dict[Enum, frozenset[int]]]  # message types by state, read off the table

    def __init_subclass__(cls) -> None:
        events = cls.region.events
        cls._expected = {
            state: frozenset(MESSAGE_TYPES[event] for event, cell in zip(events, row) if isinstance(cell, To))
            for state, row in cls.region.rows.items()
        }

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self._machine = Machine((self.region,))
        self._transcript = Transcript()
        # The hello that was answered with a cookie, and its answer, had the numbers before.
        self._next_sequence = parameters.verified.message_sequence if parameters.verified else 0
        self._client_random = b""
        self._server_random = b""
        self._peer_key: PublicKey | None = None
        self._exchange: KeyExchange | None = None
        self._group: Group | None = None
        self._suite: CipherSuite | None = None
        self._srtp_profile: int | None = None
        self._schedule: Schedule12 | None = None

    @abstractmethod
    def start(self) -> list[Action]:
        """What is to be done before the peer has said anything."""

    @abstractmethod
    def _make_handlers(self) -> dict[Enum, Handler]:
        """By step. Not kept: bound methods in an attribute are a cycle, and calls come and go by reference counts alone."""

    def expects(self, message_type: int) -> bool:
        """Whether the table lets a message of this type come now."""
        return message_type in self._expected[self._machine.state(type(self.region.initial))]

    @property
    @abstractmethod
    def expects_change_cipher_spec(self) -> bool:
        """Whether the peer's flight that has it may have begun. Within its flight it comes whenever it comes: it has
        no message number, and datagrams overtake each other."""

    def receive(self, raw: HandshakeMessage) -> list[Action]:
        """The next message of the peer. Raises RemoteError, fatal to the association."""
        if not self.expects(raw.message_type):
            raise RemoteError(AlertDescription.UNEXPECTED_MESSAGE, "unexpected_message")
        message = self._parse(raw)
        actions: list[Action] = []
        for step in self._machine.fire(message):
            actions += self._make_handlers()[step](message, raw)
        return actions

    @staticmethod
    def _parse(raw: HandshakeMessage) -> Message:
        try:
            return PARSERS[raw.message_type](raw.body)
        except DecodeError as error:
            raise RemoteError(AlertDescription.DECODE_ERROR, error.reason) from None

    # What the handlers of both roles use

    def _say(self, message: Message, epoch: int = 0) -> FlightItem:
        """Our next message: numbered, and in the transcript."""
        raw = HandshakeMessage(message.message_type, self._next_sequence, message.encode())
        self._next_sequence += 1
        self._transcript.add(raw)
        return FlightItem(raw, epoch)

    def _judge(self, message: Certificate) -> None:
        """The peer is who signalling says it is, or the handshake ends here, before there is any key."""
        if not message.chain:
            raise RemoteError(AlertDescription.HANDSHAKE_FAILURE, "certificate_missing")
        certificate = message.chain[0]
        if not matches_any(self._parameters.peer_fingerprints, certificate):
            raise RemoteError(AlertDescription.BAD_CERTIFICATE, "fingerprint_mismatch")
        try:
            self._peer_key = public_key_untrusted(certificate)
        except DecodeError as error:
            raise RemoteError(AlertDescription.UNSUPPORTED_CERTIFICATE, error.reason) from None

    def _verify(self, scheme: int, signature: bytes, data: bytes) -> None:
        if self._peer_key is None:
            raise LocalError("a signature before a certificate")
        try:
            verify_untrusted(self._peer_key, scheme, signature, data)
        except DecodeError as error:
            alert = (
                AlertDescription.DECRYPT_ERROR if error.reason == "signature" else AlertDescription.ILLEGAL_PARAMETER
            )
            raise RemoteError(alert, error.reason) from None

    def _derive(self, peer_public: bytes) -> Schedule12:
        """The master secret, bound to the transcript up to and including ClientKeyExchange (RFC 7627 §3)."""
        if self._exchange is None or self._suite is None:
            raise LocalError("keys before the hello")
        try:
            secret = self._exchange.shared_untrusted(peer_public)
        except DecodeError as error:
            raise RemoteError(AlertDescription.ILLEGAL_PARAMETER, error.reason) from None
        self._exchange = None
        session_hash = self._transcript.hash(self._suite.hash_name)
        schedule = Schedule12.extended(self._suite, self._client_random, self._server_random, secret, session_hash)
        self._schedule = schedule
        return schedule

    def _make_keys(self) -> tuple[InstallRead, InstallWrite]:
        """The keys of both directions; each is installed at its own time."""
        schedule = self._derived()
        block, suite = schedule.key_block(), schedule.suite
        client = Protection12(suite, block.client_key, block.client_iv)
        server = Protection12(suite, block.server_key, block.server_iv)
        if self.is_client:
            return InstallRead(server), InstallWrite(client)
        return InstallRead(client), InstallWrite(server)

    def _finished(self, is_client: bool) -> Finished:
        schedule = self._derived()
        return Finished(schedule.finished(is_client, self._transcript.hash(schedule.suite.hash_name)))

    def _check_finished(self, message: Finished) -> None:
        if not hmac.compare_digest(self._finished(not self.is_client).verify_data, message.verify_data):
            raise RemoteError(AlertDescription.DECRYPT_ERROR, "finished_mismatch")

    def _establish(self) -> Established:
        if self._group is None:
            raise LocalError("established without a group")
        self._transcript.restart()  # a few kilobytes of each call that nobody asks for again
        return Established(self._derived(), self._group, self._srtp_profile)

    def _derived(self) -> Schedule12:
        if self._schedule is None:
            raise LocalError("no keys yet")
        return self._schedule


def find_group(groups: Sequence[Group], code: int) -> Group:
    for group in groups:
        if group.code == code:
            return group
    raise RemoteError(AlertDescription.ILLEGAL_PARAMETER, "group")
