"""Losses on the way up: copies in redundant audio, in-band FEC, and what the agent is told."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.agentlink import MediaFlags
from protocol.codecs import OPUS
from protocol.rtp import PathEstimate, RtpPacket
from transceiver.media import Uplink

SILK, SILK_WITH_COPY = b"\x08\x80", b"\x08\xc0"
OPUS_TYPE, RED_TYPE = 111, 63


def new_uplink() -> Uplink:
    return Uplink(OPUS_TYPE, 48_000, red_payload_type=RED_TYPE, codec=OPUS)


def plain(number: int, payload: bytes) -> RtpPacket:
    return RtpPacket(False, OPUS_TYPE, number & 0xFFFF, number * 960 & 0xFFFFFFFF, 7, payload=payload)


def redundant(number: int, *payloads: bytes, offsets: tuple[int, ...] | None = None) -> RtpPacket:
    """The newest payload last, as RFC 2198 writes them."""
    *copies, _newest = payloads
    offsets = offsets or tuple(960 * distance for distance in range(len(copies), 0, -1))
    heads = b"".join(
        (0x80 | OPUS_TYPE).to_bytes(1, "big") + (offset << 10 | len(copy)).to_bytes(3, "big")
        for copy, offset in zip(copies, offsets)
    )
    body = heads + bytes((OPUS_TYPE,)) + b"".join(payloads)
    return RtpPacket(False, RED_TYPE, number & 0xFFFF, number * 960 & 0xFFFFFFFF, 7, payload=body)


def frame(number: int) -> bytes:
    return b"\x78%d" % number


def taken(uplink: Uplink) -> list[tuple[int, int, bytes]]:
    return [(record.rtp_time // 960, record.flags, record.payload) for record in uplink.take(1)]


def test_redundant_audio_is_audio():
    uplink = new_uplink()
    uplink.push(redundant(65_535, frame(0)), 0.0)
    uplink.push(redundant(65_536, frame(0), frame(1)), 0.02)
    assert taken(uplink) == [(65_535, 0, frame(0)), (65_536, 0, frame(1))]
    assert not uplink.drops
    assert not uplink.counters


def test_a_copy_fills_the_place_of_the_packet_that_was_lost_at_once():
    uplink = new_uplink()
    uplink.push(redundant(1, frame(0), frame(1)), 0.0)
    uplink.push(redundant(4, frame(2), frame(3), frame(4)), 0.06)
    assert taken(uplink) == [
        (1, 0, frame(1)),
        (2, MediaFlags.RECOVERED, frame(2)),
        (3, MediaFlags.RECOVERED, frame(3)),
        (4, 0, frame(4)),
    ]
    assert uplink.counters == {"red_recovered": 2}
    uplink.push(plain(3, frame(3)), 0.07)  # late after all
    assert taken(uplink) == []
    assert uplink.counters == {"red_recovered": 2, "duplicate": 1}


def test_of_a_longer_loss_the_end_is_filled_and_the_rest_is_a_gap():
    uplink = new_uplink()
    uplink.push(redundant(1, frame(1)), 0.0)
    uplink.push(redundant(5, frame(4), frame(5)), 0.08)
    uplink.handle_timeout(1.0)
    assert taken(uplink) == [
        (1, 0, frame(1)),
        (4, MediaFlags.GAP | MediaFlags.RECOVERED, frame(4)),
        (5, 0, frame(5)),
    ]
    assert uplink.counters["concealed"] == 2


def test_after_a_pause_the_copy_is_put_in_its_own_time():
    uplink = new_uplink()
    uplink.push(redundant(1, frame(1)), 0.0)
    late = redundant(3, frame(2), frame(3), offsets=(9600,))._replace(timestamp=30 * 960)
    uplink.push(late, 0.6)
    assert [time for time, _, _ in taken(uplink)] == [1, 20, 30]


def test_copies_of_somebody_else_or_without_end_do_nothing():
    uplink = new_uplink()
    uplink.push(redundant(9, frame(8), frame(9)), 0.0)  # the first packet of all: nothing is missing before it
    many = [frame(n) for n in range(27, 39)]
    uplink.push(redundant(39, *many, frame(39)), 0.6)
    uplink.handle_timeout(2.0)
    assert uplink.counters["red_recovered"] == 4
    assert [time for time, _, _ in taken(uplink)] == [9, 35, 36, 37, 38, 39]
    uplink.push(redundant(40, frame(0))._replace(payload=b"\xef"), 2.0)  # none at all
    uplink.push(plain(41, frame(41)), 2.02)
    assert taken(uplink) == [(41, 0, frame(41))]
    assert uplink.drops["red_truncated"] == 1


def test_the_frame_behind_a_gap_says_whether_it_holds_a_copy_of_the_last_one_lost():
    for payload, flags, counted in (
        (SILK_WITH_COPY, MediaFlags.GAP | MediaFlags.FEC, (1, 1)),
        (SILK, MediaFlags.GAP, (0, 2)),
        (b"\x0b\xff", MediaFlags.GAP, (0, 2)),  # no Opus packet: for the agent to judge
    ):
        uplink = new_uplink()
        uplink.push(plain(1, SILK), 0.0)
        uplink.push(plain(4, payload), 0.06)
        uplink.handle_timeout(1.0)
        assert taken(uplink)[-1] == (4, flags, payload)
        assert (uplink.counters["fec_available"], uplink.counters["concealed"]) == counted


def test_a_frame_with_a_copy_of_the_one_lost_is_handed_on_after_20_ms_and_is_not_kept_for_an_answer():
    for payload, waited in ((SILK_WITH_COPY, 0.020), (SILK, 0.066), (b"\x0b\xff", 0.066)):
        uplink = Uplink(
            OPUS_TYPE, 48_000, codec=OPUS, nack=True, estimate=lambda: PathEstimate(round_trip=0.05, jitter=0.001)
        )
        uplink.push(plain(1, SILK), 0.0)
        uplink.push(plain(3, payload), 0.04)
        uplink.push(plain(4, SILK_WITH_COPY), 0.05)
        due = 0.0
        while not uplink.counters["lost"]:
            due = uplink.next_timeout()
            uplink.take_requests(due)
            uplink.handle_timeout(due)
        assert abs(due - 0.04 - waited) < 1e-6, payload
        assert uplink.counters["requested"] == (payload != SILK_WITH_COPY)
        assert (taken(uplink)[1][1] == MediaFlags.GAP | MediaFlags.FEC) is (payload == SILK_WITH_COPY)


def test_what_another_payload_type_carries_is_no_copy_of_the_audio():
    uplink = Uplink(OPUS_TYPE, 48_000, 126, codec=OPUS)
    uplink.push(plain(1, SILK), 0.0)
    uplink.push(plain(3, SILK_WITH_COPY)._replace(payload_type=126), 0.04)
    assert uplink.next_timeout() > 0.04 + 0.05


def test_a_gap_in_which_no_time_is_missing_is_none_to_the_agent():
    uplink = new_uplink()
    for number in (0, 1):
        uplink.push(plain(number, SILK), 0.02 * number)
    uplink.push(plain(4, SILK), 0.08)  # two frames are missing
    uplink.push(plain(8, SILK)._replace(timestamp=5 * 960), 0.1)  # and three packets of padding
    uplink.handle_timeout(1.0)
    assert [flags for _, flags, _ in taken(uplink)] == [0, 0, MediaFlags.GAP, 0]
    assert (uplink.drops["lost"], uplink.counters["concealed"], uplink.counters["padding_lost"]) == (2, 2, 3)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.booleans(), st.integers(0, 5), st.binary(max_size=30)),
        max_size=60,
    )
)
def test_whatever_redundancy_comes_each_place_is_filled_once_and_in_order(
    arrivals: list[tuple[int, bool, int, bytes]],
):
    uplink = new_uplink()
    now = 0.0
    times: list[int] = []
    for number, is_red, copies, noise in arrivals:
        now += 0.01
        if is_red and noise:
            uplink.push(plain(number, noise)._replace(payload_type=RED_TYPE), now)
        elif is_red:
            uplink.push(redundant(number, *(frame(number - n) for n in range(copies, -1, -1))), now)
        else:
            uplink.push(plain(number, frame(number)), now)
        times += [record.rtp_time for record in uplink.take(1)]
    uplink.handle_timeout(now + 10)
    times += [record.rtp_time for record in uplink.take(1)]
    assert len(times) <= 41
