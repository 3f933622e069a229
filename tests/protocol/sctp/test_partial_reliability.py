# ruff: noqa: ANN401
"""Unordered and partially reliable channels (RFC 8831 §6.4, RFC 3758, RFC 7496), in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.errors import LocalError
from protocol.sctp import ChannelMessage, ChannelOpened, ChannelWritable, SctpConfig
from protocol.sctp.chunks import ChunkType, parse_forward_tsn_untrusted
from protocol.sctp.dcep import DcepOpen, Delivery, build_open, parse_dcep_untrusted
from protocol.sctp.packet import parse_packet_untrusted

Make = Callable[..., Any]


def data_of(net: Any, side: int) -> list[Any]:
    return [event.data for event in net.of(side, ChannelMessage)]


def forwards(net: Any, side: int) -> list[Any]:
    chunks = [chunk for packet in net.sent[side] for chunk in parse_packet_untrusted(packet).chunks]
    return [parse_forward_tsn_untrusted(chunk.value) for chunk in chunks if chunk.type == ChunkType.FORWARD_TSN]


def lose(net: Any, *texts: bytes, times: int = 1000) -> None:
    """From now on the network loses packets of side 0 that hold one of these, so many of each."""
    left = dict.fromkeys(texts, times)

    def keep(side: int, packet: bytes) -> bool:
        for text in texts:
            if side == 0 and text in packet and left[text]:
                left[text] -= 1
                return False
        return True

    net.keep = keep


def opened(net: Any, **options: Any) -> int:
    channel = net.sides[0].open_channel("x", now=net.now, **options)
    net.run(1)
    return int(channel)


# What is agreed


@pytest.mark.parametrize(
    ("delivery", "channel_type", "parameter"),
    [
        (Delivery(), 0x00, 0),
        (Delivery(False), 0x80, 0),
        (Delivery(True, 3), 0x01, 3),
        (Delivery(False, 0), 0x81, 0),
        (Delivery(True, None, 1.5), 0x02, 1500),
        (Delivery(False, None, 0.0), 0x82, 0),
    ],
)
def test_the_six_channel_types(delivery: Delivery, channel_type: int, parameter: int):
    message = parse_dcep_untrusted(build_open(b"x", b"", delivery))
    assert isinstance(message, DcepOpen)
    assert (message.channel_type, message.reliability) == (channel_type, parameter)
    assert message.delivery == delivery


@pytest.mark.parametrize("limits", [(1, 1.0), (-1, None), (1 << 32, None), (None, -0.5), (None, 1e7)])
def test_limits_that_no_channel_can_have_are_our_own_error(limits: tuple[Any, Any]):
    with pytest.raises(LocalError):
        Delivery(True, *limits)


def test_what_was_asked_for_arrives_and_goes_for_both_directions(up: Make):
    net = up()
    channel = opened(net, ordered=False, max_retransmits=0)
    assert net.of(0, ChannelOpened) == net.of(1, ChannelOpened) == [ChannelOpened(channel, "x", "", False, 0, None)]
    net.keep = lambda side, packet: side == 0 or b"lost" not in packet
    for text in ("one", "lost", "two"):
        net.sides[1].send(channel, text, net.now)
    net.run(5)
    assert data_of(net, 0) == ["one", "two"]
    assert net.sides[1].drained


# Limited retransmissions


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("limit", [0, 1, 3])
def test_a_message_is_sent_once_and_repeated_as_often_as_allowed(up: Make, ordered: bool, limit: int):
    net = up()
    channel = opened(net, ordered=ordered, max_retransmits=limit)
    lose(net, b"lost")
    for text in ("before", "lost", "after"):
        net.sides[0].send(channel, text, net.now)
    net.run(60)
    assert data_of(net, 1) == ["before", "after"]
    assert sum(b"lost" in packet for packet in net.sent[0]) == 1 + limit
    assert net.sides[0].drops["message_abandoned"] == 1
    assert net.sides[0].drained


@pytest.mark.parametrize("limit", [1, 3])
def test_a_message_that_gets_through_within_its_limit_is_delivered(up: Make, limit: int):
    net = up()
    channel = opened(net, max_retransmits=limit)
    lose(net, b"lost", times=limit)
    for text in ("before", "lost", "after"):
        net.sides[0].send(channel, text, net.now)
    net.run(60)
    assert data_of(net, 1) == ["before", "lost", "after"]
    assert not forwards(net, 0)


def test_one_lost_fragment_gives_up_the_whole_message(up: Make):
    net = up()
    channel = opened(net, max_retransmits=0)
    lose(net, b"MIDDLE")
    net.sides[0].send(channel, b"a" * 3000 + b"MIDDLE" + b"b" * 3000, net.now)
    net.sides[0].send(channel, "next", net.now)
    net.run(10)
    assert data_of(net, 1) == ["next"]
    assert net.sides[1]._receiver.window == SctpConfig().receive_window  # nothing of it is kept
    assert net.sides[0].drained


def test_a_message_given_up_half_sent_does_not_disturb_the_next(up: Make):
    """Its last fragment was never sent: the peer must not take the next message's first one for it."""
    net = up()
    channel = opened(net, max_retransmits=0)
    lose(net, b"START")
    net.sides[0].send(channel, b"START" + b"a" * 200_000, net.now)
    net.sides[0].send(channel, b"n" * 5000, net.now)
    net.run(20)
    assert data_of(net, 1) == [b"n" * 5000]
    assert sum(len(packet) for packet in net.sent[0]) < 100_000
    assert net.sides[0].buffered_amount(channel) == 0
    assert not net.sides[0].drops["send_buffer"]


def test_a_reliable_channel_beside_it_loses_nothing(up: Make):
    net = up(seed=5)
    partial, reliable = opened(net, max_retransmits=0), opened(net)
    net.loss, net.jitter, net.duplicate = 0.2, 0.02, 0.05
    for number in range(300):
        for channel in (partial, reliable):
            net.sides[0].send(channel, f"{number}", net.now)
        net.run(0.02)
    net.run(100, until=lambda: net.sides[0].drained)
    by_channel: dict[int, list[int]] = {partial: [], reliable: []}
    for event in net.of(1, ChannelMessage):
        by_channel[event.channel].append(int(event.data))
    assert by_channel[reliable] == list(range(300))
    assert sorted(set(by_channel[partial])) == by_channel[partial]  # in order and once, with holes
    assert 150 < len(by_channel[partial]) < 290


def test_a_lost_forward_tsn_is_repeated(up: Make):
    net = up()
    channel = opened(net, max_retransmits=0)
    left = [3]

    def keep(side: int, packet: bytes) -> bool:
        kinds = [chunk.type for chunk in parse_packet_untrusted(packet).chunks]
        if ChunkType.FORWARD_TSN in kinds and left[0]:
            left[0] -= 1
            return False
        return b"lost" not in packet

    net.keep = keep
    net.sides[0].send(channel, "lost", net.now)
    net.run(30)
    net.sides[0].send(channel, "after", net.now)
    net.run(5)
    assert data_of(net, 1) == ["after"]
    assert net.sides[0].drained


def test_a_lost_forward_tsn_is_repeated_before_its_timeout_while_others_arrive(up: Make):
    net = up()
    channel = opened(net, max_retransmits=0)
    left = [1]

    def keep(side: int, packet: bytes) -> bool:
        kinds = [chunk.type for chunk in parse_packet_untrusted(packet).chunks]
        if ChunkType.FORWARD_TSN in kinds and left[0]:
            left[0] -= 1
            return False
        return b"lost" not in packet

    net.keep = keep
    start = net.now
    net.sides[0].send(channel, "lost", net.now)
    for _ in range(20):
        net.run(0.01)
        net.sides[0].send(channel, "after", net.now)
    net.run(10, until=lambda: len(data_of(net, 1)) == 20)
    assert net.now - start < 0.35  # the retransmission timeout is 0.4 s
    assert not left[0]


def test_many_streams_given_up_at_once_are_told_in_pieces_that_fit(up: Make):
    net = up(configs=(SctpConfig(max_channels=400),) * 2)
    channels = [net.sides[0].open_channel("x", max_retransmits=0) for _ in range(400)]
    net.run(5)
    net.loss = 1.0
    for channel in channels:
        net.sides[0].send(channel, "lost", net.now)
    net.run(0.3)
    net.loss = 0.0
    net.run(30)
    assert net.sides[0].drained
    assert len({stream for forward in forwards(net, 0) for stream, _ in forward.streams}) == 400
    for channel in channels:
        net.sides[0].send(channel, "after", net.now)
    net.run(10)
    assert data_of(net, 1) == ["after"] * 400


@pytest.mark.parametrize("below", [1, 2, 5])
def test_giving_up_works_over_the_wrap_of_the_numbers(make_pair: Make, below: int):
    tsn = (2**32 - below).to_bytes(4, "big")

    def entropy(n: int) -> bytes:
        return tsn if n == 4 else bytes(range(n))

    net = make_pair(entropies=(entropy, entropy))
    for side in net.sides:
        side.connect(net.now)
    net.run(1)
    channel = opened(net, max_retransmits=1)
    lose(net, b"lost")
    for number in range(8):
        net.sides[0].send(channel, f"lost {number}" if number % 2 else f"{number}", net.now)
    net.run(30)
    assert data_of(net, 1) == ["0", "2", "4", "6"]


# Limited lifetime


def test_a_message_too_old_is_not_repeated(up: Make):
    net = up()
    channel = opened(net, max_lifetime=0.3)
    lose(net, b"lost")
    for text in ("before", "lost", "after"):
        net.sides[0].send(channel, text, net.now)
    net.run(10)
    assert data_of(net, 1) == ["before", "after"]
    assert sum(b"lost" in packet for packet in net.sent[0]) == 1  # the timeout is longer than it lived
    assert net.sides[0].drained


def test_a_message_young_enough_is_repeated(up: Make):
    net = up()
    channel = opened(net, max_lifetime=5.0)
    lose(net, b"lost", times=2)
    for text in ("before", "lost", "after"):
        net.sides[0].send(channel, text, net.now)
    net.run(10)
    assert data_of(net, 1) == ["before", "lost", "after"]


def test_what_grew_old_in_the_buffer_is_never_sent(up: Make):
    net = up()
    channel = opened(net, max_lifetime=2.0)
    net.loss = 1.0
    while net.sides[0].send(channel, b"\1" * 10_000, net.now):
        pass
    net.run(4)
    net.loss = 0.0
    net.run(10)
    net.sides[0].send(channel, "fresh", net.now)
    net.run(10)
    assert data_of(net, 1) == ["fresh"]
    assert net.sides[0].drops["message_expired"] > 15
    assert ChannelWritable(channel) in net.events[0]
    assert net.sides[0].drained


def test_a_long_message_that_grows_too_old_half_sent_is_given_up_whole(up: Make):
    net = up(delay=0.1)
    channel = opened(net, max_lifetime=0.25)
    net.sides[0].send(channel, b"a" * 200_000, net.now)
    net.sides[0].send(channel, b"n" * 5000, net.now)
    net.run(0.5)
    assert net.sides[0].drops["message_abandoned"] == 1
    assert net.sides[0].buffered_amount(channel) == 0
    net.run(5)
    net.sides[0].send(channel, "fresh", net.now)
    net.run(5)
    assert data_of(net, 1) == ["fresh"]  # the second had grown old behind the first
    assert net.sides[0].drained


def test_a_lifetime_of_nothing_still_allows_one_try(up: Make):
    net = up()
    channel = opened(net, max_lifetime=0.0)
    net.sides[0].send(channel, "at once", net.now)
    net.run(5)
    assert data_of(net, 1) == ["at once"]


# Peers


def test_towards_a_peer_without_forward_tsn_everything_is_reliable(make_raw_peer: Make):
    peer = make_raw_peer(forward_tsn=False)
    channel = peer.association.open_channel("x", max_retransmits=0, now=peer.now)
    peer.hear()
    peer.say(peer.ack(0))
    peer.association.send(channel, "once more", peer.now)
    chunks = peer.hear() + peer.wait(3)
    assert sum(b"once more" in chunk.value for chunk in chunks) > 2
    assert ChunkType.FORWARD_TSN not in [chunk.type for chunk in chunks]
