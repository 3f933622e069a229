"""Our full ICE agent and aioice's, over UDP on loopback, in every pairing of roles; where both claim one, one gives way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from protocol.address import Path as NetworkPath
from protocol.ice import Candidate, IceCredentials, IceFull, SendTo, candidate_priority
from udpio import open_udp

PEER = Path(__file__).parent / "aioice_peer.py"
SECONDS = 30


class OurAgent:
    """The agent, its socket, and what came that was no STUN."""

    def __init__(self) -> None:
        self.socket = open_udp("127.0.0.1", 0)
        self.credentials = IceCredentials.generate(os.urandom)
        self.heard: list[bytes] = []
        self.ice: IceFull

    @property
    def candidate(self) -> Candidate:
        port = int.from_bytes(self.socket.address[:2], "big")
        return Candidate("1", 1, "udp", candidate_priority("host"), "127.0.0.1", port, "host")

    def begin(self, theirs: dict[str, str], candidates: list[str], *, controlling: bool) -> None:
        remote = IceCredentials(theirs["ufrag"], theirs["pwd"])
        self.ice = IceFull(self.credentials, remote, controlling=controlling, entropy=os.urandom)
        for candidate in candidates:
            self.ice.add_remote_candidate(Candidate.parse_untrusted(candidate))
        self.ice.start(trio.current_time())

    async def run(self) -> None:
        while True:
            now = trio.current_time()
            self.ice.handle_timeout(now)
            self._flush()
            with trio.move_on_at(self.ice.next_timeout()):
                await self.socket.wait_readable()
            for data, source in self.socket.receive_batch():
                if data[0] < 4:
                    self.ice.receive_untrusted(bytes(data), NetworkPath(b"", source), trio.current_time())
                else:
                    self.heard.append(bytes(data))
            self._flush()

    def send(self, data: bytes) -> None:
        assert self.ice.selected is not None
        self.socket.send_batch([(data, self.ice.selected.remote)])

    def _flush(self) -> None:
        self.socket.send_batch([(out.data, out.path.remote) for out in self.ice.poll() if isinstance(out, SendTo)])


@pytest.mark.parametrize("theirs", ["controlling", "controlled"])
@pytest.mark.parametrize("ours", ["controlling", "controlled"])
async def test_we_and_aioice_find_a_pair_and_agree_on_who_controls(ours: str, theirs: str):
    agent = OurAgent()
    with trio.fail_after(SECONDS):
        pipe = subprocess.PIPE
        process = await trio.lowlevel.open_process([sys.executable, str(PEER), theirs], stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        buffered = b""

        async def told() -> dict:
            nonlocal buffered
            while b"\n" not in buffered:
                chunk = await process.stdout.receive_some()
                assert chunk, "aioice's process ended"
                buffered += chunk
            line, _, buffered = buffered.partition(b"\n")
            return json.loads(line)

        description = await told()
        agent.begin(description, description["candidates"], controlling=ours == "controlling")
        orders = {
            "ufrag": agent.credentials.ufrag,
            "pwd": agent.credentials.pwd,
            "candidates": [agent.candidate.serialize()],
        }
        await process.stdin.send_all(json.dumps(orders).encode() + b"\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(agent.run)
            connected = await told()
            while agent.ice.selected is None or not agent.heard:
                await trio.sleep(0.01)
            agent.send(b"\x80from us")
            heard = await told()
            nursery.cancel_scope.cancel()
        await process.stdin.send_all(b"\n")
        await process.wait()
    assert agent.heard == [b"\x80from aioice"]
    assert heard == {"heard": "\x80from us"}
    assert connected["controlling"] is not agent.ice.controlling
    if ours != theirs:
        assert agent.ice.controlling is (ours == "controlling")
    agent.socket.close()
