"""What a session knows, as the messages, the tools and the limits of a chat completion.

1. Instructions are the first message, of role `system`.
2. What the caller said is its transcript, what the assistant said what was heard of it. A message that has no words is left
   out; neighbours of one role become one message: several models' templates refuse two of the caller's in a row.
3. Calls of functions stand in one message of the assistant's, and what they returned directly behind it, as servers demand,
   wherever it stands in the conversation. A call that was cut off is left out, one without a result gets a word that says so;
   a result without its call is left out.
4. Of a long conversation, the last MAX_BYTES are told, and the last item in any case.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agent.realtime.items import FunctionCall, FunctionCallOutput, Item, Message, bytes_of, text_of
from agent.realtime.response import Plan
from protocol.realtime.settings import FunctionTool, ToolFunction

__all__ = ["fields_of", "messages_of"]

# Implementation constants
NO_RESULT = "(no result yet)"
MAX_BYTES = 256 * 1024  # of items: what is made of more holds up other calls for too long

Json = dict[str, Any]
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def messages_of(plan: Plan, words: Mapping[str, str], opening: str = "") -> list[Json]:
    """`words`: what is known of a turn of the caller by now, by the id of its item; `opening`: what the caller is taken to
    have said when nobody has said anything yet."""
    messages: list[Json] = []
    if plan.instructions:
        messages.append({"role": "system", "content": plan.instructions})
    items = _last(plan.items)
    results = {item.call_id: item.output for item in items if isinstance(item, FunctionCallOutput)}
    calls: list[FunctionCall] = []
    for item in items:
        if isinstance(item, FunctionCall):
            if item.status == "completed":  # of one that was cut off, or still comes, the arguments are no JSON
                calls.append(item)
            continue
        text = (words.get(item.id or "") or text_of(item)) if isinstance(item, Message) else ""
        if text or isinstance(item, FunctionCallOutput):  # what is called after a result is another message
            _add_calls(messages, calls, results)
            calls = []
        if text and isinstance(item, Message):
            _add_text(messages, item.role, text)
    _add_calls(messages, calls, results)
    for message in messages:
        if isinstance(message["content"], list):
            message["content"] = "\n".join(message["content"])
    if opening and all(message["role"] == "system" for message in messages):
        messages.append({"role": "user", "content": opening})
    return messages


def fields_of(plan: Plan, max_tokens_field: str) -> Json:
    """What else a request says of the plan."""
    fields: Json = {}
    if plan.tools:
        fields["tools"] = [_tool(tool) for tool in plan.tools]
        choice = plan.tool_choice
        named = {"type": "function", "function": {"name": choice.name}} if isinstance(choice, ToolFunction) else choice
        fields["tool_choice"] = named
    if plan.max_output_tokens != "inf":
        fields[max_tokens_field] = plan.max_output_tokens
    return fields


def _last(items: Sequence[Item]) -> Sequence[Item]:
    left = MAX_BYTES
    for place in range(len(items) - 1, -1, -1):
        left -= bytes_of(items[place])
        if left < 0:
            return items[min(place + 1, len(items) - 1) :]
    return items


def _add_text(messages: list[Json], role: str, text: str) -> None:
    """Texts of one message are a list until all of them are there."""
    last = messages[-1] if messages else {}
    if last.get("role") == role and role != "system" and "tool_calls" not in last:
        last["content"].append(text)
    else:
        messages.append({"role": role, "content": [text]})


def _add_calls(messages: list[Json], calls: Sequence[FunctionCall], results: Mapping[str, str]) -> None:
    if not calls:
        return
    made = [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": _arguments(call)}}
        for call in calls
    ]
    last = messages[-1] if messages else {}
    if last.get("role") == "assistant" and "tool_calls" not in last:
        last["tool_calls"] = made
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": made})
    messages += [
        {"role": "tool", "tool_call_id": call.call_id, "content": results.get(call.call_id, NO_RESULT)}
        for call in calls
    ]


def _arguments(call: FunctionCall) -> str:
    """Servers that put calls into a template read the arguments, and refuse the whole request for those that are no JSON."""
    try:
        _OBJECT.decode(call.arguments)
        return call.arguments
    except (msgspec.DecodeError, RecursionError):
        return "{}"


def _tool(tool: FunctionTool) -> Json:
    function: Json = {"name": tool.name, "parameters": tool.parameters or {"type": "object", "properties": {}}}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}
