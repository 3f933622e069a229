"""Handshake messages of DTLS 1.2. To add one: its file, an import line and an entry in each of the tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from protocol.dtls.messages.certificate import Certificate, parse_certificate_untrusted
from protocol.dtls.messages.certificate_request import CertificateRequest, parse_certificate_request_untrusted
from protocol.dtls.messages.client_hello import ClientHello, parse_client_hello_untrusted
from protocol.dtls.messages.hello_verify_request import HelloVerifyRequest, parse_hello_verify_request_untrusted
from protocol.dtls.messages.key_exchange import (
    ClientKeyExchange,
    ServerKeyExchange,
    parse_client_key_exchange_untrusted,
    parse_server_key_exchange_untrusted,
)
from protocol.dtls.messages.proofs import (
    CertificateVerify,
    Finished,
    ServerHelloDone,
    parse_certificate_verify_untrusted,
    parse_finished_untrusted,
    parse_server_hello_done_untrusted,
)
from protocol.dtls.messages.server_hello import ServerHello, parse_server_hello_untrusted
from protocol.dtls.registry import HandshakeType

__all__ = [
    "MESSAGE_TYPES",
    "PARSERS",
    "Certificate",
    "CertificateRequest",
    "CertificateVerify",
    "ClientHello",
    "ClientKeyExchange",
    "Finished",
    "HelloVerifyRequest",
    "Message",
    "ServerHello",
    "ServerHelloDone",
    "ServerKeyExchange",
]

Message: TypeAlias = (
    ClientHello
    | ServerHello
    | HelloVerifyRequest
    | Certificate
    | ServerKeyExchange
    | CertificateRequest
    | ServerHelloDone
    | CertificateVerify
    | ClientKeyExchange
    | Finished
)

PARSERS: dict[int, Callable[[bytes], Message]] = {
    HandshakeType.CLIENT_HELLO: parse_client_hello_untrusted,
    HandshakeType.SERVER_HELLO: parse_server_hello_untrusted,
    HandshakeType.HELLO_VERIFY_REQUEST: parse_hello_verify_request_untrusted,
    HandshakeType.CERTIFICATE: parse_certificate_untrusted,
    HandshakeType.SERVER_KEY_EXCHANGE: parse_server_key_exchange_untrusted,
    HandshakeType.CERTIFICATE_REQUEST: parse_certificate_request_untrusted,
    HandshakeType.SERVER_HELLO_DONE: parse_server_hello_done_untrusted,
    HandshakeType.CERTIFICATE_VERIFY: parse_certificate_verify_untrusted,
    HandshakeType.CLIENT_KEY_EXCHANGE: parse_client_key_exchange_untrusted,
    HandshakeType.FINISHED: parse_finished_untrusted,
}

MESSAGE_TYPES: dict[type, int] = {
    message: message.message_type
    for message in (
        ClientHello,
        ServerHello,
        HelloVerifyRequest,
        Certificate,
        ServerKeyExchange,
        CertificateRequest,
        ServerHelloDone,
        CertificateVerify,
        ClientKeyExchange,
        Finished,
    )
}
