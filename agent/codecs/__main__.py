"""`python -m agent.codecs FILE.wav …`: sentences as frames of every codec there is here, as JSON; what the load generator says.

1. Each file is 16-bit mono, at any rate. Silence around the sentence is cut, but for a little.
2. It is encoded to Opus, if there is libopus (with in-band FEC, as browsers do), and to G.711; 20 ms a frame.
3. Written: `{"sentences": [{"name", "frames": {codec: [base64]}, "begins", "ends"}], "silence": {codec: base64}}`, where
   `begins` and `ends` are the first and the last voiced frame. A file that cannot be is one line on standard error, status 2.
"""

from __future__ import annotations

import sys
import wave
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from agent.codecs import Encoder
from agent.codecs.g711 import G711Encoder
from agent.codecs.opus import OpusEncoder, find_opus
from agent.codecs.resampling import Resampler
from protocol.codecs import OPUS, PCMU

RATE = 16_000
FRAME = RATE // 50
BEFORE, BEHIND = 5, 10  # frames of silence that stay
SETTLED = 50  # frames of silence after which an encoder has nothing new to say
VOICED = 1 / 50  # of the loudest frame (-34 dB); quieter ones are silence
MIN_LOUDNESS = 50.0  # of 32767, of the loudest frame
MAX_SECONDS = 60.0
EXPECTED_LOSS = 15  # per cent


class Unusable(Exception):
    """One sentence: what is wrong with a file."""


class Sound(NamedTuple):
    name: str
    pcm: bytes
    """At RATE, whole frames."""
    begins: int
    ends: int


def main(files: list[str]) -> int:
    try:
        sounds = [trim(Path(file).stem, read(Path(file))) for file in files]
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    codecs = [PCMU.name] if find_opus() is None else [OPUS.name, PCMU.name]
    sentences = [
        {
            "name": sound.name,
            "frames": {codec: encode(new_encoder(codec), sound.pcm) for codec in codecs},
            "begins": sound.begins,
            "ends": sound.ends,
        }
        for sound in sounds
    ]
    silence = {codec: encode(new_encoder(codec), bytes(2 * FRAME * SETTLED))[-1] for codec in codecs}
    sys.stdout.buffer.write(msgspec.json.encode({"sentences": sentences, "silence": silence}) + b"\n")
    return 0


def read(file: Path) -> np.ndarray:
    """Its samples at RATE. Raises Unusable."""
    try:
        with wave.open(str(file), "rb") as sound:
            if (sound.getnchannels(), sound.getsampwidth()) != (1, 2):
                raise Unusable(f"{file}: must be 16-bit mono")
            rate, count = sound.getframerate(), sound.getnframes()
            if not rate or count > MAX_SECONDS * rate:
                raise Unusable(f"{file}: must be no longer than {MAX_SECONDS:g} s")
            pcm = sound.readframes(count)
    except OSError as error:
        raise Unusable(f"{file}: {error.strerror or error}") from None
    except (wave.Error, EOFError) as error:
        raise Unusable(f"{file}: is no WAV file of PCM ({error})") from None
    resampler = Resampler(rate, RATE)
    return np.frombuffer(resampler.feed(pcm) + resampler.finish(), np.int16)


def trim(name: str, samples: np.ndarray) -> Sound:
    """Whole frames, without most of the silence around what is said. Raises Unusable."""
    frames = np.concatenate([samples, np.zeros(-len(samples) % FRAME, np.int16)]).reshape(-1, FRAME)
    loudness = np.sqrt(np.square(frames.astype(np.float64)).mean(axis=1)) if len(frames) else np.zeros(1)
    if loudness.max() < MIN_LOUDNESS:
        raise Unusable(f"{name}: nothing is to be heard in it")
    (voiced,) = np.nonzero(loudness >= VOICED * loudness.max())
    first = max(0, int(voiced[0]) - BEFORE)
    kept = frames[first : int(voiced[-1]) + 1]
    pcm = np.concatenate([kept, np.zeros((BEHIND, FRAME), np.int16)]).tobytes()
    return Sound(name, pcm, int(voiced[0]) - first, int(voiced[-1]) - first)


def new_encoder(codec: str) -> Encoder:
    library = find_opus()
    return G711Encoder(codec) if codec != OPUS.name or library is None else OpusEncoder(library, loss=EXPECTED_LOSS)


def encode(encoder: Encoder, pcm: bytes) -> list[bytes]:
    """20 ms a frame."""
    resampler = Resampler(RATE, encoder.rate)
    data = resampler.feed(pcm) + resampler.finish()
    size = 2 * encoder.frame_samples
    data += bytes(max(0, len(pcm) // (2 * FRAME) * size - len(data)))  # the resampler may round a sample off
    return [encoder.encode(data[place : place + size]) for place in range(0, len(data) - size + 1, size)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
