# ruff: noqa: ANN401  (what is in JSON is anything)
"""Servers that are down, slow, rude or mad: what is tried again, what the client is told, and that no key is in it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import structlog
import trio
from openai_server import SSE, Act, Exchange, OpenAiServer, chunk, completion, refuse, says
from trio.abc import Clock

from agent.openai_http.client import MAX_ERROR_LETTERS
from agent.openai_http.dialogue import MAX_CALLS, MAX_LETTERS
from agent.realtime.parts import ModelFailed
from agent.realtime.speaking import SpeakingModel

KEY = "sk-very-secret"


def sends(*pieces: bytes, content_type: str = SSE, pause: float = 0.0, then: str = "end") -> Act:
    """Raw bytes of an answer; then it ends, hangs up, or says nothing more."""

    async def act(exchange: Exchange) -> None:
        await exchange.start(content_type=content_type)
        for piece in pieces:
            await trio.sleep(pause)
            await exchange.send(piece)
        match then:
            case "end":
                await exchange.end()
            case "drop":
                await exchange.drop()
            case "stall":
                await trio.sleep_forever()

    return act


async def hangs_up(exchange: Exchange) -> None:
    await exchange.drop()


async def says_nothing(_: Exchange) -> None:
    await trio.sleep_forever()


async def loads_first(exchange: Exchange) -> None:
    await trio.sleep(59)
    await completion(says("It is ", "noon."))(exchange)


class Wordless:
    """`parts.Voice` of one who hears nothing, and reads."""

    rate = 24_000
    words = ""

    def say(self, text: str) -> None:
        self.words += text


def event(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


WORDS = tuple(event(data) for data in says("It is "))

PASSING: dict[str, tuple[Act, str]] = {
    "hangs up": (hangs_up, "broke off before its answer"),
    "does not answer": (says_nothing, "did not answer within 2 s"),
    "stalls before the first word": (sends(then="stall"), "sent nothing more for 3 s"),
    "drops before the first word": (sends(WORDS[0], then="drop"), "broke off its answer"),
    "ends before the first word": (sends(WORDS[0]), "broke off its answer"),
    "429": (refuse(429, {"error": {"message": "slow down", "type": "rate"}}), "answers 429: slow down"),
    "500": (refuse(500, {"detail": "CUDA out of memory"}), "answers 500: CUDA out of memory"),
    "503 without words": (lambda exchange: exchange.answer(b"<html>", 503, "text/html"), "answers 503"),
    "garbage": (sends(b"data: no JSON\n\n"), "sends what makes no sense (not_a_chat_completion)"),
    "JSON of another shape": (sends(event('{"choices": 5}')), "sends what makes no sense (not_a_chat_completion)"),
    "a list": (sends(event("[]")), "sends what makes no sense (not_a_chat_completion)"),
    "half a call": (
        sends(event(chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}))),
        "sends what makes no sense (piece_of_no_call)",
    ),
    "no end of a line": (sends(*[b"x" * 65536] * 20), "sends what makes no sense (sse_line_too_long)"),
    "a page instead of events": (
        sends(b"<html>", content_type="text/html"),
        "answers with text/html instead of text/event-stream",
    ),
    "an answer in one piece": (
        lambda exchange: exchange.answer(b'{"choices": []}'),
        "answers with application/json instead of text/event-stream",
    ),
    "nothing but the end": (sends(WORDS[0], event("[DONE]")), "sends an answer with nothing in it"),
    "an error in the stream": (
        sends(event('{"error": {"message": "the engine died", "code": 500}}')),
        "fails: the engine died",
    ),
    "an error event": (sends(b'event: error\ndata: {"object": "error", "message": "no"}\n\n'), "fails: no"),
}

FINAL: dict[str, tuple[Act, str]] = {
    "401": (refuse(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}), "refuses our API key (401)"),
    "403": (refuse(403, {"error": "forbidden"}), "refuses our API key (403)"),
    "404": (refuse(404, {"error": {"message": "model 'small' not found"}}), "answers 404: model 'small' not found"),
    "400": (refuse(400, {"error": f"bad {KEY}\n\x1b[31m"}), "answers 400: bad … [31m"),
    "a redirect": (refuse(307, {}, location="http://elsewhere.test/v1"), "redirects (307), which is not followed"),
    "compressed": (
        lambda exchange: exchange.answer(b"\x1f\x8b", content_type=SSE, content_encoding="gzip"),
        "compresses its answer, which it was not asked to",
    ),
}

QUICK = {"first_byte_seconds": 2.0, "stall_seconds": 3.0, "retry_seconds": 60.0}


@pytest.mark.parametrize("name", PASSING)
async def test_before_the_first_word_it_is_tried_again(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, name: str
):
    server.script += [PASSING[name][0]] * 2
    writer = notebook()
    await parts.dialogue(**QUICK).answer(plan(), None, writer)
    assert writer.notes == [("write", "It is "), ("write", "noon.")]
    assert len(server.requests) == 3
    assert parts.asked.counters == {"requests": 1, "retries": 2}


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"first_byte_seconds": 60.0},
        {"first_byte_seconds": 9.0, "stall_seconds": 30.0, "attempts": 5, "retry_seconds": 60.0},
        {"attempts": 1, "first_byte_seconds": 2.0, "stall_seconds": 2.0},
    ],
)
@pytest.mark.parametrize("fault", ["does not answer", "stalls before the first word"])
async def test_every_try_that_the_bounds_allow_is_made_before_the_model_is_given_up(
    autojump_clock: Clock, server: OpenAiServer, parts, plan, bounds: dict[str, Any], fault: str
):
    server.script += [PASSING[fault][0]] * 5
    dialogue = parts.dialogue(**bounds)
    began = trio.current_time()
    with pytest.raises(ModelFailed, match=r"did not answer within|sent nothing more for"):
        await SpeakingModel(dialogue, parts.speaker()).respond(plan(), None, Wordless())
    assert trio.current_time() - began < dialogue.patience_seconds


async def test_a_server_may_take_as_long_for_its_first_word_as_is_set(
    autojump_clock: Clock, server: OpenAiServer, parts, plan
):
    server.script.append(loads_first)
    voice = Wordless()
    model = SpeakingModel(parts.dialogue(first_byte_seconds=60.0), parts.speaker())
    await model.respond(plan(output_modalities=["text"]), None, voice)
    assert voice.words == "It is noon."


@pytest.mark.parametrize("name", PASSING)
async def test_a_server_that_stays_away_is_given_up_in_a_sentence(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, name: str
):
    server.script += [PASSING[name][0]] * 3
    writer = notebook()
    with pytest.raises(ModelFailed) as failed:
        await parts.dialogue(**QUICK).answer(plan(), None, writer)
    assert str(failed.value) == f"The model server {PASSING[name][1]}."
    assert not writer.notes
    assert parts.asked.counters == {"requests": 1, "retries": 2, "failures": 1}


@pytest.mark.parametrize("name", FINAL)
async def test_what_will_not_be_better_is_not_tried_again(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, name: str
):
    server.script.append(FINAL[name][0])
    with structlog.testing.capture_logs() as logs, pytest.raises(ModelFailed) as failed:
        await parts.dialogue(**QUICK).answer(plan(), None, notebook())
    assert str(failed.value) == f"The model server {FINAL[name][1]}."
    assert len(server.requests) == 1
    assert KEY not in json.dumps(logs)
    assert [entry["event"] for entry in logs] == ["a request failed"]


@pytest.mark.parametrize(
    ("act", "what"),
    [
        (sends(*WORDS, then="drop"), "broke off its answer"),
        (sends(*WORDS), "broke off its answer"),
        (sends(*WORDS, then="stall"), "sent nothing more for 3 s"),
        (sends(*WORDS, b"data: {\n\n"), "sends what makes no sense (not_a_chat_completion)"),
        (sends(*WORDS, event('{"error": "out of memory"}')), "fails: out of memory"),
        (sends(*WORDS, b": still here\n\n", b"\xff\xfe" * 500_000), "sends what makes no sense (sse_line_too_long)"),
    ],
    ids=["drops", "ends", "stalls", "garbage", "fails", "no end of a line"],
)
async def test_after_the_first_word_nothing_is_tried_again(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, act: Act, what: str
):
    server.script.append(act)
    writer = notebook()
    with pytest.raises(ModelFailed) as failed:
        await parts.dialogue(**QUICK).answer(plan(), None, writer)
    assert str(failed.value) == f"The model server {what}."
    assert writer.notes == [("write", "It is ")]
    assert len(server.requests) == 1


async def test_after_its_last_word_a_server_may_vanish(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    for then in ("drop", "stall"):
        server.script.append(sends(*WORDS, event(chunk({}, "stop")), then=then))
        assert await parts.dialogue(**QUICK).answer(plan(), None, notebook()) is None


async def test_a_server_that_is_down_is_asked_again_and_found_when_it_is_back(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan, nursery: trio.Nursery
):
    server.is_down = True

    async def come_back() -> None:
        await trio.sleep(1)
        server.is_down = False

    nursery.start_soon(come_back)
    began = trio.current_time()
    await parts.dialogue(attempts=5).answer(plan(), None, notebook())
    assert 1 <= trio.current_time() - began < 3
    server.is_down = True
    with pytest.raises(ModelFailed, match=r"^The model server cannot be reached\.$"):
        await parts.dialogue(attempts=2).answer(plan(), None, notebook())


async def test_a_server_that_says_when_to_come_back_is_obeyed(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    server.script.append(refuse(429, {}, retry_after="4"))
    server.script.append(
        refuse(503, {}, retry_after="Wed, 21 Oct 2026 07:28:05 GMT", date="Wed, 21 Oct 2026 07:28:00 GMT")
    )
    await parts.dialogue().answer(plan(), None, notebook())
    first, second, third = server.times
    assert (second - first, third - second) == (pytest.approx(4), pytest.approx(5))
    server.script.append(refuse(429, {"error": {"message": "come tomorrow"}}, retry_after="86400"))
    with pytest.raises(ModelFailed, match="answers 429: come tomorrow"):
        await parts.dialogue().answer(plan(), None, notebook())
    assert len(server.times) == 4
    server.script.append(refuse(429, {}, retry_after="soon"))
    await parts.dialogue().answer(plan(), None, notebook())
    assert parts.asked.counters["bad_retry_after"] == 1


async def test_tries_end_with_their_time(autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan):
    server.script += [says_nothing] * 10
    began = trio.current_time()
    with pytest.raises(ModelFailed, match="did not answer"):
        await parts.dialogue(attempts=10, first_byte_seconds=2.0, retry_seconds=5.0).answer(plan(), None, notebook())
    assert trio.current_time() - began < 8
    assert 2 <= len(server.requests) <= 3


@pytest.mark.slow
async def test_an_endless_answer_is_ended(autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan):
    server.script.append(completion(says(*["x" * 10_000] * (MAX_LETTERS // 10_000 + 1))))
    writer = notebook()
    with pytest.raises(ModelFailed, match="answer_too_long"):
        await parts.dialogue().answer(plan(), None, writer)
    assert sum(len(text) for _, text in writer.notes) <= MAX_LETTERS
    many = [
        chunk({"tool_calls": [{"index": number, "function": {"name": "light"}}]}) for number in range(MAX_CALLS + 1)
    ]
    server.script.append(completion(many))
    with pytest.raises(ModelFailed, match="too_many_calls"):
        await parts.dialogue().answer(plan(), None, notebook())


async def test_pieces_of_two_calls_that_are_mixed_are_refused(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    def piece(index: int, **function: Any) -> str:
        return chunk({"tool_calls": [{"index": index, "function": function}]})

    mixed = [piece(0, name="light"), piece(1, name="timer"), piece(0, arguments="{}")]
    server.script.append(completion(mixed, "tool_calls"))
    with pytest.raises(ModelFailed, match="piece_of_no_call"):
        await parts.dialogue().answer(plan(), None, notebook())


async def test_a_long_speech_about_what_is_wrong_is_shortened(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    server.script.append(refuse(400, {"error": {"message": "word " * 1000}}))
    with pytest.raises(ModelFailed) as failed:
        await parts.dialogue().answer(plan(), None, notebook())
    assert len(str(failed.value)) < MAX_ERROR_LETTERS + 60
    server.script.append(refuse(400, {"error": {"message": "word " * 100_000}}))
    with pytest.raises(ModelFailed, match=r"^The model server answers 400\.$"):
        await parts.dialogue().answer(plan(), None, notebook())


async def test_requests_wait_for_a_connection_no_longer_than_they_would_for_a_new_one(
    autojump_clock: Clock, server: OpenAiServer, parts, notebook, plan
):
    server.script += [says_nothing] * 10  # as many as the pool of the tests has
    dialogue = parts.dialogue(first_byte_seconds=100.0, attempts=1)
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(dialogue.answer, plan(), None, notebook())
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with pytest.raises(ModelFailed, match="as many requests at once as it is given"):
            await dialogue.answer(plan(), None, notebook())
        assert trio.current_time() - began == pytest.approx(5)
        nursery.cancel_scope.cancel()
