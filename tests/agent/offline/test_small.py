# ruff: noqa: ANN401  (what is in JSON is anything)
"""The small dialogue, in virtual time and in writing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.abc import Clock

from agent.offline.language import ROOMS
from agent.offline.small import (
    GREETING,
    HELP,
    MAX_RESULTS,
    MAX_SAID_IN_ALL,
    NOT_HEARD,
    NOT_UNDERSTOOD,
    NOTHING_NEW,
    SmallDialogue,
    SmallTalk,
)
from agent.realtime.client_events import ResponseSettings
from agent.realtime.items import FunctionCall, FunctionCallOutput, InputAudio, InputText, Item, Message, OutputAudio
from agent.realtime.parts import Turn
from agent.realtime.response import Plan
from protocol.realtime.settings import FunctionTool, Settings

ROOM = {"type": "string"}
TOOL = FunctionTool(name="set_light", parameters={"type": "object", "properties": {"room": ROOM, "on": {}}})
LISTED = FunctionTool(name="set_light", parameters={"properties": {"room": {"enum": ["Living_Room", "attic", 5]}}})


class Notes:
    """`parts.Writer`"""

    def __init__(self) -> None:
        self.text = ""
        self.functions: list[str] = []
        self.calls: list[dict[str, Any]] = []  # what they were called with

    async def write(self, text: str) -> None:
        self.text += text

    async def call(self, name: str) -> None:
        self.functions.append(name)

    async def argue(self, text: str) -> None:
        self.calls.append(json.loads(text))


def user(text: str) -> Message:
    return Message(role="user", content=[InputText(text)])


async def answer(talk: SmallTalk, *items: Item, turn: Turn | None = None, **change: Any) -> Notes:
    notes = Notes()
    plan = Plan.of("resp_1", Settings(), ResponseSettings(**change), items)
    assert await talk.answer(plan, turn, notes) is None
    return notes


async def say(talk: SmallTalk, text: str) -> str:
    return (await answer(talk, user(text))).text


@pytest.fixture
def talk() -> SmallTalk:
    return SmallDialogue().begin()


async def test_it_greets_when_nothing_was_said_and_says_what_it_can_do(talk: SmallTalk):
    instructed = Message(role="system", content=[InputText("Be kind.")])
    assert (await answer(talk)).text == (await answer(talk, instructed)).text == GREETING
    said = Message(role="assistant", content=[OutputAudio(transcript="Hello.")])
    assert (await answer(talk, user("hi"), said)).text == NOTHING_NEW
    assert await say(talk, "help") == HELP
    assert await say(talk, "order a pizza") == NOT_UNDERSTOOD


async def test_what_was_spoken_counts_as_what_was_heard(talk: SmallTalk):
    for words, answered in (("thank you", "You are welcome."), (None, NOT_HEARD), ("", NOT_UNDERSTOOD)):
        turn = Turn("item_1", b"", 16_000)
        turn.settle(words)
        assert (await answer(talk, Message(role="user", content=[InputAudio()]), turn=turn)).text == answered


@pytest.mark.parametrize(
    ("question", "answered"),
    [
        ("how many feet are two meters", "2 meters are 6.56 feet."),
        ("convert one mile to kilometers", "1 mile is 1.61 kilometers."),
        ("what is ninety fahrenheit in celsius", "90 degrees fahrenheit are 32.2 degrees celsius."),
        ("what is 0 celsius in fahrenheit", "0 degrees celsius are 32 degrees fahrenheit."),
        ("2.5 kg in grams", "2.5 kilograms are 2500 grams."),
    ],
)
async def test_it_converts(talk: SmallTalk, question: str, answered: str):
    assert await say(talk, question) == answered


async def test_a_timer_rings_when_its_time_has_come_and_is_told_once(autojump_clock: Clock, talk: SmallTalk):
    spoken: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run, lambda: spoken.append(trio.current_time()))
        began = trio.current_time()
        assert await say(talk, "set a timer for ten minutes") == "I set a timer for 10 minutes."
        assert await say(talk, "set a timer for 90 seconds") == "I set a timer for 1 minute and 30 seconds."
        await trio.sleep(30)
        assert await say(talk, "how long is left") == "There is 1 minute and 9 minutes and 30 seconds left."
        await trio.sleep(100)
        assert spoken == [began + 90]
        assert (await answer(talk)).text == "Your timer for 1 minute and 30 seconds is up."
        await trio.sleep(1000)
        assert spoken == [began + 90, began + 600]
        both = await say(talk, "thanks")
        assert both == "Your timer for 10 minutes is up. You are welcome."
        assert await say(talk, "how long is left") == "There is no timer."
        nursery.cancel_scope.cancel()


async def test_a_timer_whose_announcement_was_interrupted_is_told_with_the_next_answer(
    autojump_clock: Clock, talk: SmallTalk
):
    class Slow(Notes):
        async def write(self, text: str) -> None:
            await trio.sleep(10)

    await say(talk, "set a timer for ten seconds")
    await trio.sleep(11)
    plan = Plan.of("resp_1", Settings(), ResponseSettings(), ())
    with trio.move_on_after(1):
        await talk.answer(plan, None, Slow())
    unheard = Turn("item_1", b"", 16_000)
    with trio.move_on_after(1):
        await answer(talk, Message(role="user", content=[InputAudio()]), turn=unheard)
    assert await say(talk, "thanks") == "Your timer for 10 seconds is up. You are welcome."
    assert await say(talk, "thanks") == "You are welcome."


async def test_a_cancelled_timer_does_not_ring(autojump_clock: Clock, talk: SmallTalk):
    spoken: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk.run, lambda: spoken.append(trio.current_time()))
        assert await say(talk, "cancel the timer") == "There is no timer."
        await say(talk, "set a timer for ten seconds")
        assert await say(talk, "stop the timer") == "The timer is off."
        await trio.sleep(20)
        assert spoken == []
        nursery.cancel_scope.cancel()


async def test_timers_are_bounded_in_number_and_length(talk: SmallTalk):
    assert (await say(talk, "set a timer")).startswith("For how long?")
    assert (await say(talk, "set a timer for 100 days and 30 hours")).startswith("For how long?")
    answers = [await say(talk, "set a timer for an hour") for _ in range(9)]
    assert answers[7] == "I set a timer for 1 hour."
    assert answers[8].startswith("There are 8 timers already.")


async def test_lights_are_switched_by_the_clients_function_and_its_result_is_said(talk: SmallTalk):
    notes = await answer(talk, user("turn on the light in the kitchen"), tools=[TOOL])
    assert (notes.text, notes.calls) == ("", [{"room": "kitchen", "on": True}])
    call = FunctionCall(name="set_light", arguments='{"room": "kitchen", "on": true}', call_id="call_1")
    for output, told in (
        ('{"ok": true}', "The light in the kitchen is on."),
        ("anything", "The light in the kitchen is on."),
        ('{"error": "no power"}', "That did not work: no power."),
        ('{"ok": false}', "That did not work: the lights do not answer."),
    ):
        result = FunctionCallOutput(call_id="call_1", output=output)
        assert (await answer(talk, user("…"), call, result)).text == told
    assert await say(talk, "which lights are on") == "The light is on in the kitchen."


async def test_rooms_are_called_as_the_function_calls_them(talk: SmallTalk):
    notes = await answer(talk, user("living room lights on"), tools=[LISTED])
    assert notes.calls == [{"room": "Living_Room", "on": True}]
    notes = await answer(talk, user("turn all lights off"), tools=[LISTED])
    assert notes.calls == [{"room": "Living_Room", "on": False}, {"room": "attic", "on": False}]


def page_tools() -> list[FunctionTool]:
    """What the page declares, read from its source."""
    source = (Path(__file__).parents[3] / "web" / "room.js").read_text()
    rooms = json.loads(re.search(r"ROOMS = (\[.*?\]);", source)[1])
    listed = [*rooms, "all"] if 'enum: [...ROOMS, "all"]' in source else rooms
    names = re.findall(r"^      (\w+): \{$", source, re.MULTILINE)
    assert names == ["set_light", "get_lights"]
    parameters = {
        "type": "object",
        "properties": {"room": {"type": "string", "enum": listed}, "on": {"type": "boolean"}},
    }
    return [
        FunctionTool(name="set_light", parameters=parameters),
        FunctionTool(name="get_lights", parameters={"type": "object", "properties": {}}),
    ]


@pytest.mark.parametrize(
    ("said", "function", "arguments", "lit", "told"),
    [
        ("turn all lights on", "set_light", {"room": "all", "on": True}, ROOMS, "All lights are on."),
        ("turn off all lights", "set_light", {"room": "all", "on": False}, [], "All lights are off."),
        (
            "turn on the light in the hall",
            "set_light",
            {"room": "hall", "on": True},
            [],
            "The light in the hall is on.",
        ),
        ("which lights are on", "get_lights", {}, ["hall"], "The light is on in the hall."),
        ("which lights are on", "get_lights", {}, ["hall", "kitchen"], "The light is on in the kitchen and hall."),
        ("which lights are on", "get_lights", {}, [], "All lights are off."),
    ],
)
async def test_the_pages_functions_are_called_once_and_what_they_return_is_said(
    talk: SmallTalk, said: str, function: str, arguments: dict[str, Any], lit: list[str], told: str
):
    tools = page_tools()
    notes = await answer(talk, user(said), tools=tools)
    assert (notes.text, notes.functions, notes.calls) == ("", [function], [arguments])
    call = FunctionCall(name=function, arguments=json.dumps(arguments), call_id="call_1")
    rooms = tools[0].parameters["properties"]["room"]["enum"]
    output = json.dumps({room: room in lit for room in rooms if room != "all"})
    result = FunctionCallOutput(call_id="call_1", output=output)
    assert (await answer(talk, user(said), call, result, tools=tools)).text == told


async def test_all_lights_that_were_switched_at_once_are_remembered(talk: SmallTalk):
    call = FunctionCall(name="set_light", arguments='{"room": "all", "on": true}', call_id="call_1")
    await answer(talk, call, FunctionCallOutput(call_id="call_1", output='{"ok": true}'))
    assert "kitchen, bedroom" in await say(talk, "which lights are on")


async def test_without_a_function_it_keeps_the_lights_in_mind_and_says_so(talk: SmallTalk):
    text = "turn on the light in the hall"
    for change in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        notes = await answer(talk, user(text), **change)
        assert notes.calls == []
        assert notes.text.startswith("The light in the hall is on. I only keep that in mind")
    assert await say(talk, "which lights are on") == "The light is on in the hall."


@pytest.mark.parametrize(
    ("output", "told"),
    [("Sunny, 20 degrees.", "Sunny, 20 degrees."), ('{"sky": "blue"}', "sky: blue"), ("", "Done."), ("null", "Done.")],
)
async def test_the_result_of_any_other_function_is_said(talk: SmallTalk, output: str, told: str):
    call = FunctionCall(name="weather", arguments="{}", call_id="call_1")
    assert (await answer(talk, call, FunctionCallOutput(call_id="call_1", output=output))).text == told
    assert (await answer(talk, FunctionCallOutput(call_id="call_1", output=output))).text == told


@pytest.mark.parametrize("function", ["set_light", "get_lights"])
@given(arguments=st.text(), output=st.text())
async def test_whatever_functions_are_called_with_and_return_is_borne(function: str, arguments: str, output: str):
    call = FunctionCall(name=function, arguments=arguments, call_id="call_1")
    notes = await answer(SmallTalk(), call, FunctionCallOutput(call_id="call_1", output=output))
    assert notes.text


async def test_what_many_functions_return_is_said_within_bounds(talk: SmallTalk):
    outputs = [FunctionCallOutput(call_id=f"call_{index}", output="." * 590 + f"x{index}") for index in range(1000)]
    text = (await answer(talk, *outputs)).text
    assert text.endswith("x999")
    assert len(text) <= MAX_SAID_IN_ALL + MAX_RESULTS
    long = FunctionCallOutput(call_id="call_1", output="[" + "[]," * 80_000 + "[]]")
    assert len((await answer(talk, long)).text) <= MAX_SAID_IN_ALL


async def test_a_room_with_a_long_name_is_cut(talk: SmallTalk):
    call = FunctionCall(name="set_light", arguments='{"on": true, "room": "' + "attic" * 500 + '"}', call_id="call_1")
    assert len((await answer(talk, call, FunctionCallOutput(call_id="call_1", output="{}"))).text) < 100
