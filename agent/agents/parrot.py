"""`parrot`: waits for the end of your sentence and says it back; speaking over it stops it at once.

1. Each frame is decoded for the voice detector only; what is recorded, and later played, is the frame itself.
2. A sentence begins (with the 300 ms before it, which hold its first sound): if the parrot talks, it is cut off.
3. The sentence ends after half a second of silence: the parrot says it, without most of that silence.

Data messages go back as they came, and what happens is told as JSON text on the data channel:
`parrot.listening`, `parrot.speaking {ms}`, `parrot.finished {played_ms}`, `parrot.interrupted {played_ms}` of that sentence.
"""

from __future__ import annotations

import json
from collections import deque

import trio

from agent.agents.echo import echo_messages
from agent.call import Call
from agent.codecs import needs_pcm
from agent.events import Frame
from agent.voice import Turn, VoiceActivity

__all__ = ["parrot"]

# Implementation constants
BEFORE_MS = 300.0
AFTER_MS = 200.0
MAX_SENTENCE_MS = 30_000.0
NO_AUDIO_SECONDS = 0.6


@needs_pcm
async def parrot(call: Call) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo_messages, call)
        if call.codec is not None:
            await Parrot(call).listen(nursery)


class Parrot:
    def __init__(self, call: Call) -> None:
        self._call = call
        self._decoder = call.decoder()
        self._voice = VoiceActivity(self._decoder.rate)
        self._recording = Recording()
        self._speech: trio.CancelScope | None = None
        self._before = 0.0  # milliseconds that were played before the present sentence

    async def listen(self, nursery: trio.Nursery) -> None:
        frames = self._call.frames()
        while True:
            frame: Frame | None = None
            with trio.move_on_after(NO_AUDIO_SECONDS):
                try:
                    frame = await anext(frames)
                except StopAsyncIteration:
                    return
            for turn in self._hear(frame):
                if turn is Turn.STARTED:
                    await self._fall_silent()
                    self._recording.begin()
                    self._tell("listening")
                else:
                    self._say(self._recording.finish(self._voice.silent_ms), nursery)

    def _hear(self, frame: Frame | None) -> list[Turn]:
        if frame is None:
            return self._voice.silence()
        pcm = self._decoder.decode_frame(frame)
        if not pcm:
            return []
        self._recording.add(frame)
        return self._voice.silence() if self._recording.is_full else self._voice.feed(pcm)

    async def _fall_silent(self) -> None:
        if self._speech is not None:
            self._speech.cancel()
            self._speech = None
            played = await self._call.flush() - self._before
            self._tell("interrupted", played_ms=round(played))

    def _say(self, sentence: list[Frame], nursery: trio.Nursery) -> None:
        self._speech = trio.CancelScope()
        nursery.start_soon(self._speak, sentence, self._speech)

    async def _speak(self, sentence: list[Frame], scope: trio.CancelScope) -> None:
        with scope:
            self._before = self._call.played
            self._tell("speaking", ms=round(sum(frame.duration_ms for frame in sentence)))
            for frame in sentence:
                await self._call.send_frame(frame.payload)
            played = await self._call.wait_played() - self._before
            self._speech = None
            self._tell("finished", played_ms=round(played))

    def _tell(self, what: str, **fields: int) -> None:
        # News, not speech: who does not read it must not make the parrot late.
        self._call.send_message_nowait(json.dumps({"type": f"parrot.{what}", **fields}))


class Recording:
    """The last moments before a sentence, then the sentence, up to a bound."""

    def __init__(self) -> None:
        self._frames: deque[Frame] = deque()
        self._ms = 0.0
        self._open = False

    @property
    def is_full(self) -> bool:
        return self._ms >= MAX_SENTENCE_MS

    def add(self, frame: Frame) -> None:
        self._frames.append(frame)
        self._ms += frame.duration_ms
        while not self._open and self._ms > BEFORE_MS:
            self._ms -= self._frames.popleft().duration_ms

    def begin(self) -> None:
        self._open = True

    def finish(self, silent_ms: float) -> list[Frame]:
        """The sentence, cut AFTER_MS into the silence that ended it."""
        sentence = list(self._frames)
        surplus = silent_ms - AFTER_MS
        while sentence and surplus >= sentence[-1].duration_ms > 0:
            surplus -= sentence.pop().duration_ms
        self._frames.clear()
        self._ms = 0.0
        self._open = False
        return sentence
