# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""A caller who knows his own call's password forges the source of what he sends: the victim at that address gets hardly more
than he was sent himself, whatever the call has to say."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio.testing
from hostile_rig import Rig, callers

from protocol.peer.proof import MAX_UNPROVEN_FACTOR
from protocol.stun.binding import binding_request

USE_CANDIDATE = b"\0\x25\0\0"
SUCCESS = b"\1\1"


@pytest.fixture
def rig(autojump_clock: trio.testing.MockClock) -> Any:
    return lambda **config: Rig(autojump_clock, **config)


class Victim:
    """Somebody who has nothing to do with it: what came to him, and what was sent in his name."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.socket = rig.network.open("127.0.0.66", 666)
        self.forged = 0
        self.got: list[bytes] = []

    def forge(self, data: bytes) -> None:
        self.forged += len(data)
        self.rig.inject(data, self.socket.address)
        self.hear()

    def forge_check(self, caller: Any, session: Any, *, nominates: bool) -> None:
        username = f"{session.ufrag.decode()}:{caller._capabilities.ice.ufrag}".encode()
        password = caller.remote_ice.pwd.encode()
        options: dict[str, Any] = {"priority": 1, "controlling": True, "tie_breaker": 1, "use_candidate": nominates}
        self.forge(binding_request(os.urandom(12), username, password, **options))

    def hear(self) -> None:
        self.got += [bytes(data) for data, _ in self.socket.receive_batch()]

    def wait(self, seconds: float) -> None:
        self.rig.wait(seconds)
        self.hear()

    @property
    def other_than_stun(self) -> int:
        return sum(len(data) for data in self.got if data[0] > 3)


@pytest.mark.parametrize("setup", ["passive", "active"])
async def test_a_handshake_that_nobody_hears_is_not_repeated_to_him(autojump_clock: Any, rig: Any, setup: str) -> None:
    """A check and a hello in the victim's name had brought him our flight twenty times, 22 bytes for each of theirs."""
    rig = rig(setup=setup)
    victim = Victim(rig)
    caller, session = rig.offer()
    rig.callers.clear()
    victim.forge_check(caller, session, nominates=True)
    if setup == "passive":
        caller.peer._dtls.start(rig.now)
        for output in caller.peer._dtls.poll():
            victim.forge(output.data)
    victim.wait(40)
    assert 0 < victim.other_than_stun <= MAX_UNPROVEN_FACTOR * victim.forged
    assert sum(map(len, victim.got)) <= 6 * victim.forged


def unheard(caller: Any) -> None:
    """From now on he answers no check of ours and nominates nothing, so that no path is proven by ICE."""
    honest = caller.socket.send_batch

    def send(datagrams: list[tuple[bytes, bytes]]) -> int:
        return int(honest([one for one in datagrams if one[0][:2] != SUCCESS and USE_CANDIDATE not in one[0]]))

    caller.socket.send_batch = send


async def test_a_call_that_never_answers_our_checks_cannot_be_nominated_onto_somebody_else(
    autojump_clock: Any, rig: Any
) -> None:
    """All of an agent's speech had gone there, for as long as a forged check came every ten seconds."""
    rig = rig()
    victim = Victim(rig)
    caller, session = rig.offer()
    unheard(caller)
    rig.wait(0.5)
    assert session.life.name == "LIVE"
    path = session.peer.ice.selected
    victim.forge_check(caller, session, nominates=True)
    for number in range(200):
        rig.backend.last.post(callers.MediaRecord(7, number * 960, 0, b"\xf8" + bytes(150)))
    victim.wait(4)
    assert session.peer.ice.selected == path
    assert victim.other_than_stun == 0
    assert len(caller.audio) == 200


async def test_a_handshake_that_moved_proves_no_path(autojump_clock: Any, rig: Any) -> None:
    """Our flight goes to the insider, who then nominates the victim and finishes in his name."""
    rig = rig()
    victim = Victim(rig)
    caller, session = rig.offer()
    unheard(caller)
    held: list[bytes] = []
    lenient = caller.socket.send_batch

    def send(datagrams: list[tuple[bytes, bytes]]) -> int:
        finishing = [data for data, _ in datagrams if data[0] == 22 and data[13] != 1]  # Certificate to Finished
        held.extend(finishing)
        return int(lenient([one for one in datagrams if one[0] not in finishing]))

    caller.socket.send_batch = send
    while not held:
        rig.wait(0.005)
    rig.callers.clear()
    victim.forge_check(caller, session, nominates=True)
    assert session.peer.ice.selected.remote == victim.socket.address
    for data in held:
        victim.forge(data)
    assert session.life.name == "LIVE"
    for number in range(200):
        rig.backend.last.post(callers.MediaRecord(7, number * 960, 0, b"\xf8" + bytes(150)))
    victim.wait(4)
    assert victim.other_than_stun <= MAX_UNPROVEN_FACTOR * victim.forged
    assert session.all_drops()["path_not_proven"] > 100
