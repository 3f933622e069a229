"""Our client against our server: what a handshake agrees upon, and how it survives the network."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from protocol.dtls import GROUPS, SUITES, DtlsConfig

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
