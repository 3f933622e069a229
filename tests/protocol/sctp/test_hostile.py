# ruff: noqa: ANN401
"""Peers that break the rules, and packets that are not even that. No test here may see an exception."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol.errors import LocalError
from protocol.sctp import (
    Association,
    AssociationClosed,
    AssociationState,
    ChannelClosed,
    ChannelMessage,
    ChannelOpened,
    ChannelOverrun,
    Packet,
    SctpConfig,
)
from protocol.sctp.chunks import (
    CauseCode,
    ChunkType,
    ForwardTsn,
    Sack,
    build_sack,
    build_shutdown,
    parse_causes_untrusted,
    parse_sack_untrusted,
)
from protocol.sctp.dcep import Delivery, build_open
from protocol.sctp.outbound import MAX_OUTSTANDING
from protocol.sctp.packet import RawChunk, build_chunk, build_packet, parse_packet_untrusted
from protocol.sctp.parameters import OutgoingReset, ResetResponse, build_reconfig, parse_init_untrusted

Make = Callable[..., Any]
SETTINGS = settings(
    max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
OPEN = build_open(b"theirs", b"", Delivery())


def causes(chunks: list[RawChunk], kind: int) -> list[int]:
    return [code for c in chunks if c.type == kind for code, _ in parse_causes_untrusted(c.value)]


# Bytes


@SETTINGS
@given(data=st.binary(max_size=1500))
def test_no_bytes_raise(make_raw_peer: Make, data: bytes):
    peer = make_raw_peer()
    peer.association.receive_untrusted(data, peer.now)
    peer.association.receive_untrusted(memoryview(data), peer.now)
    assert sum(peer.association.drops.values()) == 2


CHUNKS = st.builds(
    build_chunk,
    st.one_of(st.sampled_from(sorted(ChunkType)), st.integers(0, 255)),
    st.integers(0, 15),
    st.one_of(st.binary(max_size=80), st.integers(0, 40).map(bytes)),
)


@SETTINGS
@given(packets=st.lists(st.lists(CHUNKS, min_size=1, max_size=6), max_size=8))
def test_no_chunks_raise_in_an_open_association(make_raw_peer: Make, packets: list[list[bytes]]):
    peer = make_raw_peer()
    for chunks in packets:
        peer.say(*chunks)
        peer.say(*chunks, tag=0)
        peer.wait(1)
    peer.wait(700)


@SETTINGS
@given(packets=st.lists(st.lists(CHUNKS, min_size=1, max_size=6), max_size=8), seed=st.integers(0, 1000))
def test_no_chunks_raise_while_opening(packets: list[list[bytes]], seed: int):
    association = Association(is_client=True, max_message_size_remote=0, entropy=random.Random(seed).randbytes)
    association.open_channel("x")
    association.connect(1.0)
    (init,) = association.poll()
    tag = parse_init_untrusted(parse_packet_untrusted(init.data).chunks[0].value).tag
    for chunks in packets:
        for used in (0, tag):
            association.receive_untrusted(build_packet(5000, 5000, used, chunks), 1.0)
    for now in range(1, 200, 7):
        association.handle_timeout(float(now))
    association.poll()


@pytest.mark.slow
def test_recorded_packets_with_flipped_bits_and_a_right_checksum_do_no_harm(up: Make):
    """What CVE-2019-20503 was found by: real INIT, DATA, SACK, RE-CONFIG, damaged, inside DTLS."""
    recorder = up(loss=0.1, duplicate=0.1, jitter=0.02, seed=4)
    channel = recorder.sides[0].open_channel("x", now=recorder.now)
    recorder.run(3)
    recorder.sides[0].send(channel, b"z" * 9000, recorder.now)
    recorder.run(5)
    recorder.sides[1].close_channel(channel, recorder.now)
    recorder.run(5)
    recorder.sides[0].close(recorder.now)
    recorder.run(5)
    chance = random.Random(3)
    for _ in range(200):
        victim = up(seed=4).sides[1]
        victim.open_channel("y")
        for _ in range(40):
            packet = chance.choice(recorder.sent[0])
            value = bytearray(packet[12:])
            for _ in range(chance.randint(1, 6)):
                value[chance.randrange(len(value))] = chance.choice((0, 1, 4, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            tag = struct.unpack_from("!L", packet, 4)[0]
            victim.receive_untrusted(build_packet(5000, 5000, tag, [bytes(value)]), 200.0)
        victim.handle_timeout(201.0)
        assert sum(isinstance(output, Packet) for output in victim.poll()) < 200


def test_a_wrong_checksum_port_or_tag_is_dropped_in_silence(make_raw_peer: Make):
    peer = make_raw_peer()
    data = peer.data(0)
    for packet, reason in [
        (build_packet(5000, 5000, peer.tag, [data])[:-1] + b"!", "packet_checksum"),
        (build_packet(5001, 5000, peer.tag, [data]), "ports"),
        (build_packet(5000, 5001, peer.tag, [data]), "ports"),
        (build_packet(5000, 5000, peer.tag ^ 1, [data]), "verification_tag"),
        (build_packet(5000, 5000, 0, [data]), "verification_tag"),
        (build_packet(5000, 5000, 7, [build_chunk(ChunkType.ABORT, 0, b"")]), "verification_tag"),
        (build_packet(5000, 5000, 7, [build_chunk(ChunkType.ABORT, 1, b"")]), "verification_tag"),
    ]:
        before = peer.association.drops[reason]
        peer.association.receive_untrusted(packet, peer.now)
        assert peer.association.drops[reason] == before + 1
    assert peer.hear() == []
    assert peer.association.state is AssociationState.ESTABLISHED


def test_an_abort_with_the_reflected_tag_counts(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.say(build_chunk(ChunkType.ABORT, 1, b""), tag=peer.TAG)
    assert peer.events[-1] == AssociationClosed("aborted_by_peer")


# Unknown chunks: the two highest bits


@pytest.mark.parametrize(
    ("kind", "goes_on", "reports"), [(0x3F, False, False), (0x7F, False, True), (0xBF, True, False), (0xFF, True, True)]
)
def test_unknown_chunks_are_treated_by_their_highest_bits(make_raw_peer: Make, kind: int, goes_on: bool, reports: bool):
    peer = make_raw_peer()
    heard = peer.say(build_chunk(kind, 0, b"?"), build_chunk(ChunkType.HEARTBEAT, 0, b"\0\1\0\4"))
    assert (ChunkType.HEARTBEAT_ACK in [chunk.type for chunk in heard]) == goes_on
    assert causes(heard, ChunkType.ERROR) == ([CauseCode.UNRECOGNIZED_CHUNK_TYPE] if reports else [])


def test_unknown_parameters_of_an_init_are_treated_by_their_highest_bits(make_raw_peer: Make):
    association = make_raw_peer().association
    fresh = Association(is_client=False, max_message_size_remote=0, entropy=random.Random(1).randbytes)
    fixed = struct.pack("!LLHHL", 5, 100000, 10, 10, 7)
    unknown = {bits: struct.pack("!HH", bits << 14 | 0x2ABC, 4) for bits in range(4)}
    supported = struct.pack("!HHBB2x", 0x8008, 6, 130, 192)
    for parameters, reported in [
        (unknown[2] + unknown[3] + supported, [unknown[3]]),
        (unknown[0] + unknown[3], []),
        (unknown[1] + unknown[3], [unknown[1]]),
    ]:
        init = build_chunk(ChunkType.INIT, 0, fixed + parameters)
        fresh.receive_untrusted(build_packet(5000, 5000, 0, [init]), 1.0)
        (answer,) = fresh.poll()
        assert isinstance(answer, Packet)
        value = parse_packet_untrusted(answer.data).chunks[0].value
        assert [p for p in unknown.values() if b"\0\x08\0\x08" + p in value] == reported
    assert association.state is AssociationState.ESTABLISHED


# Data


def test_data_without_data_aborts(make_raw_peer: Make):
    peer = make_raw_peer()
    assert causes(peer.say(peer.data(0, b"")), ChunkType.ABORT) == [CauseCode.NO_USER_DATA]
    assert peer.events[-1] == AssociationClosed("no_user_data")


@pytest.mark.parametrize("seed", range(20))
def test_a_message_larger_than_we_said_is_dropped_and_told_and_the_channel_goes_on(make_raw_peer: Make, seed: int):
    peer = make_raw_peer(SctpConfig(max_message_size=5000))
    held = peer.association._receiver._reassembly
    peer.say(peer.data(0, OPEN, ppid=50))
    large = [peer.data(1 + n, bytes(1000), flags=(2 if not n else 0) | (1 if n == 8 else 0), ssn=1) for n in range(9)]
    if seed:
        random.Random(seed).shuffle(large)
    for chunk in large:
        assert not causes(peer.say(chunk), ChunkType.ABORT)
        assert held.bytes_held <= (5000 if not seed else 9000)
    peer.say(peer.data(10, b"next", ssn=2))
    assert peer.events[-2:] == [ChannelOverrun(0), ChannelMessage(0, "next")]
    assert peer.association.drops["message_too_large"] >= 1
    assert (held.bytes_held, held.pieces) == (0, 0)


def test_a_message_of_the_largest_size_passes_and_one_byte_more_does_not(make_raw_peer: Make):
    peer = make_raw_peer(SctpConfig(max_message_size=2000))
    peer.say(peer.data(0, OPEN, ppid=50))
    for n, size in enumerate((1000, 1001)):
        peer.say(peer.data(1 + 2 * n, bytes(1000), flags=2, ssn=1 + n, ppid=53))
        peer.say(peer.data(2 + 2 * n, bytes(size), flags=1, ssn=1 + n, ppid=53))
    assert peer.events[-2:] == [ChannelMessage(0, bytes(2000)), ChannelOverrun(0)]


def test_a_message_that_never_ends_aborts_and_was_not_kept(make_raw_peer: Make):
    peer = make_raw_peer(SctpConfig(max_message_size=5000, max_dropped_size=20_000))
    for tsn in range(20):
        assert not causes(peer.say(peer.data(tsn, bytes(1000), flags=2 if not tsn else 0)), ChunkType.ABORT)
        assert peer.association._receiver._reassembly.bytes_held <= 5000
    peer.say(peer.data(20, bytes(1), flags=0))
    assert peer.events[-1] == AssociationClosed("message_too_large")


def test_a_message_too_large_on_no_channel_or_in_the_channel_protocol_is_only_dropped(make_raw_peer: Make):
    peer = make_raw_peer(SctpConfig(max_message_size=500))
    before = len(peer.events)
    peer.say(peer.data(0, bytes(600), ssn=0), peer.data(1, bytes(400), ssn=1))
    peer.say(peer.data(2, bytes(600), ssn=0, stream=2, ppid=50))
    assert peer.events[before:] == []
    assert peer.association.drops["message_too_large"] == 2
    assert peer.association.state is AssociationState.ESTABLISHED


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"flags": 2}, {"flags": 2}),  # begins twice
        ({"flags": 3}, {"flags": 0, "tsn": 2}),  # in the middle of nothing: waits
        ({"flags": 2}, {"flags": 0, "stream": 4}),  # changes its stream
        ({"flags": 2}, {"flags": 4}),  # changes to unordered
        ({"flags": 2}, {"flags": 0, "ssn": 9}),
    ],
)
def test_fragments_that_do_not_fit_each_other_do_no_harm(make_raw_peer: Make, first: Any, second: Any):
    for order in (1, -1):
        peer = make_raw_peer()
        chunks = [peer.data(0, **first), peer.data(**{"tsn": 1, **second})]
        for chunk in chunks[::order]:
            peer.say(chunk)
        closed = [event for event in peer.events if isinstance(event, AssociationClosed)]
        assert closed in ([], [AssociationClosed("fragment_order")], [AssociationClosed("fragment_mismatch")])


def test_fragments_reassemble_in_any_order(make_raw_peer: Make):
    parts = [b"a" * 10, b"b" * 10, b"c" * 10, b"d" * 10, b"e" * 10]
    for seed in range(20):
        peer = make_raw_peer()
        peer.say(peer.data(0, OPEN, ppid=50))
        chunks = [
            peer.data(1 + n, part, flags=(2 if n == 0 else 0) | (1 if n == 4 else 0), ssn=1)
            for n, part in enumerate(parts)
        ]
        random.Random(seed).shuffle(chunks)
        for chunk in chunks:
            peer.say(chunk)
        assert peer.events[-1] == ChannelMessage(0, b"".join(parts).decode())


def test_what_waits_for_missing_data_is_bounded_in_bytes_and_pieces(make_raw_peer: Make):
    config = SctpConfig(receive_window=20_000, max_pieces=50)
    by_bytes = make_raw_peer(config)
    for tsn in range(1, 60):
        heard = by_bytes.say(by_bytes.data(tsn, bytes(1000), ssn=tsn))
    assert parse_sack_untrusted(heard[0].value).window == 0
    assert by_bytes.association.drops["receive_buffer"] == 39
    by_pieces = make_raw_peer(config)
    for tsn in range(1, 200):
        by_pieces.say(by_pieces.data(tsn, b"x", ssn=tsn))
    assert by_pieces.association.drops["receive_buffer"] == 149
    # The missing one still gets in, and everything comes out.
    by_pieces.say(by_pieces.data(0, OPEN, ppid=50))
    assert sum(isinstance(event, ChannelMessage) for event in by_pieces.events) == 50


def test_gaps_without_end_are_bounded(make_raw_peer: Make):
    peer = make_raw_peer()
    for tsn in range(2, 6000, 2):
        heard = peer.say(peer.data(tsn, flags=7))
    assert peer.association.drops["receive_buffer"] > 1000
    assert len(heard[0].value) < 1140


def test_a_tsn_from_nowhere_is_dropped(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.say(peer.data(70_000))
    peer.say(peer.data(2**31 - 5))
    assert peer.association.drops["receive_buffer"] == 2


def test_a_stream_beyond_the_limit_is_told_and_acknowledged(make_raw_peer: Make):
    peer = make_raw_peer()
    heard = peer.say(peer.data(0, stream=1024))
    assert causes(heard, ChunkType.ERROR) == [CauseCode.INVALID_STREAM_IDENTIFIER]
    assert parse_sack_untrusted(heard[-1].value).cumulative_tsn == peer.TSN


# Acknowledgements


@pytest.mark.parametrize(
    "sack",
    [
        Sack(0x7FFFFFFF, 0, (), ()),
        Sack(0, 1 << 20, ((2, 65535),) * 200, ()),
        Sack(0, 1 << 20, ((5, 2), (0, 0)), (1, 2, 3)),
    ],
)
def test_absurd_acknowledgements_do_no_harm(make_raw_peer: Make, sack: Sack):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    for base in (sack.cumulative_tsn, peer.init_ack.tsn - 1, peer.init_ack.tsn + 5):
        peer.say(build_sack(Sack(base & 0xFFFFFFFF, sack.window, sack.gaps, sack.duplicates)))
    peer.say(peer.ack(0))
    assert peer.association.send(channel, "still here", peer.now)
    assert ChunkType.DATA in [chunk.type for chunk in peer.hear()]


def test_a_withdrawn_gap_acknowledgement_is_sent_again(make_raw_peer: Make):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    for _ in range(3):
        peer.association.send(channel, "x", peer.now)
    peer.hear()
    peer.say(peer.ack(0, 1 << 20, (2, 3)))
    heard = peer.say(peer.ack(0))
    tsns = [struct.unpack_from("!L", chunk.value)[0] - peer.init_ack.tsn for chunk in heard]
    assert tsns == [2, 3]


def test_the_third_missing_report_sends_again_at_once_and_neither_of_the_two_before(make_raw_peer: Make):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    for _ in range(4):
        peer.association.send(channel, "x", peer.now)
    peer.hear()
    for last, again in ((2, []), (3, []), (4, [1])):  # TSN 0 was the OPEN; 1 is missing
        heard = peer.say(peer.ack(0, 1 << 20, (2, last)))
        tsns = [struct.unpack_from("!L", c.value)[0] - peer.init_ack.tsn for c in heard if c.type == ChunkType.DATA]
        assert tsns == again


def test_an_acknowledgement_alone_clears_the_errors_before_it(make_raw_peer: Make):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.say(peer.ack(0))
    for number in range(1, 10):
        peer.association.send(channel, "x", peer.now)
        heard = peer.hear() + peer.wait(1.5)
        assert [chunk.type for chunk in heard].count(ChunkType.DATA) >= 3  # so two timeouts
        peer.say(peer.ack(number))
    assert peer.association.state is AssociationState.ESTABLISHED


def test_a_closed_window_is_probed_and_never_given_up(make_raw_peer: Make):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    peer.say(peer.ack(0, 0))
    for _ in range(5):
        peer.association.send(channel, b"x" * 1000, peer.now)
    probes = 0
    for _ in range(200):
        heard = peer.hear() + peer.wait(5)
        assert len(heard) <= 14
        probes += len(heard)
        peer.say(peer.ack(0, 0))
    assert probes > 50
    assert peer.association.state is AssociationState.ESTABLISHED
    for tsn in range(1, 6):  # TSN 0 was the OPEN
        peer.say(peer.ack(tsn))
    assert peer.association.buffered_amount(channel) == 0
    assert peer.association.drops["sack_ahead"] == 0


def test_a_small_window_is_not_filled_with_small_pieces(make_raw_peer: Make):
    """The silly window: a window that opens by a few bytes is waited out, and no fragment is cut to fit it."""
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    peer.say(peer.ack(0))
    peer.association.send(channel, b"x" * 20_000, peer.now)
    first = [chunk for chunk in peer.hear() if chunk.type == ChunkType.DATA]
    heard = peer.say(peer.ack(len(first) - 1, 10))  # one is still on its way, and the window takes ten bytes
    assert ChunkType.DATA not in [chunk.type for chunk in heard]
    heard = peer.say(peer.ack(len(first), 100))
    sizes = [len(chunk.value) for chunk in heard if chunk.type == ChunkType.DATA]
    assert sizes == [len(first[0].value)]  # a probe, as long as any


def test_nothing_of_i_data_is_offered_or_taken(make_raw_peer: Make):
    peer = make_raw_peer()
    assert peer.init_ack.extensions == {ChunkType.RE_CONFIG, ChunkType.FORWARD_TSN}
    heard = peer.say(build_chunk(64, 3, struct.pack("!LHHLL", peer.TSN, 0, 0, 0, 51) + b"hello"))
    assert causes(heard, ChunkType.ERROR) == [CauseCode.UNRECOGNIZED_CHUNK_TYPE]
    assert not [event for event in peer.events if isinstance(event, ChannelMessage)]


def test_a_peer_that_never_fills_its_first_gap_is_not_kept_data_for_without_bound(make_raw_peer: Make):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    peer.say(peer.ack(0))
    sender = peer.association._sender
    for _ in range(20):
        for _ in range(400):
            assert peer.association.send(channel, b"x" * 8, peer.now)
        peer.hear()
        peer.say(peer.ack(0, 1 << 20, (2, sender.last_tsn - peer.init_ack.tsn)))
    assert len(sender._outstanding) == MAX_OUTSTANDING
    peer.say(peer.ack(sender.last_tsn - peer.init_ack.tsn))
    assert len(sender._outstanding) < 1000


def test_shutdown_acknowledges_and_answers(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    assert peer.say(build_shutdown(peer.init_ack.tsn - 1)) == []
    (answer,) = peer.say(build_shutdown(peer.init_ack.tsn))
    assert answer.type == ChunkType.SHUTDOWN_ACK
    peer.say(build_chunk(ChunkType.SHUTDOWN_COMPLETE, 0, b""))
    assert peer.events[-1] == AssociationClosed("shutdown_by_peer")


def test_a_shutdown_without_answer_ends_by_its_guard(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.association.close(peer.now)
    peer.wait(100)
    assert peer.events[-1] == AssociationClosed("shutdown_timeout")


# Skipped and reset


def forward(peer: Any, tsn: int, *streams: tuple[int, int]) -> bytes:
    skip = ForwardTsn(peer.TSN + tsn, streams)
    value = struct.pack("!L", skip.cumulative_tsn) + b"".join(struct.pack("!HH", *pair) for pair in skip.streams)
    return build_chunk(ChunkType.FORWARD_TSN, 0, value)


def test_forward_tsn_skips_what_the_peer_gave_up(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.say(peer.data(0, OPEN, ppid=50))
    peer.say(peer.data(2, b"half", flags=2, ssn=2))
    peer.say(peer.data(4, b"fourth", ssn=3))
    heard = peer.say(forward(peer, 3, (0, 2)))
    assert parse_sack_untrusted(heard[-1].value).cumulative_tsn == peer.TSN + 4
    assert peer.events[-1] == ChannelMessage(0, "fourth")
    peer.say(peer.data(5, b"fifth", ssn=4))
    assert peer.events[-1] == ChannelMessage(0, "fifth")


def test_what_is_complete_below_a_forward_tsn_is_delivered_and_later_ones_follow(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.say(peer.data(0, OPEN, ppid=50))
    for tsn, ssn in ((2, 2), (4, 4), (5, 5)):  # 1 and 3 are missing
        peer.say(peer.data(tsn, b"%d" % ssn, ssn=ssn))
    peer.say(forward(peer, 3, (0, 3)), forward(peer, 3, (0, 3)))
    assert [event.data for event in peer.events if isinstance(event, ChannelMessage)] == ["2", "4", "5"]
    assert peer.association.drops["forward_tsn_repeated"] == 1
    peer.say(forward(peer, 2, (0, 1)))
    assert peer.association.drops["forward_tsn_old"] == 1


def test_a_reset_that_comes_before_its_data_waits_for_it(make_raw_peer: Make):
    peer = make_raw_peer()
    peer.say(peer.data(0, OPEN, ppid=50))
    reset = build_reconfig(OutgoingReset(peer.TSN, 0, peer.TSN + 1, (0,)))

    def results(chunks: list[RawChunk]) -> list[bytes]:
        return [chunk.value[4:12] for chunk in chunks if chunk.type == ChunkType.RE_CONFIG and chunk.value[1] == 16]

    assert results(peer.say(reset)) == [struct.pack("!LL", peer.TSN, 6)]
    assert results(peer.say(reset)) == [struct.pack("!LL", peer.TSN, 6)]  # repeated: the same answer
    heard = peer.say(peer.data(1, b"last words", ssn=1))
    assert results(heard) == [struct.pack("!LL", peer.TSN, 1)]
    assert ChannelMessage(0, "last words") in peer.events
    assert ChannelClosed(0) not in peer.events  # our own direction is not reset yet
    assert results(peer.say(reset)) == [struct.pack("!LL", peer.TSN, 1)]
    # Our own reset went out with the same packet or after the OPEN's ACK; answering it ends the channel.
    requests = [chunk for chunk in heard if chunk.type == ChunkType.RE_CONFIG and chunk.value[1] == 13]
    sequence = struct.unpack_from("!L", requests[0].value, 4)[0]
    peer.say(build_reconfig(ResetResponse(sequence, 1)))
    assert peer.events[-1] == ChannelClosed(0)


def test_requests_that_no_channel_needs_are_denied(make_raw_peer: Make):
    peer = make_raw_peer()
    for number, kind in enumerate((14, 15, 17, 18)):
        value = struct.pack("!HHL", kind, 12, peer.TSN + number) + bytes(4)
        (answer,) = peer.say(build_chunk(ChunkType.RE_CONFIG, 0, value))
        assert answer.value[4:] == struct.pack("!LL", peer.TSN + number, 2)


def test_a_wrong_reset_sequence_number_is_told(make_raw_peer: Make):
    peer = make_raw_peer()
    (answer,) = peer.say(build_reconfig(OutgoingReset(peer.TSN + 9, 0, peer.TSN, (0,))))
    assert answer.value[4:] == struct.pack("!LL", peer.TSN + 9, 5)


@pytest.mark.parametrize("result", [2, 3, 5])
def test_a_channel_whose_reset_the_peer_denies_ends_and_its_stream_is_not_used_again(make_raw_peer: Make, result: int):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    peer.say(peer.ack(0))
    peer.association.close_channel(channel, peer.now)
    (request,) = [chunk for chunk in peer.hear() if chunk.type == ChunkType.RE_CONFIG]
    peer.say(build_reconfig(ResetResponse(struct.unpack_from("!L", request.value, 4)[0], result)))
    assert peer.events[-1] == ChannelClosed(channel)
    assert peer.association.drops["reset_denied"] == 1
    assert peer.association.open_channel("next", now=peer.now) == channel + 2
    with pytest.raises(LocalError):
        peer.association.open_channel("the same", negotiated_id=channel)


def test_a_reset_that_the_peer_calls_in_progress_is_asked_again_under_a_new_number(make_raw_peer: Make):
    peer = make_raw_peer()
    channel = peer.association.open_channel("ours", now=peer.now)
    peer.hear()
    peer.say(peer.ack(0))
    peer.association.close_channel(channel, peer.now)
    heard = peer.hear()
    asked = []
    for _ in range(30):
        request = [chunk for chunk in heard if chunk.type == ChunkType.RE_CONFIG][-1]
        asked.append(struct.unpack_from("!L", request.value, 4)[0])
        assert peer.say(build_reconfig(ResetResponse(asked[-1], 6))) == []
        heard = peer.wait(10.5)
    assert len(set(asked)) == 30
    assert peer.association.state is AssociationState.ESTABLISHED  # the peer answers, so nothing counts against it
    assert ChannelClosed(channel) not in peer.events


def test_channels_just_end_where_the_peer_cannot_reset(make_raw_peer: Make):
    peer = make_raw_peer(extensions=frozenset())
    peer.say(peer.data(0, OPEN, ppid=50))
    assert peer.events[-1] == ChannelOpened(0, "theirs", "", True)
    peer.association.close_channel(0, peer.now)
    assert ChunkType.RE_CONFIG not in [chunk.type for chunk in peer.hear()]
    assert peer.events[-1] == ChannelClosed(0)
