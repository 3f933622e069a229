"""Every parser: any bytes give a value or a DecodeError; every value survives its codec. And the small machinery."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections import Counter
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.dtls import GROUPS, SUITES, Identity, Role
from protocol.dtls.alerts import Alert, parse_alert_untrusted
from protocol.dtls.certificates import public_key_untrusted, subject_public_key_info_untrusted
from protocol.dtls.extensions import (
    UseSrtp,
    parse_ec_point_formats_untrusted,
    parse_numbers16_untrusted,
    parse_renegotiation_info_untrusted,
    parse_supported_versions_untrusted,
    parse_use_srtp_untrusted,
)
from protocol.dtls.fragments import Fragment, HandshakeMessage, Reassembler, parse_fragments_untrusted
from protocol.dtls.groups import X25519
from protocol.dtls.messages import (
    PARSERS,
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
from protocol.dtls.record12 import Record, pack_record, split_records_untrusted
from protocol.dtls.replay import ReplayWindow
from protocol.dtls.schedule12 import prf
from protocol.errors import DecodeError

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)

PARSERS_OF_BYTES = [
    *PARSERS.values(),
    parse_alert_untrusted,
    parse_fragments_untrusted,
    parse_numbers16_untrusted,
    parse_ec_point_formats_untrusted,
    parse_supported_versions_untrusted,
    parse_renegotiation_info_untrusted,
    parse_use_srtp_untrusted,
    subject_public_key_info_untrusted,
    public_key_untrusted,
    split_records_untrusted,
]

MESSAGES = [
    ClientHello(0xFEFD, bytes(32), (0xC02B, 0x1301), b"session", b"cookie", b"\0", {10: b"x", 0xFF01: b""}),
    ClientHello(0xFEFD, bytes(32), (0xC02B,)),
    ServerHello(0xFEFD, bytes(32), 0xC02B, b"", 0, {23: b""}),
    HelloVerifyRequest(0xFEFF, b"c" * 255),
    HelloVerifyRequest(0xFEFD, b""),
    Certificate((b"one", b"two")),
    Certificate(()),
    ServerKeyExchange(29, b"k" * 32, 0x0403, b"signature"),
    CertificateRequest((64, 1), (0x0403, 0x0804), b""),
    ServerHelloDone(),
    CertificateVerify(0x0403, b"signature"),
    ClientKeyExchange(b"k" * 65),
    Finished(bytes(12)),
]


@pytest.mark.parametrize("parse", PARSERS_OF_BYTES, ids=lambda parse: parse.__name__)
@PROPERTY
@given(data=st.binary(max_size=120))
def test_any_bytes_give_a_value_or_a_decode_error(parse, data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        parse(data)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_every_message_survives_its_codec_and_is_refused_with_a_byte_more_or_less(message) -> None:
    parse, body = PARSERS[message.message_type], message.encode()
    assert parse(body) == message
    if body:
        for end in range(len(body)):
            with contextlib.suppress(DecodeError):
                assert parse(body[:end]) != message
    with pytest.raises(DecodeError):
        parse(body + b"\0")


@PROPERTY
@given(data=st.data())
def test_damaged_messages_give_a_value_or_a_decode_error(data: st.DataObject) -> None:
    message = data.draw(st.sampled_from(MESSAGES))
    body = bytearray(message.encode() or b"\0")
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        PARSERS[message.message_type](bytes(body))


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (Certificate((b"x",) * 17), "certificate_chain"),
        (Certificate((b"x", b"")), "certificate_chain"),
        (ServerHello(0xFEFD, bytes(32), 0xC02B, bytes(33)), "hello_malformed"),
        (ClientHello(0xFEFD, bytes(32), (0xC02B,), bytes(33)), "hello_malformed"),
        (ClientHello(0xFEFD, bytes(32), ()), "hello_malformed"),
        (CertificateRequest((), (0x0403,)), "certificate_request_malformed"),
        (CertificateRequest((64,), ()), "certificate_request_malformed"),
        (ClientKeyExchange(b""), "key_share"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_a_message_beyond_what_its_rfc_allows_is_refused(message, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        PARSERS[message.message_type](message.encode())


def test_extensions_are_refused_when_repeated_or_too_many() -> None:
    base = ClientHello(0xFEFD, bytes(32), (1,)).encode()
    block = b"\0\x0a\0\0" * 2
    with pytest.raises(DecodeError, match="extension_repeated"):
        PARSERS[1](base + len(block).to_bytes(2, "big") + block)
    block = b"".join(kind.to_bytes(2, "big") + b"\0\0" for kind in range(65))
    with pytest.raises(DecodeError, match="extension_count"):
        PARSERS[1](base + len(block).to_bytes(2, "big") + block)


@pytest.mark.parametrize("value", [UseSrtp((7, 8, 1)), UseSrtp((1,), b"mki")])
def test_use_srtp_survives_its_codec(value: UseSrtp) -> None:
    assert parse_use_srtp_untrusted(value.encode()) == value


def test_alerts_survive_their_codec() -> None:
    for alert in (Alert(1, 0), Alert(2, 40), Alert(2, 255)):
        assert parse_alert_untrusted(alert.encode()) == alert


# Records


def test_records_before_a_damaged_one_stay_good() -> None:
    good = pack_record(22, 5, b"one") + pack_record(23, (1 << 48) + 6, b"two")
    expected = [Record(22, 5, b"one"), Record(23, (1 << 48) + 6, b"two")]
    assert split_records_untrusted(good) == (expected, "")
    for tail, reason in (
        (b"\x16", "record_truncated"),
        (pack_record(22, 7, b"long")[:-1], "record_truncated"),
        (pack_record(22, 7, b"", version=0x0303), "record_header"),
        (pack_record(22, 1 << 48, b"", version=0xFEFF), "record_header"),
        (pack_record(3, 7, b""), "record_header"),
        (pack_record(22, 7, bytes(20000)), "record_overflow"),
        (pack_record(22, 7, b"") * 100, "record_count"),
    ):
        records, damage = split_records_untrusted(good + tail)
        assert records[:2] == expected
        assert damage == reason


# Fragments


def collect(fragments: list[Fragment]) -> list[bytes]:
    reassembler = Reassembler(Counter())
    bodies = []
    for fragment in fragments:
        reassembler.add(fragment)
        bodies += [message.body for message in reassembler.messages(lambda _: True)]
    return bodies


@PROPERTY
@given(data=st.data())
def test_messages_come_whole_and_in_order_whatever_the_pieces(data: st.DataObject) -> None:
    bodies = data.draw(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
    pieces = []
    for sequence, body in enumerate(bodies):
        cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=6)) | {0, len(body)})
        spans = [(0, 0)] if not body else list(itertools.pairwise(cuts))
        spans += data.draw(st.lists(st.tuples(st.integers(0, len(body)), st.integers(0, len(body))), max_size=4))
        message = HandshakeMessage(11, sequence, body)
        for start, end in spans:
            if start <= end:
                pieces += parse_fragments_untrusted(message.fragment(start, end - start))
    assert collect(data.draw(st.permutations(pieces))) == bodies


def test_fragments_of_several_messages_may_share_a_record() -> None:
    payload = HandshakeMessage(14, 0, b"").fragment(0, 0) + HandshakeMessage(11, 1, b"abcdef").fragment(2, 3)
    assert parse_fragments_untrusted(payload) == [Fragment(14, 0, 0, 0, b""), Fragment(11, 6, 1, 2, b"cde")]


def test_fragments_out_of_their_message_are_refused() -> None:
    for offset, size, length in ((5, 2, 6), (7, 0, 6), (0, 7, 6)):
        header = b"\x0b" + length.to_bytes(3, "big") + b"\0\0" + offset.to_bytes(3, "big") + size.to_bytes(3, "big")
        with pytest.raises(DecodeError, match="fragment_bounds"):
            parse_fragments_untrusted(header + bytes(size))


def test_the_reassembly_is_bounded_and_the_nearest_message_wins() -> None:
    drops: Counter[str] = Counter()
    reassembler = Reassembler(drops)
    for sequence in (3, 2, 1):
        reassembler.add(Fragment(11, 30_000, sequence, 0, b"x"))
    assert drops["fragment_evicted"] == 1
    reassembler.add(Fragment(11, 30_000, 4, 0, b"x"))
    assert drops["fragment_overflow"] == 1
    reassembler.add(Fragment(11, 3, 0, 0, b"abc"))
    assert [message.body for message in reassembler.messages(lambda _: True)] == [b"abc"]
    reassembler.add(Fragment(11, 10, 40, 0, b"x"))
    reassembler.add(Fragment(1, 16_385, 1, 0, b"x"))
    reassembler.add(Fragment(11, 32_769, 1, 0, b"x"))
    reassembler.add(Fragment(20, 8_193, 1, 0, b"x"))
    reassembler.add(Fragment(20, 3, 0, 0, b"abc"))
    assert drops["message_too_early"] == 1
    assert drops["message_too_long"] == 3
    assert drops["message_repeated"] == 1


# Replay


@PROPERTY
@given(numbers=st.lists(st.integers(0, 40), max_size=60), size=st.integers(1, 40))
def test_the_window_takes_each_number_once_and_nothing_behind_it(numbers: list[int], size: int) -> None:
    window, seen = ReplayWindow(size), set()
    for number in numbers:
        expected = number not in seen and number > max(seen, default=-1) - size
        assert window.fresh(number) is expected
        if expected:
            window.mark(number)
            seen.add(number)


def test_the_window_survives_great_leaps() -> None:
    window = ReplayWindow()
    for number in (0, 1 << 40, (1 << 40) + 255, (1 << 48) - 1):
        assert window.fresh(number)
        window.mark(number)
        assert not window.fresh(number)
    assert not window.fresh(5)


# Keys

PRF_VECTORS = [  # the widely used test vectors for P_hash of TLS 1.2 (IETF TLS mailing list, 2009)
    (
        "sha256",
        "9bbe436ba940f017b17652849a71db35",
        "a0ba9f936cda311827a6f796ffd5198c",
        "e3f229ba727be17b8d122620557cd453c2aab21d07c3d495329b52d4e61edb5a6b301791e90d35c9c9a46b4e14baf9af0fa022f7077def1"
        "7abfd3797c0564bab4fbc91666e9def9b97fce34f796789baa48082d122ee42c5a72e5a5110fff70187347b66",
    ),
    (
        "sha384",
        "b80b733d6ceefcdc71566ea48e5567df",
        "cd665cf6a8447dd6ff8b27555edb7465",
        "7b0c18e9ced410ed1804f2cfa34a336a1c14dffb4900bb5fd7942107e81c83cde9ca0faa60be9fe34f82b1233c9146a0e534cb400fed270"
        "0884f9dc236f80edd8bfa961144c9e8d792eca722a7b32fc3d416d473ebc2c5fd4abfdad05d9184259b5bf8cd4d90fa0d31e2dec479e4f1"
        "a26066f2eea9a69236a3e52655c9e9aee691c8f3a26854308d5eaa3be85e0990703d73e56f",
    ),
]


@pytest.mark.parametrize(("hash_name", "secret", "seed", "output"), PRF_VECTORS)
def test_the_pseudo_random_function_gives_the_published_values(
    hash_name: str, secret: str, seed: str, output: str
) -> None:
    expected = bytes.fromhex(output)
    assert prf(hash_name, bytes.fromhex(secret), b"test label", bytes.fromhex(seed), len(expected)) == expected


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_bad_key_shares_are_refused(dtls: SimpleNamespace, group) -> None:
    entropy = dtls.make_side(Role.CLIENT)
    ours = group.begin(lambda size: hashlib.shake_128(b"a").digest(size))
    theirs = group.begin(lambda size: hashlib.shake_128(b"b").digest(size))
    assert ours.shared_untrusted(theirs.public) == theirs.shared_untrusted(ours.public)
    length = len(theirs.public)
    bad = [b"", b"\4", bytes(length), theirs.public[:-1], theirs.public + b"\0"]
    if group.name != "x25519":
        bad += [b"\4" + b"\xff" * (length - 1), b"\4" + bytes(length - 1), b"\2" + theirs.public[1:]]
        bad += [theirs.public[:-1] + bytes((theirs.public[-1] ^ 1,))]
    for share in bad:
        with pytest.raises(DecodeError, match="key_share"):
            ours.shared_untrusted(share)
    assert entropy.closed is None


LOW_ORDER_POINTS = [  # of Curve25519 and its twist: every private key leads to zero with them
    bytes(32),
    b"\1" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    *(((1 << 255) - 19 + offset).to_bytes(32, "little") for offset in (-1, 0, 1)),
]


@pytest.mark.parametrize("share", LOW_ORDER_POINTS, ids=lambda share: share[:4].hex())
def test_a_share_of_low_order_is_refused(share: bytes) -> None:
    with pytest.raises(DecodeError, match="key_share"):
        X25519.begin(lambda size: hashlib.shake_128(b"a").digest(size)).shared_untrusted(share)


def test_the_registries_hold_no_number_twice() -> None:
    assert len({suite.code for suite in SUITES}) == len(SUITES)
    assert len({group.code for group in GROUPS}) == len(GROUPS)


# Certificates


def test_our_certificate_is_one_that_others_can_read(dtls: SimpleNamespace) -> None:
    identity = Identity.generate(dtls.wall, lambda size: bytes(range(size)))
    certificate = x509.load_der_x509_certificate(identity.certificate_der)
    assert certificate.not_valid_before_utc < dtls.wall < certificate.not_valid_after_utc
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    certificate.verify_directly_issued_by(certificate)
    assert (
        str(identity.fingerprint()).lower().replace(":", "")
        == "sha-256 " + hashlib.sha256(identity.certificate_der).hexdigest()
    )
    assert "private" not in repr(identity)


def with_broken_version(certificate: bytes) -> bytes:
    """Version 4, which does not exist, as old libdatachannel writes it."""
    at = certificate.index(b"\xa0\x03\x02\x01\x02")
    return certificate[: at + 4] + b"\x03" + certificate[at + 5 :]


def der(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = bytes((len(content),)) if len(content) < 128 else b"\x82" + len(content).to_bytes(2, "big")
    return bytes((tag,)) + size + content


ONE = ec.derive_private_key(1, ec.SECP256R1()).public_key()
CERTIFICATE = der(  # the same in every run, so that the examples are, too
    0x30,
    der(
        0x30,
        der(0xA0, der(0x02, b"\2")),
        der(0x02, b"\1"),
        *(der(0x30, bytes(20)) for _ in range(4)),
        ONE.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ),
    der(0x30, bytes(10)),
    der(0x03, bytes(70)),
)


def test_the_certificate_that_is_damaged_below_is_good_before() -> None:
    assert public_key_untrusted(CERTIFICATE) == ONE


def test_a_certificate_with_an_impossible_version_still_has_a_key(dtls: SimpleNamespace) -> None:
    broken = with_broken_version(dtls.client_identity.certificate_der)
    with pytest.raises(x509.InvalidVersion):
        _ = x509.load_der_x509_certificate(broken).version
    public = dtls.client_identity.private_key.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert subject_public_key_info_untrusted(broken) == der


@pytest.mark.parametrize("role", ["client", "server"])
def test_either_side_may_have_such_a_certificate(dtls: SimpleNamespace, role: str) -> None:
    whole = dtls.client_identity if role == "client" else dtls.server_identity
    broken = Identity(with_broken_version(whole.certificate_der), whole.private_key)
    other = "server" if role == "client" else "client"
    client, server = dtls.connect(**{f"{role}_identity": broken, f"{other}_peer": (broken.fingerprint(),)})
    assert client.connected
    assert server.connected


UNFIT_KEYS = {
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()).public_key(),
    "Ed448": lambda: ed448.Ed448PrivateKey.generate().public_key(),
    "RSA-1024": lambda: rsa.generate_private_key(65537, 1024).public_key(),
    "none": lambda: None,
}


@pytest.mark.parametrize("kind", UNFIT_KEYS)
def test_a_certificate_with_a_key_that_we_do_not_verify_with_is_refused(dtls: SimpleNamespace, kind: str) -> None:
    key, (form, coding) = (
        UNFIT_KEYS[kind](),
        (serialization.PublicFormat.SubjectPublicKeyInfo, serialization.Encoding.DER),
    )
    info = key.public_bytes(coding, form) if key else der(0x30, bytes(30))
    fields = [der(0x02, b"\1"), *(der(0x30, bytes(20)) for _ in range(4)), info]
    unfit = Identity(der(0x30, der(0x30, *fields), der(0x30, bytes(10))), dtls.client_identity.private_key)
    client, server = dtls.make_pair(client_identity=unfit, server_peer=(unfit.fingerprint(),))
    dtls.run(client, server)
    assert (server.closed.reason, server.closed.alert) == ("certificate_key", 43)
    assert (client.connected, server.connected) == (None, None)


@PROPERTY
@given(data=st.data())
def test_damaged_certificates_give_a_key_or_a_decode_error(data: st.DataObject) -> None:
    certificate = bytearray(CERTIFICATE)
    for _ in range(data.draw(st.integers(1, 4))):
        certificate[data.draw(st.integers(0, len(certificate) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DecodeError):
        public_key_untrusted(bytes(certificate[: data.draw(st.integers(0, len(certificate)))]))
    with contextlib.suppress(DecodeError):
        public_key_untrusted(bytes(certificate))


def _rsa_certificate(bits: int, exponent: int) -> bytes:
    modulus = (1 << bits) - 159
    numbers = [number.to_bytes(number.bit_length() // 8 + 1, "big") for number in (modulus, exponent)]
    key = der(0x30, *(der(2, number) for number in numbers))
    info = der(0x30, bytes.fromhex("300d06092a864886f70d0101010500"), der(3, b"\0", key))
    return der(0x30, der(0x30, der(2, b"\1"), *(4 * [der(0x30)]), info))


def test_an_rsa_key_whose_use_would_cost_us_dear_is_refused() -> None:
    """Under an exponent as long as the modulus one signature costs as much as ten handshakes."""
    assert public_key_untrusted(_rsa_certificate(3072, 65537)).key_size == 3072
    for certificate in (_rsa_certificate(3072, (1 << 3071) + 1), _rsa_certificate(2048, (1 << 64) + 1)):
        with pytest.raises(DecodeError, match="certificate_key"):
            public_key_untrusted(certificate)
