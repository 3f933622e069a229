"""The HTTP half of a call: an offer for an answer, and the hang-up.

A server that asks for keys gets the one in the variable KEY_VARIABLE, which is told to nobody else, and shown nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import trio

__all__ = ["KEY_VARIABLE", "Answered", "SignallingFailed", "hang_up", "new_client", "post_offer", "read_key"]

KEY_VARIABLE = "ANTIPHON_LOAD_KEY"

# Specification constants
CALLS_PATH = "v1/realtime/calls"
SDP_TYPE = "application/sdp"

# Implementation constants
REQUEST_SECONDS = 10.0  # for all of it, or a server that sends a byte now and then would hold the run up
MAX_ANSWER = 65_536


class SignallingFailed(Exception):
    """`reason` is a word fit for a report."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Answered:
    sdp: bytes
    location: httpx.URL


def read_key(environ: Mapping[str, str] = os.environ) -> str:
    """ "" if there is none. Raises ValueError, whose message has nothing of it."""
    key = environ.get(KEY_VARIABLE, "").strip()
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError(f"{KEY_VARIABLE}: that is no API key: it must be one word of ASCII")
    return key


def new_client(url: str, *, connections: int, through_proxy: bool, key: str = "") -> httpx.AsyncClient:
    """One for all calls. `key`: for the server, if it asks who calls."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(
        base_url=url,
        timeout=REQUEST_SECONDS,
        limits=limits,
        trust_env=through_proxy,
        headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
    )


async def post_offer(client: httpx.AsyncClient, offer: str) -> Answered:
    """Raises SignallingFailed."""
    response, body = await _post(
        client, CALLS_PATH, "offer", content=offer.encode(), headers={"Content-Type": SDP_TYPE}
    )
    if response.status_code != 201:
        raise SignallingFailed(f"offer_status_{response.status_code}")
    location = response.headers.get("Location")
    if not location:
        raise SignallingFailed("offer_no_location")
    if len(body) > MAX_ANSWER:
        raise SignallingFailed("answer_too_long")
    return Answered(body, _join(response.url, location))


async def hang_up(client: httpx.AsyncClient, location: httpx.URL) -> None:
    """Raises SignallingFailed."""
    response, _ = await _post(client, str(location).rstrip("/") + "/hangup", "hangup")
    if response.status_code != 200:
        raise SignallingFailed(f"hangup_status_{response.status_code}")


def _join(url: httpx.URL, location: str) -> httpx.URL:
    """Where the call is. Not at another server: whom we load may not make us load somebody else."""
    try:
        joined = url.join(location)
    except httpx.InvalidURL:
        raise SignallingFailed("offer_bad_location") from None
    if (joined.scheme, joined.netloc) != (url.scheme, url.netloc):
        raise SignallingFailed("offer_foreign_location")
    return joined


async def _post(
    client: httpx.AsyncClient, url: str, what: str, *, content: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[httpx.Response, bytes]:
    """The response and its body, of one that is longer than any answer only the beginning."""
    body = bytearray()
    try:
        with trio.fail_after(REQUEST_SECONDS):
            async with client.stream("POST", url, content=content, headers=headers) as response:
                with (
                    trio.CancelScope() as reading
                ):  # a cancelled read closes the library's generators, `break` does not
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) > MAX_ANSWER:
                            reading.cancel()
    except (httpx.TimeoutException, trio.TooSlowError):
        raise SignallingFailed(f"{what}_timeout") from None
    except httpx.ConnectError:
        raise SignallingFailed(f"{what}_no_connection") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SignallingFailed(f"{what}_{type(error).__name__}") from None
    return response, bytes(body)
