"""What an agent hears of a call over a bad network: the share of 20 ms slots that are filled, and in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from sim.agents import EchoAttachment, EchoBackend
from sim.world import World

from loadgen.call import CallFigures
from protocol.agentlink import MediaFlags, SlotTally
from transceiver.backends.base import Accepted, Call, Inbox
from udpio import Conditions

LOSSY = Conditions(loss=0.05, delay=0.02, jitter=0.03)
SHAKY = Conditions(loss=0.05, jitter=0.03)  # both ways: as a load run with `--loss 5% --jitter 30`
CLEAN = Conditions(delay=0.02)


class ListeningAttachment(EchoAttachment):
    def audio_waits(self) -> None:
        assert self.call.uplink is not None
        backend = self._backend
        assert isinstance(backend, ListeningBackend)
        for record in self.call.uplink.take(1):
            backend.heard[record.rtp_time // 960] |= 1 << record.flags
            self.frames += 1
            gap, recovered, fec = (
                bool(record.flags & flag) for flag in (MediaFlags.GAP, MediaFlags.RECOVERED, MediaFlags.FEC)
            )
            backend.slots.add(record.rtp_time, backend.clock(), gap=gap, fec=fec, recovered=recovered)


class ListeningBackend(EchoBackend):
    clock: Callable[[], float]

    def __init__(self, inbox: Inbox) -> None:
        super().__init__(inbox)
        self.heard: Counter[int] = Counter()
        self.slots = SlotTally(48_000)

    def open(self, call: Call) -> EchoAttachment | None:
        attachment = self.attachments[1] = ListeningAttachment(self, call, 1)
        attachment.post(Accepted())
        return attachment


def call_over(
    seconds: float, up: Conditions, down: Conditions, *, fec: bool, transceiver: dict[str, object]
) -> tuple[World, int]:
    """A call that has talked so long, and its first slot that counts. `fec`: whether the caller's frames carry copies."""
    world = World(11, up=up, down=down, backend=ListeningBackend, transceiver=transceiver)
    world.figures = CallFigures(b"sim!", fec=fec)
    world.backend.clock = lambda: world.now
    caller = world.dial()
    assert world.run_until(lambda: caller.call.talking, 5)
    world.run_for(2)
    first = max(world.backend.heard)
    world.run_for(seconds)
    return world, first


def listen(
    seconds: float = 60.0, up: Conditions = LOSSY, *, fec: bool = False, **transceiver: object
) -> tuple[float, Counter[str], int]:
    """(share of slots that the agent heard, what became of the losses, how many frames were flagged as recovered)"""
    world, first = call_over(seconds, up, CLEAN, fec=fec, transceiver=transceiver)
    heard = world.backend.heard
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
def test_what_a_copy_in_the_next_frame_makes_good_is_not_asked_for():
    share, counters, _ = listen(fec=True)
    assert share < 0.96, "the copies are no frames of their own"
    assert counters["fec_available"] > 0.95 * counters["lost"] > 100
    assert counters["requested"] < 0.15 * counters["lost"], "only for the first ones of those lost in a row"


@pytest.mark.thorough
@pytest.mark.slow
def test_requests_and_copies_together_fill_more_slots_than_either_alone():
    in_time, within_200_ms = {}, {}
    for nack in (True, False):
        for fec in (True, False):
            world, _ = call_over(60, SHAKY, SHAKY, fec=fec, transceiver={"nack": nack})
            counts = world.backend.slots.counts
            in_time[nack, fec] = counts.in_time / counts.expected
            within_200_ms[nack, fec] = counts.within_200_ms / counts.expected
    print(in_time, within_200_ms)
    for shares in (in_time, within_200_ms):
        assert shares[True, True] == max(shares.values())
        assert shares[True, True] > 0.995
        assert shares[False, False] < 0.96


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
