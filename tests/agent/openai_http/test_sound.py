"""The recognizer and the speaker `openai` against a server of the API."""

from __future__ import annotations

import io
import wave
from collections.abc import AsyncIterator, Iterable

import pytest
import trio
from openai.types.audio import SpeechCreateParams
from openai_server import PCM, Exchange, OpenAiServer, refuse, speech, tone
from pydantic import TypeAdapter
from trio.abc import Clock

from agent.openai_http import recognizer as recognizing
from agent.openai_http import speaker as speaking
from agent.openai_http.pcm import from_little_endian
from agent.realtime.parts import Manner, ModelFailed

SPEECH = TypeAdapter(SpeechCreateParams)


async def hear(pieces: Iterable[bytes], pause: float = 0.0) -> AsyncIterator[bytes]:
    for piece in pieces:
        await trio.sleep(pause)
        yield piece


class Ear:
    """`Play`: what was played, and when; takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.pcm = b""
        self.times: list[float] = []
        self._seconds = seconds

    async def play(self, pcm: bytes) -> None:
        assert len(pcm) % 2 == 0
        self.pcm += pcm
        self.times.append(trio.current_time())
        await trio.sleep(self._seconds)


async def test_a_turn_is_sent_as_a_wav_file_when_it_has_ended(autojump_clock: Clock, server: OpenAiServer, parts):
    pcm = tone(1.0, 16_000)
    pieces = [pcm[at : at + 640] for at in range(0, len(pcm), 640)]
    assert await parts.recognizer().transcribe(hear(pieces, 0.02), 16_000, "de") == "what time is it"
    (request,) = server.requests
    assert request.path == "/v1/audio/transcriptions"
    form = request.form
    fields = {name: part.get_content().strip() for name, part in form.items() if name != "file"}
    assert fields == {"model": "small", "response_format": "json", "language": "de"}
    assert form["file"].get_content_type() == "audio/wav"
    assert form["file"].get_filename() == "turn.wav"
    with wave.open(io.BytesIO(form["file"].get_payload(decode=True))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        assert file.readframes(16_001) == pcm


async def test_the_language_is_the_sessions_else_the_configurations(autojump_clock: Clock, server: OpenAiServer, parts):
    recognizer = parts.recognizer(language="en", extra={"temperature": 0.0, "prompt": "ships", "vad_filter": True})
    await recognizer.transcribe(hear([bytes(320)]), 16_000, None)
    await recognizer.transcribe(hear([bytes(320)]), 16_000, "fr")
    await parts.recognizer().transcribe(hear([bytes(320)]), 16_000, None)
    forms = [request.form for request in server.requests]
    assert [form["language"].get_content().strip() if "language" in form else None for form in forms] == [
        "en",
        "fr",
        None,
    ]
    assert {name: forms[0][name].get_content().strip() for name in ("temperature", "prompt", "vad_filter")} == {
        "temperature": "0.0",
        "prompt": "ships",
        "vad_filter": "true",
    }


async def test_no_sound_is_no_words_and_of_too_much_of_it_the_end_is_sent(
    autojump_clock: Clock, server: OpenAiServer, parts
):
    recognizer = parts.recognizer()
    assert await recognizer.transcribe(hear([]), 8000, None) == ""
    assert not server.requests
    await recognizer.transcribe(hear([bytes(16_000), *[b"\1" * 16_000] * recognizing.MAX_SECONDS]), 8000, None)
    sent = server.requests[0].form["file"].get_payload(decode=True)
    assert sent[44:] == b"\1" * 16_000 * recognizing.MAX_SECONDS
    assert parts.asked.counters["bytes_forgotten"] == 16_000


@pytest.mark.parametrize(
    ("body", "content_type", "what"),
    [
        (b"{", "application/json", "sends what makes no sense (not_a_transcription)"),
        (b'{"text": 5}', "application/json", "sends what makes no sense (not_a_transcription)"),
        (b"words", "text/plain", "answers with text/plain instead of application/json"),
        (b'{"text": "' + b"x" * (1 << 20) + b'"}', "application/json", "sends an answer that is too long"),
    ],
)
async def test_a_recognizer_that_sends_no_transcription_is_asked_again_and_given_up(
    autojump_clock: Clock, server: OpenAiServer, parts, body: bytes, content_type: str, what: str
):
    async def act(exchange: Exchange) -> None:
        await exchange.answer(body, content_type=content_type)

    recognizer = parts.recognizer()
    server.script += [act, refuse(500, {})]
    if "too long" not in what:
        assert await recognizer.transcribe(hear([bytes(320)]), 16_000, None) == "what time is it"
    server.script.clear()
    server.script += [act] * 3
    with pytest.raises(ModelFailed) as failed:
        await recognizer.transcribe(hear([bytes(320)]), 16_000, None)
    assert str(failed.value) == f"The recognizer {what}."


async def test_a_recognizer_that_dribbles_is_given_up(autojump_clock: Clock, server: OpenAiServer, parts):
    async def dribbles(exchange: Exchange) -> None:
        await exchange.start()
        for letter in b'{"text": "well"}':
            await exchange.send(bytes([letter]))
            await trio.sleep(1)
        await exchange.end()

    server.script.append(dribbles)
    began = trio.current_time()
    with pytest.raises(ModelFailed, match="took more than 5 s to send its answer"):
        await parts.recognizer(stall_seconds=5.0, attempts=1).transcribe(hear([bytes(320)]), 16_000, None)
    assert trio.current_time() - began == pytest.approx(5)


async def test_a_sentence_is_played_as_it_comes_in_whole_samples(autojump_clock: Clock, server: OpenAiServer, parts):
    sound = tone(1.0)
    server.script.append(speech(sound, pause=0.25))
    speaker, ear = parts.speaker(), Ear()
    await speaker.speak("It is noon.", Manner("alloy", 1.0), ear.play)
    assert ear.pcm == sound
    assert speaker.rate == 24_000
    assert ear.times[-1] - ear.times[0] == pytest.approx(0.25 * 4)
    (request,) = server.requests
    SPEECH.validate_python(request.json)
    assert request.path == "/v1/audio/speech"
    assert request.json == {"model": "small", "input": "It is noon.", "voice": "alloy", "response_format": "pcm"}


def test_samples_are_little_endian_outside_whatever_the_machine_has(monkeypatch: pytest.MonkeyPatch):
    assert from_little_endian(b"\1\2\3\4") == b"\1\2\3\4"
    monkeypatch.setattr("sys.byteorder", "big")
    assert from_little_endian(b"\1\2\3\4") == b"\2\1\4\3"


async def test_voice_and_speed_are_the_sessions_as_far_as_the_configuration_lets_it(
    autojump_clock: Clock, server: OpenAiServer, parts
):
    server.sound = tone(0.1)
    for fields, voice in (
        ({}, "alloy"),
        ({"voice": "heart"}, "heart"),
        ({"voice": "heart", "voices": ["alloy"]}, "alloy"),
    ):
        await parts.speaker(extra={"sample_rate": 24_000}, **fields).speak("Hm.", Manner("alloy", 1.25), Ear().play)
        asked = server.requests[-1].json
        assert (asked["voice"], asked["speed"], asked["sample_rate"]) == (voice, 1.25, 24_000)


async def test_a_speaker_is_asked_again_only_before_its_first_sound(autojump_clock: Clock, server: OpenAiServer, parts):
    sound = tone(0.5)

    async def drops_at_once(exchange: Exchange) -> None:
        await exchange.start(content_type=PCM)
        await exchange.drop()

    async def drops_in_the_middle(exchange: Exchange) -> None:
        await exchange.start(content_type=PCM)
        await exchange.send(sound[:1000])
        await trio.testing.wait_all_tasks_blocked()
        await exchange.drop()

    server.script += [drops_at_once, speech(sound)]
    ear = Ear()
    await parts.speaker().speak("It is noon.", Manner(), ear.play)
    assert ear.pcm == sound
    server.script += [drops_in_the_middle]
    ear = Ear()
    with pytest.raises(ModelFailed, match=r"^The speaker broke off its answer\.$"):
        await parts.speaker().speak("It is noon.", Manner(), ear.play)
    assert ear.pcm == sound[:1000]
    assert len(server.requests) == 3


async def test_what_cannot_be_said_is_not_and_a_server_may_find_nothing_to_say(
    autojump_clock: Clock, server: OpenAiServer, parts
):
    speaker, ear = parts.speaker(), Ear()
    for text in ("", " \n", "…", "🙂", "* * *"):
        await speaker.speak(text, Manner(), ear.play)
    assert not server.requests
    server.script.append(speech(b""))
    await speaker.speak("Hm", Manner(), ear.play)
    assert (ear.pcm, len(server.requests)) == (b"", 1)


@pytest.mark.parametrize("content_type", ["audio/wav", "audio/mpeg", "application/json"])
async def test_a_speaker_that_sends_another_format_is_not_played(
    autojump_clock: Clock, server: OpenAiServer, parts, content_type: str
):
    async def act(exchange: Exchange) -> None:
        await exchange.answer(tone(0.1), content_type=content_type)

    server.script += [act] * 3
    ear = Ear()
    with pytest.raises(ModelFailed, match=f"answers with {content_type} instead of audio/pcm"):
        await parts.speaker().speak("It is noon.", Manner(), ear.play)
    assert not ear.pcm


async def test_a_speaker_that_never_ends_is_ended(autojump_clock: Clock, server: OpenAiServer, parts):
    server.script.append(speech(bytes(48_000 * (speaking.MAX_SECONDS + 1)), piece=48_000))
    ear = Ear()
    with pytest.raises(ModelFailed, match="says one sentence for more than 120 s"):
        await parts.speaker().speak("It is noon.", Manner(), ear.play)
    assert len(ear.pcm) == 48_000 * speaking.MAX_SECONDS


@pytest.mark.parametrize("seconds", [0.0, 100.0], ids=["while it comes", "while it is played"])
async def test_a_caller_who_interrupts_ends_the_speakers_work_at_once(
    autojump_clock: Clock, server: OpenAiServer, parts, seconds: float
):
    server.script.append(speech(tone(5.0), pause=0.5))
    began = trio.current_time()
    with trio.move_on_after(1.7):
        await parts.speaker().speak("It is noon.", Manner(), Ear(seconds).play)
    await trio.testing.wait_all_tasks_blocked()
    assert server.hangups == [began + 1.7]
