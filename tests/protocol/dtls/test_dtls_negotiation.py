"""What hellos may ask for, and what they are told: versions, groups, schemes, SRTP, renegotiation."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from protocol.dtls import GROUPS, SUITES, DtlsConfig, Role
from protocol.dtls.extensions import UseSrtp, pack_numbers16, parse_use_srtp_untrusted
from protocol.dtls.messages import ClientHello, ServerHello
from protocol.dtls.negotiate12 import accept, choose, offer
from protocol.dtls.registry import ExtensionType as E
from protocol.errors import LocalError, RemoteError

CONFIG = DtlsConfig()
SRTP = (7, 8, 1)


def hello(without: tuple[int, ...] = (), **changes) -> ClientHello:
    extensions = {kind: data for kind, data in offer(CONFIG, SRTP).items() if kind not in without}
    extensions.update(changes.pop("extensions", {}))
    suites = tuple(suite.code for suite in SUITES)
    return replace(ClientHello(0xFEFD, bytes(32), suites, extensions=extensions), **changes)


def refusal(message: ClientHello, profiles: tuple[int, ...] = SRTP) -> tuple[int, str]:
    with pytest.raises(RemoteError) as caught:
        choose(message, CONFIG, profiles)
    return caught.value.code, caught.value.reason


@pytest.mark.parametrize(
    ("message", "alert", "reason"),
    [
        (hello(version=0xFEFF), 70, "protocol_version"),
        (hello(version=0x0303), 70, "protocol_version"),
        (hello(extensions={E.SUPPORTED_VERSIONS: b"\2\xfe\xfc"}), 70, "protocol_version"),
        (hello(extensions={E.SUPPORTED_VERSIONS: b"\3\xfe\xfc\0"}), 50, "extension_malformed"),
        (hello(compression_methods=b"\1"), 47, "compression_methods"),
        (hello(without=(E.EXTENDED_MASTER_SECRET,)), 40, "no_extended_master_secret"),
        (hello(extensions={E.EXTENDED_MASTER_SECRET: b"x"}), 50, "extension_malformed"),
        (hello(cipher_suites=(0xC02F, 0x1301)), 40, "no_common_cipher_suite"),
        (hello(cipher_suites=(0x0001, 0x002F, 0x009C, 0x00A8, 0x00AA, 0xC018, 0xC02F)), 40, "no_common_cipher_suite"),
        (hello(without=(E.SUPPORTED_GROUPS,)), 40, "no_common_group"),
        (hello(extensions={E.SUPPORTED_GROUPS: pack_numbers16([0x11EC, 256])}), 40, "no_common_group"),
        (hello(extensions={E.EC_POINT_FORMATS: b"\1\1"}), 47, "ec_point_formats"),
        (hello(without=(E.SIGNATURE_ALGORITHMS,)), 40, "no_common_signature_scheme"),
        (hello(extensions={E.SIGNATURE_ALGORITHMS: pack_numbers16([0x0401])}), 40, "no_common_signature_scheme"),
        (hello(extensions={E.RENEGOTIATION_INFO: b"\1x"}), 40, "renegotiation_info"),
        (hello(without=(E.USE_SRTP,)), 40, "no_common_srtp_profile"),
        (hello(extensions={E.USE_SRTP: UseSrtp((2, 5)).encode()}), 40, "no_common_srtp_profile"),
        (hello(extensions={E.USE_SRTP: b""}), 50, "truncated"),
    ],
)
def test_a_hello_that_cannot_be_served_is_refused_with_the_alert_that_says_why(
    message: ClientHello, alert: int, reason: str
) -> None:
    assert refusal(message) == (alert, reason)


def test_the_refusal_reaches_the_client_as_an_alert(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair(client_srtp=())
    dtls.run(client, server)
    assert (server.closed.reason, server.closed.alert) == ("no_common_srtp_profile", 40)
    assert (client.closed.reason, client.closed.alert, client.closed.by_peer) == ("alert_received", 40, True)


@pytest.mark.parametrize("versions", [b"\4\xfe\xfc\xfe\xfd", b"\6\xfe\xfc\xfe\xfd\3\3", b"\2\xfe\xfd"])
def test_a_hello_that_also_offers_newer_versions_gets_1_2(versions: bytes) -> None:
    message = hello(extensions={E.SUPPORTED_VERSIONS: versions, 0xFFAA: b"unknown", 34: b"", 28: b"\x40\x01"})
    assert choose(message, CONFIG, SRTP).suite is SUITES[0]


@pytest.mark.parametrize("offered", [(1, 8, 7), (7, 8, 1, 2), (8, 7, 1)])
def test_our_preference_decides_on_the_srtp_profile(offered: tuple[int, ...]) -> None:
    message = hello(extensions={E.USE_SRTP: UseSrtp(offered).encode()})
    assert choose(message, CONFIG, (7, 8, 1)).srtp_profile == 7
    assert choose(message, CONFIG, (1, 7)).srtp_profile == 1


def test_our_preference_decides_on_suite_and_group() -> None:
    message = hello(
        cipher_suites=tuple(suite.code for suite in reversed(SUITES)),
        extensions={E.SUPPORTED_GROUPS: pack_numbers16(group.code for group in reversed(GROUPS))},
    )
    choice = choose(message, CONFIG, SRTP)
    assert choice.suite is SUITES[0]
    assert choice.group is GROUPS[0]


def test_an_offered_key_identifier_for_srtp_is_answered_by_an_empty_one() -> None:
    message = hello(extensions={E.USE_SRTP: UseSrtp((7,), b"mki").encode()})
    answer = parse_use_srtp_untrusted(choose(message, CONFIG, SRTP).extensions[E.USE_SRTP])
    assert answer == UseSrtp((7,), b"")


def test_renegotiation_info_is_answered_in_both_of_its_forms() -> None:
    assert choose(hello(), CONFIG, SRTP).extensions[E.RENEGOTIATION_INFO] == b"\0"
    silent = hello(without=(E.RENEGOTIATION_INFO,))
    assert E.RENEGOTIATION_INFO not in choose(silent, CONFIG, SRTP).extensions
    signal = replace(silent, cipher_suites=(*silent.cipher_suites, 0x00FF))
    assert choose(signal, CONFIG, SRTP).extensions[E.RENEGOTIATION_INFO] == b"\0"


def test_without_srtp_profiles_of_ours_there_is_no_srtp(dtls: SimpleNamespace) -> None:
    client, server = dtls.connect(server_srtp=(), client_srtp=())
    assert client.connected.srtp is None
    assert server.connected.srtp is None


def test_a_server_that_ignores_our_srtp_offer_is_refused(dtls: SimpleNamespace) -> None:
    client, server = dtls.make_pair(server_srtp=())
    dtls.run(client, server)
    assert client.closed.reason == "no_common_srtp_profile"
    assert server.connected is None


def server_hello(**changes) -> ServerHello:
    extensions = {E.EXTENDED_MASTER_SECRET: b"", E.USE_SRTP: UseSrtp((8,)).encode()}
    extensions.update(changes.pop("extensions", {}))
    return replace(ServerHello(0xFEFD, bytes(32), SUITES[1].code, extensions=extensions), **changes)


def test_a_fair_choice_of_the_server_is_accepted() -> None:
    choice = accept(server_hello(), offer(CONFIG, SRTP), CONFIG, SRTP)
    assert (choice.suite, choice.srtp_profile) == (SUITES[1], 8)


def test_a_server_without_extended_master_secret_is_refused() -> None:
    message = replace(server_hello(), extensions={E.USE_SRTP: UseSrtp((8,)).encode()})
    with pytest.raises(RemoteError) as caught:
        accept(message, offer(CONFIG, SRTP), CONFIG, SRTP)
    assert (caught.value.code, caught.value.reason) == (40, "no_extended_master_secret")


@pytest.mark.parametrize("ending", [b"DOWNGRD\1", b"DOWNGRD\0"])
def test_our_client_which_offers_only_1_2_takes_it_from_a_server_that_knows_more(ending: bytes) -> None:
    """RFC 8446 §4.1.3: a server of 1.3 says so in its random, and only a client of 1.3 must mind."""
    message = server_hello(random=bytes(24) + ending)
    assert accept(message, offer(CONFIG, SRTP), CONFIG, SRTP).suite is SUITES[1]
    assert E.SUPPORTED_VERSIONS not in offer(CONFIG, SRTP)


def test_our_client_offers_no_key_identifier_for_srtp() -> None:
    assert parse_use_srtp_untrusted(offer(CONFIG, SRTP)[E.USE_SRTP]) == UseSrtp(SRTP, b"")


@pytest.mark.parametrize(
    ("message", "alert"),
    [
        (server_hello(version=0xFEFF), 70),
        (server_hello(version=0xFEFC), 70),
        (server_hello(cipher_suite=0x009C), 47),
        (server_hello(cipher_suite=0xC013), 47),
        (server_hello(compression_method=1), 47),
        (server_hello(extensions={16: b"alpn"}), 110),
        (server_hello(extensions={E.EXTENDED_MASTER_SECRET: b"x"}), 40),
        (server_hello(extensions={E.RENEGOTIATION_INFO: b"\1x"}), 40),
        (server_hello(extensions={E.USE_SRTP: UseSrtp((7, 8)).encode()}), 47),
        (server_hello(extensions={E.USE_SRTP: UseSrtp((2,)).encode()}), 47),
        (server_hello(extensions={E.USE_SRTP: UseSrtp((7,), b"mki").encode()}), 47),
    ],
)
def test_a_choice_that_was_not_offered_is_refused(message: ServerHello, alert: int) -> None:
    with pytest.raises(RemoteError) as caught:
        accept(message, offer(CONFIG, SRTP), CONFIG, SRTP)
    assert caught.value.code == alert


def test_the_verbs_are_refused_before_their_time(dtls: SimpleNamespace) -> None:
    client = dtls.make_side(Role.CLIENT)
    with pytest.raises(LocalError):
        client.endpoint.send(b"x", 0.0)
    with pytest.raises(LocalError):
        client.endpoint.export_keying_material(b"l", None, 1)
    client.receive(b"\x16", 0.0)
    assert client.endpoint.drops["not_open"] == 1
    client.endpoint.start(0.0)
    with pytest.raises(LocalError):
        client.endpoint.start(0.0)
    with pytest.raises(LocalError):
        DtlsConfig(mtu=100)
    with pytest.raises(LocalError):
        DtlsConfig(suites=())
