"""Our endpoints against GnuTLS's own programs over loopback: cookies, keys, certificates, who is refused."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from dtls_tools import LABEL, Credentials, Ours, Tool, make_credentials, our_endpoint, running, until

from protocol.dtls import DtlsConfig, Role

pytestmark = pytest.mark.skipif(
    None in (shutil.which("gnutls-cli"), shutil.which("gnutls-serv"), shutil.which("stdbuf")),
    reason="gnutls-cli, gnutls-serv or stdbuf is not installed",
)

PROFILE, PROFILE_NAME, LENGTH = 1, "SRTP_AES128_CM_HMAC_SHA1_80", 60  # GnuTLS knows none of those with AEAD
KINDS = ["p256", "p384", "ed25519", "rsa2048"]
PRIORITY = "NORMAL:-VERS-ALL:+VERS-DTLS1.2"


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Credentials]:
    directory = tmp_path_factory.mktemp("certificates")
    return {kind: make_credentials(directory, kind) for kind in KINDS}


def options(own: Credentials | None, priority: str) -> list[str]:
    chosen = ["--udp", f"--srtp-profiles={PROFILE_NAME}", f"--priority={PRIORITY}{priority}"]
    chosen += [f"--keymatexport={LABEL.decode()}", f"--keymatexportsize={LENGTH}"]
    return chosen + (["--x509certfile", own.certificate, "--x509keyfile", own.key] if own else [])


@asynccontextmanager
async def gnutls_cli(
    own: Credentials | None, *more: str, priority: str = "", cookies: bool = True, config: DtlsConfig | None = None
) -> AsyncIterator[tuple[Ours, Tool]]:
    """GnuTLS calls our server."""
    theirs = own.fingerprint if own else None
    async with our_endpoint(Role.SERVER, theirs, cookies=cookies, config=config) as ours:
        where = ["--port", str(ours.port), "127.0.0.1", "--no-ca-verification"]
        async with running("stdbuf", "-o0", "gnutls-cli", *where, *options(own, priority), *more) as tool:
            await until(lambda: ours.connected or ours.closed, tool)
            yield ours, tool


@asynccontextmanager
async def gnutls_serv(own: Credentials, *more: str, priority: str = "") -> AsyncIterator[tuple[Ours, Tool]]:
    """Our client calls GnuTLS."""
    more = more or ("--require-client-cert",)
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as probe:
        await probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    where = ["--port", str(port), "--echo"]
    async with running("stdbuf", "-o0", "gnutls-serv", *where, *options(own, priority), *more) as tool:
        await until(lambda: re.search(r"0\.0\.0\.0 port \d+\.\.\.done", tool.said), tool)
        async with our_endpoint(Role.CLIENT, own.fingerprint, port=port) as ours:
            await until(lambda: ours.connected or ours.closed, tool)
            yield ours, tool


@pytest.mark.parametrize("kind", KINDS)
async def test_gnutls_cli_gets_our_cookie_and_has_the_same_keys(credentials, kind: str):
    async with gnutls_cli(credentials[kind]) as (ours, tool):
        assert ours.challenges == 1
        await until(lambda: re.search(r"Key material: [0-9a-f]+\n", tool.said), tool)
        assert ours.export(LENGTH).hex() == re.search(r"Key material: ([0-9a-f]+)\n", tool.said)[1]
        assert ours.connected.srtp.profile == PROFILE
        await tool.tell("from them\n")
        await until(lambda: ours.received == b"from them\n", tool)
        await ours.say(b"from us\n")
        await until(lambda: "from us" in tool.said, tool)


@pytest.mark.parametrize("kind", KINDS)
async def test_gnutls_serv_gets_its_cookie_back_and_echoes(credentials, kind: str):
    async with gnutls_serv(credentials[kind]) as (ours, tool):
        assert ours.connected is not None, (ours.closed, tool.said)
        assert ("_RSA_" in ours.connected.cipher_suite) is kind.startswith("rsa")
        await ours.say(b"there and back\n")
        await until(lambda: ours.received == b"there and back\n", tool)


@pytest.mark.parametrize("mtu", [256, 512, 1200, 1500])
async def test_gnutls_cli_is_served_with_every_size_of_datagrams(credentials, mtu: int):
    async with gnutls_cli(credentials["p256"], f"--mtu={mtu}", config=DtlsConfig(mtu=mtu)) as (ours, tool):
        assert ours.connected is not None, (ours.closed, tool.said)
        assert max(ours.sizes) <= mtu


async def test_a_peer_without_extended_master_secret_is_refused_in_both_roles(credentials):
    async with gnutls_cli(credentials["p256"], priority=":%NO_SESSION_HASH") as (ours, _):
        assert (ours.connected, ours.closed.reason, ours.closed.alert) == (None, "no_extended_master_secret", 40)
    async with gnutls_serv(credentials["p256"], priority=":%NO_SESSION_HASH") as (ours, _):
        assert (ours.connected, ours.closed.reason, ours.closed.alert) == (None, "no_extended_master_secret", 40)


async def test_a_peer_without_a_certificate_or_that_asks_for_none_is_refused(credentials):
    async with gnutls_cli(None) as (ours, _):
        assert (ours.connected, ours.closed.reason, ours.closed.alert) == (None, "certificate_missing", 40)
    async with gnutls_serv(credentials["p256"], "--disable-client-cert") as (ours, _):
        assert (ours.connected, ours.closed.reason, ours.closed.alert) == (None, "certificate_not_requested", 40)


async def test_gnutls_cli_may_not_handshake_again(credentials):
    async with gnutls_cli(credentials["p256"], "--rehandshake") as (ours, tool):
        assert ours.connected is not None, (ours.closed, tool.said)
        before = ours.export(LENGTH)
        await until(lambda: ours.endpoint.drops["handshake_after_connected"], tool)
        assert ours.closed is None or ours.closed.by_peer
        assert ours.closed or ours.export(LENGTH) == before
