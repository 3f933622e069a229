# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""Random walks over everything that can happen to a call, in any order: after each step the tables of engine and registry
agree, no timer is in the past, and nothing but STUN has gone to an address that proved nothing."""

from __future__ import annotations

import dataclasses
import os
from contextlib import suppress
from typing import Any

import pytest
import trio.testing
from hostile_rig import Insider, Rig

from protocol.address import pack_address, unpack_address
from protocol.errors import LocalError
from protocol.ice import Candidate, IceCredentials
from protocol.stun.binding import binding_request
from transceiver.backends.base import Ended, Flushed, Lost
from transceiver.config import Timeouts
from transceiver.registry import entity_tag
from transceiver.session import CloseReason, Life
from transceiver.session.session import Session
from transceiver.signalling import CallRequest, SignallingError

EDITS = (
    ("", ""),
    ("a=sendrecv", "a=sendonly"),
    ("a=sendrecv", "a=recvonly"),
    ("a=sendrecv", "a=inactive"),
    ("m=application 9", "m=application 0"),
    ("m=audio 9", "m=audio 0"),
    ("a=sctp-port:5000", "a=sctp-port:5001"),
    ("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:"),
    ("a=setup:actpass", "a=setup:passive"),
    ("a=mid:0", "a=mid:9"),
)
FORGED = ("127.0.77.", "127.0.9.")  # ours, and the insider's
MAX_WAKES = 400  # a second of one engine with a handful of calls


class Walk:
    def __init__(self, rig: Any, seed: int) -> None:
        self.rig = rig
        self.insider = Insider(rig, seed)
        self.random = self.insider.random
        self._send = rig.engine.send
        rig.engine.send = self.send
        self.steps: list[str] = []

    def send(self, data: bytes, path: Any) -> None:
        """What leaves. From the forged addresses came authentic checks, but never an answer to ours."""
        assert data[0] <= 3 or not unpack_address(path.remote)[0].startswith(FORGED), "sent to an address without proof"
        self._send(data, path)

    # Steps

    def act(self) -> None:
        acts = (
            (self.insider.step, 10),
            (self.restart, 3),
            (self.restart_unheard, 2),
            (self.trickle, 1),
            (self.reoffer, 3),
            (self.offer, 2),
            (self.forged_checks, 2),
            (self.move, 1),
            (self.lose_agent, 2),
            (self.mood, 1),
            (self.hang_up, 1),
            (self.speak, 4),
            (self.channels, 2),
            (self.time, 6),
        )
        step = self.random.choices([one for one, _ in acts], [weight for _, weight in acts])[0]
        self.steps.append(step.__name__)
        step()

    def some_session(self) -> Any:
        return self.random.choice(list(self.rig.registry.sessions.values()) or [self.insider.session])

    def restart(self) -> None:
        """By PATCH, and the caller follows."""
        caller, session = self.insider.caller, self.insider.session
        if session.life in (Life.CLOSING, Life.CLOSED):
            return
        remote = IceCredentials.generate(os.urandom)
        local = self.rig.registry.restart_ice(session, remote)
        caller._capabilities = dataclasses.replace(caller._capabilities, ice=remote)
        caller.remote_ice = local
        caller.peer.restart_ice(remote, local, self.rig.now)
        caller.peer.ice.add_remote_candidate(Candidate("1", 1, "udp", 1, "127.0.0.1", 4000, "host"))

    def restart_unheard(self) -> None:
        """By PATCH, and nobody follows."""
        session = self.some_session()
        ice = IceCredentials.generate(os.urandom)
        self.patch(session, f"a=ice-ufrag:{ice.ufrag}\r\na=ice-pwd:{ice.pwd}\r\n")

    def trickle(self) -> None:
        session = self.some_session()
        self.patch(session, "a=candidate:1 1 udp 1 127.0.77.77 7777 typ host\r\na=end-of-candidates\r\n")

    def patch(self, session: Any, lines: str) -> None:
        etag = self.random.choice(("*", entity_tag(session), '"x"', None))
        with suppress(SignallingError):
            self.rig.registry.update_ice(session.call_id, etag, lines.encode())

    def reoffer(self) -> None:
        session, caller = self.some_session(), self.insider.caller
        old, new = self.random.choice(EDITS)
        offer = caller.offer().replace(old, new)
        if self.random.random() < 0.3:
            ice = IceCredentials.generate(os.urandom)
            offer = offer.replace(caller._capabilities.ice.ufrag, ice.ufrag).replace(
                caller._capabilities.ice.pwd, ice.pwd
            )
        with suppress(SignallingError):
            self.rig.registry.renegotiate(session.call_id, offer.encode())

    def offer(self) -> None:
        with suppress(SignallingError):
            self.rig.registry.create(CallRequest(self.insider.caller.offer().encode()))

    def forged_checks(self) -> None:
        """Under the keys of his call, from addresses that are not his."""
        session, remote = self.insider.session, self.insider.caller._capabilities.ice
        for ufrag in session.ufrags:
            password = self.rig.registry._keys.derive_password(ufrag.decode())
            check = binding_request(
                os.urandom(12),
                f"{ufrag.decode()}:{remote.ufrag}".encode(),
                password.encode(),
                priority=1,
                controlling=self.random.random() < 0.9,
                tie_breaker=1,
                use_candidate=self.random.random() < 0.5,
            )
            self.rig.inject(check, pack_address("127.0.77.77", self.random.randrange(1, 50)))

    def move(self) -> None:
        caller = self.insider.caller
        caller.socket.close()
        caller.socket = self.rig.network.open(f"127.0.0.{self.random.randrange(2, 10)}")

    def lose_agent(self) -> None:
        for attachment in self.rig.backend.attachments[-3:]:
            attachment.post(self.random.choice((Lost(), Lost(), Flushed(), Ended("bored"))))

    def mood(self) -> None:
        self.rig.backend.mood = self.random.choice(("accept", "accept", "refuse", "silent", "absent"))

    def hang_up(self) -> None:
        session = self.some_session()
        if self.random.random() < 0.5:
            self.rig.registry.hang_up(session.call_id)
        else:
            self.rig.engine.command(session, Session.drain)

    def speak(self) -> None:
        for _ in range(self.random.choice((1, 5))):
            with suppress(LocalError):  # the insider has used his own sequence numbers up
                self.insider.caller.speak()

    def channels(self) -> None:
        peer = self.insider.caller.peer
        with suppress(LocalError):
            for _ in range(self.random.choice((1, 30))):
                number = peer.open_channel("c", self.rig.now)
                if self.random.random() < 0.7:
                    peer.close_channel(number, self.rig.now)
        self.insider.caller.drain()

    def time(self) -> None:
        seconds, step = self.random.choice(((0.01, 0.001), (0.1, 0.01), (1.0, 0.02), (7.0, 0.1), (35.0, 0.5)))
        if self.random.random() < 0.7:
            self.rig.wait(min(seconds, 1.0), step)
        else:
            self.rig.wait(seconds, step)

    def renew(self) -> None:
        if self.insider.session.life in (Life.CLOSED, Life.CLOSING) or self.insider.caller.ended:
            self.rig.backend.mood = "accept"
            self.insider.session.close(CloseReason.HANGUP, self.rig.now)
            self.insider.session.release_now(self.rig.now)
            self.rig.forget(self.insider.caller)
            self.rig.pump()
            for session in list(self.rig.registry.sessions.values()):
                if len(self.rig.registry.sessions) > 5:
                    session.close(CloseReason.HANGUP, self.rig.now)
                    session.release_now(self.rig.now)
            self.insider.begin()

    # What holds after each

    def check(self) -> None:
        rig, engine, registry = self.rig, self.rig.engine, self.rig.registry
        rig.pump()
        for _ in range(5):
            if engine._inbox or engine._touched:
                engine.turn(rig.now)
        now = rig.now
        for ufrag, session in engine.sessions.items():
            assert not session.released
            assert ufrag in session.ufrags
        for call_id, session in registry.sessions.items():
            assert session.call_id == call_id
            assert not session.released
            assert session.life is not Life.CLOSED
            assert 1 <= len(session.ufrags) <= 2
            assert all(engine.sessions[ufrag] is session for ufrag in session.ufrags)
            assert len(session.paths) == len(set(session.paths)) <= 16
            assert session.next_timeout() > now, (session.life, session.transport, session.peer.next_timeout())
            assert session.scheduled_at <= session.next_timeout()
            assert len(session.peer.ice._paths) <= 8
            assert not session._events
        assert set(engine.sessions.values()) == set(registry.sessions.values())
        assert set(registry.half_open) <= set(registry.sessions.values())
        for path, session in engine.routes.by_path.items():
            assert not session.released
            assert path in session.paths
        assert all(not session.released for session in engine._playing)
        assert engine.next_timeout() > now
        assert len(engine._heap) < 3000
        self.count_wakes()

    def count_wakes(self) -> None:
        """Let a tenth of a second pass as the loop would, with nobody sending anything."""
        if self.random.random() > 0.1:
            return
        engine, wakes = self.rig.engine, 0
        end = self.rig.now + 0.1
        while (due := engine.next_timeout()) <= end:
            self.rig.clock.jump(max(0.0, due - self.rig.now) + 1e-9)
            engine.turn(self.rig.now)
            wakes += 1
            assert wakes < MAX_WAKES / 10


def walk(rig: Any, seed: int, steps: int) -> None:
    rig = rig(timeouts=Timeouts(max_session=1e6), max_sessions=40, max_half_open=10)
    bystander, session = rig.live()
    going = Walk(rig, seed)
    for number in range(steps):
        try:
            going.act()
            going.check()
        except Exception as error:
            error.add_note(f"seed {seed}, step {number}, after {going.steps[-12:]}")
            raise
        going.renew()
        del rig.backend.attachments[:-20]
        if session.life is not Life.LIVE or bystander.ended:
            rig.forget(bystander)
            rig.backend.mood = "accept"
            bystander, session = rig.live()
    rig.backend.mood = "accept"
    assert "internal_error" not in rig.engine.drops
    rig.registry.shut_down()
    rig.pump()
    assert not rig.engine.sessions
    assert not rig.engine.routes.by_path
    assert not rig.engine._playing
    assert not rig.registry.sessions
    assert not rig.registry.half_open


@pytest.fixture
def rig(autojump_clock: trio.testing.MockClock) -> Any:
    return lambda **config: Rig(autojump_clock, **config)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_happens_to_a_call_in_whatever_order_the_tables_agree_and_no_timer_runs_wild(
    autojump_clock: Any, rig: Any, seed: int
) -> None:
    walk(rig, seed, 250)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
async def test_long_walks_find_no_more(autojump_clock: Any, rig: Any, seed: int) -> None:
    walk(rig, seed, 3000)
