"""What the tests against real peers share: a whole stack as a user starts it, a tone as WAV, and ears."""

from __future__ import annotations

import io
import math
import os
import re
import signal
import struct
import subprocess
import sys
import wave
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import trio
from processes import children_of

ROOT = Path(__file__).parents[2]
SAMPLE_RATE = 48_000
START_SECONDS = 30
STOP_SECONDS = 15


@dataclass
class Stack:
    """A running stack: the address of its page, and its processes."""

    url: str
    process: trio.Process
    slowness: float = 1.0
    """How much longer it took to start than on a machine with nothing else to do (a second); at least 1."""

    def pid_of(self, package: str) -> int:
        """The process id of one of the stack's children, by the package it runs."""
        return children_of(self.process.pid)[package]

    async def hang_up(self, call: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.post(f"/v1/realtime/calls/{call}/hangup")


@asynccontextmanager
async def running_stack(*arguments: str, prefix: Sequence[str] = (), **environment: str) -> AsyncIterator[Stack]:
    """`python -m stack` on free ports, as a process; ended by SIGTERM, which must end it cleanly.

    `prefix` goes before the command: to run it elsewhere.
    """
    variables = {key: value for key, value in os.environ.items() if not key.startswith("ANTIPHON_")}
    variables |= {
        "ANTIPHON_STACK_PORT": "0",
        "ANTIPHON_STACK_UDP_PORT": "0",
        "ANTIPHON_STACK_PUBLIC_ADDRESS": "127.0.0.1",
    }
    variables |= environment
    process = await trio.lowlevel.open_process(
        [*prefix, sys.executable, "-m", "stack", *arguments], cwd=ROOT, env=variables, stdout=subprocess.PIPE
    )
    began = trio.current_time()
    try:
        assert process.stdout is not None
        heard = b""
        with trio.fail_after(START_SECONDS):
            while b"\n" not in heard:
                chunk = await process.stdout.receive_some()
                assert chunk, f"the stack ended before it was ready: {heard!r}"
                heard += chunk
        line = heard.decode().splitlines()[0]
        found = re.fullmatch(r"ready (http://\S+/)", line)
        assert found is not None, line
        yield Stack(found[1], process, max(1.0, trio.current_time() - began))
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(STOP_SECONDS):
            assert await process.wait() == 0
    finally:
        if process.poll() is None:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()


def write_tone(path: Path, hertz: float, seconds: float = 2.0) -> Path:
    """A sine as 16-bit mono WAV; a whole number of periods, so that it loops without a click."""
    samples = round(round(hertz * seconds) * SAMPLE_RATE / hertz)
    values = (int(12_000 * math.sin(2 * math.pi * hertz * index / SAMPLE_RATE)) for index in range(samples))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(b"".join(struct.pack("<h", value) for value in values))
    return path


def write_voice(path: Path, seconds: float = 4.0) -> Path:
    """What an encoder takes for speech: pulses at a changing pitch through two resonances that move. 16 kHz."""
    rate, samples, phase = 16_000, [], 0.0
    states = [[0.0, 0.0], [0.0, 0.0]]
    for index in range(round(seconds * rate)):
        phase += (120 + 30 * math.sin(index / 2500)) / rate
        value = float(phase >= 1)
        phase %= 1
        for state, low, high in zip(states, (300, 900), (700, 2300), strict=True):
            hertz = low + (high - low) * (0.5 + 0.5 * math.sin(index / 3000))
            value += 2 * 0.97 * math.cos(2 * math.pi * hertz / rate) * state[0] - 0.97**2 * state[1]
            state[0], state[1] = value, state[0]
        samples.append(value * (0.6 + 0.4 * math.sin(index / 800)))
    loudest = max(map(abs, samples))
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b"".join(struct.pack("<h", int(12_000 * value / loudest)) for value in samples))
    return path


def decode(recording: bytes):
    """A browser's recording (Ogg or WebM) → mono samples as a numpy array, and their rate."""
    import av
    import numpy as np

    with av.open(io.BytesIO(recording)) as container:
        pieces = []
        rate = SAMPLE_RATE
        for frame in container.decode(audio=0):
            samples = frame.to_ndarray().astype(float)
            pieces.append(
                samples[0] if frame.format.is_planar else samples.reshape(-1, len(frame.layout.channels))[:, 0]
            )
            rate = frame.sample_rate
    return (np.concatenate(pieces) if pieces else np.zeros(0)), rate


def dominant_frequency(samples, rate: int) -> float:
    """The strongest frequency, in hertz."""
    import numpy as np

    assert len(samples) > rate // 2, "less than half a second of audio was received"
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))
