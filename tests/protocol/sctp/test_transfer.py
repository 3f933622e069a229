# ruff: noqa: ANN401
"""Messages over good and bad networks, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from protocol.sctp import Association, ChannelMessage, ChannelOpened, ChannelWritable, MessageTooLarge, SctpConfig
from protocol.sctp.chunks import ChunkType, parse_sack_untrusted
from protocol.sctp.packet import parse_packet_untrusted

Make = Callable[..., Any]

BIG = random.Random(5).randbytes(65536)
MESSAGES: list[str | bytes] = [
    "",
    b"",
    "hello",
    "grüß dich ☎ \U0001f3b7",
    b"\0",
    BIG,
    "ж" * 32768,
    b"x" * 1120,
    b"y" * 1121,
]


def data_of(net: Any, side: int) -> list[str | bytes]:
    return [event.data for event in net.of(side, ChannelMessage)]


def both_send(net: Any, messages: list[str | bytes]) -> None:
    net.sides[0].open_channel("x")
    net.run(30, until=lambda: bool(net.of(1, ChannelOpened)))
    for message in messages:
        for side in net.sides:
            assert side.send(0, message, net.now)


@pytest.mark.parametrize("reverse", [False, True])
def test_messages_of_every_kind_pass_both_ways(up: Make, reverse: bool):
    messages = MESSAGES[::-1] if reverse else MESSAGES
    net = up()
    both_send(net, messages)
    net.run(30)
    assert data_of(net, 0) == data_of(net, 1) == messages
    assert not net.sides[0].drops
    assert not net.sides[1].drops


@pytest.mark.parametrize("seed", range(6))
def test_messages_pass_in_order_over_a_terrible_network(make_pair: Make, seed: int):
    net = make_pair(seed=seed, loss=0.1, duplicate=0.1, jitter=0.03)
    for side in net.sides:
        side.connect(net.now)
    both_send(net, MESSAGES)
    net.run(600, until=lambda: len(data_of(net, 0)) == len(data_of(net, 1)) == len(MESSAGES))
    assert data_of(net, 0) == data_of(net, 1) == MESSAGES


@pytest.mark.parametrize("seed", range(3))
def test_an_unordered_channel_delivers_everything_in_some_order(up: Make, seed: int):
    net = up(seed=seed)
    channel = net.sides[0].open_channel("x", ordered=False, now=net.now)
    net.run(1)
    net.loss, net.jitter = 0.1, 0.05
    sent = [f"{number}" for number in range(200)]
    for number, message in enumerate(sent):
        net.sides[0].send(channel, message, net.now)
        if number % 20 == 0:
            net.run(0.02)
    net.run(120)
    assert data_of(net, 1) != sent
    assert sorted(data_of(net, 1)) == sorted(sent)


@pytest.mark.parametrize("below", [1, 3, 100])
def test_numbers_wrap(make_pair: Make, below: int):
    tsn = (2**32 - below).to_bytes(4, "big")

    def entropy(n: int) -> bytes:
        return tsn if n == 4 else bytes(range(n))

    net = make_pair(entropies=(entropy, entropy), loss=0.05, jitter=0.02, duplicate=0.05)
    for side in net.sides:
        side.connect(net.now)
    both_send(net, [BIG, BIG, "end"])
    net.run(120, until=lambda: len(data_of(net, 0)) == len(data_of(net, 1)) == 3)
    assert data_of(net, 0) == data_of(net, 1) == [BIG, BIG, "end"]


@pytest.mark.slow
def test_stream_sequence_numbers_wrap(up: Make):
    net = up(delay=0.0001)
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    count = 66_000
    sent = 0
    while sent < count:
        while sent < count and net.sides[0].send(channel, b"%d" % sent, net.now):
            sent += 1
        net.run(0.02)
    net.run(5)
    assert data_of(net, 1) == [b"%d" % number for number in range(count)]


def test_a_message_larger_than_the_peer_accepts_is_refused_here(up: Make):
    net = up(max_message_size=1000)
    channel = net.sides[0].open_channel("x", now=net.now)
    assert net.sides[0].send(channel, b"x" * 1000, net.now)
    with pytest.raises(MessageTooLarge):
        net.sides[0].send(channel, b"x" * 1001, net.now)
    with pytest.raises(MessageTooLarge):
        net.sides[0].send(channel, "é" * 501, net.now)  # bytes count, not characters


def test_the_largest_message_passes_where_no_limit_was_named(up: Make):
    net = up(max_message_size=0)
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    assert net.sides[0].send(channel, BIG * 4, net.now)
    net.run(30)
    assert data_of(net, 1) == [BIG * 4]


def test_a_full_buffer_refuses_and_says_when_there_is_room(up: Make):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    taken = 0
    while net.sides[0].send(channel, BIG, net.now):
        taken += 1
    assert 4 <= taken <= 6
    assert 0 < net.sides[0].buffered_amount(channel) <= 262144
    net.run(30)
    assert net.of(0, ChannelWritable) == [ChannelWritable(channel)]
    assert net.sides[0].buffered_amount(channel) == 0
    assert len(data_of(net, 1)) == taken


def test_all_buffers_together_are_bounded(up: Make):
    net = up(configs=(SctpConfig(send_buffer_total=300_000), None))
    channels = [net.sides[0].open_channel(f"{number}") for number in range(3)]
    net.run(1)
    assert [net.sides[0].send(channel, BIG * 3, net.now) for channel in channels] == [True, False, False]
    net.run(30)
    assert {event.channel for event in net.of(1, ChannelMessage)} == {channels[0]}
    assert net.of(0, ChannelWritable) == [ChannelWritable(channels[1]), ChannelWritable(channels[2])]


def test_many_channels_share_the_association(up: Make):
    net = up(loss=0.05, jitter=0.01)
    channels = [net.sides[side].open_channel(f"{number}") for number in range(60) for side in (0, 1)]
    net.run(30, until=lambda: len(net.of(0, ChannelOpened)) == len(net.of(1, ChannelOpened)) == 120)
    for channel in channels:
        for side in net.sides:
            side.send(channel, f"on {channel}", net.now)
    net.run(30)
    for side in (0, 1):
        assert {e.channel: e.data for e in net.of(side, ChannelMessage)} == {c: f"on {c}" for c in channels}


def test_a_long_message_does_not_starve_another_channel(up: Make):
    net = up()
    long, short = net.sides[0].open_channel("long"), net.sides[0].open_channel("short")
    net.run(1)
    for _ in range(3):
        net.sides[0].send(long, BIG, net.now)
    net.sides[0].send(short, "quick", net.now)
    net.run(30)
    assert [event.channel for event in net.of(1, ChannelMessage)] == [long, short, long, long]


# Acknowledgement and loss


def sacks(net: Any, side: int) -> list[Any]:
    chunks = [c for packet in net.sent[side] for c in parse_packet_untrusted(packet).chunks]
    return [parse_sack_untrusted(chunk.value) for chunk in chunks if chunk.type == ChunkType.SACK]


def test_one_message_is_acknowledged_late_and_two_packets_at_once(up: Make):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    before = len(sacks(net, 1))
    net.sides[0].send(channel, "one", net.now)
    net.run(0.05)
    assert len(sacks(net, 1)) == before
    net.run(0.1)
    assert len(sacks(net, 1)) == before + 1
    net.sides[0].send(channel, b"x" * 2000, net.now)
    net.run(0.05)
    assert len(sacks(net, 1)) == before + 2


def test_one_lost_packet_is_repeated_before_its_timeout(up: Make):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    lost = []

    def keep(side: int, packet: bytes) -> bool:
        if side == 0 and len(packet) > 1000 and not lost:
            lost.append(packet)
            return False
        return True

    net.keep = keep
    start = net.now
    net.sides[0].send(channel, BIG, net.now)
    net.run(10, until=lambda: bool(data_of(net, 1)))
    assert lost
    assert net.now - start < 0.35  # the retransmission timeout is 0.4 s
    assert any(sack.gaps for sack in sacks(net, 1))


def test_duplicates_are_reported(up: Make):
    net = up(duplicate=1.0)
    channel = net.sides[0].open_channel("x", now=net.now)
    net.sides[0].send(channel, "twice", net.now)
    net.run(1)
    assert any(sack.duplicates for sack in sacks(net, 1))
    assert data_of(net, 1) == ["twice"]


def test_a_path_slower_than_the_first_timeout_is_learned(up: Make):
    net = up(delay=0.7)
    net.run(10)
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(10)
    for _ in range(3):
        net.sides[0].send(channel, BIG, net.now)
    net.run(60)
    assert len(data_of(net, 1)) == 3
    assert net.sides[0].round_trip_time == pytest.approx(1.4, abs=0.1)
    assert len([p for p in net.sent[0] if len(p) > 1000]) < 1.2 * 3 * 59


def test_the_window_grows_while_all_goes_well_and_shrinks_with_loss(up: Make):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    sender = net.sides[0]

    def seconds() -> float:
        start, count = net.now, len(data_of(net, 1))
        while sender.send(channel, BIG, net.now):
            count += 1
        net.run(100, until=lambda: len(data_of(net, 1)) == count)
        return float(net.now - start)

    seconds()
    good = seconds()
    net.loss = 0.1
    seconds()
    assert good < 0.3
    assert seconds() > 5 * good


def test_the_same_seed_gives_the_same_packets(make_pair: Make):
    def packets() -> list[list[bytes]]:
        net = make_pair(seed=3, loss=0.1, duplicate=0.1, jitter=0.02)
        for side in net.sides:
            side.connect(net.now)
        both_send(net, [BIG])
        net.run(10)
        return list(net.sent)

    assert packets() == packets()


def test_a_call_too_early_or_too_often_changes_nothing(up: Make):
    net = up()
    side: Association = net.sides[0]
    net.drain()
    for _ in range(5):
        side.handle_timeout(net.now)
    assert side.poll() == []


def test_messages_that_nobody_reads_close_the_window_and_are_all_there_when_somebody_does(up: Make):
    net = up()
    both_send(net, [])
    reader = net.sides[1]
    unread: list[int] = []
    words = [f"word {number}" for number in range(4000)]
    taken = 0

    def hears() -> bool:
        nonlocal taken
        heard = data_of(net, 1)
        unread.extend(map(len, heard[taken:]))
        taken = len(heard)
        reader.keep_unread(sum(unread), sum(unread) + 4096 * len(unread), net.now)
        return False

    for word in words:
        assert net.sides[0].send(0, word, net.now)
    net.run(5, until=hears)
    held = len(unread)
    assert 256 <= held < 1500
    assert reader._receiver.window == 0
    closed_for = net.now
    while len(data_of(net, 1)) < len(words) or unread:
        del unread[:10]  # a hundred a second
        hears()
        net.run(0.1, until=hears)
    assert data_of(net, 1) == words
    assert net.now - closed_for == pytest.approx(len(words) / 100, rel=0.2)  # it is told when there is room
