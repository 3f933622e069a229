# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""The `openai` package's own client, unmodified, against a real transceiver on loopback: secrets, calls, hang-ups, errors."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import openai
import pytest
import trio

from protocol.routing import RoutingConfig
from transceiver.config import TransceiverConfig
from transceiver.server import Bound, Transceiver
from transceiver.signalling import new_key
from udpio import open_udp

pytestmark = pytest.mark.slow

T = TypeVar("T")

OFFER = Path(__file__).parents[1] / "vectors" / "chromium156.offer.sdp"


@pytest.fixture
async def edge(nursery: trio.Nursery, tmp_path: Path) -> AsyncIterator[tuple[Transceiver, str, str]]:
    """A transceiver with one key that may have two calls: itself, its URL, and the key."""
    key, line = new_key("shop", os.urandom, calls=2)
    (tmp_path / "keys").write_text(line)
    config = TransceiverConfig(direct=True, agents=("internal:echo",), web="none", api_keys=str(tmp_path / "keys"))
    transceiver = Transceiver(config, RoutingConfig(), strict=True)

    async def run(*, task_status: trio.TaskStatus[Bound]) -> None:
        await transceiver.run(task_status=task_status)

    bound = await nursery.start(run)
    yield transceiver, bound.http[0], key
    transceiver.shut_down()


@pytest.fixture
def connect(edge: Any) -> Iterator[Callable[[str], openai.OpenAI]]:
    clients: list[openai.OpenAI] = []

    def connect(key: str, **headers: str) -> openai.OpenAI:
        http = openai.DefaultHttpxClient(trust_env=False)
        client = openai.OpenAI(
            api_key=key, base_url=edge[1] + "/v1", http_client=http, max_retries=0, default_headers=headers
        )
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


async def aside(call: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """The client blocks: in a thread, with an end."""
    with trio.fail_after(20):
        return await trio.to_thread.run_sync(partial(call, *arguments, **options))


async def test_a_server_makes_a_secret_its_user_calls_with_it_and_the_server_hangs_up(
    edge: Any, connect: Any, caller_class: Any, nursery: trio.Nursery, wait_until: Any
):
    transceiver, _, key = edge
    server = connect(key, **{"OpenAI-Safety-Identifier": "user-7"})
    session = {
        "type": "realtime",
        "model": "gpt-realtime",
        "instructions": "Nobody may read this. " + "It is long. " * 650,  # nearly all that a header can carry
        "audio": {"output": {"voice": "marin"}},
    }
    secret = await aside(
        server.realtime.client_secrets.create,
        expires_after={"anchor": "created_at", "seconds": 60},
        session=session,
    )
    assert secret.value.startswith("ek_")
    assert (secret.session.type, secret.session.model, secret.session.audio.output.voice) == (
        "realtime",
        "gpt-realtime",
        "marin",
    )
    caller = caller_class(open_udp("127.0.0.1", 0))
    answer = await aside(connect(secret.value).realtime.calls.create, sdp=caller.offer())
    location = answer.response.headers["location"]
    caller.accept(answer.text)
    nursery.start_soon(caller.run)
    await wait_until(lambda: caller.channel_is_open)
    call_id = location.rpartition("/")[2]
    call = transceiver.registry.sessions[call_id]
    assert (call.client.key, call.client.safety_identifier) == ("shop", "user-7")
    assert b"Nobody may read this." in call.session
    await aside(server.realtime.calls.hangup, call_id)
    await wait_until(lambda: caller.ended)
    assert caller.told_reason == "hangup"
    with pytest.raises(openai.NotFoundError):
        await aside(server.realtime.calls.hangup, call_id)


async def test_a_call_with_a_session_of_its_own_and_a_negotiated_channel(
    edge: Any, connect: Any, caller_class: Any, nursery: trio.Nursery, wait_until: Any
):
    transceiver, _, key = edge
    caller = caller_class(open_udp("127.0.0.1", 0), negotiated=2)
    answer = await aside(
        connect(key).realtime.calls.create,
        sdp=caller.offer(),
        session={"type": "realtime", "instructions": "Be brief."},
        extra_query={"model": "gpt-realtime", "dcid": "2"},
    )
    caller.accept(answer.text)
    nursery.start_soon(caller.run)
    await wait_until(lambda: caller.channel_is_open)
    caller.say("hello")
    await wait_until(lambda: caller.messages == ["hello"])
    [call] = transceiver.registry.sessions.values()
    assert b'"model":"gpt-realtime"' in call.session
    assert b"Be brief." in call.session


async def test_errors_are_the_clients_own_with_our_words(edge: Any, connect: Any):
    _, _, key = edge
    offer = OFFER.read_bytes().decode()
    for bad in ("sk-nobody", "ek_v1_forged"):
        with pytest.raises(openai.AuthenticationError) as refused:
            await aside(connect(bad).realtime.calls.create, sdp=offer)
        assert refused.value.code in ("invalid_api_key", "invalid_client_secret")
    client = connect(key)
    secret = await aside(client.realtime.client_secrets.create)
    with pytest.raises(openai.PermissionDeniedError):
        await aside(connect(secret.value).realtime.client_secrets.create)
    with pytest.raises(openai.BadRequestError) as refused:
        await aside(client.realtime.calls.create, sdp="nonsense")
    assert refused.value.code == "not_sdp"
    with pytest.raises(openai.BadRequestError) as refused:
        await aside(client.realtime.calls.accept, "rtc_1", type="realtime")
    assert refused.value.code == "sip_not_served"
    for _ in range(2):
        await aside(client.realtime.calls.create, sdp=offer)
    with pytest.raises(openai.RateLimitError) as limited:
        await aside(client.realtime.calls.create, sdp=offer)
    assert limited.value.code == "concurrent_calls_exceeded"
    assert int(limited.value.response.headers["retry-after"]) > 0
