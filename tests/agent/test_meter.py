"""The agent's view of a caller's audio: which of its 20 ms slots were filled, by what, and in time."""

from __future__ import annotations

import msgspec
import pytest
from trio.testing import MockClock

from agent.agents import AGENTS, meter
from protocol.agentlink import MediaFlags, MediaRecord, SlotTally

SLOT = 960


def tally_of(*frames: tuple[int, float, dict[str, bool]], start: int = 0) -> dict[str, int]:
    """Frames by their place, the seconds that their way took, and what they say of themselves."""
    tally = SlotTally(48_000)
    for place, way, said in frames:
        flags = {"gap": False, "fec": False, "recovered": False} | said
        tally.add(start + place * SLOT & 0xFFFFFFFF, 100.0 + place * 0.02 + way, **flags)
    return msgspec.structs.asdict(tally.counts)


def test_every_slot_is_filled_when_every_frame_comes_in_time():
    counts = tally_of(*[(place, 0.03, {}) for place in range(50)])
    assert counts == {"expected": 50, "in_time": 50, "recovered": 0, "by_copy": 0, "late": 0, "within_200_ms": 50}


def test_a_frame_that_never_came_leaves_its_slot_empty():
    counts = tally_of((0, 0.0, {}), (1, 0.0, {}), (4, 0.0, {"gap": True}), (5, 0.0, {}))
    assert (counts["expected"], counts["in_time"], counts["late"]) == (6, 4, 0)


def test_a_frame_sent_again_fills_its_slot_if_it_comes_by_its_time():
    said = {"recovered": True}
    counts = tally_of((0, 0.0, {}), (1, 0.09, said), (2, 0.07, {}), (3, 0.11, said), (4, 0.21, said))
    assert (counts["expected"], counts["in_time"], counts["recovered"], counts["late"]) == (5, 3, 1, 2)
    assert counts["within_200_ms"] == 4


def test_a_copy_in_the_next_frame_fills_one_slot_and_is_due_a_frame_earlier():
    said = {"gap": True, "fec": True}
    assert tally_of((0, 0.0, {}), (3, 0.05, said))["by_copy"] == 1
    counts = tally_of((0, 0.0, {}), (2, 0.09, said))
    assert (counts["in_time"], counts["by_copy"], counts["late"]) == (2, 0, 1)
    assert tally_of((0, 0.0, {}), (1, 0.0, said))["by_copy"] == 0  # nothing is missing before it


def test_the_time_of_a_slot_follows_from_the_quickest_way_that_a_frame_took():
    counts = tally_of((0, 0.15, {}), (1, 0.0, {}), (2, 0.05, {}), (3, 0.12, {}))
    assert (counts["in_time"], counts["late"]) == (3, 1)  # the first one came slowly, but nobody knew


def test_a_frame_of_a_slot_that_is_over_counts_for_nothing():
    counts = tally_of((0, 0.0, {}), (2, 0.0, {}), (1, 0.02, {}), (2, 0.0, {}), (3, 0.0, {}))
    assert (counts["expected"], counts["in_time"]) == (4, 3)


def test_rtp_time_may_wrap():
    counts = tally_of(*[(place, 0.0, {}) for place in range(10)], start=2**32 - 5 * SLOT)
    assert (counts["expected"], counts["in_time"]) == (10, 10)


async def test_meter_is_an_echo_that_tells_its_counts_when_it_is_asked(autojump_clock: MockClock, open_link):
    assert AGENTS["meter"] is meter
    client = await open_link(meter)
    await client.start_call()
    await client.open_channel()
    flags = int(MediaFlags.RECOVERED)
    await client.send_frames(MediaRecord(1, 0, 0, b"a" * 160), MediaRecord(1, 160, flags, b"b" * 160))
    await client.send_data(1, 1, "hello")
    await client.until(lambda: len(client.payloads()) == 2 and client.data)
    await client.send_data(1, 1, '{"type":"meter.slots"}')
    await client.until(lambda: len(client.data) == 2)
    assert client.payloads() == [b"a" * 160, b"b" * 160]
    assert client.data[0].data == "hello"
    assert msgspec.json.decode(client.data[1].data) == {
        "type": "meter.slots",
        "expected": 2,
        "in_time": 2,
        "recovered": 1,
        "by_copy": 0,
        "late": 0,
        "within_200_ms": 2,
    }
    assert client.data[1].data.startswith('{"type":"meter.slots",')  # by which a caller knows it


@pytest.mark.parametrize("name", ["echo", "meter", "parrot"])
def test_built_in_agents_are_found_by_their_names(name: str):
    assert AGENTS[name].__name__ == name
