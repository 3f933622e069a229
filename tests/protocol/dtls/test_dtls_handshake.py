"""Our client against our server: what a handshake agrees upon, and how it survives the network."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from protocol.dtls import GROUPS, SUITES, DtlsConfig, Role
from protocol.dtls.fragments import parse_fragments_untrusted
from protocol.dtls.messages.server_hello import parse_server_hello_untrusted
from protocol.dtls.record12 import split_records_untrusted

# Our server has an elliptic key; the suites of servers with an RSA one are tried against OpenSSL.
SERVER_SUITES = [suite for suite in SUITES if suite.authentication == "ecdsa"]


@pytest.mark.parametrize("suite", SERVER_SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_suite_and_group_connects_and_both_sides_have_the_same_keys(dtls: SimpleNamespace, suite, group) -> None:
    client, server = dtls.connect(client_config=DtlsConfig(suites=(suite,), groups=(group,)))
    for side in (client, server):
        assert side.connected.cipher_suite == suite.name
        assert side.connected.group == group.name
        assert side.connected.version == "DTLS 1.2"
    assert client.connected.srtp.local == server.connected.srtp.remote
    assert client.connected.srtp.remote == server.connected.srtp.local
    exports = {side.endpoint.export_keying_material(b"label", b"context", 40) for side in (client, server)}
    assert len(exports) == 1
    client.endpoint.send(b"ping", 1.0)
    server.endpoint.send(b"pong", 1.0)
    dtls.run(client, server, now=1.0)
    assert server.received == [b"ping"]
    assert client.received == [b"pong"]


def test_only_ephemeral_suites_with_authenticated_encryption_exist() -> None:
    assert SUITES[0].name == "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
    for suite in SUITES:
        assert suite.name.startswith(f"TLS_ECDHE_{suite.authentication.upper()}_WITH_")
        assert "_GCM_" in suite.name or "_POLY1305_" in suite.name
        assert suite.fixed_iv_length + suite.explicit_nonce_length == 12


def test_the_random_of_our_server_is_nothing_but_entropy(dtls: SimpleNamespace) -> None:
    """RFC 8446 §4.1.3: its end would tell a client of 1.3 that we know 1.3, too, and that somebody meddled."""
    drawn: list[bytes] = []
    server = dtls.make_side(Role.SERVER)
    parameters = server.endpoint._parameters
    source = parameters.entropy

    def entropy(size: int) -> bytes:
        drawn.append(source(size))
        return drawn[-1]

    object.__setattr__(parameters, "entropy", entropy)
    client = dtls.make_side(Role.CLIENT)
    client.endpoint.start(0.0)
    flight = [answer for data in client.drain() for answer in server.receive(data)]
    record = split_records_untrusted(flight[0])[0][0]
    hello = parse_server_hello_untrusted(parse_fragments_untrusted(record.fragment)[0].body)
    assert hello.random in drawn
    assert hello.random[-8:] not in (b"DOWNGRD\1", b"DOWNGRD\0")


@pytest.mark.parametrize("suite", SERVER_SUITES, ids=lambda suite: suite.name)
def test_no_nonce_is_used_twice_under_a_key_not_even_for_a_repeated_flight(dtls: SimpleNamespace, suite) -> None:
    client, server = dtls.make_pair(client_config=DtlsConfig(suites=(suite,)))
    dtls.run(client, server, lambda way, count, _: [] if way == 1 and count == 1 else [0.001])
    assert server.endpoint.retransmissions
    for side in (client, server):
        for number in range(20):
            side.endpoint.send(b"%d" % number, 1.0)
        side.endpoint.close(1.0)
        side.drain()
        records = [record for data in side.sent for record in split_records_untrusted(data)[0] if record.epoch == 1]
        numbers = [record.number for record in records]
        assert len(numbers) == len(set(numbers)) > 20
        if suite.explicit_nonce_length:  # RFC 5288 §3: unique; ours is epoch and sequence number
            assert [record.fragment[:8] for record in records] == [number.to_bytes(8, "big") for number in numbers]
