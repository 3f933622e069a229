"""Data channels: establishment, parity, text and binary, limits, closing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from protocol.errors import LocalError
from protocol.sctp import ChannelClosed, ChannelLimit, ChannelMessage, ChannelOpened, SctpConfig, UnknownChannel
from protocol.sctp.chunks import ChunkType
from protocol.sctp.dcep import DcepOpen, Delivery, build_open, parse_dcep_untrusted

Make = Callable[..., Any]


def test_the_client_opens_even_and_the_server_odd_streams(up: Make):
    net = up()
    assert [net.sides[0].open_channel("x") for _ in range(3)] == [0, 2, 4]
    assert [net.sides[1].open_channel("x") for _ in range(3)] == [1, 3, 5]


def test_label_protocol_and_order_arrive(up: Make):
    net = up()
    net.sides[0].open_channel("größe", "json", ordered=False)
    net.run(1)
    assert net.of(1, ChannelOpened) == net.of(0, ChannelOpened) == [ChannelOpened(0, "größe", "json", False)]


def test_a_channel_opened_before_the_association_goes_out_when_it_is_up(make_pair: Make):
    net = make_pair()
    channel = net.sides[1].open_channel("early")
    net.sides[1].send(channel, "before everything", net.now)
    net.sides[0].connect(net.now)
    net.run(1)
    assert net.events[0][1:] == [
        ChannelOpened(channel, "early", "", True),
        ChannelMessage(channel, "before everything"),
    ]


def test_an_open_without_the_time_asks_to_be_called_at_once(up: Make):
    net = up()
    side = net.sides[0]
    side.open_channel("x")
    assert side.next_timeout() <= net.now
    assert side.poll() == []
    side.handle_timeout(net.now)
    assert len(side.poll()) == 1
    assert side.next_timeout() > net.now


def test_an_unordered_channel_sends_in_order_until_it_is_acknowledged(up: Make):
    for seed in range(10):
        net = up(seed=seed, jitter=0.05)
        channel = net.sides[0].open_channel("x", ordered=False, now=net.now)
        net.sides[0].send(channel, "at once", net.now)  # in a packet of its own, which may overtake the first
        net.run(3)
        assert net.events[1][-2:] == [ChannelOpened(channel, "x", "", False), ChannelMessage(channel, "at once")]


def test_negotiated_channels_need_no_messages(up: Make):
    net = up()
    for side in net.sides:
        assert side.open_channel("agreed", negotiated_id=7) == 7
    assert [o for side in net.sides for o in side.poll()] == [ChannelOpened(7, "agreed", "", True)] * 2
    net.sides[0].send(7, b"to you", net.now)
    net.run(1)
    assert net.events[1][-1] == ChannelMessage(7, b"to you")
    with pytest.raises(LocalError):
        net.sides[0].open_channel("again", negotiated_id=7)
    with pytest.raises(ChannelLimit):
        net.sides[0].open_channel("far", negotiated_id=1024)


def test_the_number_of_channels_is_bounded_on_our_side(up: Make):
    net = up(configs=(SctpConfig(max_channels=2), None))
    net.sides[0].open_channel("a")
    net.sides[0].open_channel("b")
    with pytest.raises(ChannelLimit):
        net.sides[0].open_channel("c")


def test_channels_that_the_peer_opens_beyond_the_bound_are_closed_again(up: Make):
    net = up(configs=(None, SctpConfig(max_channels=2)))
    channels = [net.sides[0].open_channel(f"{number}") for number in range(3)]
    net.run(10)
    assert [event.channel for event in net.of(1, ChannelOpened)] == channels[:2]
    assert net.sides[1].drops["channel_limit"] == 1
    net.sides[0].send(channels[0], "fine", net.now)
    net.run(10)
    assert ChannelMessage(channels[0], "fine") in net.events[1]
    # RFC 8831 §6.7: the refusal is a reset of the other direction; ours follows it.
    assert net.of(0, ChannelClosed) == [ChannelClosed(channels[2])]


def test_the_length_of_label_and_protocol_is_bounded_both_ways(up: Make):
    net = up()
    longest, longer = "x" * 1000, "x" * 1001
    channels = [net.sides[0].open_channel(label, "y" * 24) for label in (longest, longer)]
    net.run(5)
    assert net.of(1, ChannelOpened) == [ChannelOpened(channels[0], longest, "y" * 24, True)]
    assert net.sides[1].drops["channel_label"] == 1
    assert net.of(0, ChannelClosed) == [ChannelClosed(channels[1])]
    with pytest.raises(LocalError):
        net.sides[0].open_channel("x" * 65536)
    with pytest.raises(LocalError):
        net.sides[0].open_channel("x", "é" * 32768)  # bytes count, not characters


@pytest.mark.parametrize("closer", [0, 1])
@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_closing_delivers_what_was_sent_and_frees_the_stream(up: Make, closer: int, loss: float):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    net.loss = loss
    for number in range(10):
        net.sides[closer].send(channel, f"{number}", net.now)
    net.sides[closer].close_channel(channel, net.now)
    assert not net.sides[closer].send(channel, "late", net.now)
    net.run(120)
    assert [event.data for event in net.of(1 - closer, ChannelMessage)] == [f"{number}" for number in range(10)]
    assert net.of(0, ChannelClosed) == net.of(1, ChannelClosed) == [ChannelClosed(channel)]
    with pytest.raises(UnknownChannel):
        net.sides[0].send(channel, "gone", net.now)
    again = net.sides[0].open_channel("again", now=net.now)
    assert again == channel
    net.sides[0].send(again, "a new life", net.now)
    net.run(60)
    assert net.events[1][-1] == ChannelMessage(channel, "a new life")


def test_both_sides_may_close_at_once(up: Make):
    net = up()
    channels = [net.sides[0].open_channel("x") for _ in range(5)]
    net.run(1)
    for channel in channels:
        for side in net.sides:
            side.close_channel(channel, net.now)
    net.run(30)
    for side in (0, 1):
        assert sorted(event.channel for event in net.of(side, ChannelClosed)) == channels


def test_a_channel_opened_and_closed_before_the_association(make_pair: Make):
    net = make_pair()
    channel = net.sides[0].open_channel("brief")
    net.sides[0].close_channel(channel, net.now)
    net.sides[0].connect(net.now)
    net.run(20)
    assert net.of(0, ChannelClosed) == [ChannelClosed(channel)]
    assert net.of(1, ChannelClosed) == [ChannelClosed(channel)]


# What peers may say on a stream


def test_data_on_our_channel_opens_it_without_an_ack(make_raw_peer: Make):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    peer.say(peer.data(0, b"early bird", stream=channel))
    assert peer.events[-2:] == [ChannelOpened(channel, "ours", "", True), ChannelMessage(channel, "early bird")]


@pytest.mark.parametrize(
    ("ppid", "payload", "value"),
    [(51, b"text", "text"), (53, b"\xff", b"\xff"), (56, b"\0", ""), (57, b"\0", b""), (51, b"a\xff", "a\ufffd")],
)
def test_payload_protocols(make_raw_peer: Make, ppid: int, payload: bytes, value: str | bytes):
    peer = make_raw_peer()
    peer.say(peer.data(0, build_open(b"x", b"", Delivery()), ppid=50), peer.data(1, payload, ppid=ppid, ssn=1))
    assert peer.events[-1] == ChannelMessage(0, value)


@pytest.mark.parametrize(
    ("stream", "payload", "ppid", "reason"),
    [
        (1, build_open(b"x", b"", Delivery()), 50, "channel_parity"),
        (0, b"\x03short", 50, "truncated"),
        (0, b"\x09", 50, "dcep_type"),
        (0, build_open(b"\xff", b"", Delivery()), 50, "dcep_utf8"),
        (0, build_open(b"x", b"", Delivery()) + b"!", 50, "trailing_bytes"),
        (0, b"\x02", 50, "channel_unknown"),
        (0, b"no channel", 51, "channel_unknown"),
    ],
)
def test_nonsense_on_a_stream_is_dropped(make_raw_peer: Make, stream: int, payload: bytes, ppid: int, reason: str):
    peer = make_raw_peer()
    peer.say(peer.data(0, payload, stream=stream, ppid=ppid))
    assert peer.association.drops[reason] == 1
    assert not [event for event in peer.events if isinstance(event, ChannelOpened)]
    peer.say(peer.data(1, build_open(b"good", b"", Delivery()), stream=2, ppid=50))
    assert peer.events[-1] == ChannelOpened(2, "good", "", True)


def test_an_open_of_the_wrong_parity_is_answered_by_a_reset(make_raw_peer: Make):
    peer = make_raw_peer()
    heard = peer.say(peer.data(0, build_open(b"x", b"", Delivery()), stream=1, ppid=50))
    (reset,) = [chunk for chunk in heard if chunk.type == ChunkType.RE_CONFIG]
    assert reset.value[-2:] == b"\0\1" or reset.value[16:18] == b"\0\1"


def test_unknown_and_deprecated_payload_protocols_are_dropped(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.say(peer.data(0, build_open(b"x", b"", Delivery()), ppid=50))
    for number, ppid in enumerate((0, 52, 54, 99), 1):
        peer.say(peer.data(number, ssn=number, ppid=ppid))
    assert peer.association.drops["message_ppid"] == 4


def test_the_open_message_as_the_rfc_draws_it():
    message = build_open("é".encode(), b"p", Delivery(ordered=False))
    assert message == bytes.fromhex("03 80 0000 00000000 0002 0001 c3a9 70")
    assert parse_dcep_untrusted(message) == DcepOpen(0x80, 0, 0, "é", "p")
