"""Which pages may use signalling, and by what names it is found."""

from __future__ import annotations

import random

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from transceiver.config import TransceiverConfig
from transceiver.signalling import Guard, Origins, SignallingError

LOOPBACK = TransceiverConfig(direct=True)
OPEN = TransceiverConfig(direct=True, open_access=True)
OUTSIDE = TransceiverConfig(direct=True, open_access=True, http=("0.0.0.0:8080",))
KEYS = TransceiverConfig(direct=True, api_keys="keys")
LISTED = TransceiverConfig(direct=True, allow_origins=("https://shop.example",))
KEYS_LISTED = TransceiverConfig(direct=True, api_keys="keys", allow_origins=("https://shop.example",))
ALL = TransceiverConfig(direct=True, allow_origins=("*",))

HERE, EVIL, SHOP = "127.0.0.1:8080", "https://evil.example", "https://shop.example"
BAD_HOST, BAD_ORIGIN = "host_not_allowed", "origin_not_allowed"


@pytest.mark.parametrize(
    ("config", "host", "origin", "refusal"),
    [
        # No keys, on loopback
        (LOOPBACK, HERE, None, None),
        (LOOPBACK, None, None, None),
        (LOOPBACK, HERE, "http://127.0.0.1:8080", None),
        (LOOPBACK, HERE, "http://localhost:5173", None),
        (LOOPBACK, HERE, "https://localhost", None),
        (LOOPBACK, HERE, "http://[::1]:3000", None),
        (LOOPBACK, "localhost", "http://127.0.0.1:1", None),
        (LOOPBACK, "LocalHost:8080", None, None),
        (LOOPBACK, "[::1]:8080", None, None),
        (LOOPBACK, HERE, EVIL, BAD_ORIGIN),
        (LOOPBACK, HERE, "null", BAD_ORIGIN),
        (LOOPBACK, HERE, "", BAD_ORIGIN),
        (LOOPBACK, HERE, "http://localhost.evil.example", BAD_ORIGIN),
        (LOOPBACK, HERE, "http://127.0.0.1.evil.example", BAD_ORIGIN),
        (LOOPBACK, HERE, "http://localhost@evil.example", BAD_ORIGIN),
        (LOOPBACK, HERE, "ftp://localhost", BAD_ORIGIN),
        (LOOPBACK, HERE, "http://localhost:port", BAD_ORIGIN),
        (LOOPBACK, "evil.example:8080", None, BAD_HOST),
        (LOOPBACK, "evil.example:8080", "http://evil.example:8080", BAD_HOST),
        (LOOPBACK, "localhost.evil.example", None, BAD_HOST),
        (LOOPBACK, "192.168.1.5", None, BAD_HOST),
        (LOOPBACK, "", None, BAD_HOST),
        # A proxy before it
        (OPEN, "voice.example", None, None),
        (OPEN, "voice.example", "https://voice.example", None),
        (OPEN, "Voice.example:443", "https://voice.example", None),
        (OPEN, "voice.example", "https://voice.example:8443", BAD_ORIGIN),
        (OPEN, "voice.example", EVIL, BAD_ORIGIN),
        (OPEN, "voice.example", "http://localhost:5173", None),
        (OUTSIDE, "192.168.1.5:8080", "http://192.168.1.5:8080", None),
        (OUTSIDE, "192.168.1.5:8080", EVIL, BAD_ORIGIN),
        # What is said in words
        (LISTED, HERE, SHOP, None),
        (LISTED, "shop.example", SHOP, None),
        (LISTED, "shop.example", None, None),
        (LISTED, HERE, "http://127.0.0.1:8080", None),
        (LISTED, HERE, "http://127.0.0.1:3000", BAD_ORIGIN),
        (LISTED, HERE, EVIL, BAD_ORIGIN),
        (LISTED, "evil.example", None, BAD_HOST),
        (ALL, "evil.example", EVIL, None),
        (ALL, HERE, "null", None),
        # Keys
        (KEYS, "edge.example", EVIL, None),
        (KEYS, "edge.example", "null", None),
        (KEYS_LISTED, "edge.example", SHOP, None),
        (KEYS_LISTED, "edge.example", "https://edge.example", None),
        (KEYS_LISTED, "edge.example", EVIL, BAD_ORIGIN),
    ],
)
@pytest.mark.parametrize("method", ["", "POST", "PATCH", "DELETE"])
def test_who_may_act(config: TransceiverConfig, method: str, host: str | None, origin: str | None, refusal: str | None):
    assert refused(Origins.configured(config), method, host, origin) == refusal


def refused(origins: Origins, method: str, host: str | None, origin: str | None) -> str | None:
    try:
        origins.check(method, host, origin)
    except SignallingError as error:
        assert error.status == 403
        return error.code
    return None


def test_what_changes_nothing_is_answered_to_all_pages_but_not_by_every_name():
    origins = Origins.configured(LOOPBACK)
    for method in ("GET", "HEAD", "OPTIONS"):
        assert refused(origins, method, HERE, EVIL) is None
        assert refused(origins, method, "evil.example", None) == BAD_HOST


def test_who_may_read_is_who_may_act_wherever_he_found_us():
    assert Origins.configured(LOOPBACK).allows("http://localhost:5173")
    assert not Origins.configured(LOOPBACK).allows(EVIL)
    assert Origins.configured(KEYS).allows(EVIL)
    assert Origins.configured(KEYS_LISTED).allows(SHOP)
    assert not Origins.configured(KEYS_LISTED).allows("http://localhost:5173")


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_in_the_headers_there_is_an_answer(seed: int):
    entropy = random.Random(seed)
    origins = Origins.configured(LOOPBACK)
    for _ in range(200):
        host, origin = ("".join(entropy.choices("[]:/@%.1a\xff\x00 h?#", k=entropy.randrange(12))) for _ in range(2))
        refused(origins, "POST", host, entropy.choice(["", "http://"]) + origin)


async def test_a_page_that_may_not_is_answered_before_anything_is_looked_at():
    async def fine(_: object) -> PlainTextResponse:
        return PlainTextResponse("fine")

    app = Guard(Starlette(routes=[Route("/", fine, methods=["GET", "POST"])]), Origins.configured(LOOPBACK))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
        assert (await client.post("/")).text == "fine"
        answer = await client.post("/", headers={"Origin": EVIL})
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == BAD_ORIGIN
        assert "access-control-allow-origin" not in answer.headers
        rebound = await client.get("/", headers={"Host": "evil.example"})
        assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, BAD_HOST)


@pytest.mark.parametrize("wrong", ["shop.example", "https://shop.example/", "https://a@shop.example", ""])
def test_what_is_no_origin_is_told_at_the_start(wrong: str):
    with pytest.raises(ValueError, match="allow_origins"):
        TransceiverConfig(direct=True, allow_origins=(wrong,))
