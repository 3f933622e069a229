"""An aioice agent, in a process of its own (it is asyncio). It takes its orders and tells what happens in lines of JSON.

python aioice_peer.py controlling|controlled
"""

from __future__ import annotations

import asyncio
import json
import sys

import aioice
import aioice.ice

aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: [
    "127.0.0.1"
]  # it leaves loopback out; these tests stay on it


def say(**words: object) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


async def main(role: str) -> None:
    agent = aioice.Connection(ice_controlling=role == "controlling")
    await agent.gather_candidates()
    candidates = [candidate.to_sdp() for candidate in agent.local_candidates]
    say(ufrag=agent.local_username, pwd=agent.local_password, candidates=candidates)
    ours = json.loads(await asyncio.to_thread(sys.stdin.readline))
    agent.remote_username, agent.remote_password = ours["ufrag"], ours["pwd"]
    for candidate in ours["candidates"]:
        await agent.add_remote_candidate(aioice.Candidate.from_sdp(candidate))
    await agent.add_remote_candidate(None)
    await asyncio.wait_for(agent.connect(), 15)
    say(connected=True, controlling=agent.ice_controlling)
    await agent.send(b"\x80from aioice")
    heard = await asyncio.wait_for(agent.recv(), 15)
    say(heard=heard.decode("latin-1"))
    await asyncio.to_thread(sys.stdin.readline)
    await agent.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
