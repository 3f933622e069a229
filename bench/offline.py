"""`python -m bench.offline`: what the offline voice costs and how soon it answers, on this machine.

1. The speaker says sentences of the small language, with three voices; the recognizer listens, piece by piece: how many it
   understands, CPU for each second of listening, how long after the last sound its words are there.
2. The speaker: how soon a sentence's first sound is there.
3. Calls over the agent link, in real time: from the end of the turn (after the silence that ends it) to the first audio.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from threading import Event

import numpy as np
import soxr
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

from agent.agents import make_voice
from agent.codecs import open_encoder
from agent.config import AgentConfig
from agent.offline.espeak import Espeak, find_espeak
from agent.offline.language import understand
from agent.offline.recognizer import PocketSphinx
from agent.realtime.parts import Manner
from agent.server import AgentServer
from protocol.agentlink import (
    LINK_VERSION,
    CallPlayed,
    CallStart,
    ChannelOpen,
    DataMessage,
    MediaRecord,
    PlayedReason,
    PlayedReports,
    TransceiverHello,
    decode_binary_untrusted,
    encode_data,
    encode_media,
    encode_message,
    encode_played,
)
from protocol.codecs import OPUS

VOICES = ("en-us", "en-us+f3", "en-us+m3")
SENTENCES = (
    "hello",
    "what can you do",
    "thank you",
    "goodbye",
    "set a timer for five minutes",
    "set a timer for twenty five seconds",
    "start a timer for half an hour",
    "how much time is left",
    "cancel the timer",
    "turn on the light in the kitchen",
    "turn the living room lights off",
    "which lights are on",
    "how many feet are two meters",
    "how many centimeters are in six inches",
    "convert ten pounds to kilograms",
    "what is ninety fahrenheit in celsius",
)
PIECE_MS = 60
FRAME_SECONDS = 0.02
SILENCE_MS = 500


def spoken(text: str, voice: str, rate: int, *, before: int = 300, after: int = SILENCE_MS) -> bytes:
    """Said by espeak-ng in a quiet room."""
    library = find_espeak()
    pcm = np.frombuffer(library.synthesize(text, voice, 160, Event()), np.int16)
    speech = soxr.resample(pcm, library.rate, rate) * 0.6
    sound = np.concatenate([np.zeros(rate * before // 1000), speech, np.zeros(rate * after // 1000)])
    return (sound + np.random.default_rng(1).normal(0, 20, len(sound))).astype(np.int16).tobytes()


def told(values: Sequence[float]) -> str:
    """Milliseconds."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return f"p50 {cuts[49] * 1000:.1f} ms, p99 {cuts[98] * 1000:.1f} ms ({len(values)} of them)"


async def listen(rate: int) -> None:
    recognizer = PocketSphinx()
    words = meanings = 0
    delays: list[float] = []
    cpu = seconds = 0.0
    for voice, text in itertools.product(VOICES, SENTENCES):
        pcm = spoken(text, voice, rate)
        size = rate * PIECE_MS // 1000 * 2
        ended = 0.0

        async def audio(pcm: bytes = pcm, size: int = size) -> AsyncIterator[bytes]:
            nonlocal ended
            for place in range(0, len(pcm), size):
                yield pcm[place : place + size]
            ended = time.perf_counter()

        began = time.process_time()
        heard = await recognizer.transcribe(audio(), rate, None)
        delays.append(time.perf_counter() - ended)
        cpu += time.process_time() - began
        seconds += len(pcm) / 2 / rate
        words += heard == text
        meanings += understand(heard) == understand(text)
    count = len(delays)
    print(f"recognizer, {rate} Hz: {words} of {count} sentences word for word, {meanings} in meaning")
    print(f"  CPU for a second of listening: {cpu / seconds * 1000:.0f} ms")
    print(f"  from the last sound to the words: {told(delays)}")


async def speak() -> None:
    speaker = Espeak()
    delays: list[float] = []
    samples = 0
    cpu = time.process_time()
    for text in SENTENCES * 4:
        began, first = time.perf_counter(), 0.0

        async def play(pcm: bytes) -> None:
            nonlocal first, samples
            await trio.lowlevel.checkpoint()
            first = first or time.perf_counter()
            samples += len(pcm) // 2

        await speaker.speak(text, Manner(), play)
        delays.append(first - began)
    cpu = time.process_time() - cpu
    print(f"speaker: first sound of a sentence: {told(delays)}")
    print(f"  CPU for a second of sound: {cpu / (samples / speaker.rate) * 1000:.1f} ms")


class Caller:
    """A transceiver with one caller."""

    def __init__(self, link: WebSocketConnection) -> None:
        self.link = link
        self.delays: list[float] = []
        self._stopped: float | None = None
        self._drained = trio.Event()
        self._until = 0.0  # the agent's sound is played by then
        self._rtp_time = 0
        self._position = 0

    async def hear(self) -> None:
        try:
            while True:
                message = await self.link.get_message()
                if isinstance(message, str):
                    continue
                content = decode_binary_untrusted(message)
                if isinstance(content, DataMessage):
                    if json.loads(content.data)["type"] == "input_audio_buffer.speech_stopped":
                        self._stopped = time.perf_counter()
                elif not isinstance(content, PlayedReports):
                    self._play(content)
        except ConnectionClosed:
            pass

    def _play(self, records: tuple[MediaRecord, ...]) -> None:
        if self._stopped is not None:
            self.delays.append(time.perf_counter() - self._stopped)
            self._stopped = None
        self._until = max(self._until, trio.current_time()) + len(records) * FRAME_SECONDS
        self._position = records[-1].rtp_time + OPUS.frame_samples

    async def report(self) -> None:
        """What is played, as transceivers tell."""
        while True:
            await trio.sleep(0.2)
            left = max(0.0, self._until - trio.current_time())
            reason = PlayedReason.PROGRESS if left else PlayedReason.DRAINED
            position = self._position - round(left * OPUS.clock_rate)
            for message in encode_played([CallPlayed(1, position, round(left * 1000), reason)]):
                await self.link.send_message(message)

    async def say(self, pcm: bytes) -> None:
        encoder = open_encoder(OPUS)
        size = encoder.frame_samples * 2
        next_at = trio.current_time()
        for place in range(0, len(pcm) - size, size):
            frame = encoder.encode(pcm[place : place + size])
            for message in encode_media([MediaRecord(1, self._rtp_time, 0, frame)]):
                await self.link.send_message(message)
            self._rtp_time += OPUS.frame_samples
            next_at += FRAME_SECONDS
            await trio.sleep_until(next_at)

    async def finish(self) -> None:
        await trio.sleep(max(0.0, self._until - trio.current_time()) + 0.3)


async def call(turns: int) -> None:
    server = AgentServer(make_voice(AgentConfig(greets=False)), "voice")
    rate = open_encoder(OPUS).rate
    async with trio.open_nursery() as nursery:
        bound = await nursery.start(server.serve, "127.0.0.1:0")
        async with open_websocket_url(f"ws://{bound}/") as link:
            caller = Caller(link)
            nursery.start_soon(caller.hear)
            for message in (
                TransceiverHello(LINK_VERSION, "bench"),
                CallStart(1, "rtc_bench", "opus", OPUS.clock_rate, OPUS.channels, None),
                ChannelOpen(1, 1, "oai-events", ""),
            ):
                await link.send_message(encode_message(message))
            session = {
                "audio": {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": SILENCE_MS}}}
            }
            update = json.dumps({"type": "session.update", "session": session})
            await link.send_message(encode_data(DataMessage(1, 1, update)))
            nursery.start_soon(caller.report)
            for text in itertools.islice(itertools.cycle(SENTENCES), turns):
                await caller.say(await trio.to_thread.run_sync(partial(spoken, text, "en-us", rate, after=1200)))
                await caller.finish()
        print(f"a call over the agent link: from the end of the turn to the first audio: {told(caller.delays)}")
        print(f"  the silence that ends a turn comes before: {SILENCE_MS} ms by these settings")
        nursery.cancel_scope.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.offline", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--turns", type=int, default=32, help="of the call, some four seconds each (32)")
    turns = parser.parse_args().turns
    for rate in (16_000, 8_000):
        trio.run(listen, rate)
    trio.run(speak)
    trio.run(call, turns)


if __name__ == "__main__":
    main()
