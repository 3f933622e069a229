"""pystun3, a client of RFC 3489 without a magic cookie: what it may learn, and where it is not answered."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
import stun
import trio
from harness import running_stack

VECTORS = Path(__file__).parents[1] / "vectors"


@pytest.fixture
def legacy_client():
    """A socket as pystun3 wants it; it asks four times in all."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        made.bind(("127.0.0.1", 0))
        made.settimeout(0.25)
        yield made


@pytest.mark.thorough
async def test_the_media_port_does_not_answer_a_binding_request_without_a_cookie(legacy_client: socket.socket):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stun._initialize()
    async with running_stack("--agent", "echo", ANTIPHON_STACK_UDP_PORT=str(port)) as stack:
        answered = await trio.to_thread.run_sync(stun.stun_test, legacy_client, "127.0.0.1", port, "127.0.0.1", 0)
        assert answered["Resp"] is False
        with pytest.raises(TimeoutError):
            legacy_client.recvfrom(2048)
        offer = (VECTORS / "chromium156.offer.sdp").read_bytes()
        async with httpx.AsyncClient(base_url=stack.url) as client:
            headers = {"Content-Type": "application/sdp"}
            created = await client.post("/v1/realtime/calls", content=offer, headers=headers)
        assert f"127.0.0.1 {port} typ host" in created.text, "it was the media port that was asked"
