# ruff: noqa: ANN401  (the rig's callers come from a file that cannot be imported by name, and stay untyped)
"""A caller who has agreed on NACK, RED and transport-wide feedback, and uses all of them badly, under the keys of his call."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
import trio.testing
from hostile_rig import Rig

from protocol.codecs import OPUS
from protocol.errors import LocalError
from protocol.rtp.extensions import write_extensions
from protocol.rtp.rtcp import Feedback, Goodbye, ReceiverReport, ReportBlock, RtcpType, serialize_rtcp, write_nack
from transceiver.media import Uplink
from transceiver.routes import RouteTable

AGREED = {"nack": True, "transport_cc": True, "red": "accept"}
RED, EVENT = 63, 110


class Storm:
    """What such a caller sends: headers, extensions, redundant blocks and feedback as he likes."""

    def __init__(self, caller: Any, session: Any, seed: int, calm: float = 0.0) -> None:
        """`calm`: the share of packets that are as they should be, but for one thing or the other."""
        self.calm = calm
        self.pick = random.Random(seed)
        self.srtp = caller.peer._audio._srtp
        self.session = session
        self.sequences: dict[int, int] = {}
        self.stamps: dict[int, int] = {}
        self.counter = self.timestamp = 0

    def rtp(self) -> bytes:
        pick = self.pick
        ssrc = pick.choice((1, 1, 1, 1, 1, 1, 2, self.session.peer._audio_parameters.ssrc, pick.randrange(40)))
        step = pick.choice((1, 1, 1, 1, 1, 2, 3, -1, -5, 40, 3000, 32767, 65535))
        if pick.random() < self.calm:
            ssrc, step = 1, pick.choice((1,) * 100 + (2, 3))
        sequence = self.sequences[ssrc] = self.sequences.get(ssrc, 100) + step & 0xFFFF
        self.timestamp += pick.choice((960, 960, 960, 0, -960, 120, 1 << 31, 1 << 20))
        kind = pick.choice((111, 111, 111, RED, RED, EVENT, 13, 0))
        if pick.random() < self.calm:
            self.timestamp, kind = self.stamps.get(ssrc, 0) + 960 * step, 111
        self.stamps[ssrc] = self.timestamp
        first, extension = 0x80, b""
        if pick.random() < 0.7:
            first = 0x90
            self.counter += pick.choice((1, 1, 1, -1, -70, 200, 0x7F00))
            wide = (3, (self.counter & 0xFFFF).to_bytes(2, "big"))
            extension = write_extensions(
                pick.choice(((wide,), ((1, b"x"), wide), ((3, b"abc"), wide), ((3, b""), wide)))
            )
        if pick.random() < 0.05:
            first, extension = pick.choice((0x9F, 0xB0, 0xA0, 0x90)), pick.randbytes(pick.randrange(8))
        payload = pick.choice((OPUS.silence, OPUS.silence, b"", pick.randbytes(pick.randrange(40)), bytes(1100)))
        if kind == RED and pick.random() < 0.8:
            blocks = pick.randrange(6)
            offsets = [pick.choice((960, 1920, 0, 16383)) for _ in range(blocks)]
            heads = [(0x80 | 111, offset << 10 | len(OPUS.silence)) for offset in offsets]
            payload = b"".join(bytes((a,)) + word.to_bytes(3, "big") for a, word in heads) + bytes((111,))
            payload += OPUS.silence * (blocks + pick.randrange(2))
        second = kind | pick.choice((0, 0, 128))
        numbers = (
            sequence.to_bytes(2, "big") + (self.timestamp & 0xFFFFFFFF).to_bytes(4, "big") + ssrc.to_bytes(4, "big")
        )
        return self.srtp.protect_rtp(bytes((first, second)) + numbers + extension + payload)

    def rtcp(self) -> bytes:
        pick, ours = self.pick, self.session.peer._audio_parameters.ssrc
        last = self.session.peer._audio._sequence
        block = ReportBlock(ours, pick.choice((0, 0, 3)), 0, last, 0, pick.randrange(1 << 32), pick.randrange(1 << 32))
        report = ReceiverReport(1, (block,))
        ages = sorted({pick.randrange(90) for _ in range(40)}, reverse=True)  # oldest first, also across 65535
        named = write_nack([last - age & 0xFFFF for age in ages])
        # Any numbers, but from ours on, which begin anywhere: else a run now and then names one more of what was sent.
        first, second = ((last + pick.randrange(1 << 16) & 0xFFFF).to_bytes(2, "big") for _ in range(2))
        wild = first + pick.randbytes(2) + second + pick.randbytes(1)
        nack = Feedback(RtcpType.RTPFB, 1, 1, ours, pick.choice((named, named, named * 9, wild)))
        wide = Feedback(RtcpType.RTPFB, 15, 1, ours, pick.randbytes(4 * pick.randrange(9)))
        packets = pick.choice(([report, nack], [report, nack, nack, nack], [report, wide], [report, Goodbye((1, 2))]))
        return self.srtp.protect_rtcp(serialize_rtcp(packets))

    def datagram(self) -> bytes:
        while True:
            try:
                return self.rtcp() if self.pick.random() < 0.3 else self.rtp()
            except LocalError:  # his own library does not send that, or not twice
                continue


@pytest.fixture
def rig(autojump_clock: trio.testing.MockClock) -> Rig:
    return Rig(autojump_clock)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_a_caller_who_misuses_all_that_was_agreed_on_is_answered_in_bounds_and_harms_nobody(
    autojump_clock: trio.testing.MockClock, rig: Rig, seed: int
) -> None:
    bystander, _ = rig.live()
    caller, session = rig.live(agree=AGREED)
    parameters = session.peer._audio_parameters
    assert parameters.resend
    assert parameters.request
    assert parameters.transport_cc_id is not None
    assert rig.echoes(caller) == 3
    rig.callers.remove(caller)  # from now on he only sends; checks go on below
    source = caller.socket.address
    storm, came, spoken = Storm(caller, session, seed), 0, 0
    began, sent, heard = rig.now, 0, len(bystander.audio)
    for turn in range(300):
        for _ in range(10):
            data = storm.datagram()
            sent += len(data)
            rig.socket.put(data, source)
        caller.peer.ice.handle_timeout(rig.now)
        caller.drain()
        rig.engine.turn(rig.now)
        if turn % 2 == 0:
            spoken += bystander.speak()
        rig.wait(0.01)
        for data, _ in caller.socket.receive_batch():
            came += len(data)
    seconds = rig.now - began
    # An echo of what he said; resends and requests by their rates; feedback by that of his packets.
    assert came < sent + seconds * (50 * 1200 + 50 * 150) + 30_000
    rig.wait(0.3)
    assert len(bystander.audio) - heard == spoken, "another call lost some"
    audio, uplink = session.peer._audio, session.conversation.uplink
    assert session.life.name == "LIVE"
    assert len(audio.reporter.sources) <= 8
    assert len(audio._srtp._sources) <= 64
    assert len(audio.arrivals._reported) <= 256
    assert len(audio.resend._resends) <= 128
    assert len(uplink._buffer._held) <= 64
    assert len(uplink._buffer._requests._missing) <= 128
    assert len(uplink._frames) <= 128
    assert audio.counters["resent"] <= seconds * 50 + 16
    assert audio.counters["resent"] > 0
    assert audio.counters["transport_cc_sent"] > 0
    assert uplink.counters["requested"] > 0
    assert "internal_error" not in rig.engine.drops


def what_came_of_it(rig: Rig, seed: int) -> dict[str, object]:
    """What the agent was told of a caller with habits, and what was counted."""
    caller, session = rig.live(agree=AGREED)
    assert rig.echoes(caller) == 3
    rig.callers.remove(caller)
    while rig.now < 5.0 - 1e-6:
        rig.wait(5.0 - rig.now)
    storm = Storm(caller, session, seed, calm=0.98)
    for _ in range(300):
        for _ in range(storm.pick.randrange(4)):
            rig.socket.put(storm.datagram(), caller.socket.address)
        caller.peer.ice.handle_timeout(rig.now)
        caller.drain()
        rig.engine.turn(rig.now)
        rig.wait(storm.pick.choice((0.005, 0.01, 0.02)), 0.02)
        caller.socket.receive_batch()
    rig.wait(0.5)
    agent, counted = rig.backend.attachments[-1], session.peer.statistics(rig.now)
    first = agent.audio[0].rtp_time  # the caller's clock begins anywhere
    return {
        "audio": [(record.rtp_time - first & 0xFFFFFFFF, record.flags, record.payload) for record in agent.audio],
        "digits": [word for word in agent.told if isinstance(word, tuple) and word[0] == "digit"],
        "told": len(agent.told),
        "drops": +session.all_drops(),
        "uplink": +session.uplink.counters,
        "received": (counted.packets_received, counted.bytes_received, counted.packets_lost),
        "sent": (counted.packets_sent, counted.bytes_sent),
        "rtcp": +counted.rtcp,
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_agent_hears_the_same_of_such_a_caller_by_the_short_way_as_by_the_long_one(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    taken, follow = 0, Uplink.follow

    def counting(self: Uplink, *arguments: Any) -> bool:
        nonlocal taken
        took = follow(self, *arguments)
        taken += took
        return took

    async def one(clock: trio.testing.MockClock) -> dict[str, object]:
        return what_came_of_it(Rig(clock), seed)

    monkeypatch.setattr(Uplink, "follow", counting)
    clock = trio.testing.MockClock()
    short = trio.run(one, clock, clock=clock)
    assert taken > 20
    taken = 0
    monkeypatch.setattr(RouteTable, "open", lambda *_: None)
    clock = trio.testing.MockClock()
    long = trio.run(one, clock, clock=clock)
    assert taken == 0
    assert short == long
