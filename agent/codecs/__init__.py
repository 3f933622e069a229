"""PCM for agents that want it: 16-bit mono in the machine's byte order, at the rate that the decoder or encoder says.

Encoded audio passes through the edge untouched; who wants samples pays for them here, per call. Opus needs libopus; where
there is none, `pcm_codecs()` leaves Opus out, the agent's `hello` says so, and the edge answers offers with G.711.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from agent.codecs.g711 import G711Decoder, G711Encoder
from agent.codecs.opus import OpusDecoder, OpusEncoder, OpusLibrary, find_opus
from agent.events import Frame
from protocol.codecs import OPUS, PCMA, PCMU, Codec
from protocol.errors import DecodeError

__all__ = ["CodecUnavailable", "Decoder", "Encoder", "needs_pcm", "open_decoder", "open_encoder", "pcm_codecs"]

# Implementation constants
MAX_FILLED_SECONDS = 1.0

G711 = (PCMU.name, PCMA.name)
_Agent = TypeVar("_Agent", bound=Callable[..., Awaitable[None]])


class CodecUnavailable(Exception):
    """This call's audio cannot be decoded or encoded here."""


class _CodecDecoder(Protocol):
    @property
    def rate(self) -> int: ...

    def decode_untrusted(self, payload: bytes) -> bytes: ...

    def recover_untrusted(self, payload: bytes, samples: int) -> bytes: ...

    def conceal(self, samples: int) -> bytes: ...


class Decoder:
    """From frames to PCM. One per call: a frame may depend on those before it."""

    def __init__(self, decoder: _CodecDecoder, clock_rate: int) -> None:
        self._decoder = decoder
        self._clock_rate = clock_rate
        self._expected: int | None = None  # the RTP time behind the last frame
        self.rate = decoder.rate
        """Samples a second."""
        self.undecodable = 0
        """How many frames were none."""
        self.recovered_ms = 0.0
        """Lost audio that was decoded from a copy in the frame behind it (in-band FEC)."""
        self.concealed_ms = 0.0
        """Lost audio that was made up."""

    def decode(self, payload: bytes) -> bytes:
        """The PCM of one frame; empty for a frame that cannot be decoded: a caller's bad frame is no agent's failure."""
        try:
            return self._decoder.decode_untrusted(payload)
        except DecodeError:
            self.undecodable += 1
            return b""

    def decode_frame(self, frame: Frame) -> bytes:
        """The same, with what was lost before the frame in front of it: PCM that goes on without holes. Up to a second is
        filled, from the frame's own copy (in-band FEC) where it has one. A silence that the caller's client did not send
        (DTX) is none."""
        ticks = frame.rtp_time - self._expected & 0xFFFFFFFF if self._expected is not None else 0
        self._expected = frame.rtp_time + round(frame.duration_ms * self._clock_rate / 1000)
        filling = b""
        if frame.gap and 0 < ticks <= MAX_FILLED_SECONDS * self._clock_rate:
            filling = self._fill(frame, ticks)
        return filling + self.decode(frame.payload)

    def _fill(self, frame: Frame, ticks: int) -> bytes:
        samples = ticks * self.rate // self._clock_rate
        copied = min(samples, round(frame.duration_ms * self.rate / 1000)) if frame.fec else 0
        pcm = self._decoder.conceal(samples - copied)
        self.concealed_ms += (samples - copied) * 1000 / self.rate
        if copied:
            try:
                pcm += self._decoder.recover_untrusted(frame.payload, copied)
                self.recovered_ms += copied * 1000 / self.rate
            except DecodeError:
                pcm += self._decoder.conceal(copied)
                self.concealed_ms += copied * 1000 / self.rate
        return pcm


class Encoder(Protocol):
    @property
    def rate(self) -> int:
        """Samples a second."""

    @property
    def frame_samples(self) -> int:
        """Samples of one 20 ms frame, which is what `encode` takes."""

    def encode(self, pcm: bytes) -> bytes:
        """PCM to one frame."""


def pcm_codecs(library: OpusLibrary | None) -> tuple[str, ...]:
    """The codecs that can be turned into PCM with this libopus (or without one), best first."""
    return G711 if library is None else (OPUS.name, *G711)


def needs_pcm(agent: _Agent) -> _Agent:
    """Decorator: this agent decodes audio, so ask the edge only for codecs that this machine can decode."""
    agent_with_codecs: Any = agent
    agent_with_codecs.codecs = pcm_codecs(find_opus())
    return agent


def open_decoder(codec: Codec | None) -> Decoder:
    if codec is not None and codec.name in G711:
        return Decoder(G711Decoder(codec.name), codec.clock_rate)
    return Decoder(OpusDecoder(_opus(codec)), OPUS.clock_rate)


def open_encoder(codec: Codec | None) -> Encoder:
    if codec is not None and codec.name in G711:
        return G711Encoder(codec.name)
    return OpusEncoder(_opus(codec))


def _opus(codec: Codec | None) -> OpusLibrary:
    library = find_opus()
    if codec is not OPUS or library is None:
        raise CodecUnavailable("no libopus on this machine" if codec is OPUS else "this call has no audio")
    return library
