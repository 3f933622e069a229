# ruff: noqa: ANN401  (what is in JSON is anything)
"""What a model is told of a session: held against the API's own types."""

from __future__ import annotations

import time
from typing import Any

from openai_server import CREATE

from agent.openai_http.messages import MAX_BYTES, NO_RESULT, fields_of, messages_of
from agent.realtime.client_events import ResponseSettings
from agent.realtime.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputText,
    Item,
    Message,
    OutputAudio,
    OutputText,
)
from agent.realtime.response import Plan
from protocol.realtime.settings import FunctionTool, Settings, ToolFunction


def plan(*items: Item, **change: Any) -> Plan:
    return Plan.of("resp_1", Settings(), ResponseSettings(**change), items)


def told(*items: Item, words: dict[str, str] | None = None, **change: Any) -> list[dict[str, Any]]:
    messages = messages_of(plan(*items, **change), words or {})
    if messages:
        CREATE.validate_python({"model": "m", "messages": messages})
    return messages


def user(text: str, item_id: str = "item_1") -> Message:
    return Message(role="user", content=[InputText(text)], id=item_id)


def spoke(transcript: str | None, item_id: str = "item_2") -> Message:
    return Message(role="user", content=[InputAudio(transcript=transcript)], id=item_id)


def said(text: str) -> Message:
    return Message(role="assistant", content=[OutputAudio(transcript=text)], id="item_3")


def call(call_id: str, arguments: str = '{"a":1}', **fields: Any) -> FunctionCall:
    return FunctionCall(name="light", arguments=arguments, call_id=call_id, **fields)


def result(call_id: str, output: str = "done") -> FunctionCallOutput:
    return FunctionCallOutput(call_id=call_id, output=output)


def made(*call_ids: str, arguments: str = '{"a":1}') -> list[dict[str, Any]]:
    return [
        {"id": name, "type": "function", "function": {"name": "light", "arguments": arguments}} for name in call_ids
    ]


def tool(call_id: str, content: str = "done") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_instructions_come_first_then_who_said_what():
    system = Message(role="system", content=[InputText("it is late")], id="item_9")
    written = Message(role="assistant", content=[OutputText("Good night.")], id="item_4")
    assert told(system, spoke("hello"), said("Hi, I"), user("bye"), written, instructions="Be brief.") == [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": "it is late"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Hi, I"},
        {"role": "user", "content": "bye"},
        {"role": "assistant", "content": "Good night."},
    ]


def test_words_that_are_just_known_stand_for_those_of_the_item():
    assert told(spoke(None, "item_7"), words={"item_7": "now"}) == [{"role": "user", "content": "now"}]


def test_what_has_no_words_is_left_out_and_neighbours_of_one_role_become_one():
    assert told(user("one"), spoke(None), said(""), user("two", "item_8"), said("Yes."), said("Well.")) == [
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "Yes.\nWell."},
    ]


def test_calls_stand_in_one_message_and_their_results_directly_behind_it():
    assert told(
        user("both"), said("Yes."), call("c1"), call("c2"), user("quick", "item_5"), result("c2"), result("c1", "")
    ) == [
        {"role": "user", "content": "both"},
        {"role": "assistant", "content": "Yes.", "tool_calls": made("c1", "c2")},
        tool("c1", ""),
        tool("c2"),
        {"role": "user", "content": "quick"},
    ]


def test_a_call_that_came_of_another_ones_result_is_told_after_it():
    assert told(call("c1"), result("c1"), call("c2"), result("c2")) == [
        {"role": "assistant", "content": None, "tool_calls": made("c1")},
        tool("c1"),
        {"role": "assistant", "content": None, "tool_calls": made("c2")},
        tool("c2"),
    ]


def test_what_is_said_after_a_call_is_another_message():
    assert [message["role"] for message in told(call("c1"), said("Wait."), result("c1"))] == [
        "assistant",
        "tool",
        "assistant",
    ]


def test_a_call_without_a_result_says_so_and_one_that_was_cut_off_was_none():
    messages = told(call("c1"), call("c2", '{"a', status="incomplete"), user("and?"))
    assert messages[:2] == [{"role": "assistant", "content": None, "tool_calls": made("c1")}, tool("c1", NO_RESULT)]


def test_a_result_without_its_call_is_left_out():
    assert told(result("c1"), user("and?")) == [{"role": "user", "content": "and?"}]


def test_of_a_long_conversation_the_end_is_told():
    items = [user(f"{index} " + "é" * 2000) for index in range(200)]
    (message,) = told(*items)
    lines = message["content"].split("\n")
    assert lines == [f"{index} " + "é" * 2000 for index in range(200 - len(lines), 200)]
    assert MAX_BYTES * 0.9 < len(message["content"].encode()) <= MAX_BYTES
    assert told(*items, result("c1"), user("x" * (MAX_BYTES + 1))) == [
        {"role": "user", "content": "x" * (MAX_BYTES + 1)}
    ]
    assert told(call("c1"), user("x" * (MAX_BYTES - 155)), result("c1"), user("and?"))[0]["content"].endswith("x\nand?")


def test_joining_what_one_side_said_takes_time_in_proportion():
    def seconds(count: int) -> float:
        items = [user("é" * 40)] * count
        began = time.process_time()
        messages_of(plan(*items), {})
        return time.process_time() - began

    seconds(10)
    assert seconds(1000) < 4 * min(seconds(500) for _ in range(3)) + 0.05


def test_arguments_that_are_no_object_are_none():
    for arguments in ("", "{", "[1]", "7", "[" * 5000):
        assert told(call("c1", arguments))[0]["tool_calls"] == made("c1", arguments="{}")


def test_a_model_that_speaks_first_reads_an_opening():
    assert messages_of(plan(instructions="Be brief."), {}, "Hello!") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!"},
    ]
    assert messages_of(plan(), {}) == []
    assert messages_of(plan(said("Hi.")), {}, "Hello!") == [{"role": "assistant", "content": "Hi."}]


def test_tools_and_how_to_choose_among_them():
    weather = FunctionTool(name="weather", description="of a town", parameters={"type": "object", "properties": {}})
    fields = fields_of(
        plan(tools=[weather, FunctionTool(name="light")], tool_choice=ToolFunction("light")), "max_tokens"
    )
    CREATE.validate_python({"model": "m", "messages": [], **fields})
    assert fields["tools"][0]["function"]["description"] == "of a town"
    assert fields["tools"][1]["function"] == {"name": "light", "parameters": {"type": "object", "properties": {}}}
    assert fields["tool_choice"] == {"type": "function", "function": {"name": "light"}}
    assert fields_of(plan(tools=[weather], tool_choice="required"), "max_tokens")["tool_choice"] == "required"


def test_without_tools_nothing_is_said_of_them_and_a_limit_bears_the_servers_name_for_it():
    assert fields_of(plan(), "max_tokens") == {}
    assert fields_of(plan(max_output_tokens=50), "max_completion_tokens") == {"max_completion_tokens": 50}
