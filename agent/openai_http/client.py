"""One server of the OpenAI API, as asked by one part: requests that are tried again, answers in pieces, and what went wrong
as a sentence.

1. Connections are kept and used again; a request waits for a free one no longer than for a new one.
2. Until something of the answer has been used, what failed in passing (no connection, no answer in time, an answer that broke
   off or makes no sense, 408, 409, 425, 429, 5xx) is tried again (retry.py). Afterwards nothing is: it would be said twice.
3. Whoever is cancelled closes the connection at once, so that the server stops working on it.
4. A redirect is not followed: neither the key nor what the caller said is for another server.
5. What a server says of its failure is passed on, shortened, in one line, and never with the key in it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeVar

import httpx
import trio

from agent.openai_http.config import Endpoint, read_key
from agent.openai_http.retry import Retries, retry_after_untrusted
from agent.openai_http.shapes import error_text_untrusted
from agent.realtime.parts import ModelFailed
from protocol.errors import DecodeError
from protocol.wire import Entropy
from service.config import ConfigError
from service.logs import get_logger

__all__ = ["Answer", "ModelServer", "ServerFault"]

log = get_logger()

T = TypeVar("T")

_certificates = cache(httpx.create_ssl_context)  # takes longer to read than a request does to answer

# Implementation constants
KEEPALIVE_SECONDS = 60.0
MAX_ERROR_BYTES = 16 * 1024  # of an answer that says what is wrong
MAX_ERROR_LETTERS = 300
MAX_TYPE_LETTERS = 60
PASSING = frozenset({408, 409, 425, 429})  # besides 5xx


class ServerFault(Exception):
    """What is wrong, as the rest of a sentence that begins with the server. `is_passing`: it may be better in a moment;
    `retry_after`: in so many seconds, the server says."""

    def __init__(self, what: str, *, is_passing: bool = True, retry_after: float | None = None) -> None:
        super().__init__(what)
        self.is_passing = is_passing
        self.retry_after = retry_after


class Answer:
    """One that has begun."""

    def __init__(self, response: httpx.Response, stall_seconds: float) -> None:
        self.media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        self._pieces = response.aiter_raw()
        self._stall_seconds = stall_seconds

    async def next_piece(self) -> bytes:
        """The bytes that came next; b"" at the end. Raises ServerFault."""
        try:
            with trio.fail_after(self._stall_seconds):
                return await anext(self._pieces, b"")
        except trio.TooSlowError:
            raise ServerFault(f"sent nothing more for {self._stall_seconds:g} s") from None
        except httpx.HTTPError as error:
            raise ServerFault("broke off its answer") from error

    async def read(self, limit: int) -> bytes:
        """All of it, which is to come within `stall_seconds`. Raises ServerFault."""
        whole = bytearray()
        with trio.move_on_after(self._stall_seconds):
            while piece := await self.next_piece():
                whole += piece
                if len(whole) > limit:
                    raise ServerFault("sends an answer that is too long", is_passing=False)
            return bytes(whole)
        raise ServerFault(f"took more than {self._stall_seconds:g} s to send its answer")

    async def finish(self, seconds: float) -> None:
        """Nothing that may still come is wanted, but its end, for so long: then the connection can be kept."""
        with trio.move_on_after(seconds), suppress(httpx.HTTPError):
            while await anext(self._pieces, b""):
                pass

    async def leave(self) -> None:
        """What is left of it is not wanted: the connection ends here.

        httpx reads through generators in one another. Closing the outermost would leave those within to the garbage collector;
        a Cancelled in the innermost ends them all.
        """
        with trio.CancelScope(shield=True) as scope:
            scope.cancel()
            with suppress(httpx.HTTPError):
                while await anext(self._pieces, b""):
                    pass

    def must_be(self, *media_types: str) -> None:
        """Raises ServerFault. A server that does not say is believed."""
        if self.media_type and self.media_type not in media_types:
            raise ServerFault(f"answers with {_plain(self.media_type, MAX_TYPE_LETTERS)} instead of {media_types[0]}")


class _Body(httpx.AsyncByteStream):
    """What a request sends, in one piece. httpx's own are generators, which a caller who interrupts would leave unfinished."""

    def __init__(self, data: bytes) -> None:
        self._pieces = [data]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            raise StopAsyncIteration
        return self._pieces.pop()


class ModelServer:
    """`name`: how messages call it. `counters`: requests, retries, failures. Serves all calls of a process."""

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        key: str | None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        entropy: Entropy = os.urandom,
    ) -> None:
        """`transport`: another way to the server, instead of TCP."""
        self.name = name
        self.counters: Counter[str] = Counter()
        self._endpoint = endpoint
        self._key = key
        self._entropy = entropy
        self._client = httpx.AsyncClient(
            base_url=endpoint.base_url.rstrip("/") + "/",
            # An answer that is compressed would have to be unpacked within bounds, and would come later.
            headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=httpx.Timeout(None, connect=endpoint.connect_seconds, pool=endpoint.connect_seconds),
            limits=httpx.Limits(
                max_connections=endpoint.max_connections,
                max_keepalive_connections=endpoint.max_connections,
                keepalive_expiry=KEEPALIVE_SECONDS,
            ),
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # what one call was given is not for another
            verify=_certificates(),
            transport=transport,
        )

    @classmethod
    def of(cls, name: str, endpoint: Endpoint, place: str) -> ModelServer:
        """`place`: of the endpoint in the configuration. Raises ConfigError."""
        for key in ("base_url", "model"):
            if not getattr(endpoint, key):
                raise ConfigError(f"{place}.{key}", 'must be set when the part is "openai"')
        return cls(name, endpoint, read_key(endpoint, place))

    async def aclose(self) -> None:
        """Once, when the process ends."""
        if self.counters:
            log.info("the account of a server", server=self.name, url=self._endpoint.base_url, **self.counters)
        await self._client.aclose()

    async def ask(
        self,
        path: str,
        take: Callable[[Answer], Awaitable[T]],
        *,
        is_used: Callable[[], bool] = lambda: False,
        **content: Any,  # noqa: ANN401 - as `httpx.AsyncClient.build_request` takes it
    ) -> T:
        """POST, and what `take` makes of the answer: it may raise ServerFault or DecodeError. `is_used`: whether something of
        it has been told to anybody, so that it cannot begin anew. Raises ModelFailed."""
        endpoint = self._endpoint
        retries = Retries(endpoint.attempts, endpoint.retry_seconds, trio.current_time(), self._entropy)
        self.counters["requests"] += 1
        while True:
            try:
                return await self._try(path, take, content)
            except ServerFault as fault:
                again = fault.is_passing and not is_used()
                wait = retries.wait(trio.current_time(), fault.retry_after) if again else None
                self._note(fault, wait, path)
                if wait is None:
                    raise ModelFailed(f"The {self.name} {fault}.") from None
            await trio.sleep(wait)

    async def _try(self, path: str, take: Callable[[Answer], Awaitable[T]], content: dict[str, Any]) -> T:
        request = self._client.build_request("POST", path, **content)
        request.stream = _Body(request.read())
        response = await self._begin(request)
        answer = Answer(response, self._endpoint.stall_seconds)
        try:
            if not response.is_success:
                raise await self._refusal(response, answer)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise ServerFault("compresses its answer, which it was not asked to", is_passing=False)
            return await take(answer)
        except DecodeError as error:
            raise ServerFault(f"sends what makes no sense ({error.reason})") from error
        finally:
            await answer.leave()
            await response.aclose()

    def _note(self, fault: ServerFault, wait: float | None, path: str) -> None:
        """`wait`: seconds until it is tried again; None: it is not."""
        self.counters["failures" if wait is None else "retries"] += 1
        cause = self.without_key(f"{type(fault.__cause__).__name__}: {fault.__cause__}") if fault.__cause__ else None
        told = {"server": self.name, "url": self._endpoint.base_url, "path": path, "reason": str(fault), "cause": cause}
        if wait is None:
            log.warning("a request failed", **told)
        else:
            log.info("a request is tried again", **told, seconds=round(wait, 2))

    async def _begin(self, request: httpx.Request) -> httpx.Response:
        seconds = self._endpoint.first_byte_seconds
        try:
            with trio.fail_after(seconds):
                return await self._client.send(request, stream=True)
        except (trio.TooSlowError, httpx.ReadTimeout):
            raise ServerFault(f"did not answer within {seconds:g} s") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise ServerFault("cannot be reached") from error
        except httpx.PoolTimeout:
            raise ServerFault("has as many requests at once as it is given") from None
        except httpx.HTTPError as error:
            raise ServerFault("broke off before its answer") from error

    async def _refusal(self, response: httpx.Response, answer: Answer) -> ServerFault:
        """What an answer says that is none."""
        status = response.status_code
        if response.is_redirect:
            return ServerFault(f"redirects ({status}), which is not followed", is_passing=False)
        if status in (401, 403):  # it may quote the key, or half of it
            return ServerFault(f"refuses our API key ({status})", is_passing=False)
        try:
            body = await answer.read(MAX_ERROR_BYTES)
        except ServerFault:
            body = b""
        said = self.without_key(error_text_untrusted(body))
        retry_after = None
        if (text := response.headers.get("retry-after")) is not None:
            try:
                retry_after = retry_after_untrusted(text, response.headers.get("date"))
            except DecodeError:
                self.counters["bad_retry_after"] += 1
        what = f"answers {status}: {said.rstrip('.')}" if said else f"answers {status}"
        return ServerFault(what, is_passing=status in PASSING or status >= 500, retry_after=retry_after)

    def without_key(self, text: str) -> str:
        """What a server said, fit for clients and logs."""
        return _plain(text.replace(self._key, "…") if self._key else text, MAX_ERROR_LETTERS)


def _plain(text: str, letters: int) -> str:
    """In one line, and not too long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * letters]).split())
    return line if len(line) <= letters else line[: letters - 1] + "…"
