"""The dialogue `openai`: `POST {base_url}/chat/completions`, streamed, for vLLM, Ollama, LocalAI and the hosted service."""

from __future__ import annotations

import msgspec

from agent.config import AgentConfig
from agent.openai_http.client import Answer, ModelServer, ServerFault
from agent.openai_http.config import DialogueEndpoint
from agent.openai_http.messages import fields_of, messages_of
from agent.openai_http.shapes import (
    ChatChunk,
    CompletionUsage,
    ToolCallDelta,
    decode_chunk_untrusted,
    error_text_untrusted,
)
from agent.openai_http.sse import SseParser
from agent.realtime.parts import CutShort, ModelFailed, Turn, Writer
from agent.realtime.response import Plan
from agent.realtime.server_events import InputTokenDetails, OutputTokenDetails, Usage
from protocol.errors import DecodeError

__all__ = ["OpenAiDialogue"]

# Specification constants
DONE = "[DONE]"
JSON = {"Content-Type": "application/json"}

# Implementation constants
MAX_LETTERS = 200_000  # of one answer, arguments of functions included
MAX_CALLS = 64
LINGER_SECONDS = 0.5  # for the end of a stream whose last word was said: then its connection can be kept


class OpenAiDialogue:
    """`parts.Dialogue`."""

    def __init__(self, server: ModelServer, endpoint: DialogueEndpoint) -> None:
        self._server = server
        self._endpoint = endpoint

    @classmethod
    def of(cls, config: AgentConfig) -> OpenAiDialogue:
        """Raises ConfigError."""
        endpoint = config.openai.dialogue
        return cls(ModelServer.of("model server", endpoint, "agent.openai.dialogue"), endpoint)

    @property
    def patience_seconds(self) -> float:
        """`parts.Patient`."""
        return self._endpoint.patience_seconds

    async def aclose(self) -> None:
        await self._server.aclose()

    async def answer(self, plan: Plan, turn: Turn | None, writer: Writer) -> Usage | None:
        """`Dialogue.answer`."""
        words: dict[str, str] = {}
        if turn is not None:
            said = await turn.words()
            if said is None:
                raise ModelFailed("Nobody understood what the caller said.")
            if not (said or self._endpoint.silence):
                return None
            words[turn.item_id] = said or self._endpoint.silence
        request = {
            "model": self._endpoint.model,
            "messages": messages_of(plan, words, self._endpoint.opening),
            "stream": True,
            **({"stream_options": {"include_usage": True}} if self._endpoint.include_usage else {}),
            **fields_of(plan, self._endpoint.max_tokens_field),
            **self._endpoint.extra,
        }
        content = msgspec.json.encode(request)
        told = _Told(writer)
        completion = await self._server.ask(
            "chat/completions",
            lambda answer: self._read(answer, told),
            is_used=lambda: told.letters > 0,
            content=content,
            headers=JSON,
        )
        await told.finish()
        usage = completion.usage
        match completion.finish_reason:
            case "length":
                raise CutShort("max_output_tokens", usage)
            case "content_filter":
                raise CutShort("content_filter", usage)
        return usage

    async def _read(self, answer: Answer, told: _Told) -> _Completion:
        """Raises ServerFault, DecodeError."""
        answer.must_be("text/event-stream")
        parser, completion = SseParser(), _Completion()
        while True:
            try:
                piece = await answer.next_piece()
            except ServerFault:
                if completion.finish_reason is None:
                    raise
                return completion  # only counts of tokens are missing
            for event in parser.feed_untrusted(piece):
                if event.data == DONE:
                    await answer.finish(LINGER_SECONDS)
                    if completion.finish_reason is None and not told.letters:  # vLLM, when it failed before a token
                        raise ServerFault("sends an answer with nothing in it")
                    return completion
                chunk = decode_chunk_untrusted(event.data)
                if chunk.error is not None or event.name == "error":
                    raise self._fault(event.data)
                await _tell(chunk, told, completion)
            if not piece:
                if completion.finish_reason is None:
                    raise ServerFault("broke off its answer")
                return completion

    def _fault(self, data: str) -> ServerFault:
        said = self._server.without_key(error_text_untrusted(data.encode()))
        return ServerFault(f"fails: {said.rstrip('.')}" if said else "fails, and does not say why")


class _Completion:
    """What is known of an answer besides its words."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.usage: Usage | None = None


class _Told:
    """What of an answer has been told."""

    def __init__(self, writer: Writer) -> None:
        self.letters = 0
        self._writer = writer
        self._calls = 0
        self._index: int | None = None
        self._id: str | None = None
        self._is_bare = False  # the present call has no arguments so far

    async def write(self, text: str) -> None:
        await self.finish()
        self._count(text)
        await self._writer.write(text)

    async def finish(self) -> None:
        """A function that was called with nothing at all is called with no arguments: clients read JSON."""
        if self._is_bare:
            self._is_bare = False
            await self._writer.argue("{}")

    async def call(self, delta: ToolCallDelta) -> None:
        """A piece of a call. A new one begins with another index or id, and has a name: some servers give all the same index,
        some repeat id and name with each piece. Raises DecodeError for two calls whose pieces are mixed."""
        function = delta.function
        name = function.name if function is not None else None
        is_new = (delta.index is not None and delta.index != self._index) or (
            delta.id is not None and delta.id != self._id
        )
        if name and (is_new or not self._calls):
            self._calls += 1
            if self._calls > MAX_CALLS:
                raise DecodeError("too_many_calls")
            self._index, self._id = delta.index, delta.id
            self._count(name)
            await self.finish()
            self._is_bare = True
            await self._writer.call(name)
        elif not self._calls or (delta.index is not None and delta.index != self._index):
            raise DecodeError("piece_of_no_call")
        if function is not None and function.arguments:
            self._count(function.arguments)
            self._is_bare = False
            await self._writer.argue(function.arguments)

    def _count(self, text: str) -> None:
        self.letters += len(text)
        if self.letters > MAX_LETTERS:
            raise DecodeError("answer_too_long")


async def _tell(chunk: ChatChunk, told: _Told, completion: _Completion) -> None:
    if chunk.usage is not None:
        completion.usage = _usage(chunk.usage)
    if not chunk.choices:
        return
    choice = chunk.choices[0]
    if choice.delta is not None:
        if text := choice.delta.content or choice.delta.refusal:
            await told.write(text)
        for call in choice.delta.tool_calls or ():
            await told.call(call)
    if choice.finish_reason:
        completion.finish_reason = choice.finish_reason


def _usage(counted: CompletionUsage) -> Usage:
    details = counted.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return Usage(
        total_tokens=counted.prompt_tokens + counted.completion_tokens
        if counted.total_tokens is None
        else counted.total_tokens,
        input_tokens=counted.prompt_tokens,
        output_tokens=counted.completion_tokens,
        input_token_details=InputTokenDetails(text_tokens=counted.prompt_tokens, cached_tokens=cached),
        output_token_details=OutputTokenDetails(text_tokens=counted.completion_tokens),
    )
