"""What an agent hears of a call over a bad network: the share of 20 ms slots that are filled, and in time."""

from __future__ import annotations

from collections import Counter

import pytest
from sim.agents import EchoAttachment, EchoBackend
from sim.world import World

from protocol.agentlink import MediaFlags
from transceiver.backends.base import Accepted, Call, Inbox
from udpio import Conditions

LOSSY = Conditions(loss=0.05, delay=0.02, jitter=0.03)
CLEAN = Conditions(delay=0.02)


class ListeningAttachment(EchoAttachment):
    def audio_waits(self) -> None:
        assert self.call.uplink is not None
        for record in self.call.uplink.take(1):
            self._backend.heard[record.rtp_time // 960] |= 1 << record.flags  # type: ignore[attr-defined]
            self.frames += 1


class ListeningBackend(EchoBackend):
    def __init__(self, inbox: Inbox) -> None:
        super().__init__(inbox)
        self.heard: Counter[int] = Counter()

    def open(self, call: Call) -> EchoAttachment | None:
        attachment = self.attachments[1] = ListeningAttachment(self, call, 1)
        attachment.post(Accepted())
        return attachment


def listen(seconds: float = 60.0, up: Conditions = LOSSY, **transceiver: object) -> tuple[float, Counter[str], int]:
    """(share of slots that the agent heard, what became of the losses, how many frames were flagged as recovered)"""
    world = World(11, up=up, down=CLEAN, backend=ListeningBackend, transceiver=transceiver)
    caller = world.dial()
    assert world.run_until(lambda: caller.call.talking, 5)
    world.run_for(2)
    heard = world.backend.heard
    first = max(heard)
    world.run_for(seconds)
    slots = round(seconds / 0.02)
    filled = sum(1 for slot in heard if first < slot <= first + slots)
    recovered = sum(1 for flags in heard.values() if any(flags >> flag & 1 for flag in (4, 5, 6, 7)))
    session = next(iter(world.registry.sessions.values()))
    assert session.uplink is not None
    return filled / slots, session.uplink.counters + session.peer.statistics(world.now).rtcp, recovered


@pytest.mark.slow
def test_lost_audio_is_asked_for_and_most_of_it_comes_in_time():
    without, _, none = listen(nack=False)
    share, counters, recovered = listen()
    assert without < 0.96
    assert none == 0
    assert share > 0.99
    assert MediaFlags.RECOVERED == 4
    assert recovered == counters["recovered"] > 100
    assert counters["nack_sent"] >= counters["recovered"] / 2
    assert counters["requested"] < 2 * 0.06 * 3000, "hardly anything is asked for that was not lost"


@pytest.mark.slow
def test_where_an_answer_would_come_too_late_redundant_audio_fills_most_gaps():
    far = Conditions(loss=0.05, delay=0.3, jitter=0.005)
    asked, _, _ = listen(30, up=far)
    share, counters, recovered = listen(30, up=far, red="prefer")
    assert asked < 0.97
    assert share > 0.99
    assert recovered > 50
    assert counters["requested"] < 10, "what would come too late is asked for only now and then"


@pytest.mark.slow
def test_redundant_audio_is_not_sent_when_the_answer_only_understands_it():
    _, counters, _ = listen(10, red="accept")
    assert "red_recovered" not in counters
