"""Controllers of a bridged call: they hear what the caller hears, and what they ask is answered to them. In virtual time."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import trio
from realtime_client import OFFICIAL
from realtime_service import Caller, Service
from trio.abc import Clock

from protocol.agentlink import FIRST_CONTROLLER

Dial = Callable[..., Awaitable[Caller]]
CONTROLLER = FIRST_CONTROLLER


def heard_by(caller: Caller, channel: int) -> list[dict[str, Any]]:
    texts = [message.data for message in caller.client.data if message.channel == channel]
    for text in texts:
        OFFICIAL.validate_json(text)
    return [json.loads(text) for text in texts]


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


async def attach(caller: Caller, channel: int = CONTROLLER) -> None:
    await caller.client.open_channel(1, channel, "")


async def test_a_controller_before_the_callers_channel_costs_the_caller_no_event(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial(channel=False)
    await attach(caller)
    await service.session()
    await trio.sleep(1)
    assert types(heard_by(caller, CONTROLLER)) == ["session.created"]
    assert heard_by(caller, 1) == []
    await caller.client.open_channel()
    await trio.sleep(1)
    assert types(heard_by(caller, 1)) == ["session.created"]


async def test_a_controller_is_greeted_with_the_session_as_it_is_and_hears_what_follows(
    autojump_clock: Clock, dial: Dial, service: Service
):
    caller = await dial()
    session = await service.session()
    await caller.write("session.update", session={"type": "realtime", "instructions": "Be brief."})
    await caller.read("session.updated")
    await attach(caller)
    await session.begin_response()
    await session.end_response()
    await caller.read("response.done")
    await trio.sleep(0.1)
    heard = heard_by(caller, CONTROLLER)
    assert types(heard) == ["session.created", "response.created", "response.done"]
    assert heard[0]["session"]["instructions"] == "Be brief."
    await caller.client.send_data(1, CONTROLLER, json.dumps({"type": "response.create"}))
    await session.read("response.create")


async def test_an_error_goes_to_the_client_whose_event_it_is_about(autojump_clock: Clock, dial: Dial, service: Service):
    caller = await dial()
    session = await service.session()
    await attach(caller)
    await caller.read("session.created")
    event = {"type": "response.cancel", "event_id": "mine"}
    await caller.client.send_data(1, CONTROLLER, json.dumps(event))
    await session.read("response.cancel")
    error = {"type": "invalid_request_error", "code": "x", "message": "no", "param": None, "event_id": "mine"}
    await session.send_dict("error", error=error)
    await caller.client.send_data(1, CONTROLLER, "no event")
    await session.send_dict("error", error={**error, "event_id": None})
    await trio.sleep(1)
    codes = [[e["error"]["code"] for e in heard_by(caller, n) if e["type"] == "error"] for n in (CONTROLLER, 1)]
    assert sorted(codes[0]) == ["invalid_json", "x", "x"]
    assert codes[1] == ["x"], "only what concerns nobody, or everybody"
