# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""Signalling with its keys, its secrets and its query, over a real registry, and calls that come of it; in virtual time."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import trio
from openai.types.realtime import ClientSecretCreateResponse
from trio.abc import Clock

from protocol.agentlink import CallClient
from protocol.realtime.settings import Settings
from transceiver.signalling import Access, create_app, new_key
from transceiver.signalling.api_keys import KeyFile
from transceiver.signalling.sessions import effective_session, join_sessions

CALLS, SECRETS = "/v1/realtime/calls", "/v1/realtime/client_secrets"
SDP = {"Content-Type": "application/sdp"}
SESSION = {
    "type": "realtime",
    "model": "m-1",
    "instructions": "Nobody may read this.",
    "audio": {"output": {"voice": "x"}},
}

pytestmark = pytest.mark.usefixtures("autojump_clock")


class Edge:
    """Keys of the names and limits given, a client of the application, and the world behind it."""

    def __init__(self, world: Any, http: httpx.AsyncClient, keys: dict[str, str]) -> None:
        self.world = world
        self.http = http
        self.keys = keys

    async def secret(self, key: str = "shop", **body: Any) -> str:
        response = await self.http.post(SECRETS, json=body, headers=bearer(self.keys[key]))
        assert response.status_code == 200, response.text
        return response.json()["value"]

    async def place(self, credential: str, query: str = "", offer: str = "", **headers: str) -> httpx.Response:
        offer = offer or self.world.callers_offer()
        return await self.http.post(CALLS + query, content=offer, headers={**SDP, **bearer(credential), **headers})

    def call_of(self, response: httpx.Response) -> Any:
        assert response.status_code == 201, response.text
        return self.world.registry.sessions[response.headers["location"].rpartition("/")[2]]


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"} if credential else {}


def error_of(response: httpx.Response) -> tuple[int, str, str | None]:
    [error] = response.json().values()
    assert set(error) == {"message", "type", "param", "code"}
    return response.status_code, error["code"], error["param"]


@pytest.fixture
async def make_edge(make_world: Callable[..., Any], caller_class: type, tmp_path: Path) -> AsyncIterator[Any]:
    clients: list[httpx.AsyncClient] = []

    def make(lines: dict[str, dict[str, int]] | None) -> Edge:
        source = random.Random(1)
        made = {name: new_key(name, source.randbytes, **limits) for name, limits in (lines or {}).items()}
        (tmp_path / "keys").write_text("\n".join(line for _, line in made.values()))
        access = Access(KeyFile(tmp_path / "keys") if lines is not None else None)
        world = make_world(usage=access.usage)
        world.callers_offer = lambda: caller_class(world.network.open("127.0.0.9")).offer()
        app = create_app(world.registry, request_seconds=5, access=access)
        clients.append(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://edge"))
        return Edge(world, clients[-1], {name: key for name, (key, _) in made.items()})

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def edge(make_edge: Any) -> Edge:
    return make_edge({"shop": {}})


@pytest.fixture
def open_edge(make_edge: Any) -> Edge:
    return make_edge(None)


# Client secrets


async def test_a_client_secret_is_given_in_the_shape_of_the_api(edge: Edge):
    before = time.time()
    body = {"expires_after": {"anchor": "created_at", "seconds": 7200}, "session": SESSION}
    response = await edge.http.post(SECRETS, json=body, headers=bearer(edge.keys["shop"]))
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    told = ClientSecretCreateResponse.model_validate_json(response.content, strict=True)
    assert told.value.startswith("ek_")
    assert "Nobody" not in told.value
    assert before + 7199 <= told.expires_at <= time.time() + 7200
    session = response.json()["session"]
    assert (session["model"], session["instructions"]) == ("m-1", "Nobody may read this.")
    assert session["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "x", "speed": 1.0}
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session["id"].startswith("sess_")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"session": null}', b'{"session": {}, "expires_after": null}'])
async def test_whoever_asks_for_nothing_gets_what_holds_where_nothing_is_said(edge: Edge, content: bytes):
    headers = bearer(edge.keys["shop"]) | {"Content-Type": "application/json"}
    response = await edge.http.post(SECRETS, content=content, headers=headers)
    told = ClientSecretCreateResponse.model_validate_json(response.content, strict=True)
    assert abs(told.expires_at - time.time() - 600) < 5
    assert response.json()["session"]["output_modalities"] == ["audio"]


def test_what_holds_where_nothing_is_said_is_what_our_agent_says():
    shown = effective_session(Settings(), "sess_1")
    assert shown == {"object": "realtime.session", "id": "sess_1", "expires_at": 0, **msgspec.to_builtins(Settings())}


@pytest.mark.parametrize(
    "session",
    [
        {"audio": {"input": {"turn_detection": None, "noise_reduction": {"type": "near_field"}}}},
        {
            "audio": {
                "input": {
                    "turn_detection": {"type": "semantic_vad", "eagerness": "low"},
                    "format": {"type": "audio/pcmu"},
                }
            }
        },
        {"audio": {"input": None, "output": None}, "instructions": None, "tools": None, "max_output_tokens": 7},
        {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}], "tool_choice": "required"},
        {"tool_choice": {"type": "function", "name": "f"}, "tracing": {"workflow_name": "w"}, "unknown": {"to": "us"}},
    ],
)
async def test_every_session_that_may_be_is_shown_as_the_api_would(edge: Edge, session: dict[str, Any]):
    response = await edge.http.post(SECRETS, json={"session": session}, headers=bearer(edge.keys["shop"]))
    assert response.status_code == 200, response.text
    ClientSecretCreateResponse.model_validate_json(response.content, strict=True)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ('{"session": {"type": "transcription"}}', "unsupported_session_type", "session.type"),
        ('{"session": {"instructions": 7}}', "invalid_session", "session.instructions"),
        ('{"session": {"audio": {"input": {"turn_detection": {"type": "vad"}}}}}', "invalid_session",
         "session.audio.input.turn_detection.type"),
        ('{"session": {"tools": [{"type": "function", "name": "f"}, 7]}}', "invalid_session", "session.tools[1]"),
        ('{"session": {"tools": [{"type": "function"}]}}', "invalid_session", "session.tools[0].name"),
        ('{"session": {"tools": [{"type": "mcp", "server_label": "x"}]}}', "invalid_session", "session.tools[0].type"),
        ('{"session": {"tool_choice": {"type": "function"}}}', "invalid_session", "session.tool_choice.name"),
        ('{"session": {"tool_choice": {"type": "mcp"}}}', "invalid_session", "session.tool_choice.type"),
        ('{"session": {"audio": {"output": {"voice": {"id": "x"}}}}}', "invalid_session", "session.audio.output.voice"),
        ('{"session": {"audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 0}}}}}',
         "invalid_session", "session.audio.input.turn_detection.silence_duration_ms"),
        ('{"session": {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 1000}}}}}',
         "invalid_session", "session.audio.input.turn_detection.idle_timeout_ms"),
        ('{"session": 7}', "invalid_request", None),
        ('{"expires_after": {"seconds": 9}}', "invalid_request", "expires_after"),
        ('{"expires_after": {"seconds": 7201}}', "invalid_request", "expires_after"),
        ('{"expires_after": {"anchor": "now"}}', "invalid_request", "expires_after"),
        ("[]", "invalid_request", None),
        ("{", "invalid_json", None),
        ("\udcff", "invalid_json", None),
        ('{"session": ' + '{"prompt": ' * 5000 + "1" + "}" * 5001, "invalid_json", None),
    ],
)  # fmt: skip
async def test_a_secret_that_cannot_be_is_refused_with_the_place(edge: Edge, body: str, code: str, param: str | None):
    headers = bearer(edge.keys["shop"]) | {"Content-Type": "application/json"}
    response = await edge.http.post(SECRETS, content=body.encode("utf-8", "surrogateescape"), headers=headers)
    assert error_of(response) == (400, code, param)


async def test_a_session_of_any_depth_is_taken_or_refused(edge: Edge):
    headers = bearer(edge.keys["shop"]) | {"Content-Type": "application/json"}
    statuses = []
    for depth in range(50, 1200, 50):
        body = '{"session": {"prompt": ' + '{"a":' * depth + "1" + "}" * (depth + 2)
        response = await edge.http.post(SECRETS, content=body, headers=headers)
        statuses.append(response.status_code)
        if response.status_code == 200:
            placed = await edge.place(response.json()["value"], "?model=m")
            assert placed.status_code == 201
    assert set(statuses) == {200, 400}


async def test_a_secret_is_asked_for_in_json_and_with_a_key_alone(edge: Edge):
    key = bearer(edge.keys["shop"])
    assert error_of(await edge.http.post(SECRETS, content="x", headers=key | SDP))[0] == 415
    assert error_of(await edge.http.post(SECRETS, json={})) == (401, "missing_api_key", "Authorization")
    secret = await edge.secret()
    again = await edge.http.post(SECRETS, json={}, headers=bearer(secret))
    assert error_of(again) == (403, "api_key_required", "Authorization")
    large = await edge.http.post(SECRETS, json={"session": {"instructions": "x" * 9000}}, headers=key)
    assert error_of(large) == (400, "session_too_large", "session")
    assert (await edge.http.get(SECRETS, headers=key)).headers["allow"] == "POST"


# Calls


async def test_a_call_needs_a_key_and_its_own_place_none(edge: Edge):
    refused = await edge.place("")
    assert error_of(refused) == (401, "missing_api_key", "Authorization")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert error_of(await edge.place("sk-other")) == (401, "invalid_api_key", "Authorization")
    placed = await edge.place(edge.keys["shop"])
    assert placed.status_code == 201
    assert (await edge.http.get("/v1/info")).json()["needs_key"] is True
    location = placed.headers["location"]
    assert (await edge.http.post(location + "/hangup", headers=bearer("sk-other"))).status_code == 200
    assert edge.world.registry.refused == {}


async def test_a_call_by_a_client_secret_has_its_session_and_is_its_makers(edge: Edge, wait_until: Any):
    headers = bearer(edge.keys["shop"]) | {"OpenAI-Safety-Identifier": "user-7"}
    value = (await edge.http.post(SECRETS, json={"session": SESSION}, headers=headers)).json()["value"]
    for _ in range(2):  # reusable
        call = edge.call_of(await edge.place(value, "?model=other"))
        assert json.loads(call.session) == SESSION
        assert call.client == CallClient("shop", "user-7")
    assert edge.world.backend.last.call is call
    lasts = edge.world.registry._config.timeouts.max_session
    assert abs(call.expires_at - time.time() - lasts) < 5


async def test_what_a_client_secret_says_a_body_cannot_change_but_add_to(edge: Edge):
    value = await edge.secret(session={"model": "m-1", "instructions": "kept"})
    asked = {"model": "m-2", "tools": [], "audio": {"output": {"voice": "y"}}}
    body = {"sdp": edge.world.callers_offer(), "session": asked}
    call = edge.call_of(await edge.http.post(CALLS, json=body, headers=bearer(value)))
    assert json.loads(call.session) == {**asked, "model": "m-1", "instructions": "kept"}


@pytest.mark.parametrize(
    ("secret", "body", "model", "joined"),
    [
        (None, None, None, None),
        (None, '{"a": 1}', None, {"a": 1}),
        ('{"a": 2}', None, None, {"a": 2}),
        ('{"a": 2, "b": {"x": 1}}', '{"a": 1, "b": {"y": 1}, "c": 1}', None, {"a": 2, "b": {"x": 1}, "c": 1}),
        (None, None, "m", {"model": "m"}),
        (None, '{"model": null}', "m", {"model": "m"}),
        (None, '{"model": "mine"}', "m", {"model": "mine"}),
        ('{"model": "its"}', '{"model": "mine"}', "m", {"model": "its"}),
    ],
)
def test_secret_body_and_query_make_one_session(
    secret: str | None, body: str | None, model: str | None, joined: dict[str, Any] | None
):
    texts = [None if text is None else text.encode() for text in (secret, body)]
    session = join_sessions(texts[0], texts[1], model)
    assert (None if session is None else json.loads(session)) == joined


async def test_a_model_in_the_query_is_for_sessions_that_name_none(open_edge: Edge):
    call = open_edge.call_of(await open_edge.place("", "?model=m-1"))
    assert json.loads(call.session) == {"model": "m-1"}
    assert open_edge.call_of(await open_edge.place("", "?model=")).session is None
    assert error_of(await open_edge.place("", "?model=" + "m" * 257)) == (400, "invalid_model", "model")


async def test_with_open_access_a_client_that_says_who_its_user_is_is_passed_on(open_edge: Edge):
    said = {"OpenAI-Safety-Identifier": "user-7"}
    assert open_edge.call_of(await open_edge.place("ek_local", **said)).client == CallClient("", "user-7")
    assert open_edge.call_of(await open_edge.place("")).client is None
    said["OpenAI-Safety-Identifier"] = "u" * 257
    assert error_of(await open_edge.place("", **said)) == (400, "invalid_safety_identifier", "OpenAI-Safety-Identifier")


async def test_a_key_with_all_its_calls_is_told_when_to_come_again_and_an_end_makes_room(
    make_edge: Any, wait_until: Any, nursery: trio.Nursery
):
    edge = make_edge({"shop": {"calls": 2}, "trial": {}})
    secret = await edge.secret()
    first = await edge.place(edge.keys["shop"])
    assert (await edge.place(secret)).status_code == 201
    for credential in (edge.keys["shop"], secret):
        full = await edge.place(credential, Origin="https://page.example")
        assert error_of(full) == (429, "concurrent_calls_exceeded", None)
        assert full.json()["error"]["type"] == "rate_limit_error"
        assert int(full.headers["retry-after"]) > 0
        assert "Retry-After" in full.headers["access-control-expose-headers"]
    assert (await edge.place(edge.keys["trial"])).status_code == 201
    assert edge.world.registry.refused == {"concurrent_calls_exceeded": 2}
    await edge.http.post(first.headers["location"] + "/hangup")
    await wait_until(lambda: len(edge.world.registry.sessions) == 2)
    assert (await edge.place(secret)).status_code == 201


async def test_a_key_places_no_more_calls_a_minute_than_it_may_and_refused_offers_are_not_counted(
    make_edge: Any, autojump_clock: Clock
):
    edge = make_edge({"shop": {"per_minute": 2}})
    for _ in range(5):
        assert error_of(await edge.place(edge.keys["shop"], offer="v=0 nonsense"))[0] == 400
    for _ in range(2):
        assert (await edge.place(edge.keys["shop"])).status_code == 201
    full = await edge.place(edge.keys["shop"])
    assert error_of(full) == (429, "rate_limit_exceeded", None)
    assert 55 <= int(full.headers["retry-after"]) <= 60
    await trio.sleep(int(full.headers["retry-after"]))
    assert (await edge.place(edge.keys["shop"])).status_code == 201


# A channel that the client opens without asking


async def test_a_channel_by_dcid_is_open_for_the_agent_as_soon_as_the_association_is(
    open_edge: Edge, caller_class: type, wait_until: Any, nursery: trio.Nursery
):
    world = open_edge.world
    caller = caller_class(world.network.open("127.0.0.2"), negotiated=6)
    response = await open_edge.place("", "?dcid=6", caller.offer())
    caller.accept(response.text)
    nursery.start_soon(caller.run)
    await wait_until(lambda: caller.channel_is_open)
    await wait_until(lambda: world.backend.last.channels == {6: "oai-events"})
    caller.say("hello")
    await wait_until(lambda: caller.messages == ["hello"])
    assert world.backend.last.messages == ["hello"]
    assert (await open_edge.http.delete(response.headers["location"])).status_code == 200
    await wait_until(lambda: caller.told_reason == "hangup")


@pytest.mark.parametrize("dcid", ["", "-1", "x", "1.0", "1024", "65535", "99999999999", "%C2%B2", "1&dcid=1"])
async def test_a_stream_id_that_cannot_be_is_refused(open_edge: Edge, dcid: str):
    assert error_of(await open_edge.place("", f"?dcid={dcid}")) == (400, "invalid_dcid", "dcid")


async def test_a_stream_id_without_a_data_channel_in_the_offer_is_refused(open_edge: Edge, caller_class: type):
    offer = caller_class(open_edge.world.network.open("127.0.0.2"), data=False).offer()
    assert error_of(await open_edge.place("", "?dcid=0", offer)) == (400, "no_data_channel", "dcid")
    assert open_edge.world.registry.sessions == {}


# What is not served, and what pages may do


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("calls/rtc_1/accept", 400, "sip_not_served"),
        ("calls/rtc_1/reject", 400, "sip_not_served"),
        ("calls/rtc_1/refer", 400, "sip_not_served"),
        ("sessions", 404, "beta_not_served"),
        ("transcription_sessions", 404, "transcription_not_served"),
        ("translations/client_secrets", 404, "translations_not_served"),
        ("translations/calls", 404, "translations_not_served"),
    ],
)
async def test_places_that_are_not_served_here_say_so(edge: Edge, path: str, status: int, code: str):
    assert error_of(await edge.http.post(f"/v1/realtime/{path}", json={})) == (status, code, None)


@pytest.mark.parametrize("path", [CALLS, SECRETS])
async def test_pages_may_send_what_the_sdk_sends_and_read_what_it_reads(edge: Edge, path: str):
    wanted = "authorization, content-type, x-openai-agents-sdk, openai-safety-identifier"
    preflight = await edge.http.options(
        path,
        headers={
            "Origin": "https://page.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
        },
    )
    assert preflight.status_code == 200
    assert set(wanted.split(", ")) <= set(preflight.headers["access-control-allow-headers"].lower().split(", "))
    refused = await edge.http.post(path, content="x", headers={"Origin": "https://page.example", **SDP})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "*"
    placed = await edge.place(edge.keys["shop"], Origin="https://page.example")
    assert "Location" in placed.headers["access-control-expose-headers"].split(", ")
