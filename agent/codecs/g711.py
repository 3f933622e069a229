"""G.711 by table: µ-law and A-law to 16-bit PCM and back (ITU-T G.711; the tables replace `audioop`, gone in Python 3.13)."""

from __future__ import annotations

from array import array
from functools import cache
from itertools import pairwise

__all__ = ["G711Decoder", "G711Encoder"]

RATE = 8000
BIAS = 0x84
FADE_SAMPLES = RATE * 60 // 1000


def _expand_mu(code: int) -> int:
    code = ~code & 0xFF
    magnitude = (((code & 0x0F) << 3) + BIAS << ((code & 0x70) >> 4)) - BIAS
    return -magnitude if code & 0x80 else magnitude


def _expand_a(code: int) -> int:
    code ^= 0x55
    segment = (code & 0x70) >> 4
    magnitude = ((code & 0x0F) << 4) + 8
    if segment:
        magnitude = magnitude + 0x100 << segment - 1
    return magnitude if code & 0x80 else -magnitude


@cache
def _expanded(name: str) -> tuple[int, ...]:
    expand = {"PCMU": _expand_mu, "PCMA": _expand_a}[name]
    return tuple(expand(code) for code in range(256))


@cache
def _compressed(name: str) -> bytes:
    """For each 16-bit sample, taken as an unsigned index, the code whose value is nearest."""
    codes = sorted(range(256), key=lambda code: (_expanded(name)[code], code))
    values = [_expanded(name)[code] for code in codes]
    starts = [-32768, *((low + high + 1) // 2 for low, high in pairwise(values)), 32768]
    by_sample = b"".join(bytes([code]) * (end - start) for code, start, end in zip(codes, starts, starts[1:]))
    return by_sample[32768:] + by_sample[:32768]


class G711Decoder:
    rate = RATE

    def __init__(self, name: str) -> None:
        self._table = _expanded(name)
        self._last = array("h")  # the frame heard last

    def decode_untrusted(self, payload: bytes) -> bytes:
        """Every payload is valid."""
        self._last = array("h", map(self._table.__getitem__, payload))
        return self._last.tobytes()

    def recover_untrusted(self, payload: bytes, samples: int) -> bytes:
        """G.711 carries no copies."""
        return self.conceal(samples)

    def conceal(self, samples: int) -> bytes:
        """So many samples in place of what was lost: the last frame again, half as loud each time, then silence."""
        pcm, last = array("h"), self._last
        while len(last) and len(pcm) < samples and len(pcm) < FADE_SAMPLES:
            last = array("h", [sample >> 1 for sample in last])
            pcm.extend(last)
        self._last = last
        return pcm[:samples].tobytes() + bytes(2 * max(0, samples - len(pcm)))


class G711Encoder:
    rate = RATE
    frame_samples = RATE // 50

    def __init__(self, name: str) -> None:
        self._table = _compressed(name)

    def encode(self, pcm: bytes) -> bytes:
        return bytes(map(self._table.__getitem__, array("H", pcm)))
