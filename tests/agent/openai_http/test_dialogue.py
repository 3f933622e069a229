"""The dialogue `openai` against a server of the API: what it asks, what it makes of an answer."""

from __future__ import annotations

import pytest
import trio
from openai_server import SSE, OpenAiServer, calls, chunk, completion, refuse, says, usage
from trio.abc import Clock

from agent.realtime.parts import CutShort, ModelFailed, Turn
from agent.realtime.server_events import InputTokenDetails, OutputTokenDetails, Usage
from protocol.realtime.settings import FunctionTool


async def test_an_answer_is_written_as_it_comes_and_its_tokens_are_counted(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    server.script.append(completion(says("It is ", "noon."), usage=usage(12, 5, cached=8), pause=1))
    writer = notebook()
    counted = await parts.dialogue().answer(plan(instructions="Be brief."), None, writer)
    assert writer.notes == [("write", "It is "), ("write", "noon.")]
    assert writer.times[1] - writer.times[0] == pytest.approx(1)
    assert counted == Usage(
        total_tokens=17,
        input_tokens=12,
        output_tokens=5,
        input_token_details=InputTokenDetails(text_tokens=12, cached_tokens=8),
        output_token_details=OutputTokenDetails(text_tokens=5),
    )
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == "Bearer sk-very-secret"
    assert request.headers["accept-encoding"] == "identity"
    assert request.json == {
        "model": "small",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "what time is it"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_what_the_configuration_adds_and_what_the_session_limits_is_asked(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    dialogue = parts.dialogue(
        include_usage=False,
        max_tokens_field="max_completion_tokens",
        extra={"temperature": 0.5, "reasoning_effort": "low"},
    )
    tool = FunctionTool(name="light", parameters={"type": "object"})
    await dialogue.answer(plan(max_output_tokens=40, tools=[tool], tool_choice="required"), None, notebook())
    asked = server.requests[0].json
    assert "stream_options" not in asked
    assert (asked["max_completion_tokens"], asked["temperature"], asked["reasoning_effort"]) == (40, 0.5, "low")
    assert (asked["tools"][0]["function"]["name"], asked["tool_choice"]) == ("light", "required")


async def test_functions_are_called_with_their_arguments_as_they_come_several_in_one_answer(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    pieces = [*says("One moment."), *calls("light", '{"on"', ":true}"), *calls("timer", '{"s":5}', index=1)]
    server.script.append(completion(pieces, "tool_calls"))
    writer = notebook()
    await parts.dialogue().answer(plan(), None, writer)
    assert writer.notes == [
        ("write", "One moment."),
        ("call", "light"),
        ("argue", '{"on"'),
        ("argue", ":true}"),
        ("call", "timer"),
        ("argue", '{"s":5}'),
    ]


async def test_a_function_that_is_called_with_nothing_is_called_with_no_arguments(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    pieces = [
        *calls("help"),
        *calls("stop", index=1),
        *says("Done."),
        *calls("wave", "{}", index=2),
        *calls("bye", index=3),
    ]
    server.script.append(completion(pieces, "tool_calls"))
    writer = notebook()
    await parts.dialogue().answer(plan(), None, writer)
    assert (
        "".join(text if kind != "write" else f" {text} " for kind, text in writer.notes)
        == "help{}stop{} Done. wave{}bye{}"
    )


def whole(name: str, arguments: str, **fields: object) -> str:
    """A call in one piece; with an index that the API wants, but not all servers give."""
    made = chunk(
        {"tool_calls": [{"index": 0, "type": "function", "function": {"name": name, "arguments": arguments}, **fields}]}
    )
    return made if "index" in fields else made.replace('"index":0,"id"', '"id"').replace('"index":0,"type"', '"type"')


@pytest.mark.parametrize(
    "pieces",
    [
        [whole("light", "{}", index=0, id="a"), whole("timer", "{}", index=0, id="b")],  # Ollama before 0.20
        [whole("light", "{}", id="a"), whole("timer", "{}", id="b")],
        [
            whole("light", "{", index=0, id="a"),
            whole("light", "}", index=0, id="a"),
            whole("timer", "{}", index=1, id="b"),
        ],
    ],
    ids=["the same index for all", "no index", "id and name with each piece"],
)
async def test_calls_of_servers_that_number_them_in_their_own_way_are_told_apart(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, pieces: list[str]
):
    server.script.append(completion(pieces, "tool_calls"))
    writer = notebook()
    await parts.dialogue().answer(plan(), None, writer)
    assert [text for kind, text in writer.notes if kind == "call"] == ["light", "timer"]
    assert "".join(text for kind, text in writer.notes if kind == "argue") == "{}{}"


@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_an_answer_that_is_cut_short_says_why(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, finish_reason: str, reason: str
):
    server.script.append(completion(says("It is"), finish_reason, usage(12, 2)))
    writer = notebook()
    with pytest.raises(CutShort) as cut:
        await parts.dialogue().answer(plan(), None, writer)
    assert cut.value.reason == reason
    assert cut.value.usage is not None
    assert cut.value.usage.output_tokens == 2
    assert writer.notes == [("write", "It is")]


async def test_the_callers_words_are_waited_for(autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan):
    turn = Turn("item_1", b"", 16_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(parts.dialogue().answer, plan(), turn, notebook())
        await trio.sleep(2)
        assert not server.requests
        turn.settle("what day is it")
    assert server.requests[0].json["messages"] == [{"role": "user", "content": "what day is it"}]


async def test_a_turn_without_words_is_told_as_silence_or_not_at_all(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    turn = Turn("item_1", b"", 16_000)
    turn.settle("")
    assert await parts.dialogue(silence="").answer(plan(), turn, notebook()) is None
    assert not server.requests
    await parts.dialogue().answer(plan(), turn, notebook())
    assert server.requests[0].json["messages"] == [{"role": "user", "content": "(silence)"}]


async def test_nobody_is_asked_when_the_caller_was_not_understood(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    turn = Turn("item_1", b"", 16_000)
    turn.settle(None)
    with pytest.raises(ModelFailed, match="Nobody understood"):
        await parts.dialogue().answer(plan(), turn, notebook())
    assert not server.requests


async def test_a_refusal_is_words_and_what_a_model_thinks_is_none(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    thinks = chunk({"content": None}).replace('"content":null', '"content":null,"reasoning_content":"hm"')
    server.script.append(completion([thinks, chunk({"refusal": "I will not."})]))
    writer = notebook()
    await parts.dialogue().answer(plan(), None, writer)
    assert writer.notes == [("write", "I will not.")]


@pytest.mark.parametrize("done", [True, False], ids=["with [DONE]", "without"])
@pytest.mark.parametrize("finish_reason", ["stop", None])
async def test_an_answer_is_whole_with_a_reason_or_with_done(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, done: bool, finish_reason: str | None
):
    server.script.append(completion(says("Yes."), finish_reason, done=done))
    answering = parts.dialogue().answer(plan(), None, notebook())
    if done or finish_reason:
        assert await answering is None
    else:
        with pytest.raises(ModelFailed, match="broke off"):
            await answering


async def test_a_server_that_does_not_end_its_stream_holds_nobody_up(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    async def lingers(exchange) -> None:
        await exchange.start(content_type=SSE)
        for data in (*says("Yes."), chunk({}, "stop"), "[DONE]"):
            await exchange.event(data)
        await trio.sleep_forever()

    server.script.append(lingers)
    began = trio.current_time()
    await parts.dialogue().answer(plan(), None, notebook())
    assert trio.current_time() - began < 1
    await trio.testing.wait_all_tasks_blocked()
    assert len(server.hangups) == 1


async def test_connections_are_kept_between_answers_and_closed_at_the_end(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    dialogue = parts.dialogue()
    for _ in range(5):
        await dialogue.answer(plan(), None, notebook())
    assert (server.connections, server.open) == (1, 1)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(dialogue.answer, plan(), None, notebook(1.0))
    assert server.connections == 3
    await dialogue.aclose()
    await trio.testing.wait_all_tasks_blocked()
    assert server.open == 0


async def test_nothing_of_one_call_reaches_the_server_with_another(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    server.script.append(refuse(500, {}, set_cookie="caller=one; Path=/"))
    await parts.dialogue().answer(plan(), None, notebook())
    assert [request.headers.get("cookie") for request in server.requests] == [None, None]


@pytest.mark.parametrize("seconds", [0.0, 100.0], ids=["while it is read", "while it is written"])
async def test_a_caller_who_interrupts_ends_the_servers_work_at_once(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, seconds: float
):
    server.script.append(completion(says(*["word "] * 100), pause=1))
    began = trio.current_time()
    with trio.move_on_after(5.5):
        await parts.dialogue().answer(plan(), None, notebook(seconds))
    await trio.testing.wait_all_tasks_blocked()
    assert server.hangups == [began + 5.5]
    assert server.open == 0


async def test_a_caller_who_interrupts_before_the_answer_begins_does_too(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    async def waits(_) -> None:
        await trio.sleep_forever()

    server.script.append(waits)
    with trio.move_on_after(1):
        await parts.dialogue().answer(plan(), None, notebook())
    await trio.testing.wait_all_tasks_blocked()
    assert len(server.hangups) == 1
    assert server.open == 0
