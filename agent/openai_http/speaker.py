"""The speaker `openai`: `POST {base_url}/audio/speech`, played as it comes, for speaches, Kokoro-FastAPI, LocalAI and the
hosted service."""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from agent.config import AgentConfig
from agent.openai_http.client import Answer, ModelServer, ServerFault
from agent.openai_http.config import SpeakerEndpoint
from agent.openai_http.pcm import from_little_endian
from agent.realtime.parts import Manner, Play

__all__ = ["OpenAiSpeaker"]

# Specification constants
JSON = {"Content-Type": "application/json"}

# Implementation constants
MAX_SECONDS = 120  # of the sound of one piece of text
MEDIA_TYPES = ("audio/pcm", "audio/l16", "audio/x-pcm", "audio/raw", "application/octet-stream", "binary/octet-stream")


class OpenAiSpeaker:
    """`parts.Speaker`."""

    def __init__(self, server: ModelServer, endpoint: SpeakerEndpoint) -> None:
        self._server = server
        self._endpoint = endpoint

    @classmethod
    def of(cls, config: AgentConfig) -> OpenAiSpeaker:
        """Raises ConfigError."""
        endpoint = config.openai.speaker
        return cls(ModelServer.of("speaker", endpoint, "agent.openai.speaker"), endpoint)

    @property
    def patience_seconds(self) -> float:
        """`parts.Patient`."""
        return self._endpoint.patience_seconds

    async def aclose(self) -> None:
        await self._server.aclose()

    @property
    def rate(self) -> int:
        return self._endpoint.rate

    async def speak(self, text: str, manner: Manner, play: Play) -> None:
        """`Speaker.speak`. What has neither letters nor digits is not said: servers refuse it, or answer with nothing."""
        if not any(letter.isalnum() for letter in text):
            await trio.lowlevel.checkpoint()
            return
        request: dict[str, Any] = {
            "model": self._endpoint.model,
            "input": text,
            "voice": self._voice(manner),
            "response_format": "pcm",
            **({"speed": manner.speed} if manner.speed != 1.0 else {}),
            **self._endpoint.extra,
        }
        sound = _Sound(play, MAX_SECONDS * self.rate * 2)
        await self._server.ask(
            "audio/speech",
            sound.read,
            is_used=lambda: sound.bytes > 0,
            content=msgspec.json.encode(request),
            headers=JSON,
        )

    def _voice(self, manner: Manner) -> str:
        own = self._endpoint.voice
        return manner.voice if not own or manner.voice in self._endpoint.voices else own


class _Sound:
    """What of it has been played."""

    def __init__(self, play: Play, limit: int) -> None:
        self.bytes = 0
        self._play = play
        self._limit = limit

    async def read(self, answer: Answer) -> None:
        """Raises ServerFault."""
        answer.must_be(*MEDIA_TYPES)
        odd = b""
        while piece := await answer.next_piece():
            data = odd + piece
            whole = len(data) & ~1
            odd = data[whole:]
            if not whole:
                continue
            self.bytes += whole
            if self.bytes > self._limit:
                raise ServerFault(f"says one sentence for more than {MAX_SECONDS} s")
            await self._play(from_little_endian(data[:whole]))
