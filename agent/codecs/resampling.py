"""From one sample rate to another, piece by piece, by libsoxr."""

from __future__ import annotations

import numpy as np
import soxr

__all__ = ["Resampler"]


class Resampler:
    """One stream of 16-bit mono. A piece gives what is certain by then: some milliseconds come with the next one."""

    def __init__(self, from_rate: int, to_rate: int, *, quick: bool = False) -> None:
        """Samples a second. `quick`: by interpolation, without delay (a filter's is 38 ms from 24 kHz to 16, 118 from 8): for
        speech that is given a higher rate."""
        quality = "QQ" if quick else "MQ"
        same = from_rate == to_rate
        self._stream = None if same else soxr.ResampleStream(from_rate, to_rate, 1, dtype="int16", quality=quality)
        self._odd = b""

    def feed(self, pcm: bytes) -> bytes:
        if self._stream is None:
            return pcm
        data = self._odd + pcm
        whole = len(data) & ~1
        self._odd = data[whole:]
        return self._chunk(data[:whole], last=False) if whole else b""

    def finish(self) -> bytes:
        """What is still inside; the stream is over."""
        return self._chunk(b"", last=True) if self._stream is not None else b""

    def _chunk(self, pcm: bytes, *, last: bool) -> bytes:
        assert self._stream is not None
        samples: np.ndarray = self._stream.resample_chunk(np.frombuffer(pcm, np.int16), last=last)
        return samples.tobytes()
