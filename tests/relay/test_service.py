"""The relay as the processes that users start, on real sockets of the loopback, with its admin port."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trio
from relay_process import relay_process

from protocol.address import pack_address
from protocol.routing import Frame, KeyRing, RoutingConfig, Trunk
from protocol.stun import Class, Message, Method
from relay.config import RelayConfig
from relay.sockets import open_sockets
from service.addresses import parse_host_port
from service.listening import CannotListen
from udpio import UdpSocket, open_udp

ROOT = Path(__file__).parents[2]
ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,))
KEYS, TRUNK = KeyRing.parse(ROUTING), Trunk.parse(ROUTING)


async def receive(sock: UdpSocket) -> list[tuple[bytes, bytes]]:
    """What came, but for hellos: these are sent back, as transceivers do who know the relay's boot number."""
    found: list[tuple[bytes, bytes]] = []
    with trio.fail_after(2):
        while not found:
            await sock.wait_readable()
            for data, source in sock.receive_batch():
                if data[:2] == b"\xc5\x21":
                    sock.send_batch([(data, source)])
                else:
                    found.append((bytes(data), source))
    return found


def check(transceiver: UdpSocket, wall_time: float) -> bytes:
    token = KEYS.seal(transceiver.address, incarnation=1, wall_time=wall_time, entropy=os.urandom)
    request = Message(Method.BINDING, Class.REQUEST, os.urandom(12), {"USERNAME": f"{token}:abcd"})
    request.add_message_integrity(KEYS.derive_password(token).encode())
    return bytes(request)


def relay(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    settings = {
        "ANTIPHON_ROUTING_KEYS": ROUTING.keys[0],
        "ANTIPHON_ROUTING_TRUNK_KEYS": ROUTING.trunk_keys[0],
        "ANTIPHON_RELAY_LISTEN": "127.0.0.1:0",
        "ANTIPHON_RELAY_TRUNK": "127.0.0.1:0",
    }
    clean = {name: value for name, value in os.environ.items() if not name.startswith("ANTIPHON_")}
    return subprocess.Popen(
        [sys.executable, "-m", "relay", *arguments],
        cwd=ROOT,
        env=clean | settings | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
async def test_a_call_goes_both_ways_over_ipv4_and_ipv6_and_the_admin_port_counts_it():
    transceiver = open_udp("127.0.0.1", 0)
    with relay_process(ANTIPHON_RELAY_LISTEN="127.0.0.1:0,[::1]:0", ANTIPHON_RELAY_VERIFY="relay") as process:
        bound = process.bound
        for ingress, listen in enumerate(bound["listen"]):
            address = pack_address(*parse_host_port(listen))
            client = open_udp("::1" if "[" in listen else "127.0.0.1", 0)
            first = check(transceiver, time.time())
            client.send_batch([(first, address)])
            [(datagram, trunk)] = await receive(transceiver)
            assert TRUNK.decode_untrusted(datagram) == [Frame(client.address, ingress, first)]
            for reply in TRUNK.encode([Frame(client.address, ingress, b"\x01\x01answer")], 1452):
                transceiver.send_batch([(reply, trunk)])
            assert await receive(client) == [(b"\x01\x01answer", address)]
            client.send_batch([(b"\x80" + bytes([n]) * 160, address) for n in range(7)])
            frames = []
            while len(frames) < 7:
                frames += [frame for data, _ in await receive(transceiver) for frame in TRUNK.decode_untrusted(data)]
            assert [frame.payload[1] for frame in frames] == list(range(7))
            client.close()
        async with httpx.AsyncClient(base_url=str(bound["admin"])) as admin:
            status = (await admin.get("/healthz")).json()
            assert status["status"] == "ok"
            assert status["flows"] == 2
            metrics = (await admin.get("/metrics")).text
        assert 'antiphon_relay_flows{state="established"} 2.0' in metrics
        assert 'antiphon_relay_frames_total{direction="up"} 16.0' in metrics
        assert 'antiphon_relay_socket_datagrams_total{direction="in",socket="trunk"} 3.0' in metrics
        assert process.stop()[0] == 0
    transceiver.close()


def test_an_address_that_is_taken_is_named_and_nothing_stays_open():
    taken = open_udp("127.0.0.1", 0)
    port = int.from_bytes(taken.address[:2], "big")
    config = RelayConfig(listen=("127.0.0.1:0", f"127.0.0.1:{port}"), trunk="127.0.0.1:0", admin="")
    with pytest.raises(CannotListen, match=f"127.0.0.1:{port}: .*in use"):
        open_sockets(config)
    taken.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_announces_itself_and_ends_cleanly(number: int):
    process = relay("run")
    assert process.stdout is not None
    line = process.stdout.readline()
    ready = json.loads(line.removeprefix("ready "))
    assert set(ready) == {"listen", "trunk", "admin"}
    assert not ready["trunk"].endswith(":0")
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environ", "code", "complaint"),
    [
        ({"ANTIPHON_ROUTING_KEYS": ""}, 2, "config: routing.keys: at least one key, ID:HEX, is needed"),
        ({"ANTIPHON_RELAY_LISTEN": "localhost:1"}, 2, "config: relay.listen: 'localhost:1' is not an address"),
        ({"ANTIPHON_ROUTING_PREFIX": "::1/128"}, 2, "config: relay.trunk: must be an IPv6 address"),
        ({"ANTIPHON_RELAY_LISTEM": "127.0.0.1:0"}, 2, "did you mean listen?"),
        ({"ANTIPHON_RELAY_LISTEN": "192.0.2.1:0"}, 1, "relay: cannot listen on 192.0.2.1:0"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(environ: dict[str, str], code: int, complaint: str):
    process = relay("run", **environ)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (code, "")
    assert complaint in err
    assert len(err.splitlines()) == 1


@pytest.mark.slow
def test_doctor_and_help_are_for_people():
    process = relay("doctor")
    out, err = process.communicate(timeout=10)
    assert process.returncode == 0, err
    assert "can be bound" in out
    process = relay("doctor", ANTIPHON_ROUTING_KEYS="")
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "1 failed" in out
    out, _ = relay("run", "--help").communicate(timeout=10)
    assert "learn_from_replies = true" in out
