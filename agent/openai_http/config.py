"""The `[agent.openai]` section: which servers the parts named `openai` ask, and how patiently."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

import msgspec

from service.config import ConfigError

__all__ = ["DialogueEndpoint", "Endpoint", "OpenAiConfig", "RecognizerEndpoint", "SpeakerEndpoint", "read_key"]

# Implementation constants
MAX_KEY_BYTES = 4096
GRACE_SECONDS = 1.0  # for the last try to be given up by itself, and its reason told


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A server, and a model there."""

    base_url: str = ""
    """Of the API, with its `/v1`: `http://127.0.0.1:11434/v1`. Redirects are not followed."""
    model: str = ""
    """As the server calls it."""
    api_key_env: str = ""
    """Name of an environment variable that holds the API key; empty: no key, unless a file has it."""
    api_key_file: str = ""
    """A file that holds the API key, and nothing else."""
    connect_seconds: float = 5.0
    """For a connection, or for one of those that there are to be free."""
    first_byte_seconds: float = 15.0
    """For an answer to begin. A local model that is loaded by its first request may need more."""
    stall_seconds: float = 10.0
    """For the next piece of an answer that has begun; for all of one that is no stream."""
    attempts: int = 3
    """Tries of one request, as long as nothing of its answer has been used."""
    retry_seconds: float = 10.0
    """Within which the last of them begins."""
    max_connections: int = 1000
    """At once; further requests wait for `connect_seconds`."""
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    """Further fields of each request, as the server calls them: `{ temperature = 0.3 }`."""

    def __post_init__(self) -> None:
        if self.base_url:
            _check_url(self.base_url)
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env: the key is either in a variable or in a file, not in both")
        for key in ("connect_seconds", "first_byte_seconds", "stall_seconds"):
            if not 0 < getattr(self, key) <= 600:
                raise ValueError(f"{key}: must be more than 0 and at most 600")
        if not 0 <= self.retry_seconds <= 600:
            raise ValueError("retry_seconds: must be between 0 and 600")
        if not 1 <= self.attempts <= 10:
            raise ValueError("attempts: must be between 1 and 10")
        if not 1 <= self.max_connections <= 10_000:
            raise ValueError("max_connections: must be between 1 and 10000")

    @property
    def patience_seconds(self) -> float:
        """From a request to its answer's first word, or to its failure: the longest that the bounds here allow."""
        retry = self.retry_seconds if self.attempts > 1 else 0.0
        return retry + self.first_byte_seconds + self.stall_seconds + GRACE_SECONDS


class DialogueEndpoint(Endpoint, frozen=True, kw_only=True):
    """`POST {base_url}/chat/completions`"""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the server calls the limit of an answer's length: some models of OpenAI's want the newer name."""
    include_usage: bool = True
    """Ask for counts of tokens; for servers that refuse a request with `stream_options`, false."""
    opening: str = "Hello!"
    """What the model reads in the caller's place when it is to speak first. Empty: nothing, which some models refuse."""
    silence: str = "(silence)"
    """What it reads when the caller's turn held no words. Empty: it is not asked, and says nothing."""


class RecognizerEndpoint(Endpoint, frozen=True, kw_only=True):
    """`POST {base_url}/audio/transcriptions`"""

    language: str = ""
    """Of callers whose session names none, as ISO 639-1 has it (`en`); empty: the server finds out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(isinstance(value, str | int | float) for value in self.extra.values()):
            raise ValueError("extra: fields of a form are words, numbers or booleans")


class SpeakerEndpoint(Endpoint, frozen=True, kw_only=True):
    """`POST {base_url}/audio/speech`"""

    voice: str = ""
    """Who speaks. Empty: the voice that the session asks for, which may be one of OpenAI's that the server does not have."""
    voices: tuple[str, ...] = ()
    """Those that a session may choose all the same."""
    rate: int = 24000
    """Samples a second of the server's `pcm`, which is 16-bit mono, little-endian."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 8000 <= self.rate <= 48000:
            raise ValueError("rate: must be between 8000 and 48000")
        if self.voices and not self.voice:
            raise ValueError("voices: needs `voice`, for sessions that ask for another")


class OpenAiConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `[agent.openai]` section: a table for each part, as their servers may be three."""

    dialogue: DialogueEndpoint = DialogueEndpoint()
    recognizer: RecognizerEndpoint = RecognizerEndpoint()
    speaker: SpeakerEndpoint = SpeakerEndpoint()


def read_key(endpoint: Endpoint, place: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """The API key, None if there is none. `place`: the section, for messages, none of which has anything of the key.
    Raises ConfigError."""
    if endpoint.api_key_env:
        place, key = f"{place}.api_key_env", environ.get(endpoint.api_key_env, "").strip()
        if not key:
            raise ConfigError(place, f"the variable {endpoint.api_key_env} is not set")
    elif endpoint.api_key_file:
        place = f"{place}.api_key_file"
        try:
            with Path(endpoint.api_key_file).open("rb") as file:
                key = file.read(MAX_KEY_BYTES + 1).decode("ascii", "replace").strip()
        except OSError as error:
            raise ConfigError(place, error.strerror or "cannot be read") from None
        if not key:
            raise ConfigError(place, "the file is empty")
    else:
        return None
    if len(key) > MAX_KEY_BYTES or not all("!" <= letter <= "~" for letter in key):
        raise ConfigError(place, "that is no API key: it must be one word of ASCII")
    return key


def _check_url(text: str) -> None:
    """Raises ValueError. What the URL says is shown in logs: it must hold no secret."""
    try:
        url = urlsplit(text)
        is_right = _is_server(url)
    except ValueError:
        is_right = False
    if not is_right:
        raise ValueError("base_url: must be http://HOST:PORT/PATH or https://…, without a user, query or fragment")


def _is_server(url: SplitResult) -> bool:
    url.port  # noqa: B018 - raises ValueError for what is none
    plain = not (url.username or url.password or url.query or url.fragment)
    return url.scheme in ("http", "https") and bool(url.hostname) and plain
