"""Our endpoints against OpenSSL's own programs over loopback: suites, groups, sizes, certificates, keys, cookies."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from dtls_tools import LABEL, Credentials, Ours, Tool, make_credentials, our_endpoint, running, until

from protocol.dtls import GROUPS, SUITES, CipherSuite, DtlsConfig, Group, Role
from protocol.dtls.groups import SECP256R1

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

PROFILES = {1: ("SRTP_AES128_CM_SHA1_80", 60), 7: ("SRTP_AEAD_AES_128_GCM", 56), 8: ("SRTP_AEAD_AES_256_GCM", 88)}
GROUP_NAMES = {"secp256r1": "P-256", "secp384r1": "P-384", "x25519": "X25519"}
UDP_AND_IP = 28  # bytes; OpenSSL counts them, we do not
KINDS = ["p256", "p384", "rsa2048", "rsa4096"]
ELLIPTIC_SUITES = [suite for suite in SUITES if suite.authentication == "ecdsa"]


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credentials]:
    directory = tmp_path_factory.mktemp("certificates")
    return {kind: make_credentials(directory, kind) for kind in KINDS}


def cipher(suite: CipherSuite) -> str:
    """OpenSSL's name of a suite."""
    name = suite.name.removeprefix("TLS_").replace("_WITH_", "-").replace("AES_", "AES").replace("_", "-")
    return name if name.endswith("SHA384") or "GCM" in name else name.removesuffix("-SHA256")


def options(profile: int, own: Credentials | None, mtu: int | None) -> list[str]:
    name, length = PROFILES[profile]
    chosen = ["-dtls1_2", "-use_srtp", name, "-keymatexport", LABEL.decode(), "-keymatexportlen", str(length)]
    chosen += ["-cert", own.certificate, "-key", own.key] if own else []
    return chosen + (["-mtu", str(mtu)] if mtu else [])


@asynccontextmanager
async def s_client(
    own: Credentials | None,
    *more: str,
    profile: int = 7,
    mtu: int | None = None,
    cookies: bool = False,
    config: DtlsConfig | None = None,
    lost: tuple[str, int] = ("none", 0),
) -> AsyncIterator[tuple[Ours, Tool]]:
    """OpenSSL calls our server."""
    theirs = own.fingerprint if own else None
    async with our_endpoint(Role.SERVER, theirs, cookies=cookies, config=config, lost=lost) as ours:
        where = ["-connect", f"127.0.0.1:{ours.port}"]
        async with running("openssl", "s_client", *where, *options(profile, own, mtu), *more) as tool:
            await until(lambda: ours.connected or ours.closed, tool)
            yield ours, tool


@asynccontextmanager
async def s_server(
    own: Credentials,
    *more: str,
    profile: int = 7,
    mtu: int | None = None,
    config: DtlsConfig | None = None,
    lost: tuple[str, int] = ("none", 0),
) -> AsyncIterator[tuple[Ours, Tool]]:
    """Our client calls OpenSSL, which always asks for a cookie first."""
    more = more or ("-Verify", "1")
    where = ["-accept", "127.0.0.1:0"]
    async with running("openssl", "s_server", *where, *options(profile, own, mtu), *more) as tool:
        await until(lambda: re.search(r"ACCEPT \S+:\d+\n", tool.said), tool)
        port = int(re.search(r"ACCEPT \S+:(\d+)\n", tool.said)[1])
        async with our_endpoint(Role.CLIENT, own.fingerprint, port=port, config=config, lost=lost) as ours:
            await until(lambda: ours.connected or ours.closed, tool)
            yield ours, tool


async def agree(ours: Ours, tool: Tool, profile: int = 7, suite: CipherSuite | None = None) -> None:
    """Both sides have the same keys, name the same choices, and hear each other."""
    name, length = PROFILES[profile]
    assert ours.connected is not None, (ours.closed, tool.said)
    await until(lambda: "Keying material: " in tool.said, tool)
    await until(lambda: re.search(r"Keying material: [0-9A-F]+\n", tool.said), tool)
    theirs = bytes.fromhex(re.search(r"Keying material: ([0-9A-F]+)\n", tool.said)[1])
    assert ours.export(length) == theirs
    assert ours.connected.srtp.profile == profile
    local, remote = ours.connected.srtp.local, ours.connected.srtp.remote
    client, server = (local, remote) if ours.role is Role.CLIENT else (remote, local)
    key = 32 if profile == 8 else 16
    assert client[:key] + server[:key] + client[key:] + server[key:] == theirs
    assert f"profile={name}" in tool.said
    if suite is not None:
        assert ours.connected.cipher_suite == suite.name
        assert re.search(rf"(?:Cipher is|CIPHER is) {cipher(suite)}\n", tool.said), tool.said
    await ours.say(b"from us\n")
    await tool.tell("from them\n")
    await until(lambda: "from us" in tool.said and ours.received == b"from them\n", tool)


@pytest.mark.parametrize("suite", ELLIPTIC_SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
async def test_s_client_is_served_with_every_suite_and_group(credentials, suite: CipherSuite, group: Group):
    # OpenSSL takes our certificate only if it offers the curve of its key as a group, too.
    more = ["-cipher", cipher(suite), "-groups", ":".join(dict.fromkeys((GROUP_NAMES[group.name], "P-256")))]
    async with s_client(credentials["p256"], *more, config=DtlsConfig(groups=(group,))) as (ours, tool):
        await agree(ours, tool, suite=suite)
        assert ours.connected.group == group.name


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
async def test_s_server_serves_our_client_with_every_suite_and_group(credentials, suite: CipherSuite, group: Group):
    own = credentials["rsa2048" if suite.authentication == "rsa" else "p256"]
    # OpenSSL shows a certificate only to who offers its curve as a group, too.
    config = DtlsConfig(suites=(suite,), groups=(group, SECP256R1))
    async with s_server(own, config=config) as (ours, tool):
        await agree(ours, tool, suite=suite)
        assert ours.connected.group == group.name


@pytest.mark.parametrize("profile", PROFILES)
async def test_every_srtp_profile_gives_both_sides_the_same_keys(credentials, profile: int):
    async with s_client(credentials["p256"], profile=profile) as (ours, tool):
        await agree(ours, tool, profile)
    async with s_server(credentials["p256"], profile=profile) as (ours, tool):
        await agree(ours, tool, profile)


@pytest.mark.parametrize("mtu", [256, 512, 1200, 1500])
@pytest.mark.parametrize("kind", ["p256", "rsa4096"])
async def test_every_size_of_datagrams_will_do_in_both_roles(credentials, mtu: int, kind: str):
    config = DtlsConfig(mtu=mtu - UDP_AND_IP)
    async with s_client(credentials[kind], mtu=mtu, config=config) as (ours, tool):
        await agree(ours, tool)
        assert max(ours.sizes) <= mtu - UDP_AND_IP
    async with s_server(credentials[kind], mtu=mtu, config=config) as (ours, tool):
        await agree(ours, tool)
        assert max(ours.sizes) <= mtu - UDP_AND_IP


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_of_certificate_is_taken_in_both_roles(credentials, kind: str):
    async with s_client(credentials[kind]) as (ours, tool):
        await agree(ours, tool)
    async with s_server(credentials[kind]) as (ours, tool):
        await agree(ours, tool)
        assert ("_RSA_" in ours.connected.cipher_suite) is kind.startswith("rsa")


async def test_a_client_without_a_certificate_is_refused_and_told(credentials):
    async with s_client(None) as (ours, tool):
        assert (ours.connected, ours.closed.reason, ours.closed.alert) == (None, "certificate_missing", 40)
        await until(lambda: "alert handshake failure" in tool.said, tool)


async def test_a_server_that_asks_for_no_certificate_is_refused_and_told(credentials):
    async with s_server(credentials["p256"], "-naccept", "1") as (ours, tool):
        assert (ours.connected, ours.closed.reason, ours.closed.alert) == (None, "certificate_not_requested", 40)
        await until(lambda: "alert handshake failure" in tool.said, tool)


async def test_another_certificate_than_signalled_is_refused_and_told(credentials):
    own = Credentials(credentials["p256"].certificate, credentials["p256"].key, credentials["p384"].fingerprint)
    async with s_client(own) as (ours, tool):
        assert (ours.connected, ours.closed.reason) == (None, "fingerprint_mismatch")
        await until(lambda: "alert bad certificate" in tool.said, tool)
    async with s_server(own) as (ours, _):
        assert (ours.connected, ours.closed.reason) == (None, "fingerprint_mismatch")


@pytest.mark.parametrize("mtu", [256, 1500])
async def test_s_client_passes_the_cookie_exchange_of_our_bare_listener(credentials, mtu: int):
    async with s_client(credentials["p256"], mtu=mtu, cookies=True) as (ours, tool):
        assert ours.challenges == 1
        await agree(ours, tool)


async def test_our_client_passes_the_cookie_exchange_of_a_listener_of_openssl(credentials):
    async with s_server(credentials["p256"], "-listen", "-Verify", "1") as (ours, tool):
        await agree(ours, tool)


@pytest.mark.parametrize("way", ["sent", "received"])
@pytest.mark.parametrize("number", range(4))
async def test_a_lost_datagram_is_made_up_for_by_whoever_notices(credentials, way: str, number: int):
    async with s_client(credentials["p256"], mtu=512, lost=(way, number)) as (ours, tool):
        await agree(ours, tool)
    async with s_server(credentials["p256"], mtu=512, lost=(way, number)) as (ours, tool):
        await agree(ours, tool)


async def test_renegotiation_is_refused_in_both_roles(credentials):
    async with s_client(credentials["p256"]) as (ours, tool):
        await agree(ours, tool)
        await tool.tell("R\n")
        await until(lambda: "RENEGOTIATING" in tool.said and "no renegotiation" in tool.said, tool)
        assert ours.closed is None or ours.closed.by_peer
    async with s_server(credentials["p256"]) as (ours, tool):
        await agree(ours, tool)
        await tool.tell("r\n")
        await until(lambda: "no renegotiation" in tool.said, tool)
        assert ours.endpoint.drops["handshake_after_connected"]
        assert ours.closed is None or ours.closed.by_peer
