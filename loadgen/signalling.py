"""The HTTP half of a call: an offer for an answer, and the hang-up."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

__all__ = ["Answered", "SignallingFailed", "hang_up", "new_client", "post_offer"]

# Specification constants
CALLS_PATH = "v1/realtime/calls"
SDP_TYPE = "application/sdp"

# Implementation constants
REQUEST_SECONDS = 10.0
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


def new_client(url: str, *, connections: int, through_proxy: bool) -> httpx.AsyncClient:
    """One for all calls."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(base_url=url, timeout=REQUEST_SECONDS, limits=limits, trust_env=through_proxy)


async def post_offer(client: httpx.AsyncClient, offer: str) -> Answered:
    """Raises SignallingFailed."""
    response = await _post(client, CALLS_PATH, "offer", content=offer.encode(), headers={"Content-Type": SDP_TYPE})
    if response.status_code != 201:
        raise SignallingFailed(f"offer_status_{response.status_code}")
    location = response.headers.get("Location")
    if not location:
        raise SignallingFailed("offer_no_location")
    if len(response.content) > MAX_ANSWER:
        raise SignallingFailed("answer_too_long")
    return Answered(response.content, response.url.join(location))


async def hang_up(client: httpx.AsyncClient, location: httpx.URL) -> None:
    """Raises SignallingFailed."""
    response = await _post(client, str(location).rstrip("/") + "/hangup", "hangup")
    if response.status_code != 200:
        raise SignallingFailed(f"hangup_status_{response.status_code}")


async def _post(
    client: httpx.AsyncClient, url: str, what: str, *, content: bytes = b"", headers: dict[str, str] | None = None
) -> httpx.Response:
    try:
        return await client.post(url, content=content, headers=headers)
    except httpx.TimeoutException:
        raise SignallingFailed(f"{what}_timeout") from None
    except httpx.ConnectError:
        raise SignallingFailed(f"{what}_no_connection") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SignallingFailed(f"{what}_{type(error).__name__}") from None
