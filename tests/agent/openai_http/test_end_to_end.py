# ruff: noqa: ANN401  (what is in JSON is anything)
"""A caller on the agent link, a session of the Realtime API, and all three parts from one server of the OpenAI API."""

from __future__ import annotations

import io
import json
import wave
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from openai_server import OpenAiServer, calls, completion, refuse, says, tone, transcription, usage
from realtime_client import OFFICIAL
from trio.abc import Clock

from agent.call import Call
from agent.codecs import needs_pcm, open_decoder, open_encoder
from agent.realtime.driver import converse
from agent.realtime.speaking import SpeakingModel
from protocol.codecs import PCMU

APOLOGY = "Sorry, I cannot think just now."
CLOCK = {
    "type": "function",
    "name": "clock",
    "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}},
}


class Caller:
    def __init__(
        self, client: Any, player: Any, speech: Callable[..., list[bytes]], quiet: Callable[..., list[bytes]]
    ) -> None:
        self.client = client
        self.player = player
        self._sounds = {"speech": speech, "quiet": quiet}
        self._encoder = open_encoder(PCMU)
        self._rtp_time = 0

    async def ask(self) -> None:
        for sound, milliseconds in (("quiet", 400), ("speech", 1200), ("quiet", 1000)):
            frames = [self._encoder.encode(piece) for piece in self._sounds[sound](8000, milliseconds)]
            self._rtp_time = await self.client.say(frames, start=self._rtp_time)

    async def write(self, kind: str, **fields: Any) -> None:
        await self.client.send_data(1, 1, json.dumps({"type": kind, **fields}))

    @property
    def events(self) -> list[dict[str, Any]]:
        for message in self.client.data:
            OFFICIAL.validate_json(message.data, strict=True)
        return [json.loads(message.data) for message in self.client.data]

    async def read(self, kind: str, number: int = 0) -> dict[str, Any]:
        """The event of that kind with that number, when it comes."""
        await self.client.until(lambda: sum(event["type"] == kind for event in self.events) > number, 20)
        return [event for event in self.events if event["type"] == kind][number]

    def loud_frames(self) -> int:
        decoder = open_decoder(PCMU)
        return sum(any(decoder.decode(payload)) for payload in self.player.played)


@pytest.fixture
async def caller(open_link: Callable[..., Awaitable[Any]], play: Callable[..., Any], parts, speech, quiet) -> Caller:
    dialogue, speaker, recognizer = parts.dialogue(), parts.speaker(voice="heart"), parts.recognizer()
    model = SpeakingModel(dialogue, speaker, apology=APOLOGY)

    @needs_pcm
    async def agent(call: Call) -> None:
        await converse(call, model, recognizer)

    client = await open_link(agent)
    player = play(client)
    await client.start_call(
        session={"type": "realtime", "audio": {"input": {"transcription": {"model": "any", "language": "en"}}}}
    )
    await client.open_channel()
    return Caller(client, player, speech, quiet)


@pytest.mark.slow
async def test_a_question_is_understood_a_function_called_and_its_result_spoken(
    autojump_clock: Clock, server: OpenAiServer, caller: Caller
):
    server.sound = tone(1.0)
    server.script += [
        transcription("what time is it in Rome"),
        completion(calls("clock", '{"zone":', '"Rome"}'), "tool_calls", usage(30, 8)),
    ]
    await caller.write("session.update", session={"type": "realtime", "instructions": "Be brief.", "tools": [CLOCK]})
    await caller.ask()
    heard = await caller.read("conversation.item.input_audio_transcription.completed")
    assert heard["transcript"] == "what time is it in Rome"
    called = await caller.read("response.function_call_arguments.done")
    assert (called["name"], json.loads(called["arguments"])) == ("clock", {"zone": "Rome"})
    assert [event["delta"] for event in caller.events if event["type"] == "response.function_call_arguments.delta"] == [
        '{"zone":',
        '"Rome"}',
    ]
    server.script.append(completion(says("It is ", "noon ", "in Rome. ", "Nearly."), usage=usage(50, 9), pause=0.1))
    output = {"type": "function_call_output", "call_id": called["call_id"], "output": "12:00"}
    await caller.write("conversation.item.create", item=output)
    await caller.write("response.create")
    await caller.read("output_audio_buffer.stopped")
    said = await caller.read("response.output_audio_transcript.done")
    assert said["transcript"] == "It is noon in Rome. Nearly."
    done = await caller.read("response.done", 1)
    assert (done["response"]["status"], done["response"]["usage"]["output_tokens"]) == ("completed", 9)
    assert caller.loud_frames() == pytest.approx(100, abs=4)  # two sentences of a second

    paths = [request.path.removeprefix("/v1/") for request in server.requests]
    assert paths == ["audio/transcriptions", "chat/completions", "chat/completions", "audio/speech", "audio/speech"]
    form = server.requests[0].form
    assert form["language"].get_content().strip() == "en"
    with wave.open(io.BytesIO(form["file"].get_payload(decode=True))) as file:
        assert 1.5 <= file.getnframes() / file.getframerate() <= 2.6
    call = {"id": called["call_id"], "type": "function", "function": {"name": "clock", "arguments": '{"zone":"Rome"}'}}
    assert server.requests[2].json["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "what time is it in Rome"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": called["call_id"], "content": "12:00"},
    ]
    assert [request.json["input"] for request in server.requests[3:]] == ["It is noon in Rome.", "Nearly."]
    assert {request.json["voice"] for request in server.requests[3:]} == {"heart"}


@pytest.mark.slow
async def test_a_caller_is_told_by_voice_that_the_model_is_down_and_the_call_goes_on(
    autojump_clock: Clock, server: OpenAiServer, caller: Caller
):
    server.sound = tone(0.5)
    down = refuse(503, {"error": {"message": "loading"}})
    server.script += [transcription("hello"), down, down, down]
    await caller.ask()
    await caller.read("output_audio_buffer.stopped")
    assert caller.loud_frames() == pytest.approx(25, abs=3)
    assert server.requests[-1].json["input"] == APOLOGY
    error = (await caller.read("error"))["error"]
    assert (error["type"], error["message"]) == ("server_error", "The model server answers 503: loading.")
    assert (await caller.read("response.done"))["response"]["status"] == "failed"
    await caller.ask()
    assert (await caller.read("response.done", 1))["response"]["status"] == "completed"
    assert server.requests[-2].json["messages"][-1] == {"role": "user", "content": "what time is it"}


@pytest.mark.slow
async def test_a_caller_who_speaks_over_the_answer_ends_the_servers_work_on_it(
    autojump_clock: Clock, server: OpenAiServer, caller: Caller
):
    server.sound = tone(1.5)
    server.script += [transcription("tell me all"), completion(says(*["Then came another. "] * 100), pause=1.0)]
    await caller.ask()
    await caller.read("output_audio_buffer.started")
    assert not server.hangups
    await caller.ask()
    cancelled = (await caller.read("response.done"))["response"]
    assert cancelled["status_details"]["reason"] == "turn_detected"
    assert server.hangups
    heard = (await caller.read("conversation.item.truncated"))["audio_end_ms"]
    assert heard < 6000
    await caller.read("response.done", 1)
    last = [request for request in server.requests if request.path.endswith("completions")][-1].json["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "user"]
    assert last[1]["content"].count("Then came another.") <= 5


@pytest.mark.slow
async def test_a_recognizer_that_is_down_is_told_and_excused(
    autojump_clock: Clock, server: OpenAiServer, caller: Caller
):
    server.sound = tone(0.5)
    server.script += [refuse(401, {})]
    await caller.ask()
    failed = await caller.read("conversation.item.input_audio_transcription.failed")
    assert failed["error"]["message"] == "The recognizer refuses our API key (401)."
    await caller.read("output_audio_buffer.stopped")
    assert [request.path.removeprefix("/v1/") for request in server.requests] == [
        "audio/transcriptions",
        "audio/speech",
    ]
    await caller.ask()
    assert (await caller.read("response.done", 1))["response"]["status"] == "completed"
