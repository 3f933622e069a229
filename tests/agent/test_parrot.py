"""The parrot: it waits for the end of a sentence, says it back, and falls silent when spoken over."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
import trio
from trio.abc import Clock

from agent import Turn, VoiceActivity
from agent.agents import parrot
from agent.codecs import open_encoder
from protocol.agentlink import CallEnd, CallFlush, CallStart
from protocol.codecs import CODECS, PCMU, Codec

OpenLink = Callable[..., Awaitable["LinkClient"]]  # noqa: F821 - it lives in conftest.py
Sound = Callable[[int, int], list[bytes]]


class Caller:
    """Somebody who speaks to the parrot on call 1."""

    def __init__(self, client: LinkClient, player: Player, codec: Codec, speech: Sound, quiet: Sound) -> None:  # noqa: F821
        self.client = client
        self.player = player
        self._codec = codec
        self._encoder = open_encoder(codec)
        self._speech = speech
        self._quiet = quiet
        self._rtp_time = 0

    async def speak(self, ms: int) -> list[bytes]:
        return await self._send(self._speech(self._encoder.rate, ms))

    async def pause(self, ms: int) -> list[bytes]:
        return await self._send(self._quiet(self._encoder.rate, ms))

    async def _send(self, pcm: list[bytes]) -> list[bytes]:
        payloads = [self._encoder.encode(piece) for piece in pcm]
        self._rtp_time = await self.client.say(payloads, codec=self._codec.name, start=self._rtp_time)
        return payloads

    @property
    def news(self) -> list[str]:
        return [json.loads(message.data)["type"] for message in self.client.data]

    @property
    def played_ms(self) -> int:
        return len(self.player.played) * 20


@pytest.fixture
def call_parrot(open_link: OpenLink, play: Callable[..., object], speech: Sound, quiet: Sound):
    async def call_parrot(codec: Codec) -> Caller:
        client = await open_link(parrot)
        player = play(client, 1, codec.frame_samples)
        await client.start_call(1, codec.name)
        await client.open_channel()
        return Caller(client, player, codec, speech, quiet)

    return call_parrot


CallParrot = Callable[[Codec], Awaitable[Caller]]


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
async def test_the_parrot_says_a_sentence_back(autojump_clock: Clock, call_parrot: CallParrot, codec: Codec):
    caller = await call_parrot(codec)
    before = await caller.pause(600)
    sentence = await caller.speak(1500)
    assert caller.player.played == []
    after = await caller.pause(3500)
    said = caller.player.played
    everything = before + sentence + after
    start = everything.index(said[0])
    assert said == everything[start : start + len(said)]  # verbatim: nothing was encoded anew
    assert set(sentence[3:-3]) <= set(said)
    assert 1500 + 100 <= caller.played_ms <= 1500 + 700
    assert caller.news == ["parrot.listening", "parrot.speaking", "parrot.finished"]


async def test_it_answers_within_a_moment_of_the_end_of_the_sentence(autojump_clock: Clock, call_parrot: CallParrot):
    caller = await call_parrot(PCMU)
    await caller.pause(300)
    await caller.speak(1000)
    await caller.pause(700)
    assert 0 < caller.played_ms <= 240


async def test_speaking_over_the_parrot_stops_it_at_once(autojump_clock: Clock, call_parrot: CallParrot):
    caller = await call_parrot(PCMU)
    await caller.pause(300)
    await caller.speak(4000)
    await caller.pause(1200)
    heard = caller.played_ms
    assert 300 < heard < 1000
    await caller.speak(240)
    cut = caller.played_ms
    assert len(caller.client.of(CallFlush)) == 1
    assert cut - heard <= 220  # the time that it takes to be sure of a voice
    second = await caller.speak(700)
    assert caller.played_ms == cut
    await caller.pause(3000)
    assert caller.news[-5:] == [
        f"parrot.{what}" for what in ("speaking", "interrupted", "listening", "speaking", "finished")
    ]
    told = json.loads(caller.client.data[2].data)
    assert told["played_ms"] == pytest.approx(cut, abs=20)
    assert set(second[5:-5]) <= set(caller.player.played[cut // 20 :])


async def test_silence_and_noise_are_no_sentence(autojump_clock: Clock, call_parrot: CallParrot):
    caller = await call_parrot(PCMU)
    await caller.pause(5000)
    assert (caller.news, caller.player.played) == ([], [])


async def test_a_caller_who_falls_silent_by_sending_nothing_is_answered_too(
    autojump_clock: Clock, call_parrot: CallParrot
):
    caller = await call_parrot(PCMU)
    await caller.speak(1000)
    await trio.sleep(3)  # discontinuous transmission, or a muted microphone
    assert caller.played_ms >= 1000
    assert caller.news[-1] == "parrot.finished"


@pytest.mark.slow
async def test_who_never_stops_is_answered_after_half_a_minute(autojump_clock: Clock, call_parrot: CallParrot):
    caller = await call_parrot(PCMU)
    await caller.speak(31_000)
    assert caller.news[:3] == ["parrot.listening", "parrot.speaking", "parrot.interrupted"]


async def test_the_parrot_repeats_messages(autojump_clock: Clock, call_parrot: CallParrot):
    caller = await call_parrot(PCMU)
    await caller.client.send_data(1, 1, b"\x00polly")
    await caller.client.until(lambda: caller.client.data)
    assert caller.client.data[0].data == b"\x00polly"


async def test_a_hang_up_while_the_parrot_speaks_is_no_failure(autojump_clock: Clock, call_parrot: CallParrot):
    caller = await call_parrot(PCMU)
    await caller.speak(2000)
    await caller.pause(800)
    await caller.client.send(CallEnd(1, "hangup"))
    await trio.sleep(1)
    assert dict(caller.client.statistics.calls_ended) == {"hangup": 1}


async def test_without_a_channel_and_without_audio_nothing_breaks(
    autojump_clock: Clock, open_link: OpenLink, speech: Sound
):
    client = await open_link(parrot)
    await client.send(CallStart(1, "rtc_1", "", 0, 0), CallStart(2, "rtc_2", "PCMU", 8000, 1))
    encoder = open_encoder(PCMU)
    await client.say([encoder.encode(piece) for piece in speech(8000, 800)], handle=2)
    await trio.sleep(2)
    assert client.payloads(2)
    assert client.of(CallEnd) == []


@pytest.mark.parametrize("rate", [8000, 16_000, 32_000, 48_000])
@pytest.mark.parametrize("pieces_ms", [10, 20, 60])
def test_turns_are_found_at_every_rate_and_frame_length(rate: int, pieces_ms: int, speech: Sound, quiet: Sound):
    voice = VoiceActivity(rate)
    audio = b"".join(quiet(rate, 500) + speech(rate, 1000) + quiet(rate, 1000))
    size = rate * pieces_ms // 1000 * 2
    turns = []
    for at in range(0, len(audio), size):
        turns += [(turn, (at + size) // (rate * 2 // 1000)) for turn in voice.feed(audio[at : at + size])]
    assert [turn for turn, _ in turns] == [Turn.STARTED, Turn.STOPPED]
    assert 560 <= turns[0][1] <= 720
    assert 1900 <= turns[1][1] <= 2300


@pytest.mark.parametrize("loudness", [100, 1000])
def test_noise_from_the_first_moment_on_is_no_speech_but_speech_in_that_moment_is(loudness: int, speech: Sound):
    noise = np.random.default_rng(3).normal(0, loudness, 16_000).astype(np.int16).tobytes()
    assert VoiceActivity(16_000).feed(noise) == []
    assert VoiceActivity(16_000).feed(b"".join(speech(16_000, 120))) == [Turn.STARTED]
