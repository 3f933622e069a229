"""Mutated packets of every kind, by the thousand, beside a living call: from strangers, from a man on its path, from relays,
from callers in mid-handshake and from insiders who hold the keys of a call of their own.

In virtual time, but with a stopwatch: behind every 64 of them waits a check of the living call, and what is measured is the
CPU time of the engine's turn that answers it.
"""

from __future__ import annotations

import gc
import os
import time
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio.testing
from hostile_rig import SERVER, Insider, Mutator, Rig, callers

from fuzz.target import tagged
from protocol.address import pack_address
from protocol.routing import Frame, Trunk
from protocol.stun import Class, Message, Method
from service.ready import COLLECTIONS
from transceiver.config import Timeouts
from transceiver.session import CloseReason

SALVO = 64  # datagrams, as many as the socket gives at once
ANSWER_SECONDS = 0.05
GROWTH = 4 << 20  # bytes of resident memory, from a tenth of the way on
STRANGERS = [pack_address("127.0.7.7", 7000 + n) for n in range(50)]
RELAYS = [pack_address("127.0.8.8", 8000 + n) for n in range(3)]


@pytest.fixture(autouse=True)
def _collector_of_a_process() -> Iterator[None]:
    """As `service.ready.announce` leaves it: what pytest holds is not the engine's."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Bombardment:
    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.mutator = Mutator(seed)
        self.random = self.mutator.random
        self.fired = 0
        self.material = self._record()
        self.trunk = Trunk.parse(callers.ROUTING)
        self.bystander, self.session = rig.live()
        self.insiders = [Insider(rig, seed + 1), Insider(rig, seed + 2)]
        rig.inject = rig.socket.put  # type: ignore[method-assign]  # they shoot with the others, not each for himself
        self.half_way: list[tuple[Any, Any]] = []
        self.times = array("d")
        self.spoken = self.heard = 0
        self._answered: set[bytes] = set()
        rig.network.deliver = self._watch

    def _record(self) -> list[bytes]:
        """What two callers send to us from their first check to their goodbye: one with each role of DTLS."""
        rig, heard = self.rig, []
        rig.network.deliver = lambda _source, to, data: to != SERVER or heard.append(data) is None
        for setup in ("a=setup:active", "a=setup:passive"):
            caller, session = rig.live(edit=setup)
            rig.echoes(caller, 10)
            caller.say("word " * 400)
            rig.wait(6, 0.05)  # RTCP, consent
            rig.echoes(caller, 3)
            caller.hang_up()
            rig.wait(2)
            assert session.released
            rig.forget(caller)
        assert {data[0] for data in heard} >= {0, 1, 20, 22, 23, 128, 144} - {144, 20}
        return heard

    def _watch(self, _source: bytes, to: bytes, data: bytes) -> bool:
        if to == self.bystander.socket.address and data[:2] == b"\1\1":
            self._answered.add(data[8:20])
        return True

    def check(self) -> bytes:
        username = f"{self.session.ufrag.decode()}:{self.bystander.ufrag}"
        request = Message(
            Method.BINDING, Class.REQUEST, os.urandom(12), {"USERNAME": username, "PRIORITY": 1, "ICE-CONTROLLING": 1}
        )
        request.add_message_integrity(self.bystander.remote_ice.pwd.encode())
        request.add_fingerprint()
        return bytes(request)

    # The kinds of fire

    def damaged(self) -> bytes:
        data = self.random.choice(self.material)
        return self.mutator.damage(data) if self.random.random() < 0.95 else data

    def from_the_path(self) -> None:
        self.rig.socket.put(self.damaged(), self.bystander.socket.address)

    def from_a_stranger(self) -> None:
        self.rig.socket.put(self.damaged(), self.random.choice(STRANGERS))

    def from_a_relay(self) -> None:
        """Under the trunk's key: whole frames of damaged payloads, and damaged frames; and under no key."""
        client = self.random.choice((self.bystander.socket.address, self.random.choice(STRANGERS)))
        [datagram, *_] = self.trunk.encode(
            [Frame(client, self.random.randrange(128), self.damaged()) for _ in range(self.random.randrange(1, 5))],
            9000,
        )
        kind = self.random.random()
        if kind < 0.1:  # rightly signed, with another count, another length or another flag
            changed = bytearray(datagram)
            changed[self.random.choice((2, 3, 4, 5, 16, 17))] ^= 1 << self.random.randrange(8)
            datagram = tagged(self.trunk, bytes(changed[1:6] + changed[16:]))
        elif kind < 0.3:
            datagram = tagged(self.trunk, self.mutator.damage(datagram[1:6] + datagram[16:]))
        elif kind < 0.6:
            datagram = self.mutator.damage(datagram)
        self.rig.socket.put(datagram, self.random.choice(RELAYS))

    def from_half_way(self) -> None:
        caller, _ = self.random.choice(self.half_way)
        self.rig.socket.put(self.damaged(), caller.socket.address)

    def from_an_insider(self) -> None:
        self.random.choice(self.insiders).step()

    # The course

    def salvo(self) -> None:
        rig, pick = self.rig, self.random
        if not self.half_way or pick.random() < 0.2:
            self._renew_half_way()
        for insider in self.insiders:
            insider.renew()
        kinds = (
            self.from_the_path,
            self.from_a_stranger,
            self.from_a_relay,
            self.from_half_way,
            self.from_an_insider,
        )
        for fire in pick.choices(kinds, (40, 15, 10, 15, 20), k=SALVO):
            fire()
        self.fired += SALVO
        check = self.check()
        rig.socket.put(check, self.bystander.socket.address)
        began = time.thread_time()
        rig.engine.turn(rig.now)
        took = time.thread_time() - began
        assert check[8:20] in self._answered, "the check was answered in the very turn that read it"
        self._answered.clear()
        self.times.append(took)
        self.spoken += self.bystander.speak()
        rig.wait(0.02, 0.02)
        del rig.backend.attachments[:-20]
        self._count()

    def _count(self) -> None:
        """Neither he nor his agent remembers what he heard: it is our memory that is measured."""
        self.heard += len(self.bystander.audio)
        agent = self.session.conversation.attachment
        for kept in (self.bystander.audio, self.bystander.audio_times, self.bystander.events, agent.audio, agent.told):
            kept.clear()

    def _renew_half_way(self) -> None:
        """A caller whose checks have passed and who is about to shake hands; now and then his messages are damaged too."""
        while len(self.half_way) > 3:
            caller, session = self.half_way.pop(0)
            self.rig.forget(caller)
            session.close(CloseReason.HANGUP, self.rig.now)
            session.release_now(self.rig.now)
        caller, session = self.rig.offer(edit=self.random.choice(("a=setup:active", "a=setup:passive")))
        caller.stun_only = True
        self.rig.wait(0.02)
        caller.stun_only = self.random.random() < 0.5
        self.half_way.append((caller, session))

    @property
    def reasons(self) -> set[str]:
        """Why anything was dropped anywhere."""
        sessions = self.rig.engine.sessions.values()
        calls = [session.all_drops() for session in sessions]
        return {reason for drops in (self.rig.engine.drops, self.rig.registry.drops, *calls) for reason in drops}

    def unharmed(self) -> None:
        rig = self.rig
        assert "internal_error" not in rig.engine.drops
        assert self.session.life.name == "LIVE"
        assert not self.bystander.ended
        rig.wait(0.2)
        self._count()
        lost = self.spoken - self.heard
        assert lost == 0, f"{lost} of {self.spoken} frames were not heard again"
        assert rig.echoes(self.bystander) == 3
        assert len(rig.engine.sessions) <= 3 + 4
        routes = rig.engine.routes
        assert len(routes.by_path) <= 16 * len(rig.engine.sessions)
        assert len(routes.direct) + sum(map(len, routes.trunk.values())) <= len(rig.engine.sessions)


def bombard(clock: trio.testing.MockClock, packets: int) -> None:
    rig = Rig(clock, timeouts=Timeouts(max_session=1e9))
    fire = Bombardment(rig, 31)
    warm = 0
    while fire.fired < packets:
        fire.salvo()
        if not warm and fire.fired >= packets / 10:
            gc.collect()
            warm = resident()
    gc.collect()
    growth = resident() - warm
    times = sorted(fire.times)
    p99, worst = times[len(times) * 99 // 100], times[-1]
    print(
        f"\n{fire.fired} hostile datagrams, {sum(one.calls for one in fire.insiders)} insiders' calls, dropped for"
        f" {len(fire.reasons)} reasons: a check behind"
        f" {SALVO} of them took {times[len(times) // 2] * 1000:.1f} ms of CPU in the median, {p99 * 1000:.1f} ms at p99,"
        f" {worst * 1000:.1f} ms at worst; resident memory grew by {growth / 1024:.0f} KiB"
    )
    fire.unharmed()
    assert len(fire.reasons) > 50, "the fire did not get everywhere"
    assert worst < ANSWER_SECONDS
    assert growth < GROWTH


@pytest.mark.slow
async def test_twenty_thousand_hostile_datagrams_beside_a_call(autojump_clock: trio.testing.MockClock) -> None:
    bombard(autojump_clock, 20_000)


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_a_million_hostile_datagrams_beside_a_call(autojump_clock: trio.testing.MockClock) -> None:
    bombard(autojump_clock, 1_000_000)
