"""Our endpoints against those of OpenSSL, through memory: an implementation that is not ours agrees on every byte."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from OpenSSL import SSL, crypto

from protocol.dtls import GROUPS, SUITES, DtlsConfig, Fingerprint, Role, negotiate12
from protocol.dtls.groups import SECP256R1

CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": b"ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": b"ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": b"ECDHE-ECDSA-CHACHA20-POLY1305",
}
CIPHERS |= {name.replace("ECDSA", "RSA"): value.replace(b"ECDSA", b"RSA") for name, value in CIPHERS.items()}
SERVER_SUITES = [suite for suite in SUITES if suite.authentication == "ecdsa"]  # what our own certificate is good for
SRTP_NAMES = {
    1: b"SRTP_AES128_CM_SHA1_80",
    7: b"SRTP_AEAD_AES_128_GCM",
    8: b"SRTP_AEAD_AES_256_GCM",
}
SRTP_LENGTHS = {1: 60, 7: 56, 8: 88}
KEYS = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
}


@functools.cache
def make_certificate(wall, kind: str):
    key = KEYS[kind]()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, kind)])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(7).not_valid_before(wall).not_valid_after(wall.replace(year=2036))
    return key, builder.sign(key, None if kind == "ed25519" else hashes.SHA256())


@dataclass
class OpenSslPeer:
    connection: SSL.Connection
    fingerprint: Fingerprint
    received: list[bytes] = field(default_factory=list)
    handshaken: bool = False

    def step(self) -> None:
        try:
            if not self.handshaken:
                self.connection.do_handshake()
                self.handshaken = True
            self.received.append(self.connection.recv(4096))
        except SSL.WantReadError:
            pass

    def pull(self) -> list[bytes]:
        """Whatever it wrote, as datagrams: the memory BIO keeps no boundaries, the record headers give them back."""
        try:
            data = self.connection.bio_read(65536)
        except SSL.WantReadError:
            return []
        datagrams = []
        while data:
            length = 13 + int.from_bytes(data[11:13], "big")
            datagrams.append(data[:length])
            data = data[length:]
        return datagrams


def make_openssl(wall, role: str, *, kind="p256", ciphers=b"ALL", srtp=(7, 8, 1), cookie=b"", mtu=1200):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        context = SSL.Context(SSL.DTLS_CLIENT_METHOD if role == "client" else SSL.DTLS_SERVER_METHOD)
        key, certificate = make_certificate(wall, kind)
        context.use_certificate(crypto.X509.from_cryptography(certificate))
        context.use_privatekey(crypto.PKey.from_cryptography_key(key))
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, lambda *_: True)
    context.set_cipher_list(ciphers)
    if cookie:
        context.set_options(SSL.OP_COOKIE_EXCHANGE)
        context.set_cookie_generate_callback(lambda _: cookie)
        context.set_cookie_verify_callback(lambda _, seen: seen == cookie)
    if srtp:
        context.set_tlsext_use_srtp(b":".join(SRTP_NAMES[profile] for profile in srtp))
    connection = SSL.Connection(context)
    if role == "client":
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    connection.set_ciphertext_mtu(mtu)
    der = certificate.public_bytes(serialization.Encoding.DER)
    return OpenSslPeer(connection, Fingerprint.of(der))


def exchange(side, peer: OpenSslPeer, rounds: int = 12) -> None:
    now = 0.0
    peer.step()
    for _ in range(rounds):
        for datagram in side.drain():
            peer.connection.bio_write(datagram)
            peer.step()
        for datagram in peer.pull():
            side.endpoint.receive_untrusted(datagram, now)
        now += 0.001


def talk(side, peer: OpenSslPeer) -> None:
    side.endpoint.send(b"from us", 1.0)
    peer.connection.send(b"from them")
    exchange(side, peer)
    assert peer.received == [b"from us"]
    assert side.received == [b"from them"]


def check_keys(side, peer: OpenSslPeer, is_client: bool) -> None:
    srtp = side.connected.srtp
    assert peer.connection.get_selected_srtp_profile() == SRTP_NAMES[srtp.profile]
    length = SRTP_LENGTHS[srtp.profile]
    theirs = peer.connection.export_keying_material(b"EXTRACTOR-dtls_srtp", length)
    assert side.endpoint.export_keying_material(b"EXTRACTOR-dtls_srtp", None, length) == theirs
    half = {1: 16, 7: 16, 8: 32}[srtp.profile]
    salt = length // 2 - half
    client = theirs[:half] + theirs[2 * half : 2 * half + salt]
    server = theirs[half : 2 * half] + theirs[2 * half + salt :]
    assert (srtp.local, srtp.remote) == ((client, server) if is_client else (server, client))
    assert side.endpoint.export_keying_material(b"EXPERIMENTAL", b"abc", 33) == peer.connection.export_keying_material(
        b"EXPERIMENTAL", 33, b"abc"
    )


@pytest.mark.parametrize("suite", SERVER_SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_our_server_serves_an_openssl_client(dtls: SimpleNamespace, suite, group) -> None:
    peer = make_openssl(dtls.wall, "client", ciphers=CIPHERS[suite.name])
    side = dtls.make_side(Role.SERVER, peer=(peer.fingerprint,), config=DtlsConfig(groups=(group,)))
    exchange(side, peer)
    assert side.connected.cipher_suite == suite.name
    assert side.connected.group == group.name
    check_keys(side, peer, is_client=False)
    talk(side, peer)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_our_client_is_served_by_an_openssl_server(dtls: SimpleNamespace, suite, group) -> None:
    peer = make_openssl(dtls.wall, "server", kind="rsa2048" if suite.authentication == "rsa" else "p256")
    # OpenSSL presents a certificate only if its curve is among the client's groups (RFC 4492 §5.1 read strictly).
    config = DtlsConfig(suites=(suite,), groups=(group, SECP256R1))
    side = dtls.make_side(Role.CLIENT, peer=(peer.fingerprint,), config=config)
    side.endpoint.start(0.0)
    exchange(side, peer)
    assert side.connected.cipher_suite == suite.name
    assert side.connected.group == group.name
    check_keys(side, peer, is_client=True)
    talk(side, peer)


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("suite", SERVER_SUITES, ids=lambda suite: suite.hash_name + str(suite.key_length))
def test_our_server_takes_client_certificates_of_every_kind(dtls: SimpleNamespace, kind: str, suite) -> None:
    peer = make_openssl(dtls.wall, "client", kind=kind)
    side = dtls.make_side(Role.SERVER, peer=(peer.fingerprint,), config=DtlsConfig(suites=(suite,)))
    exchange(side, peer)
    check_keys(side, peer, is_client=False)
    talk(side, peer)


@pytest.mark.parametrize("kind", ["p256", "p384", "p521"])
def test_our_client_takes_server_certificates_of_every_ecdsa_kind(dtls: SimpleNamespace, kind: str) -> None:
    peer = make_openssl(dtls.wall, "server", kind=kind)
    config = DtlsConfig(groups=(*GROUPS, replace(SECP256R1, code=25)))  # OpenSSL wants to see the curve of its key
    side = dtls.make_side(Role.CLIENT, peer=(peer.fingerprint,), config=config)
    side.endpoint.start(0.0)
    exchange(side, peer)
    check_keys(side, peer, is_client=True)


def test_our_client_takes_a_server_with_an_rsa_certificate(dtls: SimpleNamespace) -> None:
    peer = make_openssl(dtls.wall, "server", kind="rsa2048")
    side = dtls.make_side(Role.CLIENT, peer=(peer.fingerprint,))
    side.endpoint.start(0.0)
    exchange(side, peer)
    assert side.connected.cipher_suite == "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
    check_keys(side, peer, is_client=True)


@pytest.mark.parametrize("scheme", [0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806], ids=hex)
def test_our_client_verifies_each_rsa_signature_of_an_openssl_server(
    dtls: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, scheme: int
) -> None:
    monkeypatch.setattr(negotiate12, "SCHEMES", (scheme,))  # all that our hello offers
    peer = make_openssl(dtls.wall, "server", kind="rsa2048")
    side = dtls.make_side(Role.CLIENT, peer=(peer.fingerprint,))
    side.endpoint.start(0.0)
    exchange(side, peer)
    check_keys(side, peer, is_client=True)


@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.parametrize("profile", [1, 7, 8])
def test_every_srtp_profile_agrees_with_openssl(dtls: SimpleNamespace, role: str, profile: int) -> None:
    peer = make_openssl(dtls.wall, role, srtp=(profile,))
    side = dtls.make_side(Role.SERVER if role == "client" else Role.CLIENT, peer=(peer.fingerprint,))
    side.endpoint.start(0.0)
    exchange(side, peer)
    assert side.connected.srtp.profile == profile
    check_keys(side, peer, is_client=role == "server")


def test_our_order_decides_on_the_srtp_profile(dtls: SimpleNamespace) -> None:
    peer = make_openssl(dtls.wall, "client", srtp=(1, 8, 7))
    side = dtls.make_side(Role.SERVER, peer=(peer.fingerprint,))
    exchange(side, peer)
    assert side.connected.srtp.profile == 7


def test_our_client_answers_the_cookie_of_an_openssl_server(dtls: SimpleNamespace) -> None:
    peer = make_openssl(dtls.wall, "server", cookie=b"a cookie")
    side = dtls.make_side(Role.CLIENT, peer=(peer.fingerprint,))
    side.endpoint.start(0.0)
    exchange(side, peer)
    assert len([data for data in side.sent if data[0] == 22 and data[13] == 1]) == 2
    check_keys(side, peer, is_client=True)
    talk(side, peer)


@pytest.mark.parametrize("role", ["client", "server"])
def test_a_peer_with_a_tiny_mtu_is_understood(dtls: SimpleNamespace, role: str) -> None:
    peer = make_openssl(dtls.wall, role, mtu=256)
    side = dtls.make_side(Role.SERVER if role == "client" else Role.CLIENT, peer=(peer.fingerprint,))
    side.endpoint.start(0.0)
    exchange(side, peer)
    check_keys(side, peer, is_client=role == "server")


def test_close_notify_is_understood_both_ways(dtls: SimpleNamespace) -> None:
    for ours in (True, False):
        peer = make_openssl(dtls.wall, "client")
        side = dtls.make_side(Role.SERVER, peer=(peer.fingerprint,))
        exchange(side, peer)
        if ours:
            side.endpoint.close(1.0)
            for datagram in side.drain():
                peer.connection.bio_write(datagram)
            with pytest.raises(SSL.ZeroReturnError):
                peer.connection.recv(100)
        else:
            peer.connection.shutdown()
            for datagram in peer.pull():
                side.receive(datagram)
            assert (side.closed.reason, side.closed.alert, side.closed.by_peer) == ("close_notify", 0, True)


def test_an_openssl_client_without_srtp_is_refused_and_told(dtls: SimpleNamespace) -> None:
    peer = make_openssl(dtls.wall, "client", srtp=())
    side = dtls.make_side(Role.SERVER, peer=(peer.fingerprint,))
    with pytest.raises(SSL.Error):
        exchange(side, peer)
    assert side.closed.reason == "no_common_srtp_profile"
    assert side.closed.alert == 40


def test_an_openssl_client_with_another_certificate_is_refused_and_told(dtls: SimpleNamespace) -> None:
    peer = make_openssl(dtls.wall, "client")
    side = dtls.make_side(Role.SERVER)
    with pytest.raises(SSL.Error):
        exchange(side, peer)
    assert (side.closed.reason, side.closed.alert) == ("fingerprint_mismatch", 42)
    assert side.connected is None
