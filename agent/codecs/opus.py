"""Opus to 16-bit PCM and back, by ctypes on libopus, if this machine has one.

Looked for, in this order: the system's libopus; the copy inside the wheel `opuslib-next-bundled`; the copy inside `av`.
None of them is a dependency: without any, agents that need PCM ask for G.711 instead (agent/codecs/__init__.py).
"""

from __future__ import annotations

import ctypes
import ctypes.util
import importlib.util
import sys
import weakref
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from protocol.errors import DecodeError

__all__ = ["OpusDecoder", "OpusEncoder", "OpusLibrary", "find_opus"]

# Specification constants (RFC 6716, opus_defines.h)
OPUS_APPLICATION_VOIP = 2048
OPUS_SET_INBAND_FEC = 4012
OPUS_SET_PACKET_LOSS_PERC = 4014
MAX_PACKET_MS = 120

# Implementation constants
RATE = 16_000  # what speech needs; libopus decodes to it directly
MAX_ENCODED_BYTES = 1275
SONAMES = {"darwin": ("libopus.0.dylib",), "win32": ("opus.dll", "libopus-0.dll")}
WHEELS = (("opuslib_next", "_native/*opus*"), ("av", "../av.libs/libopus*"), ("av", ".dylibs/libopus*"))


class OpusLibrary:
    """The few functions that we call, with their types."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        error = ctypes.POINTER(ctypes.c_int)
        self.decoder_create = library.opus_decoder_create
        self.decoder_create.argtypes = [ctypes.c_int32, ctypes.c_int, error]
        self.decoder_create.restype = ctypes.c_void_p
        self.decoder_destroy = library.opus_decoder_destroy
        self.decoder_destroy.argtypes = [ctypes.c_void_p]
        self.decoder_destroy.restype = None
        self.decode = library.opus_decode
        self.decode.argtypes = [
            *(ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_int, ctypes.c_int)
        ]
        self.decode.restype = ctypes.c_int
        self.encoder_create = library.opus_encoder_create
        self.encoder_create.argtypes = [ctypes.c_int32, ctypes.c_int, ctypes.c_int, error]
        self.encoder_create.restype = ctypes.c_void_p
        self.encoder_destroy = library.opus_encoder_destroy
        self.encoder_destroy.argtypes = [ctypes.c_void_p]
        self.encoder_destroy.restype = None
        self.encode = library.opus_encode
        self.encode.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_void_p, ctypes.c_int32]
        self.encode.restype = ctypes.c_int32
        self.encoder_ctl = library.opus_encoder_ctl  # variadic; with one number after the request
        self.encoder_ctl.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int32]
        self.encoder_ctl.restype = ctypes.c_int
        library.opus_get_version_string.restype = ctypes.c_char_p
        self.version = library.opus_get_version_string().decode()

    @classmethod
    def load(cls, paths: Iterable[str]) -> OpusLibrary | None:
        """The first of `paths` that is a libopus."""
        for path in paths:
            try:
                return cls(path)
            except (OSError, AttributeError):
                continue
        return None


@cache
def find_opus() -> OpusLibrary | None:
    """The libopus of this machine, or None."""
    return OpusLibrary.load(_candidates())


def _candidates() -> Iterable[str]:
    yield from SONAMES.get(sys.platform, ("libopus.so.0",))
    if sys.platform == "darwin" and (found := ctypes.util.find_library("opus")):
        yield found
    for package, pattern in WHEELS:
        spec = importlib.util.find_spec(package)
        for folder in spec.submodule_search_locations or () if spec else ():
            yield from sorted(str(path) for path in Path(folder).glob(pattern) if path.is_file())


def _created(pointer: int | None, error: ctypes.c_int) -> ctypes.c_void_p:
    if not pointer or error.value:
        raise MemoryError(f"libopus could not create a codec (error {error.value})")
    return ctypes.c_void_p(pointer)


class OpusDecoder:
    """Mono, 16 kHz, whatever was encoded. One per stream: Opus frames depend on those before."""

    rate = RATE

    def __init__(self, library: OpusLibrary) -> None:
        error = ctypes.c_int()
        self._state = _created(library.decoder_create(RATE, 1, ctypes.byref(error)), error)
        self._decode = library.decode
        self._most = RATE * MAX_PACKET_MS // 1000
        self._step = RATE // 400  # libopus conceals in whole 2.5 ms
        self._pcm = ctypes.create_string_buffer(self._most * 2)
        weakref.finalize(self, library.decoder_destroy, self._state)

    def decode_untrusted(self, payload: bytes) -> bytes:
        if not payload:  # libopus would take this for a lost packet
            raise DecodeError("opus_empty")
        return self._run(payload, self._most, 0)

    def recover_untrusted(self, payload: bytes, samples: int) -> bytes:
        """The last `samples` before this packet, from the copy that it holds (in-band FEC); decode the packet itself next.
        What the copy does not reach is concealed."""
        return self._run(payload, self._whole(samples), 1)

    def conceal(self, samples: int) -> bytes:
        """So many samples made up from what was heard before: a lost packet's place (packet loss concealment)."""
        pcm = []
        while (length := self._whole(min(samples, self._most))) > 0:
            pcm.append(self._run(None, length, 0))
            samples -= length
        return b"".join(pcm)

    def _whole(self, samples: int) -> int:
        return min(samples, self._most) // self._step * self._step

    def _run(self, payload: bytes | None, most: int, fec: int) -> bytes:
        samples = self._decode(self._state, payload, len(payload or b""), self._pcm, most, fec)
        if samples < 0:
            raise DecodeError("opus_invalid", f"libopus error {samples}")
        return ctypes.string_at(self._pcm, samples * 2)


class OpusEncoder:
    """Mono speech from 16 kHz, tuned for voice; one 20 ms frame at a time. `loss`: per cent that are expected to be lost;
    more than none, and frames hold a copy of the one before (in-band FEC) as far as libopus finds room."""

    rate = RATE
    frame_samples = RATE // 50

    def __init__(self, library: OpusLibrary, loss: int = 0) -> None:
        error = ctypes.c_int()
        pointer = library.encoder_create(RATE, 1, OPUS_APPLICATION_VOIP, ctypes.byref(error))
        self._state = _created(pointer, error)
        self._encode = library.encode
        self._packet = ctypes.create_string_buffer(MAX_ENCODED_BYTES)
        weakref.finalize(self, library.encoder_destroy, self._state)
        if loss:
            library.encoder_ctl(self._state, OPUS_SET_INBAND_FEC, 1)
            library.encoder_ctl(self._state, OPUS_SET_PACKET_LOSS_PERC, loss)

    def encode(self, pcm: bytes) -> bytes:
        if len(pcm) != self.frame_samples * 2:
            raise ValueError(f"Opus takes {self.frame_samples} samples at a time, not {len(pcm) / 2:g}")
        length = self._encode(self._state, pcm, self.frame_samples, self._packet, MAX_ENCODED_BYTES)
        if length < 0:
            raise ValueError(f"libopus error {length}")
        return ctypes.string_at(self._packet, length)
