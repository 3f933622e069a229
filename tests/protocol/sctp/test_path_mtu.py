# ruff: noqa: ANN401
"""Paths that take only small packets and say nothing about the large ones (RFC 8831 §5), in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from protocol.sctp import AssociationState, ChannelMessage, Packet, SctpConfig
from protocol.sctp.chunks import ChunkType
from protocol.sctp.packet import build_chunk, build_packet, parse_packet_untrusted

Make = Callable[..., Any]

SMALL = 600 - 20 - 8 - 37  # bytes of SCTP where 600 are left for IP, UDP and a DTLS 1.2 record of AES-GCM
BIG = random.Random(6).randbytes(65536)


def data_of(net: Any, side: int) -> list[Any]:
    return [event.data for event in net.of(side, ChannelMessage)]


def takes_small(side: int, packet: bytes) -> bool:
    return len(packet) <= SMALL


def beyond_small(net: Any, side: int) -> list[int]:
    """The first chunk type of each larger packet."""
    return [parse_packet_untrusted(packet).chunks[0].type for packet in net.sent[side] if len(packet) > SMALL]


@pytest.mark.parametrize("loss", [0.0, 0.03])
def test_64_kib_pass_where_no_packet_over_600_bytes_does(make_pair: Make, loss: float):
    net = make_pair(keep=takes_small, loss=loss)
    for side in net.sides:
        side.connect(net.now)
    channel = net.sides[0].open_channel("x")
    for _ in range(2):
        assert net.sides[0].send(channel, BIG, net.now)
    net.run(20, until=lambda: len(data_of(net, 1)) == 2)
    net.sides[1].send(channel, BIG, net.now)
    net.run(20, until=lambda: len(data_of(net, 0)) == 1)
    assert (data_of(net, 0), data_of(net, 1)) == ([BIG], [BIG, BIG])
    for side in (0, 1):
        assert set(beyond_small(net, side)) == {ChunkType.HEARTBEAT}  # only probes were lost to the path


def test_a_path_that_takes_large_packets_gets_them_after_a_round_trip(up: Make):
    net = up(delay=0.01)
    net.sent[0].clear()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.sides[0].send(channel, BIG, net.now)
    net.run(10)
    assert data_of(net, 1) == [BIG]
    assert sorted(map(len, net.sent[0]))[-57:-1] == [1148] * 56


def test_a_lost_probe_is_repeated(make_pair: Make):
    lost: list[bytes] = []

    def keep(side: int, packet: bytes) -> bool:
        if len(packet) > SMALL and len(lost) < 4:
            lost.append(packet)
            return False
        return True

    net = make_pair(keep=keep)
    for side in net.sides:
        side.connect(net.now)
    net.run(30)
    channel = net.sides[0].open_channel("x", now=net.now)
    net.sides[0].send(channel, BIG, net.now)
    net.run(10)
    assert ChunkType.DATA in beyond_small(net, 0)


def test_probes_without_answer_are_few_and_nothing_against_the_peer(make_pair: Make):
    net = make_pair(keep=takes_small)
    for side in net.sides:
        side.connect(net.now)
    net.run(1800)
    assert [side.state for side in net.sides] == [AssociationState.ESTABLISHED] * 2
    assert len(beyond_small(net, 0)) < 5 + 1800 / 60 + 1


def test_an_answer_to_another_probe_changes_nothing(make_raw_peer: Make):
    peer = make_raw_peer()
    (probe,) = [chunk for chunk in peer.wait(0.01) if chunk.type == ChunkType.HEARTBEAT]
    assert len(probe.value) > 1000
    forged = probe.value[:-1] + b"!"
    peer.say(build_chunk(ChunkType.HEARTBEAT_ACK, 0, forged))
    peer.say(build_chunk(ChunkType.HEARTBEAT_ACK, 0, probe.value[:100]))
    assert peer.association.drops["heartbeat_ack"] == 2
    peer.say(build_chunk(ChunkType.HEARTBEAT_ACK, 0, probe.value))
    peer.say(build_chunk(ChunkType.HEARTBEAT_ACK, 0, probe.value))
    assert peer.association.drops["heartbeat_ack"] == 3


def test_a_path_that_becomes_a_black_hole_gets_small_packets_again(up: Make):
    net = up()
    channel = net.sides[0].open_channel("x", now=net.now)
    net.run(1)
    net.keep = takes_small
    net.sides[0].send(channel, b"a" * 2000, net.now)  # two fragments that the path takes no more
    net.run(4)
    assert not data_of(net, 1)
    net.keep = lambda side, packet: takes_small(side, packet) or b"aaaa" in packet  # IP cuts those two, let us say
    net.sent[0].clear()
    net.sides[0].send(channel, BIG, net.now)
    net.run(20)
    assert data_of(net, 1) == [b"a" * 2000, BIG]
    large = [packet for packet in net.sent[0] if not takes_small(0, packet) and b"aaaa" not in packet]
    assert {parse_packet_untrusted(packet).chunks[0].type for packet in large} == {ChunkType.HEARTBEAT}


def test_acknowledgements_of_many_gaps_fit_the_small_packet(make_raw_peer: Make):
    peer = make_raw_peer()
    for tsn in range(0, 800, 2):
        for _ in range(2):
            data = build_packet(5000, 5000, peer.tag, [peer.data(tsn + 1, flags=7)])
            peer.association.receive_untrusted(data, peer.now)
            packets = [output.data for output in peer.association.poll() if isinstance(output, Packet)]
            assert all(len(packet) <= SctpConfig().base_packet_size for packet in packets)
    assert len(packets[0]) > 480
