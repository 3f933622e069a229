"""Agents by name, and the choice among several."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from trio.abc import Clock

from agent.call import Call
from agent.loading import AgentNotFound, Switchboard, load_agent, load_agents
from protocol.agentlink import CallEnd


async def one(call: Call) -> None:
    await call.end("one")


async def other(call: Call) -> None:
    await call.end("other")


@pytest.mark.parametrize(
    ("session", "answers"),
    [
        (None, "one"),
        ({}, "one"),
        ({"model": "other"}, "other"),
        ({"model": "one"}, "one"),
        ({"model": "gpt-realtime"}, "one"),
        ({"model": ["other"]}, "one"),
    ],
)
async def test_a_session_names_its_agent_as_the_model_else_the_first_answers(
    autojump_clock: Clock, open_link: Callable[..., Awaitable[Any]], session: dict[str, Any] | None, answers: str
):
    client = await open_link(Switchboard({"one": one, "other": other}))
    await client.start_call(1, "PCMU", session)
    await client.until(lambda: client.of(CallEnd))
    assert [end.reason for end in client.of(CallEnd)] == [answers]


def test_several_agents_speak_the_codecs_that_all_of_them_know(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(one, "codecs", ("opus", "PCMU", "PCMA"), raising=False)
    monkeypatch.setattr(other, "codecs", ("PCMA", "PCMU"), raising=False)
    assert Switchboard({"one": one, "other": other}).codecs == ("PCMU", "PCMA")
    assert Switchboard({"one": one, "echo": load_agent("echo")}).codecs == ("opus", "PCMU", "PCMA")
    monkeypatch.setattr(other, "codecs", ("G722",), raising=False)
    assert Switchboard({"one": one, "other": other}).codecs == ()


def test_one_agent_is_itself_and_an_unknown_one_is_told():
    assert load_agents(["echo"]) is load_agent("echo")
    with pytest.raises(AgentNotFound, match="'nobody' is none of"):
        load_agents(["echo", "nobody"])
