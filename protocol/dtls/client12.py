"""The client's side of a DTLS 1.2 handshake: RFC 5246 §7.3, RFC 6347 §4.2, RFC 8422 §2, RFC 5764 §4.

    client                                        server
    flight 1   ClientHello               ──▶
                                         ◀──  HelloVerifyRequest, at most twice
    flight 3   ClientHello with cookie   ──▶
                                         ◀──  ServerHello         1. accept the choice
                                              Certificate         2. judge its fingerprint
                                              ServerKeyExchange   3. verify that it is the server's own
                                              CertificateRequest  4. can we sign what it wants?
                                              ServerHelloDone     5. derive the keys, answer
    flight 5   Certificate               ──▶
               ClientKeyExchange
               CertificateVerify
               ChangeCipherSpec
               Finished
                                         ◀──  ChangeCipherSpec
                                              Finished            6. verify, done

A server that does not ask for our certificate is refused: WebRTC authenticates both sides (RFC 8827 §6.5).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import ClassVar

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from protocol.dtls.alerts import AlertDescription
from protocol.dtls.flights import FlightItem
from protocol.dtls.fragments import HandshakeMessage
from protocol.dtls.handshake12 import Action, Handler, Handshake12, Parameters, SendFlight, find_group
from protocol.dtls.messages import (
    Certificate,
    CertificateRequest,
    CertificateVerify,
    ClientHello,
    ClientKeyExchange,
    Finished,
    HelloVerifyRequest,
    ServerHello,
    ServerHelloDone,
    ServerKeyExchange,
)
from protocol.dtls.negotiate12 import accept, offer
from protocol.dtls.registry import ClientCertificateType, ProtocolVersion
from protocol.dtls.signatures import OUR_SCHEMES, SCHEMES, sign
from protocol.errors import LocalError, RemoteError
from protocol.fsm import Cell, Region, to

__all__ = ["Client12", "ClientState"]

_MAXIMUM_COOKIES = 2  # a server may change its secret between two hellos, but not for ever
_X = Cell.ILLEGAL


class ClientState(Enum):
    WAIT_HELLO = auto()
    WAIT_CERTIFICATE = auto()
    WAIT_KEY_EXCHANGE = auto()
    WAIT_REQUEST = auto()
    WAIT_HELLO_DONE = auto()
    WAIT_FINISHED = auto()
    DONE = auto()


class _Step(Enum):
    ANSWER_COOKIE = auto()
    ACCEPT = auto()
    JUDGE = auto()
    VERIFY = auto()
    CONSIDER_REQUEST = auto()
    REFUSE = auto()
    ANSWER = auto()
    FINISH = auto()


# As with the server: ILLEGAL is a fault of the peer, and the association's handshake_timeout covers every state.
_TABLE = Region(
    name="dtls12-client",
    initial=ClientState.WAIT_HELLO,
    events=(
        HelloVerifyRequest,
        ServerHello,
        Certificate,
        ServerKeyExchange,
        CertificateRequest,
        ServerHelloDone,
        Finished,
    ),
    rows={
        ClientState.WAIT_HELLO: (
            to(ClientState.WAIT_HELLO, _Step.ANSWER_COOKIE),
            to(ClientState.WAIT_CERTIFICATE, _Step.ACCEPT),
            *(_X,) * 5,
        ),
        ClientState.WAIT_CERTIFICATE: (*(_X,) * 2, to(ClientState.WAIT_KEY_EXCHANGE, _Step.JUDGE), *(_X,) * 4),
        ClientState.WAIT_KEY_EXCHANGE: (*(_X,) * 3, to(ClientState.WAIT_REQUEST, _Step.VERIFY), *(_X,) * 3),
        ClientState.WAIT_REQUEST: (
            *(_X,) * 4,
            to(ClientState.WAIT_HELLO_DONE, _Step.CONSIDER_REQUEST),
            to(ClientState.WAIT_REQUEST, _Step.REFUSE),
            _X,
        ),
        ClientState.WAIT_HELLO_DONE: (*(_X,) * 5, to(ClientState.WAIT_FINISHED, _Step.ANSWER), _X),
        ClientState.WAIT_FINISHED: (*(_X,) * 6, to(ClientState.DONE, _Step.FINISH)),
        ClientState.DONE: (_X,) * 7,
    },
)


class Client12(Handshake12):
    is_client: ClassVar[bool] = True
    region: ClassVar[Region] = _TABLE

    def __init__(self, parameters: Parameters) -> None:
        super().__init__(parameters)
        self._offered = offer(parameters.config, parameters.srtp_profiles)
        self._cookies = 0
        self._signature_scheme = 0
        self._server_public = b""

    def start(self) -> list[Action]:
        self._client_random = self._parameters.entropy(32)
        return [SendFlight((self._say(self._hello()),), answers=())]

    def _hello(self, cookie: bytes = b"") -> ClientHello:
        suites = tuple(suite.code for suite in self._parameters.config.suites)
        return ClientHello(
            ProtocolVersion.DTLS_1_2, self._client_random, suites, cookie=cookie, extensions=self._offered
        )

    @property
    def expects_change_cipher_spec(self) -> bool:
        return self._machine.state(ClientState) is ClientState.WAIT_FINISHED

    def _make_handlers(self) -> dict[Enum, Handler]:
        return {
            _Step.ANSWER_COOKIE: self._answer_cookie,
            _Step.ACCEPT: self._accept,
            _Step.JUDGE: self._judge_certificate,
            _Step.VERIFY: self._verify_key_exchange,
            _Step.CONSIDER_REQUEST: self._consider_request,
            _Step.REFUSE: self._refuse,
            _Step.ANSWER: self._answer,
            _Step.FINISH: self._finish,
        }

    def _answer_cookie(self, message: HelloVerifyRequest, raw: HandshakeMessage) -> list[Action]:
        self._cookies += 1
        if self._cookies > _MAXIMUM_COOKIES:
            raise RemoteError(AlertDescription.UNEXPECTED_MESSAGE, "too_many_cookies")
        self._transcript.restart()
        hello = self._say(self._hello(message.cookie))
        return [SendFlight((hello,), answers=(raw,))]

    def _accept(self, message: ServerHello, raw: HandshakeMessage) -> list[Action]:
        parameters = self._parameters
        choice = accept(message, self._offered, parameters.config, parameters.srtp_profiles)
        self._suite, self._srtp_profile = choice.suite, choice.srtp_profile
        self._server_random = message.random
        self._transcript.add(raw)
        return []

    def _judge_certificate(self, message: Certificate, raw: HandshakeMessage) -> list[Action]:
        self._judge(message)
        # RFC 8422 §2.1, §2.2: the suite says which kind of key the server has.
        if self._suite is None or (self._suite.authentication == "rsa") != isinstance(self._peer_key, RSAPublicKey):
            raise RemoteError(AlertDescription.UNSUPPORTED_CERTIFICATE, "certificate_of_another_suite")
        self._transcript.add(raw)
        return []

    def _verify_key_exchange(self, message: ServerKeyExchange, raw: HandshakeMessage) -> list[Action]:
        self._group = find_group(self._parameters.config.groups, message.group)
        signed = self._client_random + self._server_random + message.parameters()
        self._verify(message.signature_scheme, message.signature, signed)
        self._server_public = message.public
        self._transcript.add(raw)
        return []

    def _consider_request(self, message: CertificateRequest, raw: HandshakeMessage) -> list[Action]:
        schemes = [scheme for scheme in OUR_SCHEMES if scheme in message.signature_schemes and scheme in SCHEMES]
        if not schemes or ClientCertificateType.ECDSA_SIGN not in message.certificate_types:
            raise RemoteError(AlertDescription.HANDSHAKE_FAILURE, "no_common_signature_scheme")
        self._signature_scheme = schemes[0]
        self._transcript.add(raw)
        return []

    def _refuse(self, _message: ServerHelloDone, _raw: HandshakeMessage) -> list[Action]:
        raise RemoteError(AlertDescription.HANDSHAKE_FAILURE, "certificate_not_requested")

    def _answer(self, _message: ServerHelloDone, raw: HandshakeMessage) -> list[Action]:
        parameters = self._parameters
        if self._group is None:
            raise LocalError("no group chosen")
        self._transcript.add(raw)
        exchange = self._exchange = self._group.begin(parameters.entropy)
        certificate = self._say(Certificate((parameters.identity.certificate_der,)))
        key_exchange = self._say(ClientKeyExchange(exchange.public))
        self._derive(self._server_public)
        signature = sign(parameters.identity.private_key, self._signature_scheme, self._transcript.content())
        verify = self._say(CertificateVerify(self._signature_scheme, signature))
        finished = self._say(self._finished(is_client=True), epoch=1)
        flight = SendFlight((certificate, key_exchange, verify, FlightItem(None), finished), answers=(raw,))
        return [*self._make_keys(), flight]

    def _finish(self, message: Finished, _raw: HandshakeMessage) -> list[Action]:
        self._check_finished(message)
        return [self._establish()]
