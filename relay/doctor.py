"""`relay doctor`: can this machine be a relay, and what does the world see of it?

1. configuration: keys, prefix, trunk key;
2. every address: can it be bound (a port in use is a warning: a relay may be running);
3. the system: recvmmsg, and the socket buffers that it really grants;
4. the clock, as far as tokens care;
5. our public address: our own STUN client, then pystun3 as a second opinion on the type of NAT.

pystun3 is a blocking RFC 3489 prober: it runs in a worker thread under a deadline, and nothing it says or fails to
say is fatal. A relay behind a NAT works if the NAT forwards its ports, so no finding about NAT is fatal either.
"""

from __future__ import annotations

import enum
import errno
import time
from collections.abc import Callable
from dataclasses import dataclass

import stun as pystun3
import trio
from rich.console import Console
from rich.table import Table

from protocol.routing import KeyRing, RoutingConfig, Trunk
from relay.config import RelayConfig
from relay.stunclient import StunError, public_address, resolve
from service.addresses import own_addresses, parse_host_port, to_host_port
from udpio import KernelSocket, PlainSocket, SocketOptions, bind_udp, is_batch_supported

__all__ = ["Finding", "Verdict", "examine", "report"]

STUN_DEADLINE = 8.0
SECOND_OPINION_DEADLINE = 12.0
YEAR_2024, YEAR_2055 = 1_704_067_200, 2_710_000_000


class Verdict(enum.Enum):
    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    verdict: Verdict
    detail: str


async def examine(
    config: RelayConfig, routing: RoutingConfig, *, wall_time: Callable[[], float] = time.time
) -> list[Finding]:
    """All findings, in the order of the docstring."""
    findings = [*_configuration(routing), *_addresses(config), *_system(config), _clock(wall_time())]
    return findings + await _public(config)


def report(findings: list[Finding], console: Console) -> int:
    """Print the table; returns the exit code: 1 if anything failed."""
    style = {Verdict.OK: "green", Verdict.NOTE: "dim", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
    table = Table(title="Antiphon relay doctor", title_justify="left")
    table.add_column("what", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("found", overflow="fold")
    for finding in findings:
        word = style[finding.verdict]
        table.add_row(finding.subject, f"[{word}]{finding.verdict.value}[/{word}]", finding.detail.replace("[", "\\["))
    console.print(table)
    failed = sum(finding.verdict is Verdict.FAIL for finding in findings)
    warned = sum(finding.verdict is Verdict.WARN for finding in findings)
    console.print(f"{failed} failed, {warned} warnings")
    return 1 if failed else 0


def _configuration(routing: RoutingConfig) -> list[Finding]:
    if not routing.keys and not routing.trunk_keys:
        return [
            Finding(
                "keys", Verdict.NOTE, "none configured: `just up` makes its own, a relay of its own needs [routing]"
            )
        ]
    findings = []
    try:
        keys = KeyRing.parse(routing)
        detail = f"cluster {routing.cluster}, {len(routing.keys)} key(s), transceivers in {keys.prefix}"
        findings.append(Finding("routing", Verdict.OK, detail))
    except ValueError as error:
        findings.append(Finding("routing", Verdict.FAIL, str(error)))
    try:
        Trunk.parse(routing)
        findings.append(Finding("trunk key", Verdict.OK, f"{len(routing.trunk_keys)} key(s), MTU {routing.trunk_mtu}"))
    except ValueError as error:
        findings.append(Finding("trunk key", Verdict.FAIL, str(error)))
    return findings


def _addresses(config: RelayConfig) -> list[Finding]:
    findings = []
    for name, address in (*(("listen", address) for address in config.listen), ("trunk", config.trunk)):
        subject = f"{name} {address}"
        try:
            bind_udp(*parse_host_port(address), SocketOptions(reuse_port=config.reuse_port)).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                findings.append(Finding(subject, Verdict.WARN, "in use: a relay that runs already?"))
            else:
                reason = {
                    errno.EADDRNOTAVAIL: "no interface of this machine has this address",
                    errno.EACCES: "not allowed: ports below 1024 need CAP_NET_BIND_SERVICE",
                    errno.EAFNOSUPPORT: "this system has no IPv6",
                }.get(error.errno or 0, error.strerror or str(error))
                findings.append(Finding(subject, Verdict.FAIL, reason))
        else:
            findings.append(Finding(subject, Verdict.OK, "can be bound"))
    return findings


def _system(config: RelayConfig) -> list[Finding]:
    findings = []
    if is_batch_supported():
        findings.append(Finding("batch calls", Verdict.OK, "recvmmsg and sendmmsg"))
    else:
        findings.append(
            Finding("batch calls", Verdict.WARN, "no recvmmsg here: one system call a datagram, about 40 % slower")
        )
    options = SocketOptions(receive_buffer=config.receive_buffer, send_buffer=config.send_buffer)
    try:
        probe: KernelSocket = PlainSocket(bind_udp("127.0.0.1", 0, options), options)
    except OSError as error:
        return [*findings, Finding("socket buffers", Verdict.WARN, f"no socket on 127.0.0.1: {error.strerror}")]
    granted = probe.buffer_sizes
    probe.close()
    for name, got, wanted, limit in (
        ("receive buffer", granted[0], config.receive_buffer, "net.core.rmem_max"),
        ("send buffer", granted[1], config.send_buffer, "net.core.wmem_max"),
    ):
        if got >= wanted:
            findings.append(Finding(name, Verdict.OK, f"{got:,} bytes"))
        else:
            hint = f"{got:,} of {wanted:,} bytes: bursts will be lost; sysctl -w {limit}={wanted}"
            findings.append(Finding(name, Verdict.WARN, hint))
    return findings


def _clock(wall_time: float) -> Finding:
    if YEAR_2024 < wall_time < YEAR_2055:
        text = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(wall_time))
        return Finding("clock", Verdict.OK, f"{text}; tokens need it right to a few minutes")
    return Finding("clock", Verdict.FAIL, "the year is wrong: every token would look stale")


async def _public(config: RelayConfig) -> list[Finding]:
    """What a STUN server sees. Nothing here fails."""
    subject = "public address"
    if not config.stun_server:
        return [Finding(subject, Verdict.NOTE, "not asked: give a STUN server (--stun-server HOST:PORT)")]
    host = next((parse_host_port(address)[0] for address in config.listen if "[" not in address), "0.0.0.0")
    try:
        with trio.fail_after(STUN_DEADLINE):
            server = await resolve(config.stun_server, trio.socket.AF_INET)
            own = await _ask(host if not host.startswith("127.") or server[0].startswith("127.") else "0.0.0.0", server)
    except (StunError, OSError, trio.TooSlowError) as error:
        reason = str(error) or f"no answer within {STUN_DEADLINE:.0f} s"
        return [Finding(subject, Verdict.WARN, reason)]
    return [own, await _second_opinion(server)]


async def _ask(host: str, server: tuple[str, int]) -> Finding:
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as sock:
        await sock.bind((host, 0))
        seen_host, seen_port = await public_address(sock, server)
        local_port = sock.getsockname()[1]
    seen = to_host_port(seen_host, seen_port)
    if seen_host in own_addresses():
        return Finding("public address", Verdict.OK, f"{seen}: an address of this machine, no NAT in between")
    ports = "keeps" if seen_port == local_port else "changes"
    detail = f"{seen}: behind a NAT that {ports} ports; it must forward the listen ports to this machine"
    return Finding("public address", Verdict.NOTE, detail)


async def _second_opinion(server: tuple[str, int]) -> Finding:
    def ask() -> tuple[str, str | None, int | None]:
        found: tuple[str, str | None, int | None] = pystun3.get_ip_info("0.0.0.0", 0, server[0], server[1])
        return found

    subject = "NAT type (pystun3)"
    try:
        with trio.fail_after(SECOND_OPINION_DEADLINE):
            kind, host, port = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
    except trio.TooSlowError:
        return Finding(subject, Verdict.NOTE, f"no opinion within {SECOND_OPINION_DEADLINE:.0f} s")
    except Exception as error:  # noqa: BLE001 - it parses the network without checks: anything may come out
        return Finding(subject, Verdict.NOTE, f"no opinion: {type(error).__name__}")
    if host is None or port is None:
        return Finding(subject, Verdict.NOTE, f"{kind}: the server does not speak RFC 3489, or UDP is filtered")
    return Finding(subject, Verdict.NOTE, f"{kind}, seen as {to_host_port(host, port)}")
