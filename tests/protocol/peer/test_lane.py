"""The media lane against the ordinary way: the same datagrams and commands to two peers under the same keys, one of which
takes the lane wherever it may. All that they did must be equal."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import Path, pack_address
from protocol.dtls import DtlsEndpoint, Identity, Role, SrtpKeys
from protocol.errors import LocalError
from protocol.ice import IceCredentials, IceLite, SendTo
from protocol.peer import DONE, LEFT, SETTLE, AudioParameters, AudioReceived, MediaLane, Peer
from protocol.peer.audio import MAX_PAYLOAD, AudioStream
from protocol.rtp import RtpPacket, Trip
from protocol.rtp.extensions import extension_layout, read_extensions_untrusted, write_extensions
from protocol.rtp.rtcp import Feedback, Goodbye, ReportBlock, RtcpType, SenderReport, serialize_rtcp, write_nack
from protocol.srtp import SrtpProfile, SrtpTransport, library_named

PATH = Path(b"", pack_address("192.0.2.1", 5000))
OTHER = Path(b"", pack_address("192.0.2.1", 6000))
STRANGER = Path(b"", pack_address("192.0.2.9", 9))
PATHS = (PATH, OTHER, STRANGER)
KEY, THEIRS = bytes(range(28)), bytes(range(100, 128))
US = Identity.generate(datetime(2026, 1, 1, tzinfo=UTC))
OURS = AudioParameters(111, 48000, 0xA0, "us", resend=True, transport_cc_id=3, reduced_size=True)
KEYS = SrtpKeys(SrtpProfile.SRTP_AEAD_AES_128_GCM, KEY, THEIRS)


def server() -> Peer:
    """A peer in the middle of a call: path selected and proven, keys there, media flowing."""
    entropy = random.Random(3).randbytes
    ice = IceLite(IceCredentials("ours", "o" * 22), IceCredentials("them", "t" * 22), entropy=entropy)
    peer = Peer(
        ice=ice,
        dtls=DtlsEndpoint(Role.SERVER, US, peer_fingerprints=(US.fingerprint(),), srtp_profiles=(), entropy=entropy),
        audio=OURS,
        data=None,
        entropy=entropy,
    )
    for path in (OTHER, PATH):
        ice._paths[path] = (0.0, ice._generation)
    ice.selected, ice.proven = PATH, True
    peer._audio = AudioStream(OURS, KEYS, random.Random(4).randbytes)
    peer.start_media()
    return peer


@dataclass
class Heard:
    frames: list[tuple[Any, ...]]
    datagrams: list[tuple[bytes, Path]]
    events: list[object]


class Ordinary:
    def __init__(self) -> None:
        self.peer = server()
        self.heard = Heard([], [], [])

    def receive(self, data: bytes, path: Path, now: float) -> None:
        self.peer.receive_untrusted(data, path, now)
        self.drain()

    def send(self, payload: bytes, timestamp: int, marker: bool, now: float) -> None:
        self.peer.send_audio(payload, timestamp, now, marker)
        self.drain()

    def drain(self) -> None:
        for output in self.peer.poll():
            if isinstance(output, SendTo):
                self.heard.datagrams.append((output.data, output.path))
            elif isinstance(output, AudioReceived):
                p = output.packet
                self.heard.frames.append((p.marker, p.payload_type, p.ssrc, p.sequence, p.timestamp, p.payload))
            else:
                self.heard.events.append(output)


class ByLane(Ordinary):
    def __init__(self, takes: Callable[[], bool]) -> None:
        super().__init__()
        self.arena = library_named().arena(bytearray(4096))
        self.lane: MediaLane | None = None
        self.takes = takes
        self.taken = self.sent = 0

    def deliver(self, second: int, ssrc: int, sequence: int, timestamp: int, payload: bytes, _now: float) -> bool:
        if not self.takes():
            return False
        self.taken += 1
        self.heard.frames.append((second >= 128, second & 127, ssrc, sequence, timestamp, payload))
        return True

    def open(self) -> MediaLane | None:
        if self.lane is None or not self.lane.is_open:
            self.lane = self.peer.lane(self.deliver)
        return self.lane

    def receive(self, data: bytes, path: Path, now: float) -> None:
        lane = self.open()
        became = LEFT
        if lane is not None and path == lane.path:
            self.arena.view[64 : 64 + len(data)] = data
            became = lane.receive_untrusted(self.arena, 64, len(data), now)
        if became == LEFT:
            super().receive(data, path, now)
        elif became == SETTLE:
            self.drain()
        else:
            assert became == DONE
            assert self.peer.poll() == []

    def send(self, payload: bytes, timestamp: int, marker: bool, now: float) -> None:
        lane = self.open()
        length = lane.send(self.arena, 32, payload, timestamp, marker, now) if lane is not None else 0
        if not length:
            super().send(payload, timestamp, marker, now)
            return
        self.sent += 1
        assert lane is not None
        self.heard.datagrams.append((bytes(self.arena.view[32 : 32 + abs(length)]), lane.path))
        if length < 0:
            self.drain()
        assert self.peer.poll() == []


class Client:
    """Whoever holds the other keys, and need not behave."""

    def __init__(self) -> None:
        self.srtp = SrtpTransport(SrtpProfile.SRTP_AEAD_AES_128_GCM, THEIRS, KEY)
        self.used: set[tuple[int, int]] = set()
        self.sequences = dict.fromkeys((1, 2, 0xA0), 100)
        self.timestamp = 0
        self.last = b""

    def rtp(self, ssrc: int, step: int, **fields: Any) -> bytes:  # noqa: ANN401 - those of an RtpPacket
        sequence = self.sequences[ssrc] + step & 0xFFFF
        if (ssrc, sequence) in self.used:
            return self.last
        self.used.add((ssrc, sequence))
        self.sequences[ssrc] = sequence
        self.timestamp += 960
        packet = RtpPacket(sequence=sequence, timestamp=self.timestamp & 0xFFFFFFFF, ssrc=ssrc, **fields)
        self.last = self.srtp.protect_rtp(packet.serialize())
        return self.last


EXTENSIONS = st.sampled_from(
    [
        (),
        ((1, b"\x05"),),
        ((1, b"\x85"), (3, b"ab"), (4, b"abc")),
        ((1, b"\x05"), (2, bytes(17))),
        ((15, b"x"),),
        ((3, b"abc"), (3, b"ab")),
        ((3, b""), (3, b"ab")),
    ]
)
PACKET = st.fixed_dictionaries(
    {
        "ssrc": st.sampled_from([1, 1, 1, 1, 1, 2, 0xA0]),
        "step": st.sampled_from([1, 1, 1, 1, 1, 2, -1, 3001, 30000]),
        "marker": st.booleans(),
        "payload_type": st.sampled_from([111, 111, 111, 126, 13]),
        "extensions": EXTENSIONS,
        "csrc": st.sampled_from([(), (), (), (7,)]),
        "padding": st.sampled_from([0, 0, 0, 4]),
        "payload": st.sampled_from([b"frame" * 8, b"frame" * 9, b"", bytes(1000)]),
    }
)
STEP = st.one_of(
    st.tuples(st.just("rtp"), PACKET, st.sampled_from([0, 0, 0, 0, 0, 1, 2])),
    st.tuples(st.just("rtp"), PACKET, st.just(0)),
    st.tuples(st.just("damaged"), PACKET, st.integers(0, 60)),
    st.tuples(st.just("wrong extension"), st.sampled_from([1, 2])),
    st.tuples(
        st.just("raw"),
        st.sampled_from([0x80, 0x90, 0x90, 0x9F, 0xA0, 0xB0, 0xBF, 0x8F, 0x40]),
        st.sampled_from([b"", b"\xbe\xde", b"\x10\0", b"\xbe\xde\0\1", b"\x10\0\0\2", b"\xbe\xde\xff\xff"]),
        st.binary(max_size=24),
    ),
    st.tuples(st.just("rtcp"), st.sampled_from(["bye", "report", "loss", "nack"])),
    st.tuples(st.just("send"), st.sampled_from([20, 200, MAX_PAYLOAD, MAX_PAYLOAD + 1]), st.booleans()),
    st.tuples(st.just("send"), st.just(100), st.just(False)),
    st.tuples(st.sampled_from(["pause", "resume", "unproven", "proven", "trip", "move", "spend", "timeout"])),
    st.tuples(st.just("wait"), st.sampled_from([0.02, 0.3, 6.0])),
)


def apply(step: tuple[Any, ...], client: Client, peers: tuple[Ordinary, ...], now: float) -> float:
    kind = step[0]
    data, path = None, PATH
    if kind == "rtp":
        data, path = client.rtp(**step[1]), PATHS[step[2]]
    elif kind == "damaged":
        damaged = bytearray(client.rtp(**step[1]))
        damaged[step[2] % len(damaged)] ^= 1
        data = bytes(damaged) if step[2] % 3 else bytes(damaged[: step[2]])
    elif kind == "wrong extension":  # an element longer than the block, authenticated all the same
        sequence = client.sequences[1] = client.sequences[1] + step[1] & 0xFFFF
        head = bytes((0x90, 111)) + sequence.to_bytes(2, "big") + bytes(4) + bytes((0, 0, 0, 1))
        if (1, sequence) not in client.used:
            client.used.add((1, sequence))
            data = client.srtp.protect_rtp(head + b"\xbe\xde\0\1" + b"\x1f\0\0\0" + b"frame")
    elif kind == "raw":  # authenticated, whatever it is
        sequence = client.sequences[1] + 1 & 0xFFFF
        head = bytes((step[1], 111)) + sequence.to_bytes(2, "big") + bytes(4) + bytes((0, 0, 0, 1))
        if (1, sequence) not in client.used:
            with suppress(LocalError):  # the caller's own library may refuse it
                data = client.srtp.protect_rtp(head + step[2] + step[3])
                client.sequences[1] = sequence
                client.used.add((1, sequence))
    elif kind == "rtcp":
        block = ReportBlock(0xA0, 128 if step[1] == "loss" else 0, 0, int(now), 0, 0, 0)
        first = Goodbye((1,)) if step[1] == "bye" else SenderReport(1, 5 << 32, 0, 1, 1, (block,))
        sequence = peers[0].peer._audio._sequence  # type: ignore[union-attr]
        lost = write_nack([sequence - n & 0xFFFF for n in (70, 3, 2, 0)])
        nack = [Feedback(RtcpType.RTPFB, 1, 1, 0xA0, lost)] if step[1] == "nack" else []
        data = client.srtp.protect_rtcp(serialize_rtcp([first, *nack]))
    elif kind == "wait":
        now += step[1]
    for each in peers:
        peer = each.peer
        if data is not None:
            each.receive(data, path, now)
        elif kind == "send":
            each.send(b"\xfc" * step[1], int(now * 48000), step[2], now)
        elif kind == "pause":
            peer.pause_media()
        elif kind == "resume":
            peer.resume_media()
        elif kind in ("proven", "unproven"):
            peer.ice.proven = kind == "proven"
        elif kind == "trip":
            assert peer._audio is not None
            peer._audio.reporter.breaker._trip(Trip.CONGESTION)
        elif kind == "move":
            peer.ice.selected = Path(*(OTHER if peer.ice.selected == PATH else PATH))
        elif kind == "spend":
            assert peer._audio is not None
            peer._audio._srtp.rtp_left = min(peer._audio._srtp.rtp_left, 3)
        elif kind == "timeout" and peer.next_timeout() <= now:
            peer.handle_timeout(now)
            each.drain()
    return now


def state(peer: Peer, now: float) -> list[object]:
    """All that the two could differ in."""
    audio = peer._audio
    assert audio is not None
    reporter = audio.reporter
    slots = [*reporter.sources.values(), reporter.sender, reporter.breaker, audio._srtp]
    return [
        peer.statistics(now),
        peer.next_timeout(),
        peer.ice.heard,
        audio._sequence,
        reporter.drops,
        *(
            getattr(thing, name)
            for thing in slots
            for name in type(thing).__slots__
            if name not in ("inbound", "outbound", "_library", "_last_report")
        ),
    ]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(steps=st.lists(STEP, max_size=40), seed=st.integers(0, 9))
@pytest.mark.slow
def test_whatever_comes_both_ways_do_the_same(steps: list[tuple[Any, ...]], seed: int):
    source = random.Random(seed)
    ordinary, by_lane = Ordinary(), ByLane(lambda: source.random() < 0.7)
    client, now = Client(), 1000.0
    for step in steps:
        now = apply(step, client, (ordinary, by_lane), now)
        assert by_lane.heard == ordinary.heard
    assert state(by_lane.peer, now) == state(ordinary.peer, now)


def test_almost_every_packet_takes_the_lane_header_extensions_or_not():
    client, call = Client(), ByLane(lambda: True)
    for number in range(100):
        now = 1000 + 0.02 * number
        extensions = ((1, bytes((number,))), (3, number.to_bytes(2, "big"))) if number > 50 else ()
        call.receive(
            client.rtp(1, 1, marker=False, payload_type=111, payload=b"frame", extensions=extensions), PATH, now
        )
        call.send(b"frame", 960 * number, False, now)
    assert (call.taken, len(call.heard.frames)) == (99, 100)
    audio = [data for data, _ in call.heard.datagrams if not 192 <= data[1] < 224]
    assert call.sent == len(audio) - 1 == 99
    assert len(call.heard.datagrams) - len(audio) == 5, "one second of transport-wide feedback"


def test_a_lane_ends_with_its_path_and_with_the_call():
    call = ByLane(lambda: True)
    lane = call.open()
    assert lane is not None
    call.peer.ice.selected = OTHER
    assert not lane.is_open
    assert call.peer.lane(call.deliver) is not None
    call.peer.close(1000.0)
    assert call.peer.lane(call.deliver) is None
    assert lane.send(call.arena, 0, b"frame", 0, False, 1000.0) == 0
    assert lane.receive_untrusted(call.arena, 0, 40, 1000.0) == LEFT


def test_nothing_is_written_where_there_is_no_room():
    call = ByLane(lambda: True)
    call.send(b"first", 0, False, 1000.0)
    lane = call.open()
    assert lane is not None
    size = call.arena.size
    assert lane.send(call.arena, size - 127, bytes(100), 960, False, 1000.0) == 0
    assert lane.receive_untrusted(call.arena, size - 39, 40, 1000.0) == LEFT
    assert lane.send(call.arena, size - 128, bytes(100), 960, False, 1000.0) == 128


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    elements=st.lists(st.tuples(st.integers(1, 16), st.binary(min_size=1, max_size=18)), max_size=4),
    noise=st.binary(min_size=96, max_size=96),
)
def test_an_extension_that_is_equal_where_its_layout_says_is_as_right(elements: list[tuple[int, bytes]], noise: bytes):
    extension = write_extensions(tuple(elements))
    mask = extension_layout(extension)
    length = len(extension)
    other = int.from_bytes(extension, "big") & mask | int.from_bytes(noise[:length], "big") & ~mask
    changed = other.to_bytes(length, "big")
    read = read_extensions_untrusted(int.from_bytes(changed[:2], "big"), changed[4:])
    before = read_extensions_untrusted(int.from_bytes(extension[:2], "big"), extension[4:])
    assert [(key, len(value)) for key, value in read] == [(key, len(value)) for key, value in before]


@pytest.mark.parametrize("forbid", ["unproven", "pause", "trip", "move"])
def test_the_lane_leaves_it_to_the_peer_whenever_something_forbids_to_send(forbid: str):
    call = ByLane(lambda: True)
    call.send(b"first", 0, False, 1000.0)
    lane = call.open()
    assert lane is not None
    apply((forbid,), Client(), (call,), 1000.0)
    assert lane.send(call.arena, 0, b"frame", 960, False, 1000.02) == 0


@pytest.mark.parametrize("second", [200, 205, 223])
def test_rtcp_is_left_alone_whatever_stands_where_rtp_has_its_source(second: int):
    client, call = Client(), ByLane(lambda: True)
    call.receive(client.rtp(1, 1, marker=False, payload_type=111, payload=b"frame"), PATH, 1000.0)
    lane = call.open()
    assert lane is not None
    call.arena.view[:40] = bytes((0x80, second)) + bytes(6) + bytes((0, 0, 0, 1)) + bytes(28)
    assert lane.receive_untrusted(call.arena, 0, 40, 1000.1) == LEFT
    assert call.peer.statistics(1000.1).drops == {}
