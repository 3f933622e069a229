"""Signalling alone, over a `Calls` of the simplest kind; what an offer means is tested with the whole transceiver."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio
import trio.testing

from transceiver.signalling import (
    CallRequest,
    ConnectionDoor,
    ConnectionLimits,
    CreatedCall,
    SignallingError,
    TaggedAnswer,
    check_if_match,
    create_app,
    serve_signalling,
)

# httpx leaves a generator behind when an exchange ends before its body was sent.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Async generator 'httpx"),
    pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator object .*ByteStream"),
]

CALLS = "/v1/realtime/calls"
SDP = {"Content-Type": "application/sdp"}


class RecordingCalls:
    """Accepts everything, remembers it."""

    def __init__(self) -> None:
        self.requests: list[CallRequest] = []
        self.open: set[str] = set()
        self.updates: list[tuple[str | None, bytes]] = []
        self.refuse: SignallingError | None = None

    def create(self, request: CallRequest) -> CreatedCall:
        if self.refuse is not None:
            raise self.refuse
        self.requests.append(request)
        call_id = f"rtc_{len(self.requests)}"
        self.open.add(call_id)
        return CreatedCall(call_id, "v=0\r\n", '"first"')

    def update_ice(self, call_id: str, if_match: str | None, fragment: bytes) -> TaggedAnswer | None:
        if call_id not in self.open:
            raise SignallingError(404, "call_not_found", "There is no such call.", param="call_id")
        self.updates.append((if_match, fragment))
        return TaggedAnswer("a=ice-lite\r\n", '"second"') if b"restart" in fragment else None

    def renegotiate(self, call_id: str, offer: bytes, if_match: str | None = None) -> TaggedAnswer | None:
        if self.refuse is not None:
            raise self.refuse
        self.requests.append(CallRequest(offer))
        return TaggedAnswer("v=0 again\r\n", '"third"') if call_id in self.open else None

    def hang_up(self, call_id: str) -> bool:
        known = call_id in self.open
        self.open.discard(call_id)
        return known

    def info(self) -> dict[str, object]:
        return {"name": "antiphon"}


@pytest.fixture
def calls() -> RecordingCalls:
    return RecordingCalls()


@pytest.fixture
async def client(calls: RecordingCalls, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "index.html").write_text("<h1>hello</h1>")
    app = create_app(calls, request_seconds=5, web=tmp_path)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        yield client


def error_of(response: httpx.Response) -> dict[str, object]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return body["error"]


async def test_an_offer_as_application_sdp_is_answered(client: httpx.AsyncClient, calls: RecordingCalls) -> None:
    response = await client.post(
        CALLS, content=b"v=0 offer", headers={"Content-Type": "application/sdp; charset=utf-8"}
    )
    assert response.status_code == 201
    assert response.headers["location"] == "/v1/realtime/calls/rtc_1"
    assert response.headers["content-type"].startswith("application/sdp")
    assert response.text == "v=0\r\n"
    assert calls.requests == [CallRequest(b"v=0 offer")]


@pytest.mark.parametrize(
    "files",
    [
        {"sdp": (None, "v=0 offer", "application/sdp"), "session": (None, '{"type":"realtime"}', "application/json")},
        {"sdp": (None, "v=0 offer"), "session": (None, '{"type":"realtime"}')},
        {"sdp": ("offer.sdp", b"v=0 offer"), "session": ("s.json", b'{"type":"realtime"}')},
    ],
    ids=["typed parts", "plain fields", "files"],
)
async def test_an_offer_in_a_form_carries_its_session(
    client: httpx.AsyncClient, calls: RecordingCalls, files: dict[str, tuple[str | None, str | bytes]]
) -> None:
    response = await client.post(CALLS, files=files)
    assert response.status_code == 201
    assert calls.requests == [CallRequest(b"v=0 offer", b'{"type":"realtime"}')]


async def test_a_form_needs_no_session(client: httpx.AsyncClient, calls: RecordingCalls) -> None:
    assert (await client.post(CALLS, files={"sdp": (None, "v=0 offer")})).status_code == 201
    assert calls.requests == [CallRequest(b"v=0 offer", None)]


async def test_an_offer_in_json_carries_its_session(client: httpx.AsyncClient, calls: RecordingCalls) -> None:
    body = {"sdp": "v=0 offer", "session": {"model": "m"}}
    response = await client.post(CALLS, json=body, headers={"Accept": "application/sdp"})
    assert response.status_code == 201
    assert calls.requests == [CallRequest(b"v=0 offer", b'{"model":"m"}')]


@pytest.mark.parametrize(
    ("content", "headers", "status", "code", "param"),
    [
        (b"v=0", {}, 415, "unsupported_media_type", None),
        (b"v=0", {"Content-Type": "text/plain"}, 415, "unsupported_media_type", None),
        (b"v=0", {**SDP, "Content-Encoding": "gzip"}, 415, "unsupported_media_type", None),
        (b"v=0", {**SDP, "Accept": "text/html, application/json;q=0.9"}, 406, "not_acceptable", None),
        (b"v=0", {**SDP, "Accept": "application/sdp; q=0"}, 406, "not_acceptable", None),
        (b"v=0" * 30_000, SDP, 413, "payload_too_large", None),
        (b"{", {"Content-Type": "application/json"}, 400, "invalid_json", None),
        (b"[" * 60_000, {"Content-Type": "application/json"}, 400, "invalid_json", None),
        (b'{"sdp": 7}', {"Content-Type": "application/json"}, 400, "invalid_json", None),
        (b"{}", {"Content-Type": "application/json"}, 400, "invalid_json", None),
        (b"--x", {"Content-Type": "multipart/form-data"}, 400, "invalid_form", None),
        (b"nonsense", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "invalid_form", None),
        (b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, 400, "missing_offer", "sdp"),
    ],
)
async def test_requests_that_cannot_be_an_offer_are_refused(
    client: httpx.AsyncClient,
    calls: RecordingCalls,
    content: bytes,
    headers: dict[str, str],
    status: int,
    code: str,
    param: str | None,
) -> None:
    response = await client.post(CALLS, content=content, headers=headers)
    assert response.status_code == status
    error = error_of(response)
    assert (error["code"], error["param"], error["type"]) == (code, param, "invalid_request_error")
    assert calls.requests == []


@pytest.mark.parametrize("session", ["not json", "[1]", "7"])
async def test_a_session_must_be_a_json_object(client: httpx.AsyncClient, session: str) -> None:
    response = await client.post(CALLS, files={"sdp": (None, "v=0"), "session": (None, session)})
    assert response.status_code == 400
    assert error_of(response)["param"] == "session"


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "transcription"}, "unsupported_session_type", "session.type"),
        ({"tools": [{"type": "mcp", "server_label": "x"}]}, "invalid_session", "session.tools[0].type"),
        ({"audio": {"output": {"speed": 9}}}, "invalid_session", "session.audio.output.speed"),
    ],
)
async def test_a_session_that_no_agent_would_take_is_refused_in_every_body(
    client: httpx.AsyncClient, calls: RecordingCalls, session: dict[str, object], code: str, param: str
) -> None:
    form = {"sdp": (None, "v=0"), "session": (None, json.dumps(session))}
    for response in (
        await client.post(CALLS, files=form),
        await client.post(CALLS, json={"sdp": "v=0", "session": session}),
    ):
        assert response.status_code == 400
        assert (error_of(response)["code"], error_of(response)["param"]) == (code, param)
    assert calls.requests == []


async def test_fields_of_a_session_that_only_its_agent_knows_reach_it(
    client: httpx.AsyncClient, calls: RecordingCalls
) -> None:
    session = {"table": {"rows": [1, 2]}, "audio": {"mine": True}, "type": "realtime"}
    response = await client.post(CALLS, json={"sdp": "v=0", "session": session})
    assert response.status_code == 201
    assert json.loads(calls.requests[0].session or b"") == session


async def test_the_size_limit_holds_while_streaming(client: httpx.AsyncClient, calls: RecordingCalls) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 16_384
            yield bytes(16_384)

    response = await client.post(CALLS, content=endless(), headers=SDP)
    assert response.status_code == 413
    assert sent < 3_000_000
    assert calls.requests == []


FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def test_w2_an_answer_names_its_ice_session_and_what_may_change_it(client: httpx.AsyncClient) -> None:
    response = await client.post(CALLS, content=b"v=0", headers=SDP)
    assert response.headers["etag"] == '"first"'
    assert response.headers["accept-patch"] == "application/trickle-ice-sdpfrag"


async def test_w2_a_call_tells_what_may_be_sent_to_it(client: httpx.AsyncClient) -> None:
    response = await client.options(f"{CALLS}/rtc_1")
    assert response.status_code == 200
    assert response.headers["accept-patch"] == "application/trickle-ice-sdpfrag"
    assert response.headers["accept-post"] == "application/sdp"
    assert {"PATCH", "DELETE"} <= set(response.headers["allow"].split(", "))


@pytest.mark.parametrize(
    ("method", "place", "allow"),
    [
        ("PUT", CALLS, "OPTIONS, POST"),
        ("GET", f"{CALLS}/rtc_1", "DELETE, OPTIONS, PATCH, POST"),
        ("GET", f"{CALLS}/rtc_1/hangup", "POST"),
        ("DELETE", "/v1/info", "GET, HEAD"),
    ],
)
async def test_a_method_that_a_place_does_not_take_is_told_all_that_it_takes(
    client: httpx.AsyncClient, method: str, place: str, allow: str
) -> None:
    response = await client.request(method, place)
    assert (response.status_code, response.headers["allow"]) == (405, allow)


async def test_w2_trickled_candidates_get_204_without_an_entity_tag(
    client: httpx.AsyncClient, calls: RecordingCalls
) -> None:
    location = (await client.post(CALLS, content=b"v=0", headers=SDP)).headers["location"]
    response = await client.patch(location, content=b"a=candidate:", headers={**FRAGMENT, "If-Match": '"first"'})
    assert response.status_code == 204
    assert response.content == b""
    assert "etag" not in response.headers
    assert calls.updates == [('"first"', b"a=candidate:")]


async def test_w2_a_restart_gets_200_with_our_fragment_and_the_new_entity_tag(client: httpx.AsyncClient) -> None:
    location = (await client.post(CALLS, content=b"v=0", headers=SDP)).headers["location"]
    response = await client.patch(location, content=b"restart", headers={**FRAGMENT, "If-Match": "*"})
    assert response.status_code == 200
    assert response.headers["etag"] == '"second"'
    assert response.headers["content-type"].startswith("application/trickle-ice-sdpfrag")
    assert response.text == "a=ice-lite\r\n"


async def test_w2_a_patch_of_another_type_gets_415_and_is_told_the_right_one(
    client: httpx.AsyncClient, calls: RecordingCalls
) -> None:
    location = (await client.post(CALLS, content=b"v=0", headers=SDP)).headers["location"]
    for headers in (SDP, {}, {**FRAGMENT, "Content-Encoding": "gzip"}):
        response = await client.patch(location, content=b"restart", headers={**headers, "If-Match": "*"})
        assert response.status_code == 415
        assert response.headers["accept-patch"] == "application/trickle-ice-sdpfrag"
    assert calls.updates == []


async def test_w2_a_patch_of_an_unknown_call_or_of_the_collection_is_refused(client: httpx.AsyncClient) -> None:
    gone = await client.patch(f"{CALLS}/rtc_0", content=b"restart", headers={**FRAGMENT, "If-Match": "*"})
    assert (gone.status_code, error_of(gone)["code"]) == (404, "call_not_found")
    assert (await client.patch(CALLS, content=b"restart", headers=FRAGMENT)).status_code == 405


async def test_w2_a_fragment_has_the_same_limits_as_an_offer(client: httpx.AsyncClient) -> None:
    location = (await client.post(CALLS, content=b"v=0", headers=SDP)).headers["location"]
    response = await client.patch(location, content=b"a=" * 40_000, headers={**FRAGMENT, "If-Match": "*"})
    assert response.status_code == 413


@pytest.mark.parametrize("header", ["*", ' "tag" ', '"tag"', '"other", "tag"', '"tag",W/"x"'])
def test_w2_an_if_match_that_names_the_ice_session_holds(header: str) -> None:
    check_if_match(header, '"tag"')


@pytest.mark.parametrize(
    ("header", "status"),
    [(None, 428), ("", 412), ('"other"', 412), ('W/"tag"', 412), ("tag", 412), ('"tag', 412), ('*, "tag"', 412)],
)
def test_w2_an_if_match_that_is_missing_or_names_another_session_does_not_hold(header: str | None, status: int) -> None:
    with pytest.raises(SignallingError) as refused:
        check_if_match(header, '"tag"')
    assert (refused.value.status, refused.value.param) == (status, "If-Match")


async def test_a_call_is_hung_up_either_way_and_then_unknown(client: httpx.AsyncClient, calls: RecordingCalls) -> None:
    for method, suffix in (("POST", "/hangup"), ("DELETE", "")):
        location = (await client.post(CALLS, content=b"v=0", headers=SDP)).headers["location"]
        assert (await client.request(method, location + suffix)).status_code == 200
        response = await client.request(method, location + suffix)
        assert response.status_code == 404
        assert error_of(response)["code"] == "call_not_found"
    assert calls.open == set()


async def test_a_further_offer_goes_to_the_calls_own_place(client: httpx.AsyncClient, calls: RecordingCalls) -> None:
    location = (await client.post(CALLS, content=b"v=0", headers=SDP)).headers["location"]
    response = await client.post(location, content=b"v=0 more", headers=SDP)
    assert (response.status_code, response.text) == (200, "v=0 again\r\n")
    assert response.headers["etag"] == '"third"'
    assert response.headers["content-type"].startswith("application/sdp")
    assert calls.requests[-1] == CallRequest(b"v=0 more")
    unknown = await client.post(f"{CALLS}/rtc_7", content=b"v=0", headers=SDP)
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "call_not_found")
    # The session was agreed when the call was made: only SDP comes here.
    assert (await client.post(location, json={"sdp": "v=0", "session": {}})).status_code == 415
    assert (await client.post(location, content=b"v=0", headers={**SDP, "Accept": "text/html"})).status_code == 406
    calls.refuse = SignallingError(422, "codec_changed", "The codec in use must stay.", param="a=rtpmap")
    refused = await client.post(location, content=b"v=0", headers=SDP)
    assert (refused.status_code, error_of(refused)["param"]) == (422, "a=rtpmap")


async def test_a_full_or_leaving_transceiver_says_when_to_come_back(
    client: httpx.AsyncClient, calls: RecordingCalls
) -> None:
    calls.refuse = SignallingError(503, "session_limit", "Too many calls.", retry_after=5)
    response = await client.post(CALLS, content=b"v=0", headers={**SDP, "Origin": "https://page.example"})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.headers["access-control-allow-origin"] == "*"
    assert error_of(response)["type"] == "server_error"


async def test_pages_of_other_origins_may_call_and_read_the_location(client: httpx.AsyncClient) -> None:
    preflight = await client.options(
        CALLS,
        headers={
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-openai-agents-sdk",
        },
    )
    assert preflight.status_code == 200
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed
    assert "x-openai-agents-sdk" in allowed
    assert {"DELETE", "PATCH"} <= set(preflight.headers["access-control-allow-methods"].split(", "))
    response = await client.post(CALLS, content=b"v=0", headers={**SDP, "Origin": "https://page.example"})
    assert response.headers["access-control-expose-headers"] == "Location, ETag, Accept-Patch, Retry-After"
    assert response.headers["access-control-allow-origin"] == "*"


async def test_options_says_what_may_be_posted_with_and_without_a_pages_question(client: httpx.AsyncClient) -> None:
    plain = await client.options(CALLS)
    preflight = await client.options(
        CALLS, headers={"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}
    )
    for response in (plain, preflight):
        assert response.status_code == 200
        assert "application/sdp" in response.headers["accept-post"]
    assert plain.headers["allow"] == "OPTIONS, POST"
    assert plain.content == b""


async def test_unknown_places_and_methods_answer_with_the_same_shape_of_error(client: httpx.AsyncClient) -> None:
    assert error_of(await client.get("/v1/nowhere"))["code"] == "not_found"
    assert error_of(await client.get(CALLS))["code"] == "method_not_allowed"
    assert error_of(await client.get("/missing.js"))["code"] == "not_found"
    assert error_of(await client.get("/../pyproject.toml"))["code"] == "not_found"


async def test_our_own_failure_is_a_500_without_details(client: httpx.AsyncClient, calls: RecordingCalls) -> None:
    del calls.requests
    response = await client.post(CALLS, content=b"v=0", headers=SDP)
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
    assert "requests" not in response.text


async def test_the_page_and_the_info_are_served(client: httpx.AsyncClient) -> None:
    assert "hello" in (await client.get("/")).text
    assert (await client.get("/v1/info")).json() == {"name": "antiphon", "needs_key": False}


async def test_a_body_that_trickles_is_cut_off(calls: RecordingCalls, autojump_clock: trio.testing.MockClock) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"v"
            await trio.sleep(1)

    transport = httpx.ASGITransport(app=create_app(calls, request_seconds=10))
    async with httpx.AsyncClient(transport=transport, base_url="http://edge") as client:
        began = trio.current_time()
        response = await client.post(CALLS, content=trickle(), headers=SDP)
    assert response.status_code == 408
    assert trio.current_time() - began <= 10
    assert calls.requests == []


@pytest.fixture
async def server(calls: RecordingCalls, nursery: trio.Nursery) -> tuple[str, int]:
    """A real server with tight limits."""
    limits = ConnectionLimits(total=4, per_address=2, header_seconds=0.2, read_seconds=0.2)
    app = create_app(calls, request_seconds=0.2)
    urls = await nursery.start(serve_signalling, app, ("127.0.0.1:0",), ConnectionDoor(limits))
    host, _, port = urls[0].removeprefix("http://").rpartition(":")
    return host, int(port)


async def read_all(stream: trio.SocketStream) -> bytes:
    received = b""
    with trio.fail_after(8):
        async for chunk in stream:
            received += chunk
    return received


HEAD = b"POST /v1/realtime/calls HTTP/1.1\r\nHost: edge\r\nContent-Type: application/sdp\r\nConnection: close\r\n"


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (HEAD + b"Content-Length: 100\r\n\r\nv=0", b"408"),
        (HEAD + b"Content-Length: 100000\r\n\r\n" + b"v" * 100_000, b"413"),
        (HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (HEAD + b"Content-Length: x\r\n\r\n", b"400"),
        (HEAD + b"X: " + b"x" * 100_000, b"431"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
    ids=["slow body", "oversize", "both lengths", "bad length", "endless header", "no http"],
)
async def test_bad_senders_are_answered_and_cut_while_good_ones_are_served(
    server: tuple[str, int], head: bytes, expected: bytes
) -> None:
    # To make a client takes longer than the limits of this server when the machine is busy: so it comes first.
    async with httpx.AsyncClient(base_url=f"http://{server[0]}:{server[1]}") as client:
        stream = await trio.open_tcp_stream(*server)
        await stream.send_all(head)
        assert (await client.post(CALLS, content=b"v=0", headers=SDP)).status_code == 201
    answer = await read_all(stream)
    assert answer.startswith(b"HTTP/1.1 " + expected)
    await stream.aclose()


async def test_headers_that_trickle_are_cut_off(server: tuple[str, int]) -> None:
    stream = await trio.open_tcp_stream(*server)
    await stream.send_all(b"POST /v1/re")
    began = trio.current_time()
    assert await read_all(stream) == b""
    assert trio.current_time() - began < 2
    await stream.aclose()


async def test_connections_beyond_the_limit_are_closed_and_the_places_are_given_back(server: tuple[str, int]) -> None:
    first, second = await trio.open_tcp_stream(*server), await trio.open_tcp_stream(*server)
    third = await trio.open_tcp_stream(*server)
    with trio.fail_after(2):
        assert await third.receive_some() == b""
    await first.aclose()
    await second.aclose()
    await third.aclose()
    answer = b""
    with trio.fail_after(2):
        while not answer:  # until the server has noticed the closed ones
            async with await trio.open_tcp_stream(*server) as stream:
                with contextlib.suppress(trio.BrokenResourceError):
                    await stream.send_all(HEAD + b"Content-Length: 3\r\n\r\nv=0")
                    answer = await stream.receive_some()
    assert answer.startswith(b"HTTP/1.1 201")
