"""The server's side of a DTLS 1.2 handshake: RFC 5246 §7.3, RFC 8422 §2, RFC 5764 §4.

    client                                        server
    flight 1   ClientHello               ──▶                    1. negotiate
                                         ◀──  ServerHello
                                              Certificate
                                              ServerKeyExchange
                                              CertificateRequest
                                              ServerHelloDone   flight 4
    flight 5   Certificate               ──▶                    2. judge its fingerprint
               ClientKeyExchange                                3. derive the keys
               CertificateVerify                                4. verify that the certificate is the client's own
               ChangeCipherSpec
               Finished                                         5. verify, answer, done
                                         ◀──  ChangeCipherSpec
                                              Finished          flight 6

Flights 2 and 3 (HelloVerifyRequest) are not here: ICE proves the address, or a bare listener has by its cookie exchange.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import ClassVar

from protocol.dtls.flights import FlightItem
from protocol.dtls.fragments import HandshakeMessage
from protocol.dtls.handshake12 import Action, Handler, Handshake12, InstallWrite, Parameters, SendFlight
from protocol.dtls.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    ClientKeyExchange,
    Finished,
    ServerHello,
    ServerHelloDone,
    ServerKeyExchange,
)
from protocol.dtls.negotiate12 import choose
from protocol.dtls.registry import ClientCertificateType, ProtocolVersion
from protocol.dtls.signatures import SCHEMES, sign
from protocol.errors import LocalError
from protocol.fsm import Cell, Region, to

__all__ = ["Server12", "ServerState"]

_X = Cell.ILLEGAL


class ServerState(Enum):
    WAIT_HELLO = auto()
    WAIT_CERTIFICATE = auto()
    WAIT_KEY_EXCHANGE = auto()
    WAIT_VERIFY = auto()
    WAIT_FINISHED = auto()
    DONE = auto()


class _Step(Enum):
    NEGOTIATE = auto()
    JUDGE = auto()
    DERIVE = auto()
    VERIFY = auto()
    FINISH = auto()


# An ILLEGAL cell is a fault of the peer: the handshake asks the table before it fires. No state has a deadline of its
# own: the association's handshake_timeout covers them all.
_TABLE = Region(
    name="dtls12-server",
    initial=ServerState.WAIT_HELLO,
    events=(ClientHello, Certificate, ClientKeyExchange, CertificateVerify, Finished),
    rows={
        ServerState.WAIT_HELLO: (to(ServerState.WAIT_CERTIFICATE, _Step.NEGOTIATE), _X, _X, _X, _X),
        ServerState.WAIT_CERTIFICATE: (_X, to(ServerState.WAIT_KEY_EXCHANGE, _Step.JUDGE), _X, _X, _X),
        ServerState.WAIT_KEY_EXCHANGE: (_X, _X, to(ServerState.WAIT_VERIFY, _Step.DERIVE), _X, _X),
        ServerState.WAIT_VERIFY: (_X, _X, _X, to(ServerState.WAIT_FINISHED, _Step.VERIFY), _X),
        ServerState.WAIT_FINISHED: (_X, _X, _X, _X, to(ServerState.DONE, _Step.FINISH)),
        ServerState.DONE: (_X, _X, _X, _X, _X),
    },
)


class Server12(Handshake12):
    is_client: ClassVar[bool] = False
    region: ClassVar[Region] = _TABLE

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._write_keys: InstallWrite | None = None
        self._verify_message: tuple[HandshakeMessage, ...] = ()

    def start(self) -> list[Action]:
        return []

    @property
    def expects_change_cipher_spec(self) -> bool:
        return self._machine.state(ServerState) is not ServerState.WAIT_HELLO

    def _make_handlers(self) -> dict[Enum, Handler]:
        return {
            _Step.NEGOTIATE: self._negotiate,
            _Step.JUDGE: self._judge_certificate,
            _Step.DERIVE: self._derive_keys,
            _Step.VERIFY: self._verify_certificate,
            _Step.FINISH: self._finish,
        }

    def _negotiate(self, hello: ClientHello, raw: HandshakeMessage) -> list[Action]:
        parameters = self._parameters
        choice = choose(hello, parameters.config, parameters.srtp_profiles)
        self._transcript.add(raw)
        self._client_random = hello.random
        self._server_random = parameters.entropy(32)
        self._suite, self._group, self._srtp_profile = choice.suite, choice.group, choice.srtp_profile
        exchange = self._exchange = choice.group.begin(parameters.entropy)

        unsigned = ServerKeyExchange(choice.group.code, exchange.public)
        signed = self._client_random + self._server_random + unsigned.parameters()
        signature = sign(parameters.identity.private_key, choice.signature_scheme, signed)
        flight = (
            ServerHello(ProtocolVersion.DTLS_1_2, self._server_random, choice.suite.code, extensions=choice.extensions),
            Certificate((parameters.identity.certificate_der,)),
            ServerKeyExchange(choice.group.code, exchange.public, choice.signature_scheme, signature),
            CertificateRequest((ClientCertificateType.ECDSA_SIGN, ClientCertificateType.RSA_SIGN), SCHEMES),
            ServerHelloDone(),
        )
        items = tuple(self._say(message) for message in flight)
        return [SendFlight(items, answers=(raw,))]

    def _judge_certificate(self, message: Certificate, raw: HandshakeMessage) -> list[Action]:
        self._judge(message)
        self._transcript.add(raw)
        return []

    def _derive_keys(self, message: ClientKeyExchange, raw: HandshakeMessage) -> list[Action]:
        self._transcript.add(raw)
        self._derive(message.public)
        return []  # nothing is decrypted before the client has proved its certificate

    def _verify_certificate(self, message: CertificateVerify, raw: HandshakeMessage) -> list[Action]:
        self._verify(message.signature_scheme, message.signature, self._transcript.content())
        self._transcript.add(raw)
        self._verify_message = (raw,)
        read, self._write_keys = self._make_keys()
        return [read]

    def _finish(self, message: Finished, raw: HandshakeMessage) -> list[Action]:
        self._check_finished(message)
        self._transcript.add(raw)
        items = (FlightItem(None), self._say(self._finished(is_client=False), epoch=1))
        # A client that repeats its flight has not seen ours. Its Finished says so; its CertificateVerify too, for
        # peers that repeat record numbers, whose second Finished the replay window rightly refuses.
        answers = (*self._verify_message, raw)
        if self._write_keys is None:
            raise LocalError("finished before the keys")
        return [self._write_keys, SendFlight(items, answers, is_final=True), self._establish()]
