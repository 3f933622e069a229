"""Peers that know the protocol and keep to none of its order: they say whatever letter they are told to.

A rogue is as strong as an attacker can be. It numbers each message as the core expects it, it keeps the transcript as
the core must have kept it, it derives the keys as soon as anybody could, and its Finished is right for what was said.
It has one secret that a real attacker lacks, the private key that the core expects, so that nothing but the order of
its messages can give it away.

The letters of both rogues: S ChangeCipherSpec, F Finished, A application data. What must be protected (F, A and the
client's N) is protected once the rogue has said S, under junk if it has no keys; before, it is in the clear.
"""

from __future__ import annotations

import copy
import functools
import hashlib
from types import SimpleNamespace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocol.dtls import DtlsConfig, Role
from protocol.dtls.fragments import HandshakeMessage, parse_fragments_untrusted
from protocol.dtls.groups.x25519 import X25519
from protocol.dtls.messages import (
    PARSERS,
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    ClientKeyExchange,
    Finished,
    HelloVerifyRequest,
    Message,
    ServerHello,
    ServerHelloDone,
    ServerKeyExchange,
)
from protocol.dtls.negotiate12 import choose, offer
from protocol.dtls.protection12 import Protection12
from protocol.dtls.record12 import EPOCH_SHIFT, pack_record, split_records_untrusted
from protocol.dtls.registry import ContentType
from protocol.dtls.schedule12 import Schedule12
from protocol.dtls.signatures import SCHEMES, sign
from protocol.dtls.suites import SUITES

CONFIG = DtlsConfig()
SUITE = SUITES[0]
SCHEME = 0x0403
SHARE = X25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = SHARE.public_key().public_bytes_raw()
CLOSE_NOTIFY = b"\1\0"


@functools.lru_cache(maxsize=64)
def shared_secret(public: bytes) -> bytes:
    return SHARE.exchange(X25519PublicKey.from_public_bytes(public))


sign_once = functools.lru_cache(maxsize=4096)(sign)


class Rogue:
    """What both roles share. All attributes hold immutable values, so that `branch` is a shallow copy."""

    is_client: bool

    def __init__(self, dtls: SimpleNamespace) -> None:
        self.identity = dtls.client_identity if self.is_client else dtls.server_identity
        self.srtp = dtls.srtp
        self.transcript = b""
        self.said: HandshakeMessage | None = None  # the last message, of which we do not know yet whether it was taken
        self.client_random = bytes(range(32))
        self.server_random = bytes(range(100, 132))
        self.peer_public = b""
        self.schedule: Schedule12 | None = None
        self.changed = False
        self.heard = -1  # the number of the core's last message
        self.numbers = (0, 1 << EPOCH_SHIFT)

    def branch(self) -> Rogue:
        return copy.copy(self)

    # Saying

    def say(self, letter: str, sequence: int) -> bytes:
        """A datagram with what the letter stands for; `sequence` is the message number that the core waits for."""
        self.said = None
        match letter:
            case "S":
                self.changed = True
                return self.record(ContentType.CHANGE_CIPHER_SPEC, b"\1")
            case "F":
                self.said = HandshakeMessage(Finished.message_type, sequence, self.finished(self.is_client).encode())
                return self.guarded(ContentType.HANDSHAKE, self.said.fragment(0, 100))
            case "A":
                return self.guarded(ContentType.APPLICATION_DATA, b"data")
            case "N":
                return self.guarded(ContentType.ALERT, CLOSE_NOTIFY)
        return self.message(self.make(letter), sequence)

    def make(self, letter: str) -> Message:
        raise NotImplementedError

    def message(self, message: Message, sequence: int) -> bytes:
        """A message in the clear."""
        self.said = HandshakeMessage(message.message_type, sequence, message.encode())
        return self.record(ContentType.HANDSHAKE, self.said.fragment(0, 5000))

    def guarded(self, content_type: int, payload: bytes) -> bytes:
        return self.protected(content_type, payload) if self.changed else self.record(content_type, payload)

    def record(self, content_type: int, payload: bytes) -> bytes:
        clear, protected = self.numbers
        self.numbers = clear + 1, protected
        return pack_record(content_type, clear, payload)

    def protected(self, content_type: int, payload: bytes) -> bytes:
        clear, protected = self.numbers
        self.numbers = clear, protected + 1
        if self.schedule is None:
            return pack_record(content_type, protected, bytes(8) + payload + bytes(16))
        return self.protection(self.is_client).seal(content_type, protected, payload)

    # Knowing

    def learn(self, taken: bool, answers: list[bytes]) -> None:
        """`taken`: the core went on by the last message."""
        if taken and self.said is not None:
            self.add(self.said)
        for answer in answers:
            for record in split_records_untrusted(answer)[0]:
                if record.content_type == ContentType.HANDSHAKE and not record.epoch:
                    for fragment in parse_fragments_untrusted(record.fragment):
                        raw = HandshakeMessage(fragment.message_type, fragment.sequence, fragment.body)
                        if raw.sequence > self.heard:
                            self.heard = raw.sequence
                            self.hear(raw, PARSERS[raw.message_type](raw.body))
                elif record.content_type == ContentType.HANDSHAKE and self.schedule is not None:
                    self.heard += 1
                    finished = self.finished(not self.is_client).encode()
                    self.add(HandshakeMessage(Finished.message_type, self.heard, finished))

    def hear(self, raw: HandshakeMessage, message: Message) -> None:
        raise NotImplementedError

    def add(self, raw: HandshakeMessage) -> None:
        self.transcript += raw.header() + raw.body

    def derive(self, upto: bytes) -> None:
        if self.peer_public:
            secret, session_hash = shared_secret(self.peer_public), hashlib.new(SUITE.hash_name, upto).digest()
            self.schedule = Schedule12.extended(SUITE, self.client_random, self.server_random, secret, session_hash)

    def protection(self, is_client: bool) -> Protection12:
        block = self.schedule.key_block()
        key, iv = (block.client_key, block.client_iv) if is_client else (block.server_key, block.server_iv)
        return Protection12(SUITE, key, iv)

    def finished(self, is_client: bool) -> Finished:
        if self.schedule is None:
            return Finished(bytes(12))
        return Finished(self.schedule.finished(is_client, hashlib.new(SUITE.hash_name, self.transcript).digest()))


class RogueClient(Rogue):
    """H ClientHello, C Certificate, E empty Certificate, K ClientKeyExchange, V CertificateVerify, N close_notify."""

    is_client = True

    def make(self, letter: str) -> Message:
        match letter:
            case "H":
                suites = tuple(suite.code for suite in SUITES)
                return ClientHello(0xFEFD, self.client_random, suites, extensions=offer(CONFIG, self.srtp))
            case "C":
                return Certificate((self.identity.certificate_der,))
            case "E":
                return Certificate(())
            case "K":
                return ClientKeyExchange(PUBLIC)
            case "V":
                return CertificateVerify(SCHEME, sign_once(self.identity.private_key, SCHEME, self.transcript))
        raise ValueError(letter)

    def say(self, letter: str, sequence: int) -> bytes:
        datagram = super().say(letter, sequence)
        if letter == "K" and self.schedule is None and self.said is not None:
            self.derive(self.transcript + self.said.header() + self.said.body)  # a key to begin with, taken or not
        return datagram

    def add(self, raw: HandshakeMessage) -> None:
        super().add(raw)
        if raw.message_type == ClientKeyExchange.message_type:
            self.derive(self.transcript)

    def hear(self, raw: HandshakeMessage, message: Message) -> None:
        self.add(raw)
        if isinstance(message, ServerHello):
            self.server_random = message.random
        if isinstance(message, ServerKeyExchange):
            self.peer_public = message.public


class RogueServer(Rogue):
    """R HelloVerifyRequest, H ServerHello, C Certificate, K ServerKeyExchange, Q CertificateRequest, D ServerHelloDone."""

    is_client = False

    def __init__(self, dtls: SimpleNamespace) -> None:
        super().__init__(dtls)
        self.hello: ClientHello | None = None

    def make(self, letter: str) -> Message:
        match letter:
            case "R":
                return HelloVerifyRequest(0xFEFF, b"cookie")
            case "H":
                extensions = choose(self.hello, CONFIG, self.srtp).extensions
                return ServerHello(0xFEFD, self.server_random, SUITE.code, extensions=extensions)
            case "C":
                return Certificate((self.identity.certificate_der,))
            case "K":
                unsigned = ServerKeyExchange(X25519.code, PUBLIC)
                signed = self.client_random + self.server_random + unsigned.parameters()
                signature = sign_once(self.identity.private_key, SCHEME, signed)
                return ServerKeyExchange(X25519.code, PUBLIC, SCHEME, signature)
            case "Q":
                return CertificateRequest((64,), SCHEMES)
            case "D":
                return ServerHelloDone()
        raise ValueError(letter)

    def hear(self, raw: HandshakeMessage, message: Message) -> None:
        if isinstance(message, ClientHello):
            self.hello, self.client_random, self.transcript = message, message.random, b""
        self.add(raw)
        if isinstance(message, ClientKeyExchange):
            self.peer_public = message.public
            self.derive(self.transcript)


class Talk:
    """A rogue and a core. The rogue counts its messages as a peer would, or by what the core took of them."""

    def __init__(self, dtls: SimpleNamespace, role: Role, *, adapts: bool = False) -> None:
        self.side = dtls.make_side(role)
        self.rogue = RogueClient(dtls) if role is Role.SERVER else RogueServer(dtls)
        self.adapts = adapts
        self.number = 0
        self.side.endpoint.start(0.0)
        self.rogue.learn(False, self.side.drain())

    @property
    def next_number(self) -> int:
        """The number of the message that the core waits for."""
        return self.side.endpoint._association._reassembler.next_sequence

    def say(self, letters: str, now: float = 0.0) -> list[bytes]:
        """All that the core answers."""
        answers = []
        for letter in letters:
            number = self.next_number if self.adapts else self.number
            given = self.side.receive(self.rogue.say(letter, number), now)
            is_message = self.rogue.said is not None
            self.number += is_message
            self.rogue.learn(self.next_number > number if self.adapts else is_message, given)
            answers += given
        return answers
