# ruff: noqa: ANN401
"""Opening and ending an association, in virtual time."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest

from protocol.sctp import (
    Association,
    AssociationClosed,
    AssociationState,
    AssociationUp,
    ChannelClosed,
    ChannelMessage,
    ChannelOpened,
    Packet,
    SctpConfig,
)
from protocol.sctp.chunks import CauseCode, ChunkType, build_shutdown, parse_causes_untrusted
from protocol.sctp.packet import build_chunk, build_packet, parse_packet_untrusted
from protocol.sctp.parameters import Init, build_init, parse_init_untrusted

Make = Callable[..., Any]
ESTABLISHED = AssociationState.ESTABLISHED


def kinds(packet: bytes) -> list[int]:
    return [chunk.type for chunk in parse_packet_untrusted(packet).chunks]


def drop_first(kind: int, times: int = 1) -> Callable[[int, bytes], bool]:
    """A network that loses the first packets which hold a chunk of this kind."""
    left = [times]

    def keep(side: int, packet: bytes) -> bool:
        if kind in kinds(packet) and left[0]:
            left[0] -= 1
            return False
        return True

    return keep


@pytest.mark.parametrize("openers", [(0,), (1,), (0, 1)])
def test_either_side_or_both_at_once_may_open(make_pair: Make, openers: tuple[int, ...]):
    net = make_pair()
    for side in openers:
        net.sides[side].connect(net.now)
    net.run(5)
    assert [side.state for side in net.sides] == [ESTABLISHED, ESTABLISHED]
    assert net.events == [[AssociationUp()], [AssociationUp()]]


def test_the_second_opener_may_come_at_any_moment_of_the_handshake(make_pair: Make):
    for step in range(12):
        net = make_pair(delay=0.01)
        net.sides[0].connect(net.now)
        net.run(step * 0.005)
        net.sides[1].connect(net.now)
        net.run(5)
        assert net.events == [[AssociationUp()], [AssociationUp()]], step


def test_the_open_message_rides_along_with_the_cookie(make_pair: Make):
    net = make_pair()
    net.sides[0].connect(net.now)
    net.sides[0].open_channel("oai-events")
    net.run(0.5)
    assert [kinds(packet) for packet in net.sent[0]][:2] == [
        [ChunkType.INIT],
        [ChunkType.COOKIE_ECHO, ChunkType.DATA],
    ]
    assert ChannelOpened(0, "oai-events", "", True) in net.events[1]


@pytest.mark.parametrize(
    "kind", [ChunkType.INIT, ChunkType.INIT_ACK, ChunkType.COOKIE_ECHO, ChunkType.COOKIE_ACK, ChunkType.DATA]
)
@pytest.mark.parametrize("both", [False, True])
def test_a_lost_packet_of_the_handshake_is_repeated(make_pair: Make, kind: int, both: bool):
    net = make_pair(keep=drop_first(kind, 2))
    net.sides[0].connect(net.now)
    if both:
        net.sides[1].connect(net.now)
    channel = net.sides[0].open_channel("x")
    net.sides[0].send(channel, "hello", net.now)
    net.run(20)
    assert ChannelMessage(channel, "hello") in net.events[1]
    assert [side.state for side in net.sides] == [ESTABLISHED, ESTABLISHED]


def test_data_that_overtakes_a_lost_cookie_ack_opens_the_association(make_pair: Make):
    net = make_pair(keep=drop_first(ChunkType.COOKIE_ACK, 1))
    net.sides[0].connect(net.now)
    net.run(until=lambda: bool(net.events[1]))
    channel = net.sides[1].open_channel("from the server", now=net.now)
    net.run(0.2)
    assert net.events[0] == [AssociationUp(), ChannelOpened(channel, "from the server", "", True)]


def test_a_lost_cookie_echo_costs_one_timeout_not_two(make_pair: Make):
    net = make_pair(keep=drop_first(ChunkType.COOKIE_ECHO, 1))
    net.sides[0].connect(net.now)
    start = net.now
    channel = net.sides[0].open_channel("x")
    net.sides[0].send(channel, "hello", net.now)
    net.run(5, until=lambda: ChannelMessage(channel, "hello") in net.events[1])
    assert net.now - start < 0.6
    net.run(5)
    assert net.sides[0].round_trip_time is None or net.sides[0].round_trip_time < 0.15


def test_nobody_there_ends_with_a_reason(make_pair: Make):
    net = make_pair(loss=1.0)
    net.sides[0].connect(net.now)
    net.sides[0].open_channel("x")
    net.run(200)
    assert net.events[0] == [ChannelClosed(0), AssociationClosed("setup_timeout")]
    assert len(net.sent[0]) == 1 + SctpConfig().max_init_retransmits


def test_a_server_that_asked_in_vain_stops_asking_and_goes_on_answering(make_pair: Make):
    net = make_pair(loss=1.0)
    net.sides[1].connect(net.now)
    net.run(200)
    assert net.events[1] == []
    assert len(net.sent[1]) == 1 + SctpConfig().max_init_retransmits
    net.loss = 0.0
    net.sides[0].connect(net.now)
    net.run(2)
    assert AssociationUp() in net.events[0]
    assert AssociationUp() in net.events[1]


def test_a_peer_that_vanishes_ends_with_a_reason(up: Make):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    net.loss = 1.0
    net.sides[0].send(channel, "anybody?", net.now)
    net.run(300)
    assert net.events[0][-2:] == [ChannelClosed(channel), AssociationClosed("retransmissions")]
    assert net.sides[0].next_timeout() > 1e12


def test_an_idle_peer_is_asked_whether_it_is_there(up: Make):
    net = up()
    net.run(1)  # a probe of the path is a heartbeat, too
    for sent in net.sent:
        sent.clear()
    net.run(95)
    beats = [packet for packet in net.sent[0] if kinds(packet) == [ChunkType.HEARTBEAT]]
    answers = [packet for packet in net.sent[1] if kinds(packet) == [ChunkType.HEARTBEAT_ACK]]
    assert len(beats) == len(answers) == 3
    net.loss = 1.0
    net.run(600)
    assert net.events[0][-1] == AssociationClosed("retransmissions")


@pytest.mark.parametrize("loss", [0.0, 0.3])
def test_shutdown_delivers_what_was_queued(up: Make, loss: float):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    net.loss = loss
    for number in range(20):
        net.sides[0].send(channel, f"{number}", net.now)
    net.sides[0].close(net.now)
    net.run(100)
    messages = [event.data for event in net.of(1, ChannelMessage)]
    assert messages[:20] == [f"{number}" for number in range(20)]
    assert net.events[0][-2:] == [ChannelClosed(channel), AssociationClosed("shutdown")]
    assert net.events[1][-2:] == [ChannelClosed(channel), AssociationClosed("shutdown_by_peer")]


def test_both_sides_may_shut_down_at_once(up: Make):
    net = up()
    for side in net.sides:
        side.close(net.now)
    net.run(30)
    assert [side.state for side in net.sides] == [AssociationState.DEAD, AssociationState.DEAD]


def test_abort_ends_both_sides_at_once(up: Make):
    net = up()
    net.sides[1].abort(net.now)
    net.run(1)
    assert net.events[1][-1] == AssociationClosed("aborted")
    assert net.events[0][-1] == AssociationClosed("aborted_by_peer")


def test_a_dead_association_is_silent(up: Make):
    net = up()
    replay = list(net.sent[0])
    net.sides[1].abort(net.now)
    net.run(1)
    for packet in replay:
        net.sides[1].receive_untrusted(packet, net.now)
    net.sides[1].handle_timeout(net.now + 100)
    assert net.sides[1].poll() == []


@pytest.mark.parametrize("kind", [ChunkType.SHUTDOWN, ChunkType.SHUTDOWN_ACK, ChunkType.SHUTDOWN_COMPLETE])
@pytest.mark.parametrize("both", [False, True])
def test_a_lost_packet_of_the_shutdown_is_repeated(up: Make, kind: int, both: bool):
    net = up()
    net.keep = drop_first(kind, 2)
    net.sides[0].close(net.now)
    if both:
        net.sides[1].close(net.now)
    net.run(30)
    assert [side.state for side in net.sides] == [AssociationState.DEAD, AssociationState.DEAD]
    for side in (0, 1):
        (closed,) = net.of(side, AssociationClosed)
        assert closed.reason in ("shutdown", "shutdown_by_peer")


def test_an_init_while_our_shutdown_ack_is_unanswered_hears_it_again(make_raw_peer: Make):
    peer = make_raw_peer()
    (answer,) = peer.say(build_shutdown(peer.init_ack.tsn - 1))
    assert answer.type == ChunkType.SHUTDOWN_ACK
    init = build_init(ChunkType.INIT, Init(7, 1 << 20, 10, 10, 1))
    assert [chunk.type for chunk in peer.say(init, tag=0)] == [ChunkType.SHUTDOWN_ACK]
    assert peer.association.state is AssociationState.SHUTDOWN_ACK_SENT


def test_an_acknowledgement_clears_the_errors_before_it(up: Make):
    """§8.1: only errors in a row count. Nine silences of three timeouts each are more than ten errors."""
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    for number in range(9):
        net.loss = 1.0
        net.sides[0].send(channel, f"{number}", net.now)
        net.run(3)
        net.loss = 0.0
        net.run(20)
    assert [event.data for event in net.of(1, ChannelMessage)] == [f"{number}" for number in range(9)]
    assert len(net.sent[0]) > 9 * 3
    assert net.sides[0].state is ESTABLISHED


# What an INIT and an INIT ACK may say


def init_ack_for(association: Association, **fields: Any) -> bytes:
    """A packet that answers this association's INIT."""
    (init,) = association.poll()
    tag = parse_init_untrusted(parse_packet_untrusted(init.data).chunks[0].value).tag
    return build_packet(5000, 5000, tag, [build_init(ChunkType.INIT_ACK, Init(7, 1 << 20, 10, 10, 1, **fields))])


def opening() -> Association:
    association = Association(is_client=True, max_message_size_remote=0, entropy=lambda n: b"\x44" * n)
    association.connect(1.0)
    return association


@pytest.mark.parametrize("cookie", [None, bytes(1200)])
def test_an_init_ack_without_a_cookie_that_can_be_brought_back_is_dropped(cookie: bytes | None):
    association = opening()
    association.receive_untrusted(init_ack_for(association, cookie=cookie), 1.0)
    assert association.drops["init_ack_cookie"] == 1
    assert association.state is AssociationState.COOKIE_WAIT


def test_unknown_parameters_of_an_init_ack_are_reported_beside_the_cookie():
    association = opening()
    answer = init_ack_for(association, cookie=b"biscuit!")
    unknown = struct.pack("!HH", 0xFABC, 4)
    value = parse_packet_untrusted(answer).chunks[0].value + unknown
    tag = struct.unpack_from("!L", answer, 4)[0]
    association.receive_untrusted(build_packet(5000, 5000, tag, [build_chunk(ChunkType.INIT_ACK, 0, value)]), 1.0)
    (echo,) = association.poll()
    cookie, error = parse_packet_untrusted(echo.data).chunks
    assert (cookie.type, cookie.value) == (ChunkType.COOKIE_ECHO, b"biscuit!")
    assert parse_causes_untrusted(error.value) == [(CauseCode.UNRECOGNIZED_PARAMETERS, unknown)]


def test_an_init_full_of_unknown_parameters_hears_of_as_many_as_fit_a_small_packet(make_pair: Make):
    server = make_pair().sides[1]
    unknown = struct.pack("!HH4x", 0xFABC, 8)
    value = (
        parse_packet_untrusted(build_packet(0, 0, 0, [build_init(ChunkType.INIT, Init(7, 1 << 20, 10, 10, 1))]))
        .chunks[0]
        .value
        + unknown * 120
    )
    server.receive_untrusted(build_packet(5000, 5000, 0, [build_chunk(ChunkType.INIT, 0, value)]), 1.0)
    (answer,) = server.poll()
    assert 300 < len(answer.data) <= SctpConfig().base_packet_size
    assert answer.data.count(unknown) > 10


# The cookie


def echo_of(net: Any) -> bytes:
    return next(packet for packet in net.sent[0] if ChunkType.COOKIE_ECHO in kinds(packet))


def half_open(make_pair: Make, **options: Any) -> tuple[Any, bytes]:
    """A server that has given out a cookie, and the COOKIE ECHO that would bring it back."""
    held: list[bytes] = []

    def keep(side: int, packet: bytes) -> bool:
        if ChunkType.COOKIE_ECHO in kinds(packet):
            held.append(packet)
            return False
        return True

    net = make_pair(keep=keep, **options)
    net.sides[0].connect(net.now)
    net.run(0.1)
    return net, held[0]


def edited(packet: bytes, offset: int) -> bytes:
    parsed = parse_packet_untrusted(packet)
    value = bytearray(packet[12:])
    value[4 + offset] ^= 1
    return build_packet(parsed.source_port, parsed.destination_port, parsed.verification_tag, [bytes(value)])


def test_an_edited_cookie_is_dropped_wherever_it_was_edited(make_pair: Make):
    net, echo = half_open(make_pair)
    server = net.sides[1]
    length = len(parse_packet_untrusted(echo).chunks[0].value)
    for offset in range(length):
        server.receive_untrusted(edited(echo, offset), net.now)
    assert server.state is AssociationState.CLOSED
    assert server.drops["cookie_mac"] == length
    assert server.poll() == []
    server.receive_untrusted(echo, net.now)
    assert server.state is ESTABLISHED


def test_a_cookie_of_another_association_is_dropped(make_pair: Make):
    _, echo = half_open(make_pair, seed=1)
    other, _ = half_open(make_pair, seed=2)
    tag = int.from_bytes(parse_packet_untrusted(other.sent[1][0]).chunks[0].value[:4], "big")
    chunk = echo[12:]
    other.sides[1].receive_untrusted(build_packet(5000, 5000, tag, [chunk]), other.now)
    assert other.sides[1].drops["cookie_mac"] == 1
    assert other.sides[1].state is AssociationState.CLOSED


def test_a_stale_cookie_is_told_and_a_fresh_one_fetched(make_pair: Make):
    net, echo = half_open(make_pair, configs=(None, SctpConfig(cookie_lifetime=0.05)))
    net.sides[1].receive_untrusted(echo, net.now + 10)
    (output,) = net.sides[1].poll()
    assert isinstance(output, Packet)
    (error,) = parse_packet_untrusted(output.data).chunks
    assert [code for code, _ in parse_causes_untrusted(error.value)] == [CauseCode.STALE_COOKIE]
    net.keep = lambda side, packet: True
    net.sides[0].receive_untrusted(output.data, net.now)
    net.run(0.1)
    assert [side.state for side in net.sides] == [ESTABLISHED, ESTABLISHED]


def test_a_peer_that_finds_every_cookie_stale_is_left(make_pair: Make):
    net = make_pair(configs=(None, SctpConfig(cookie_lifetime=-1.0)))
    net.sides[0].connect(net.now)
    net.run(60)
    assert net.events[0] == [AssociationClosed("setup_stale_cookies")]
    assert len(net.sent[0]) < 2 * 9 + 2


def test_a_replayed_cookie_changes_nothing(up: Make):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    before = list(net.events[1])
    for wait in (0, 1000):
        net.sides[1].receive_untrusted(echo_of(net), net.now + wait)
    net.drain()
    assert net.events[1] == before
    net.sides[0].send(channel, "still here", net.now)
    net.run(1)
    assert net.events[1][-1] == ChannelMessage(channel, "still here")


def test_the_cookie_shows_nothing_of_what_it_holds(make_pair: Make):
    net, echo = half_open(make_pair)
    cookie = parse_packet_untrusted(echo).chunks[0].value
    init = parse_packet_untrusted(net.sent[0][0]).chunks[0].value
    init_ack = parse_packet_untrusted(net.sent[1][0]).chunks[0].value
    for secret in (init[:4], init[12:16], init_ack[:4], init_ack[12:16]):
        assert secret not in cookie
    # The same INIT again: nothing of the cookie repeats, so nothing in it can be an address or a key.
    net.sides[1].receive_untrusted(net.sent[0][0], net.now)
    (again,) = net.sides[1].poll()
    other = parse_init_untrusted(parse_packet_untrusted(again.data).chunks[0].value).cookie
    assert other is not None
    assert not [i for i in range(len(cookie) - 3) if cookie[i : i + 4] in other]


def test_a_restart_is_refused(up: Make):
    net = up()
    stranger = Association(is_client=True, max_message_size_remote=0, entropy=lambda n: b"\x55" * n)
    stranger.connect(net.now)
    (init,) = stranger.poll()
    net.sides[1].receive_untrusted(init.data, net.now)
    assert net.sides[1].drops["restart_refused"] == 1
    assert net.sides[1].poll() == []
    assert net.sides[1].state is ESTABLISHED


def test_a_cookie_that_an_earlier_init_fetched_does_not_restart_an_open_association():
    """Genuine and fresh, but for another tag: §5.2.4 A."""
    server = Association(is_client=False, max_message_size_remote=0, entropy=lambda n: b"\x77" * n)
    packets = []
    for tag in (7, 8):  # two INITs; both cookies are good
        init = build_init(ChunkType.INIT, Init(tag, 1 << 20, 10, 10, 1))
        server.receive_untrusted(build_packet(5000, 5000, 0, [init]), 1.0)
        answer = parse_init_untrusted(parse_packet_untrusted(server.poll()[0].data).chunks[0].value)
        echo = build_chunk(ChunkType.COOKIE_ECHO, 0, answer.cookie)
        packets.append(build_packet(5000, 5000, answer.tag, [echo]))
    server.receive_untrusted(packets[0], 1.0)
    assert server.state is ESTABLISHED
    server.poll()
    server.receive_untrusted(packets[1], 1.0)
    assert server.drops["restart_refused"] == 1
    assert server.poll() == []


def test_the_tag_that_a_peer_opened_with_replaces_the_one_it_answered_with(make_pair: Make):
    """dcSCTP answers an INIT under one tag and later opens under another (RFC 9260 §5.2.4 B)."""
    net = make_pair()
    ours, first = net.sides
    second = Association(is_client=False, max_message_size_remote=0, entropy=lambda n: b"\x66" * n)
    ours.connect(net.now)
    first.receive_untrusted(ours.poll()[0].data, net.now)
    ours.receive_untrusted(first.poll()[0].data, net.now)  # INIT ACK under the first tag
    assert ours.state is AssociationState.COOKIE_ECHOED
    ours.poll()  # the COOKIE ECHO is lost
    second.connect(net.now)
    ours.receive_untrusted(second.poll()[0].data, net.now)
    second.receive_untrusted(ours.poll()[0].data, net.now)
    ours.receive_untrusted(second.poll()[0].data, net.now)
    assert ours.state is ESTABLISHED
    second.receive_untrusted(next(o.data for o in ours.poll() if isinstance(o, Packet)), net.now)
    assert second.state is ESTABLISHED
