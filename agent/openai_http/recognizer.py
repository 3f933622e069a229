"""The recognizer `openai`: `POST {base_url}/audio/transcriptions`, the whole turn as a WAV file, for speaches, LocalAI, vLLM
and the hosted service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agent.config import AgentConfig
from agent.openai_http.client import Answer, ModelServer
from agent.openai_http.config import RecognizerEndpoint
from agent.openai_http.pcm import wav
from agent.openai_http.shapes import decode_transcription_untrusted

__all__ = ["OpenAiRecognizer"]

# Implementation constants
MAX_SECONDS = 120  # of one turn; of a longer one, its end
MAX_ANSWER_BYTES = 1024 * 1024


class OpenAiRecognizer:
    """`parts.Recognizer`. The API takes whole files: what comes while the caller speaks is gathered."""

    def __init__(self, server: ModelServer, endpoint: RecognizerEndpoint) -> None:
        self._server = server
        self._endpoint = endpoint

    @classmethod
    def of(cls, config: AgentConfig) -> OpenAiRecognizer:
        """Raises ConfigError."""
        endpoint = config.openai.recognizer
        return cls(ModelServer.of("recognizer", endpoint, "agent.openai.recognizer"), endpoint)

    @property
    def patience_seconds(self) -> float:
        """`parts.Patient`."""
        return self._endpoint.patience_seconds

    async def aclose(self) -> None:
        await self._server.aclose()

    async def transcribe(self, audio: AsyncIterator[bytes], rate: int, language: str | None) -> str:
        """`Recognizer.transcribe`. Raises ModelFailed."""
        pcm = bytearray()
        async for piece in audio:
            pcm += piece
            if (surplus := len(pcm) - MAX_SECONDS * rate * 2) > 0:
                del pcm[:surplus]
                self._server.counters["bytes_forgotten"] += surplus
        if not pcm:
            return ""
        fields = {"model": self._endpoint.model, "response_format": "json", **self._endpoint.extra}
        if language := language or self._endpoint.language:
            fields["language"] = language
        return await self._server.ask(
            "audio/transcriptions",
            _words,
            data=fields,
            files={"file": ("turn.wav", wav(bytes(pcm), rate), "audio/wav")},
        )


async def _words(answer: Answer) -> str:
    answer.must_be("application/json")
    return decode_transcription_untrusted(await answer.read(MAX_ANSWER_BYTES))
