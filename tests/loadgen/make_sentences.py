"""Makes `loadgen/sentences.json`: what callers say when nobody gives them WAV files. It needs espeak-ng and libopus.

    PYTHONPATH=. python tests/loadgen/make_sentences.py > loadgen/sentences.json

Three sentences of the offline voice's small language, one of which calls a function, said by espeak-ng at its usual speed and
encoded as any WAV file is.
"""

from __future__ import annotations

import subprocess
import sys
import wave
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from agent.offline.espeak import find_espeak

SENTENCES = ("turn on the light in the kitchen", "how many feet are two meters", "which lights are on")
VOICE, WORDS_A_MINUTE = "en-us", 165


def main() -> None:
    library = find_espeak()
    with TemporaryDirectory() as folder:
        files = [Path(folder) / f"{sentence}.wav" for sentence in SENTENCES]
        for sentence, file in zip(SENTENCES, files, strict=True):
            with wave.open(str(file), "wb") as sound:
                sound.setnchannels(1)
                sound.setsampwidth(2)
                sound.setframerate(library.rate)
                sound.writeframes(library.synthesize(sentence, VOICE, WORDS_A_MINUTE, Event()))
        subprocess.run([sys.executable, "-m", "agent.codecs", *map(str, files)], check=True)


if __name__ == "__main__":
    main()
