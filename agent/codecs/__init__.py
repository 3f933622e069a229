"""PCM for agents that want it: 16-bit mono in the machine's byte order, at the rate that the decoder or encoder says.

Encoded audio passes through the edge untouched; who wants samples pays for them here, per call. Opus needs libopus; where
there is none, `pcm_codecs()` leaves Opus out, the agent's `hello` says so, and the edge answers offers with G.711.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from agent.codecs.g711 import G711Decoder, G711Encoder
from agent.codecs.opus import OpusDecoder, OpusEncoder, OpusLibrary, find_opus
from protocol.codecs import OPUS, PCMA, PCMU, Codec
from protocol.errors import DecodeError

__all__ = ["CodecUnavailable", "Decoder", "Encoder", "needs_pcm", "open_decoder", "open_encoder", "pcm_codecs"]

G711 = (PCMU.name, PCMA.name)
_Agent = TypeVar("_Agent", bound=Callable[..., Awaitable[None]])


class CodecUnavailable(Exception):
    """This call's audio cannot be decoded or encoded here."""


class _CodecDecoder(Protocol):
    @property
    def rate(self) -> int: ...

    def decode_untrusted(self, payload: bytes) -> bytes: ...


class Decoder:
    """From frames to PCM. One per call: a frame may depend on those before it."""

    def __init__(self, decoder: _CodecDecoder) -> None:
        self._decoder = decoder
        self.rate = decoder.rate
        """Samples a second."""
        self.undecodable = 0
        """How many frames were none."""

    def decode(self, payload: bytes) -> bytes:
        """The PCM of one frame; empty for a frame that cannot be decoded: a caller's bad frame is no agent's failure."""
        try:
            return self._decoder.decode_untrusted(payload)
        except DecodeError:
            self.undecodable += 1
            return b""


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
        return Decoder(G711Decoder(codec.name))
    return Decoder(OpusDecoder(_opus(codec)))


def open_encoder(codec: Codec | None) -> Encoder:
    if codec is not None and codec.name in G711:
        return G711Encoder(codec.name)
    return OpusEncoder(_opus(codec))


def _opus(codec: Codec | None) -> OpusLibrary:
    library = find_opus()
    if codec is not OPUS or library is None:
        raise CodecUnavailable("no libopus on this machine" if codec is OPUS else "this call has no audio")
    return library
