"""The doctor's findings, with a STUN server of our own on the loopback."""

from __future__ import annotations

import io
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from rich.console import Console

from protocol.routing import RoutingConfig
from protocol.stun import Class, Message, Method, parse_message_untrusted
from relay import doctor
from relay.config import RelayConfig
from relay.doctor import Finding, Verdict, examine, report
from udpio import open_udp

GOOD = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,))
PORTS = {"listen": ("127.0.0.1:0",), "trunk": "127.0.0.1:0"}


def verdicts(findings: list[Finding]) -> dict[str, Verdict]:
    return {finding.subject: finding.verdict for finding in findings}


@asynccontextmanager
async def stun_server(mapped: tuple[str, int] | None = None, *, lose: int = 0) -> AsyncIterator[str]:
    """Answers RFC 8489 and RFC 3489 Binding requests, with the address it sees or the one it is told to tell."""

    async def answer(sock: trio.socket.SocketType) -> None:
        lost = 0
        while True:
            data, source = await sock.recvfrom(2048)
            if lost < lose:
                lost += 1
                continue
            seen = mapped or source
            if data[4:8] == b"\x21\x12\xa4\x42":
                request = parse_message_untrusted(data)
                told = {"XOR-MAPPED-ADDRESS": seen}
                reply = bytes(Message(Method.BINDING, Class.RESPONSE, request.transaction_id, told))
            else:
                address = b"\0\1" + seen[1].to_bytes(2, "big") + socket.inet_aton(seen[0])
                attributes = b"\0\1\0\x08" + address + b"\0\5\0\x08" + address
                reply = b"\1\1" + len(attributes).to_bytes(2, "big") + data[4:20] + attributes
            await sock.sendto(reply, source)

    with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        await sock.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer, sock)
            yield f"127.0.0.1:{sock.getsockname()[1]}"
            nursery.cancel_scope.cancel()


async def test_a_good_machine_has_no_complaint():
    found = verdicts(await examine(RelayConfig(**PORTS), GOOD))
    assert Verdict.FAIL not in found.values()
    assert found["routing"] == found["trunk key"] == found["clock"] == Verdict.OK
    assert found["public address"] == Verdict.NOTE


async def test_wrong_keys_and_a_wrong_clock_and_a_foreign_address_fail():
    config = RelayConfig(listen=("198.51.100.1:5000",), trunk="127.0.0.1:0")
    routing = RoutingConfig(keys=("1:short",))
    found = verdicts(await examine(config, routing, wall_time=lambda: 0.0))
    failed = {subject for subject, verdict in found.items() if verdict is Verdict.FAIL}
    assert failed == {"routing", "trunk key", "listen 198.51.100.1:5000", "clock"}


async def test_no_keys_at_all_are_only_noted_because_a_stack_makes_its_own():
    found = verdicts(await examine(RelayConfig(listen=("127.0.0.1:0",), trunk="127.0.0.1:0"), RoutingConfig()))
    assert found["keys"] == Verdict.NOTE
    assert Verdict.FAIL not in found.values()


async def test_a_port_in_use_is_only_a_warning():
    relay = open_udp("127.0.0.1", 0)
    address = f"127.0.0.1:{int.from_bytes(relay.address[:2], 'big')}"
    found = verdicts(await examine(RelayConfig(listen=(address,), trunk="127.0.0.1:0"), GOOD))
    assert found[f"listen {address}"] == Verdict.WARN
    relay.close()


async def test_an_address_of_this_machine_means_no_nat_and_pystun3_is_asked_too():
    async with stun_server() as server:
        found = {f.subject: f for f in await examine(RelayConfig(**PORTS, stun_server=server), GOOD)}
    assert found["public address"].verdict is Verdict.OK
    assert "no NAT" in found["public address"].detail
    assert "seen as 127.0.0.1:" in found["NAT type (pystun3)"].detail


async def test_another_address_means_a_nat_and_lost_requests_are_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relay.stunclient.INITIAL_RTO", 0.02)
    async with stun_server(("203.0.113.9", 4242), lose=2) as server:
        found = {f.subject: f for f in await examine(RelayConfig(**PORTS, stun_server=server), GOOD)}
    assert found["public address"].verdict is Verdict.NOTE
    assert found["public address"].detail.startswith("203.0.113.9:4242: behind a NAT that changes ports")


@pytest.mark.parametrize("server", ["127.0.0.1:9", "no-port", "host.invalid:3478"])
async def test_a_stun_server_that_is_not_there_is_never_fatal(server: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("relay.stunclient.INITIAL_RTO", 0.01)
    monkeypatch.setattr(doctor, "STUN_DEADLINE", 2.0)
    found = verdicts(await examine(RelayConfig(**PORTS, stun_server=server), GOOD))
    assert found["public address"] is Verdict.WARN


def test_the_report_is_a_table_and_an_exit_code():
    out = io.StringIO()
    findings = [Finding("listen [::1]:5", Verdict.OK, "can be bound"), Finding("clock", Verdict.WARN, "[late]")]
    assert report(findings, Console(file=out, width=80)) == 0
    assert "[late]" in out.getvalue()
    assert "listen [::1]:5" in out.getvalue()
    assert "0 failed, 1 warnings" in out.getvalue()
    assert report([Finding("clock", Verdict.FAIL, "no")], Console(file=out)) == 1
