# ruff: noqa: ANN401  (what is in JSON is anything)
"""A server in memory, and the parts that ask it, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from openai_server import OpenAiServer

from agent.openai_http.client import ModelServer
from agent.openai_http.config import DialogueEndpoint, Endpoint, RecognizerEndpoint, SpeakerEndpoint
from agent.openai_http.dialogue import OpenAiDialogue
from agent.openai_http.recognizer import OpenAiRecognizer
from agent.openai_http.speaker import OpenAiSpeaker
from agent.realtime.client_events import ResponseSettings
from agent.realtime.items import InputText, Item, Message
from agent.realtime.response import Plan
from protocol.realtime.settings import Settings

KEY = "sk-very-secret"


class Notebook:
    """`parts.Writer`: what was written and when; `seconds`: how long each word takes it."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.notes: list[tuple[str, str]] = []
        self.times: list[float] = []
        self._seconds = seconds

    async def _note(self, kind: str, text: str) -> None:
        self.notes.append((kind, text))
        self.times.append(trio.current_time())
        await trio.sleep(self._seconds)

    async def write(self, text: str) -> None:
        await self._note("write", text)

    async def call(self, name: str) -> None:
        await self._note("call", name)

    async def argue(self, text: str) -> None:
        await self._note("argue", text)


class Parts:
    """Made anew for each test, with whatever is said of their endpoint."""

    def __init__(self, server: OpenAiServer, nursery: trio.Nursery) -> None:
        self.asked: ModelServer | None = None
        self._server = server
        self._nursery = nursery

    def dialogue(self, **fields: Any) -> OpenAiDialogue:
        endpoint = self._endpoint(DialogueEndpoint, fields)
        return OpenAiDialogue(self._client("model server", endpoint), endpoint)

    def recognizer(self, **fields: Any) -> OpenAiRecognizer:
        endpoint = self._endpoint(RecognizerEndpoint, fields)
        return OpenAiRecognizer(self._client("recognizer", endpoint), endpoint)

    def speaker(self, **fields: Any) -> OpenAiSpeaker:
        endpoint = self._endpoint(SpeakerEndpoint, fields)
        return OpenAiSpeaker(self._client("speaker", endpoint), endpoint)

    @staticmethod
    def _endpoint(kind: type, fields: dict[str, Any]) -> Any:
        return msgspec.convert({"base_url": "http://models.test:8000/v1/", "model": "small", **fields}, kind)

    def _client(self, name: str, endpoint: Endpoint) -> ModelServer:
        transport = self._server.transport(self._nursery)
        self.asked = ModelServer(name, endpoint, KEY, transport=transport, entropy=random.Random(1).randbytes)
        return self.asked


@pytest.fixture
def server() -> OpenAiServer:
    return OpenAiServer()


@pytest.fixture
def parts(server: OpenAiServer, nursery: trio.Nursery) -> Parts:
    return Parts(server, nursery)


@pytest.fixture
def notebook() -> Callable[..., Notebook]:
    return Notebook


@pytest.fixture
def plan() -> Callable[..., Plan]:
    """`plan(*items, **response)`: what a model is asked for; a caller's question if nothing is said."""

    def plan(*items: Item, **change: Any) -> Plan:
        asked = Message(role="user", content=[InputText("what time is it")], id="item_1")
        return Plan.of("resp_1", Settings(), ResponseSettings(**change), items or (asked,))

    return plan
