"""What a datagram may cost: twice the input takes twice the time, not four times, whatever it is filled with.

By ratio, not by time: each input is given at two lengths, of which the longer is about the longest that its reader takes. What
is done with within half a millisecond is not looked at further.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hostile_rig import callers

from protocol.address import Path as NetworkPath
from protocol.address import pack_address
from protocol.dtls import DtlsEndpoint, Role
from protocol.dtls.record12 import pack_record
from protocol.errors import DecodeError
from protocol.ice import IceCredentials, IceLite
from protocol.rtp import JitterBuffer, JitterConfig, RtcpReporter, RtpPacket
from protocol.sctp import Association, Packet
from protocol.sctp.packet import build_chunk, build_packet
from protocol.sdp import Capabilities, OfferRefused, answer, parse_untrusted, read_offer
from protocol.stun import Class, Message, Method
from relay.flows import FlowTable, Proposal
from relay.index import flow_words

pytestmark = pytest.mark.slow

RATIO = 3.0  # linear: 2, quadratic: 4
NOTHING = 0.0005  # seconds
ROUNDS = 2

Work = Callable[[], object]


def _architecture_test(name: str) -> ModuleType:
    file = Path(__file__).parents[1] / "architecture" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"cost_{name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


untrusted = _architecture_test("test_untrusted")


def measure(make: Callable[[int], Work], size: int) -> tuple[float, object]:
    """The least CPU time of a few rounds, each with something fresh; and what came out."""
    best, outcome = float("inf"), None
    gc.disable()  # a collection goes through everything there is, and comes more often to the longer input
    try:
        for _ in range(ROUNDS):
            work = make(size)
            began = time.thread_time()
            outcome = work()
            best = min(best, time.thread_time() - began)
    finally:
        gc.enable()
    return best, outcome


def assert_linear(make: Callable[[int], Work], size: int) -> None:
    """`make(n)` prepares work on an input of n units, whose outcome tells how far it got."""
    whole, outcome = measure(make, size)
    if whole < NOTHING:
        return
    for part in (1 / 2, 3 / 4):
        less, other = measure(make, int(size * part))
        if other != outcome:  # a shorter one is refused at once: it cannot be compared
            continue
        limit = RATIO if part == 1 / 2 else RATIO**0.415  # the same power of the length
        for _ in range(10):  # a busy machine? Then both are measured again: what is not linear is so each time
            if whole < max(NOTHING, limit * less):
                return
            whole, less = measure(make, size)[0], measure(make, int(size * part))[0]
        raise AssertionError(f"{size} units: {whole * 1000:.2f} ms, {part:.2f} of them: {less * 1000:.2f} ms")


def outcome_of(parse: Callable[..., object], data: bytes) -> str:
    arguments = [untrusted.BUILDERS[kind](data) for kind in untrusted.required(parse)]
    try:
        parse(*arguments)
    except DecodeError as refused:
        return refused.reason
    return ""


# Every function that reads bytes from the network, found by name

LONGEST = 24_000  # bytes: any datagram, with room; and between its half and it no filling is a length of 16 bits
FILLINGS = [
    b"\0",
    b"\1",
    b"\xff",
    b"\x80",
    b"\0\1",
    b"\0\4",
    b"\1\0",
    b"\x10\x80",
    b"\0\0\0\1",
    b"\0\6\0\0",
    b"\0\3\0\x10" + bytes(12),
    b"\x80\xc9\0\1\0\0\0\1",
    b"\x16\xfe\xfd" + bytes(10),
    b"\1\0\0\1\0\0\0\0\0\0\0\1x",
]
TEXTS = [b"a", b"a=a:b c\r\n", b"m=audio 9 x 0\r\n", b" ", b":;= ,", "\u20ac".encode()]


@pytest.mark.parametrize("name", sorted(untrusted.PARSERS))
def test_no_reader_takes_more_than_twice_the_time_for_twice_the_bytes(name: str) -> None:
    parse = untrusted.PARSERS[name]
    takes_text = any("str" in kind for kind in untrusted.required(parse))
    for filling in TEXTS if takes_text else FILLINGS:

        def make(size: int, filling: bytes = filling) -> Work:
            data = filling * (size // len(filling))
            return lambda: outcome_of(parse, data)

        assert_linear(make, LONGEST)


# Offers: 64 KiB, 2048 lines, 4096 characters a line

LINES = {
    "rtpmap": lambda n: f"a=rtpmap:{n % 128} opus/48000/2",
    "fmtp": lambda n: f"a=fmtp:{n % 128} a={n}",
    "extmap": lambda n: f"a=extmap:{n % 255 + 1} urn:x:{n}",
    "candidate": lambda n: f"a=candidate:{n} 1 udp {n} 10.0.0.{n % 255} 9 typ host",
    "fingerprint": lambda n: "a=fingerprint:sha-256 " + ":".join(["0A"] * 32),
    "group": lambda n: f"a=group:BUNDLE 0 1 {n}",
    "ssrc": lambda n: f"a=ssrc:{n} cname:x",
    "no attribute at all": lambda n: "a=",
    "long": lambda n: "a=fmtp:111 " + ";".join(f"{n}={k}" for k in range(200)),
    "longer": lambda n: "a=group:BUNDLE " + " ".join(map(str, range(800))),
}
ICE = IceCredentials("abcd", "x" * 24)


@pytest.mark.parametrize("where", ["session", "audio"])
@pytest.mark.parametrize("kind", LINES)
def test_an_offer_of_twice_the_lines_takes_twice_the_time(kind: str, where: str) -> None:
    caller = callers.Caller(None)
    offer = caller.offer()
    ours = Capabilities(ice=ICE, fingerprint=callers.IDENTITY.fingerprint(), session_id=1, ssrc=1, cname="c")
    line = LINES[kind]
    most = min(1900, (64 * 1024 - len(offer) - 100) // (len(line(1000)) + 2))

    def make(count: int) -> Work:
        lines = "".join(line(n) + "\r\n" for n in range(count))
        mark = "m=audio" if where == "session" else "m=application"
        text = offer.replace(mark, lines + mark, 1)

        def work() -> str:
            try:
                answer(read_offer(parse_untrusted(text)), ours)
            except OfferRefused as refused:
                return refused.code
            return ""

        return work

    assert_linear(make, most)


# Cores with a memory


def a_server() -> DtlsEndpoint:
    endpoint = DtlsEndpoint(
        Role.SERVER,
        callers.IDENTITY,
        peer_fingerprints=(callers.OTHER_IDENTITY.fingerprint(),),
        srtp_profiles=(7,),
        entropy=os.urandom,
    )
    endpoint.start(0.0)
    return endpoint


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled", "every one twice", "each of another length"])
def test_a_message_in_twice_the_fragments_takes_twice_the_time(order: str) -> None:
    """ClientHellos of up to 16 KiB in pieces of a byte, sixty records to a datagram."""

    def make(length: int) -> Work:
        places = list(range(length))
        if order == "backward":
            places.reverse()
        elif order == "shuffled":
            random.Random(length).shuffle(places)
        elif order == "every one twice":
            places += places
        records = []
        for number, place in enumerate(places):
            total = length + (number % 2 if order == "each of another length" else 0)
            head = b"\1" + total.to_bytes(3, "big") + bytes(2) + place.to_bytes(3, "big") + b"\0\0\1"
            records.append(pack_record(22, number, head + b"\0"))
        datagrams = [b"".join(records[at : at + 60]) for at in range(0, len(records), 60)]
        server = a_server()

        def work() -> None:
            for datagram in datagrams:
                server.receive_untrusted(datagram, 0.0)

        return work

    assert_linear(make, 2000 if order == "each of another length" else 4000)


def an_association() -> tuple[Association, int, int]:
    """One that is up, the tag that packets to it bear, and the TSN that it expects; what it sends goes nowhere."""
    sides = [Association(is_client=not n, max_message_size_remote=65536, entropy=os.urandom) for n in range(2)]
    sides[0].connect(0.0)
    for _ in range(6):
        for n, side in enumerate(sides):
            for output in side.poll():
                if isinstance(output, Packet):
                    sides[1 - n].receive_untrusted(output.data, 0.0)
    return sides[1], sides[0]._handshake.peer_tag, sides[0]._sender._next_tsn


def u32(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "big")


def data(tsn: int, flags: int, payload: bytes, stream: int = 0, ssn: int = 1) -> bytes:
    return build_chunk(0, flags, u32(tsn) + stream.to_bytes(2, "big") + ssn.to_bytes(2, "big") + u32(51) + payload)


def sctp_work(make_chunks: Callable[[int, int], list[bytes]], together: int) -> Callable[[int], Work]:
    def make(count: int) -> Work:
        association, tag, tsn = an_association()
        chunks = make_chunks(count, tsn)
        packets = [build_packet(5000, 5000, tag, chunks[at : at + together]) for at in range(0, len(chunks), together)]

        def work() -> None:
            for packet in packets:
                association.receive_untrusted(packet, 0.0)
                association.poll()
            assert association.state.name == "ESTABLISHED"

        return work

    return make


SCTP = {
    "fragments last first": (
        lambda n, tsn: [data(tsn + k, 2 if k == 0 else 1 if k == n - 1 else 0, b"x" * 24) for k in reversed(range(n))],
        25,
        10_000,
    ),
    "fragments of nobody": (lambda n, tsn: [data(tsn + 1 + 3 * k, 0, b"x") for k in range(n)], 50, 1000),
    "one TSN over and over": (lambda n, tsn: [data(tsn + 5, 3, b"x")] * n, 50, 4000),
    "acknowledgements full of gaps": (
        lambda n, tsn: (
            [
                build_chunk(
                    3, 0, u32(0) + u32(9999) + b"\0\xfa\0\0" + b"".join(u32(k << 17 | k * 2 + 1) for k in range(250))
                )
            ]
            * n
        ),
        1,
        200,
    ),
    "heartbeats": (lambda n, tsn: [build_chunk(4, 0, b"\0\1\0\x08beat")] * n, 50, 4000),
    "unknown chunks that are to be reported": (lambda n, tsn: [build_chunk(0xC1, 0, b"")] * n, 200, 4000),
    "resets of every stream": (
        lambda n, tsn: [
            build_chunk(
                130,
                0,
                b"\0\x0d\1\x10" + u32(tsn + k) + u32(1) + u32(tsn - 1) + b"".join(u32(s << 16) for s in range(64)),
            )
            for k in range(n)
        ],
        1,
        200,
    ),
    "stretches given up": (
        lambda n, tsn: [
            build_chunk(192, 0, u32(tsn + k) + b"".join(u32(s << 16 | k) for s in range(250))) for k in range(n)
        ],
        1,
        200,
    ),
}


@pytest.mark.parametrize("kind", SCTP)
def test_twice_the_chunks_take_an_association_twice_the_time(kind: str) -> None:
    make_chunks, together, most = SCTP[kind]
    assert_linear(sctp_work(make_chunks, together), most)


def test_twice_the_reports_take_a_reporter_twice_the_time() -> None:
    def make(count: int) -> Work:
        block = u32(1) + bytes(20)
        one = b"\x81\xc9\0\7" + u32(2) + block + b"\x81\xca\0\3" + u32(2) + b"\1\2ab\0\0\0\0" + b"\x81\xcb\0\1" + u32(2)
        reporter = RtcpReporter(ssrc=1, cname="c", clock_rate=48000, entropy=os.urandom)
        compound = one * count
        return lambda: reporter.receive_untrusted(compound, 0.0)

    assert_linear(make, 500)


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
def test_twice_the_packets_take_the_reorder_buffer_twice_the_time(order: str) -> None:
    def make(count: int) -> Work:
        numbers = [2 * n for n in range(count)]
        if order == "backward":
            numbers.reverse()
        elif order == "shuffled":
            random.Random(count).shuffle(numbers)
        packets = [
            RtpPacket(payload_type=111, sequence=n & 0xFFFF, timestamp=n * 960, ssrc=1, payload=b"x", marker=False)
            for n in numbers
        ]
        buffer = JitterBuffer(JitterConfig(clock_rate=48000))

        def work() -> None:
            for packet in packets:
                buffer.push(packet, 0.0)
                while buffer.pop(0.0) is not None:
                    pass

        return work

    assert_linear(make, 4000)


def test_twice_the_paths_take_the_ice_agent_twice_the_time() -> None:
    """Authenticated checks of one client from ever new addresses, each nominating."""
    checks = []
    for number in range(1000):
        check = Message(
            Method.BINDING,
            Class.REQUEST,
            number.to_bytes(12, "big"),
            {"USERNAME": "abcd:efgh", "PRIORITY": 1, "ICE-CONTROLLING": 1, "USE-CANDIDATE": None},
        )
        check.add_message_integrity(ICE.pwd.encode())
        checks.append(bytes(check))

    def make(count: int) -> Work:
        agent = IceLite(ICE, IceCredentials("efgh", "y" * 24), entropy=os.urandom)

        def work() -> None:
            for number in range(count):
                agent.receive_untrusted(
                    checks[number], NetworkPath(b"", pack_address("10.0.0.1", 1 + number)), number / 10
                )
                agent.handle_timeout(number / 10)
                agent.poll()

        return work

    assert_linear(make, 1000)


def test_twice_the_forged_sources_take_the_relays_table_twice_the_time() -> None:
    """Probationary flows from ever new addresses, each at the cost of the oldest one; then all of them lapse at once."""

    def make(count: int) -> Work:
        kept = count // 2
        table = FlowTable.create(max_flows=count, max_probationary=kept, max_per_token=16, idle=60.0)
        clients = [flow_words(pack_address("10.0.0.1", 1 + number), 0) for number in range(count)]
        proposal = Proposal(pack_address("10.0.0.2", 1), 0, 0, 1000, 10.0)

        def work() -> None:
            for client in clients:
                table.open(client, proposal, 0.0)
            while not table.expire(3600.0):
                pass
            assert table.probationary == 0

        return work

    assert_linear(make, 60_000)
