"""Several transceivers behind one command: real processes, one HTTP address, calls on each of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from realtime_socket import open_socket
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from trio_websocket import ConnectionRejected

from agent.agents import realtime
from agent.server import AgentServer
from service.config import ConfigError
from service.http import WebSocketLimits, serve_http
from service.ready import parse_announcement
from transceiver.config import TransceiverConfig
from transceiver.signalling import Access, new_key
from transceiver.workers import Forwarder, Loads, WorkerPlace, check_own_ports, shift_port
from udpio import open_udp

ROOT = Path(__file__).parents[2]
CALLS = "/v1/realtime/calls"
SDP = {"Content-Type": "application/sdp"}
PLACE = WorkerPlace(index=1, count=3, http=("127.0.0.1:8080",), folder="folder")


# What a worker knows


def test_the_number_of_its_worker_is_in_the_id_of_a_call():
    assert PLACE.owner_of("rtc_02" + "a" * 22) == 2
    for nobody in ("rtc_03" + "a" * 22, "rtc_02" + "a" * 21, "rtc_02" + "A" * 22, "rtc_0", "", "rtc_zz" + "a" * 22):
        assert PLACE.owner_of(nobody) is None


def test_each_worker_has_its_own_udp_port_and_all_share_the_rest():
    config = TransceiverConfig(
        listen="127.0.0.1:5000",
        address="192.0.2.1:6000",
        direct=True,
        advertise=("198.51.100.1:7000", "198.51.100.2:0"),
        identity="edge",
    )
    own = PLACE.own(config)
    assert (own.listen, own.address, own.http) == ("127.0.0.1:5001", "192.0.2.1:6001", PLACE.http)
    assert (own.advertise, own.identity) == (("198.51.100.1:7001", "198.51.100.2:0"), "edge-1")
    behind_relays = msgspec.structs.replace(config, direct=False, listen="127.0.0.1:0", identity="")
    own = PLACE.own(behind_relays)
    assert (own.listen, own.advertise, own.identity) == ("127.0.0.1:0", behind_relays.advertise, "")
    assert shift_port("[::1]:5000", 2) == "[::1]:5002"


@pytest.mark.parametrize("key", ["listen", "address", "advertise"])
def test_workers_that_would_have_no_port_are_refused_by_the_key(key: str):
    ports: dict[str, object] = {"listen": "127.0.0.1:0", "address": None, "advertise": ()}
    value = "127.0.0.1:65534"
    ports[key] = (value,) if key == "advertise" else value
    config = TransceiverConfig(direct=True, **ports)  # type: ignore[arg-type]
    check_own_ports(config, 2)
    with pytest.raises(ConfigError) as refused:
        check_own_ports(config, 3)
    assert refused.value.key == f"transceiver.{key}"
    check_own_ports(TransceiverConfig(advertise=("192.0.2.1:65535",)), 3)  # relays, not ourselves


def test_a_worker_hands_calls_on_when_another_has_clearly_fewer_and_lives(tmp_path: Path):
    loads = Loads.create(tmp_path / "loads", 3)
    assert loads.relief_for(0) is None  # nobody is there yet
    loads.tell(0, 5)
    assert loads.relief_for(0) is None
    loads.tell(1, 1)
    assert loads.relief_for(0) is None  # not worth it
    Loads(tmp_path / "loads", 3).tell(2, 0)  # another process
    assert loads.relief_for(0) == 2
    assert loads.relief_for(1) is None
    loads.leave(2)
    assert loads.relief_for(0) is None
    loads.leave(0)  # it drains: whoever is there is better
    assert loads.relief_for(0) == 1
    loads.close()


async def test_a_sibling_that_does_not_answer_delays_one_offer_and_no_second_and_is_told_from_one_that_is_gone(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("transceiver.workers.forward.ANSWER_SECONDS", 0.05)
    place = WorkerPlace(index=0, count=2, http=(), folder=str(tmp_path))
    loads = Loads.create(place.loads, 2)
    loads.tell(0, 50)
    loads.tell(1, 0)
    asked = 0

    async def stuck(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked += 1
        await trio.sleep_forever()

    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(place.socket_of(1))
        listening.listen()
        serve = partial(trio.serve_listeners, stuck, [trio.SocketListener(listening)])
        scope = await nursery.start(scoped, serve)

        async def here(request: Request) -> Response:
            return Response(await request.body(), 201)

        app = Starlette(routes=[Route(CALLS, here, methods=["POST"])])
        transport = httpx.ASGITransport(Forwarder(app, place, loads, request_seconds=5))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            for _ in range(3):
                answer = await client.post(CALLS, content=b"an offer")
                assert (answer.status_code, answer.content) == (201, b"an offer")
            assert asked == 1
            its_call = f"{CALLS}/rtc_01{'a' * 22}"
            answer = await client.delete(its_call)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "worker_unreachable")
            assert answer.headers["retry-after"]
            scope.cancel()
            Path(place.socket_of(1)).unlink()
            assert (await client.delete(its_call)).status_code == 404
    loads.close()


@pytest.mark.parametrize("target", [f"{CALLS}?model=a%20b&dcid=3", f"{CALLS}/rtc_01{'a' * 22}/hangup?x=%0d%0a", CALLS])
async def test_a_request_that_is_brought_to_a_sibling_keeps_its_query_and_credentials(
    nursery: trio.Nursery, tmp_path: Path, target: str
):
    place = WorkerPlace(index=0, count=2, http=(), folder=str(tmp_path))
    loads = Loads.create(place.loads, 2)
    loads.tell(0, 50)
    loads.tell(1, 0)

    async def there(request: Request) -> Response:
        query = request.scope["query_string"].decode()
        return Response(f"{request.url.path} {query} {request.headers['authorization']}")

    sibling = Starlette(routes=[Route("/{rest:path}", there, methods=["POST"])])
    await nursery.start(serve_http, sibling, [f"unix:{place.socket_of(1)}"])
    transport = httpx.ASGITransport(Forwarder(Starlette(), place, loads, request_seconds=5))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        answer = await client.post(target, content=b"an offer", headers={"Authorization": "Bearer ek_x"})
    path, _, query = target.partition("?")
    assert answer.text == f"{path} {query} Bearer ek_x"
    loads.close()


async def test_a_controller_without_good_credentials_never_reaches_a_sibling(nursery: trio.Nursery, tmp_path: Path):
    key, line = new_key("shop", os.urandom)
    (tmp_path / "keys").write_text(line)
    access = Access.configured(TransceiverConfig(direct=True, api_keys=str(tmp_path / "keys")))
    secret, _ = access.issue(access.identify({"authorization": f"Bearer {key}"}), None, 600)
    place = WorkerPlace(index=0, count=2, http=(), folder=str(tmp_path))
    loads = Loads.create(place.loads, 2)
    reached: list[str] = []

    async def there(websocket: WebSocket) -> None:
        reached.append(websocket.headers["authorization"])
        await websocket.accept()
        await websocket.close(4000)

    path = "/v1/realtime"
    limits = WebSocketLimits(paths=frozenset({path}))
    sibling = Starlette(routes=[WebSocketRoute(path, there)])
    await nursery.start(partial(serve_http, sibling, [f"unix:{place.socket_of(1)}"], websockets=limits))
    front = Forwarder(Starlette(), place, loads, request_seconds=5, access=access)
    (url,) = await nursery.start(partial(serve_http, front, ["127.0.0.1:0"], websockets=limits))
    url += f"{path}?call_id=rtc_01{'a' * 22}"
    for credential, status in (("sk-of-nobody", 401), (secret, 403)):
        with pytest.raises(BaseExceptionGroup) as refused:
            async with open_socket(url, headers=[(b"Authorization", f"Bearer {credential}".encode())]):
                pass
        [rejected] = refused.value.exceptions
        assert isinstance(rejected, ConnectionRejected)
        assert rejected.status_code == status
    assert not reached
    async with open_socket(url, headers=[(b"Authorization", f"Bearer {key}".encode())]) as controller:
        await controller.until(lambda: controller.closed)
    assert reached == [f"Bearer {key}"]
    loads.close()


async def scoped(
    run: Callable[[], Awaitable[object]], task_status: trio.TaskStatus[trio.CancelScope] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await run()


# Real processes


class Service:
    def __init__(self, process: subprocess.Popen[bytes], bound: dict[str, Any]) -> None:
        self.process = process
        self.base: str = bound["http"][0]
        self.admin: str = bound["admin"]
        self.pids: list[int] = bound["workers"]

    async def metric(self, name: str, **labels: str) -> float:
        async with httpx.AsyncClient(timeout=10) as client:
            text = (await client.get(self.admin + "/metrics")).text
        whole = f"antiphon_transceiver_{name}{{" + ",".join(f'{k}="{v}"' for k, v in labels.items()) + "} "
        [value] = [line.removeprefix(whole) for line in text.splitlines() if line.startswith(whole)]
        return float(value)


def start(**options: object) -> subprocess.Popen[bytes]:
    values = {"direct": True, "agents": "internal:echo", "web": "none", **options}
    environment = {f"ANTIPHON_TRANSCEIVER_{key.upper()}": str(value) for key, value in values.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "transceiver", "--workers", "2"],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.fixture
def service() -> Iterator[Service]:
    process = start()
    try:
        assert process.stdout is not None
        bound = parse_announcement(process.stdout.readline().decode())
        assert bound is not None
        yield Service(process, bound)
    finally:
        for _ in range(2):  # the second time, at once
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(2)
        process.kill()
        process.communicate()


@pytest.fixture
async def service_with_agent(nursery: trio.Nursery) -> AsyncIterator[Service]:
    agent = AgentServer(realtime, "under-test")
    bound_agent = await nursery.start(agent.serve, "127.0.0.1:0")
    process = start(agents=f"ws://{bound_agent}/")
    try:
        assert process.stdout is not None
        bound = parse_announcement((await trio.to_thread.run_sync(process.stdout.readline)).decode())
        assert bound is not None
        yield Service(process, bound)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """One connection, which is kept: to one of the workers."""
    async with httpx.AsyncClient(timeout=10, limits=httpx.Limits(max_connections=1)) as client:
        yield client


def owner(location: str) -> int:
    return int(location.rpartition("/")[2][4:6], 16)


@pytest.fixture
def dial(nursery: trio.Nursery, caller_class, http: httpx.AsyncClient, wait_until) -> Callable[..., Any]:
    async def dial(base: str) -> tuple[Any, str]:
        """A caller that is through, and the path of its call."""
        caller = caller_class(open_udp("127.0.0.1", 0))
        response = await http.post(base + CALLS, content=caller.offer(), headers=SDP)
        assert response.status_code == 201, response.text
        caller.accept(response.text)
        nursery.start_soon(caller.run)
        await wait_until(lambda: caller.channel_is_open)
        return caller, response.headers["location"]

    return dial


async def dial_both(dial: Callable[..., Any], base: str) -> dict[int, tuple[Any, str]]:
    """A call on each of the workers: one connection brings all to one of them, and it hands on what is too much."""
    placed = [await dial(base) for _ in range(7)]
    calls = {owner(location): (caller, location) for caller, location in placed}
    assert len(calls) == 2, "all calls went to one worker"
    for caller, location in placed:
        if (caller, location) not in calls.values():
            caller.hang_up()
    return calls


async def heard(caller, wait_until) -> None:
    before = len(caller.audio)
    for _ in range(5):
        caller.speak()
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.audio) > before)


def fragment() -> str:
    ufrag, pwd = "abcd", "p" * 22
    return f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"


@pytest.mark.slow
async def test_whichever_worker_is_asked_the_one_that_has_the_call_answers(
    service: Service, dial, http: httpx.AsyncClient, wait_until
):
    calls = await dial_both(dial, service.base)
    page = {"Origin": "http://localhost:5173"}
    placed = (await http.get(service.base + "/v1/info")).json()
    assert (placed["max_calls"], placed["draining"]) == (2000, False)
    assert placed["calls"] >= 2
    for number, (caller, location) in calls.items():
        await heard(caller, wait_until)
        kind = {"Content-Type": "application/trickle-ice-sdpfrag"}
        stale = await http.patch(service.base + location, content="", headers={**kind, "If-Match": '"x"', **page})
        assert stale.status_code == 412, number
        assert stale.headers.get_list("access-control-allow-origin") == [page["Origin"]]
        assert len(stale.headers.get_list("date")) == 1
        restart = await http.patch(
            service.base + location, content=fragment(), headers={**kind, "If-Match": "*", **page}
        )
        assert (restart.status_code, restart.headers["content-type"].partition(";")[0]) == (200, kind["Content-Type"])
        assert restart.headers["etag"]
        large = await http.post(service.base + location, content=b"x" * 70_000, headers=SDP)
        assert large.status_code == 413
        assert (await http.delete(service.base + location)).status_code == 200
        await wait_until(lambda caller=caller: caller.ended)
        assert caller.told_reason == "hangup"
    for number, (_, location) in calls.items():
        with trio.fail_after(5):
            while (await http.delete(service.base + location)).status_code != 404:
                await trio.sleep(0.05)
        assert await service.metric("calls_ended_total", reason="hangup", worker=str(number)) == 1
    assert (await http.delete(f"{service.base}{CALLS}/rtc_99{'a' * 22}")).status_code == 404


@pytest.mark.slow
async def test_a_controller_reaches_its_call_whichever_worker_it_came_to(
    service_with_agent: Service, dial, http: httpx.AsyncClient, wait_until
):
    base = service_with_agent.base
    calls = await dial_both(dial, base)
    for caller, location in calls.values():
        url = f"{base}/v1/realtime?call_id={location.rpartition('/')[2]}"
        for number in range(4):  # the kernel gives each connection to one of the two
            async with open_socket(url, subprotocols=["realtime", "openai-insecure-api-key.any"]) as controller:
                assert controller.connection.subprotocol == "realtime"
                await controller.read("session.created")
                await controller.configure(instructions=f"{number} from the side {'x' * 2000}")
        await wait_until(lambda caller=caller: len([m for m in caller.messages if '"session.updated"' in m]) == 4)
        async with open_socket(url) as controller:
            await controller.read("session.created")
            await http.delete(base + location)
            await controller.until(lambda controller=controller: controller.closed)
            assert controller.closed == (1000, "hangup")
    for call_id in ("rtc_00" + "a" * 22, "rtc_01" + "a" * 22, "rtc_99" + "a" * 22):
        for _ in range(3):
            with pytest.raises(BaseExceptionGroup) as refused:
                async with open_socket(f"{base}/v1/realtime?call_id={call_id}"):
                    pass
            [rejected] = refused.value.exceptions
            assert isinstance(rejected, ConnectionRejected)
            assert rejected.status_code == 404
            assert json.loads(rejected.body or b"")["error"]["code"] == "call_not_found"
    async with open_socket(f"{base}/v1/realtime?model=any") as client:
        await client.read("session.created")
        assert (await http.get(base + "/v1/info")).json()["calls"] >= 1


@pytest.mark.slow
async def test_no_path_in_a_request_leads_through_a_call_to_what_is_not_for_clients(service: Service):
    host, _, port = service.base.removeprefix("http://").rpartition(":")
    statuses = set()
    for number in (0, 1):  # one of them is another worker than the one that is asked
        call = f"{CALLS}/rtc_{number:02x}{'a' * 22}"
        for tail in (
            "/../../../../admin/metrics",
            "/%2e%2e/%2e%2e/%2e%2e/%2e%2e/admin/metrics",
            "/..%2f..%2f..%2f..%2fadmin/healthz",
            "/hangup/../../../../../admin/metrics",
            "/x%00y",
            "/hangup%0d%0aX:%20y",
            "/%ff",
            "%3Fx/hangup",
            "/hangup?x=" + "%0d" * 2000,
        ):
            stream = await trio.open_tcp_stream(host, int(port))
            async with stream:
                target = call + tail
                await stream.send_all(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                answer = b"".join([data async for data in stream])
            assert b"antiphon_transceiver" not in answer, target
            assert b'"calls"' not in answer, target
            statuses.add(int(answer.split()[1]))
    assert statuses <= {404, 405}


@pytest.mark.slow
async def test_a_client_secret_that_one_worker_made_is_good_at_every_other(service: Service):
    offer = (ROOT / "tests" / "vectors" / "chromium156.offer.sdp").read_bytes()
    owners = set()
    for _ in range(100):  # connections: the kernel gives each to any of the workers
        async with httpx.AsyncClient(timeout=5) as maker:
            value = (await maker.post(service.base + "/v1/realtime/client_secrets")).json()["value"]
        headers = {**SDP, "Authorization": f"Bearer {value}"}
        async with httpx.AsyncClient(timeout=5) as user:
            placed = await user.post(service.base + CALLS, content=offer, headers=headers)
            assert placed.status_code == 201, placed.text
            owners.add(owner(placed.headers["location"]))
            bad = await user.post(
                service.base + CALLS, content=offer, headers={**headers, "Authorization": "Bearer ek_v1_x"}
            )
            assert bad.status_code == 401
        if len(owners) == 2:
            break
    assert owners == {0, 1}


@pytest.mark.thorough
async def test_a_worker_that_is_killed_ends_its_own_calls_alone_and_comes_back(
    service: Service, dial, http: httpx.AsyncClient, wait_until
):
    calls = await dial_both(dial, service.base)
    victim, survivor = 0, 1
    os.kill(service.pids[victim], signal.SIGKILL)
    caller, location = calls[survivor]
    statuses = []
    for _ in range(10):  # on new connections, while nobody is back yet
        async with httpx.AsyncClient(timeout=5) as fresh:
            statuses.append((await fresh.delete(service.base + calls[victim][1])).status_code)
            statuses.append((await fresh.get(service.admin + "/readyz")).status_code)
            await heard(caller, wait_until)
    assert statuses[-20:] == [404, 200] * 10
    with trio.fail_after(20):
        while await service.metric("worker_up", worker=str(victim)) != 1:
            await trio.sleep(0.1)
    assert await service.metric("worker_starts_total", worker=str(victim)) == 2
    assert await service.metric("worker_starts_total", worker=str(survivor)) == 1
    await heard(caller, wait_until)
    async with httpx.AsyncClient(timeout=5) as fresh:
        assert (await fresh.delete(service.base + location)).status_code == 200


@pytest.mark.thorough
async def test_told_to_end_it_takes_no_calls_lets_those_finish_that_are_live_and_exits_with_the_last(
    service: Service, dial, http: httpx.AsyncClient, wait_until
):
    calls = await dial_both(dial, service.base)
    service.process.terminate()
    for _ in range(2):  # what a supervisor of services sends to every process that it finds
        for pid in service.pids:
            os.kill(pid, signal.SIGTERM)
    with trio.fail_after(10):
        while (await http.get(service.admin + "/readyz")).status_code != 503:
            await trio.sleep(0.05)
    refused = await http.post(service.base + CALLS, content=calls[0][0].offer(), headers=SDP)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    for caller, _ in calls.values():
        await heard(caller, wait_until)
        assert any("antiphon.draining" in str(message) for message in caller.messages)
    assert service.process.poll() is None
    for caller, location in calls.values():
        assert (await http.delete(service.base + location)).status_code == 200
        await wait_until(lambda caller=caller: caller.ended)
    await until_exit(service.process, 0)


@pytest.mark.thorough
async def test_told_twice_it_ends_at_once(service: Service, dial, wait_until):
    calls = await dial_both(dial, service.base)
    service.process.terminate()
    await wait_until(lambda: all("antiphon.draining" in str(caller.messages) for caller, _ in calls.values()))
    service.process.send_signal(signal.SIGINT)
    await until_exit(service.process, 0)
    for caller, _ in calls.values():
        await wait_until(lambda caller=caller: caller.told_reason == "shutdown")


@pytest.mark.thorough
async def test_when_the_parent_is_killed_calls_go_on_and_the_workers_end_with_the_last_of_them(
    service: Service, dial, http: httpx.AsyncClient, wait_until
):
    calls = await dial_both(dial, service.base)
    service.process.kill()
    service.process.wait()
    for caller, _ in calls.values():
        await wait_until(lambda caller=caller: "antiphon.draining" in str(caller.messages))
        await heard(caller, wait_until)
    for caller, _ in calls.values():
        caller.hang_up()
    with trio.fail_after(20):
        while any(Path(f"/proc/{pid}").exists() for pid in service.pids):
            await trio.sleep(0.1)


async def until_exit(process: subprocess.Popen[bytes], status: int) -> None:
    with trio.fail_after(15):
        while process.poll() is None:
            await trio.sleep(0.05)
    assert process.returncode == status


@pytest.mark.thorough
def test_a_second_service_does_not_slip_into_the_address_of_the_first(service: Service):
    process = start(http=service.base.removeprefix("http://"))
    _, words = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"cannot listen on " + service.base.removeprefix("http://").encode() in words


@pytest.mark.thorough
@pytest.mark.parametrize("taken", ["http", "listen"])
def test_an_address_that_is_taken_is_named_and_nothing_is_left_running(taken: str):
    kind = socket.SOCK_STREAM if taken == "http" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        process = start(**{taken: address})
        _, words = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"cannot listen on {address}".encode() in words
    assert not [line for line in words.splitlines() if b"Traceback" in line], json.dumps(words.decode())
