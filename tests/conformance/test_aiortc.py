"""aiortc calls the stack as the offerer, through the relay and directly: audio both ways, every kind of data message."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import trio
from harness import running_stack

PEER = Path(__file__).parent / "aiortc_peer.py"


@pytest.mark.parametrize(
    "route", [(), pytest.param(("--direct",), marks=pytest.mark.thorough)], ids=["through the relay", "directly"]
)
async def test_an_aiortc_caller_hears_its_tone_and_gets_every_message_back(route: tuple[str, ...]):
    async with running_stack("--agent", "echo", *route) as stack:
        with trio.fail_after(60):
            finished = await trio.run_process([sys.executable, str(PEER), stack.url, "2"], capture_stdout=True)
    result = json.loads(finished.stdout.splitlines()[-1])
    assert abs(result["hertz"] - 700) < 5, result
    assert result["seconds"] > 1.5
    assert all(result["echoed"].values()), result["echoed"]
    assert result["hangup"] == 200


async def test_a_channel_that_an_aiortc_caller_opens_without_asking_carries_every_message():
    async with running_stack("--agent", "echo", "--direct") as stack:
        with trio.fail_after(60):
            command = [sys.executable, str(PEER), stack.url, "0.2", "actpass", "negotiated"]
            finished = await trio.run_process(command, capture_stdout=True)
    result = json.loads(finished.stdout.splitlines()[-1])
    assert all(result["echoed"].values()), result["echoed"]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("offered", "ours", "role"),
    [
        ("actpass", "passive", "client"),
        ("actpass", "active", "server"),
        ("active", "active", "client"),
        ("passive", "passive", "server"),
    ],
)
async def test_aiortc_may_be_either_side_of_the_dtls_handshake(offered: str, ours: str, role: str):
    async with running_stack("--agent", "echo", ANTIPHON_TRANSCEIVER_SETUP=ours) as stack:
        with trio.fail_after(60):
            finished = await trio.run_process([sys.executable, str(PEER), stack.url, "1", offered], capture_stdout=True)
    result = json.loads(finished.stdout.splitlines()[-1])
    assert result["role"] == role
    assert abs(result["hertz"] - 700) < 5, result
    assert all(result["echoed"].values()), result["echoed"]
