# ruff: noqa: ANN401  (the caller of the transceiver's tests cannot be imported by name, so it stays untyped)
"""The attacks of docs/attacks.md as functions over a target: whoever answers an offer, ours or another's, over loopback.

Each places a call, does its worst and says what was seen. The same bytes go to every target. What a target must show is
written in `test_attacks.py`; here nothing is judged.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, Protocol

import httpx
import trio
from hostile_rig import MATERIAL_SCTP, Mutator, callers

from protocol.address import pack_address
from protocol.dtls.fragments import HANDSHAKE_HEADER_LENGTH
from protocol.dtls.handshake12 import Established, SendFlight
from protocol.dtls.messages import CertificateVerify, ClientHello
from protocol.dtls.record12 import RECORD_HEADER_LENGTH
from protocol.errors import DecodeError, LocalError
from protocol.peer import AudioParameters
from protocol.peer.audio import AudioStream
from protocol.sctp.packet import build_chunk, build_packet, parse_packet_untrusted
from protocol.stun import Class, Message, Method
from udpio import open_udp

SDP = {"Content-Type": "application/sdp"}
ALERT, CHANGE_CIPHER_SPEC, HANDSHAKE, APPLICATION_DATA = 21, 20, 22, 23
FRAME_SECONDS = 0.02


class Target(Protocol):
    """Answers `POST url/v1/realtime/calls` and echoes audio and messages."""

    url: str

    def memory(self) -> int:
        """Resident bytes of the process that ends the calls."""


@dataclass
class Seen:
    """What an attack did. Which fields mean something, the attack says."""

    connected: bool = False
    seconds: float = 0.0  # until connected, or until audio came back
    echoed: int = 0  # of the caller's frames, afterwards
    message: bool = False  # a message came back, once
    reached: int = 0  # bytes that came to the attacker, or to the victim of a reflection
    successes: int = 0  # of his STUN requests that were answered with success
    bad: int = 0  # of the frames or messages that must not have been taken, how many were echoed
    gap: float = 0.0  # the longest between two frames that the caller heard, seconds
    usual_gap: float = 0.0  # the same without the attack
    slowest: float = 0.0  # of the STUN checks during the attack, seconds
    usual: float = 0.0  # the same before it
    growth: int = 0  # of the target's memory, bytes

    @property
    def lives(self) -> bool:
        return self.connected and self.echoed > 0 and self.message


class Tap:
    """A socket whose datagrams can be looked at, held, doubled and damaged on their way."""

    def __init__(self) -> None:
        self.inner = open_udp("127.0.0.1", 0)
        self.sent: list[bytes] = []
        self.received: list[bytes] = []
        self.outgoing: Callable[[bytes], list[bytes]] = lambda data: [data]
        self.incoming: Callable[[bytes], list[bytes]] = lambda data: [data]

    batch_size = property(lambda self: self.inner.batch_size)
    counters = property(lambda self: self.inner.counters)
    address = property(lambda self: self.inner.address)

    def receive_batch(self) -> list[tuple[bytes, bytes]]:
        batch = []
        for data, source in self.inner.receive_batch():
            self.received.append(bytes(data))
            batch += [(one, source) for one in self.incoming(bytes(data))]
        return batch

    def send_batch(self, datagrams: list[tuple[bytes, bytes]]) -> int:
        self.sent += [data for data, _ in datagrams]
        return self.inner.send_batch([(one, to) for data, to in datagrams for one in self.outgoing(data)])

    async def wait_readable(self) -> None:
        with trio.move_on_after(FRAME_SECONDS), suppress(trio.ClosedResourceError):  # it may be another by then
            await self.inner.wait_readable()

    def rebind(self) -> None:
        """As if a NAT in between had forgotten: what was bound is gone, a new port speaks."""
        self.inner.close()
        self.inner = open_udp("127.0.0.1", 0)

    def close(self) -> None:
        self.inner.close()


class Call:
    """A caller and the server's UDP address; `socket` is the caller's, `stranger` somebody else's."""

    def __init__(self, caller: Any, answer: str, stranger: socket.socket) -> None:
        self.caller = caller
        self.stranger = stranger
        found = re.search(r"^a=candidate:\S+ 1 udp \d+ (127\.\S+) (\d+) ", answer, re.MULTILINE | re.IGNORECASE)
        assert found is not None, answer
        self.server = (found[1], int(found[2]))
        ufrag, password = (re.search(rf"^a=ice-{word}:(\S+)", answer, re.MULTILINE) for word in ("ufrag", "pwd"))
        assert ufrag is not None
        assert password is not None
        self.ufrag, self.key = ufrag[1], password[1].encode()
        self.user = f"{self.ufrag}:{caller.ufrag}"

    @property
    def socket(self) -> Tap:
        return self.caller.socket

    @property
    def packed(self) -> bytes:
        return pack_address(*self.server)

    def say(self, data: bytes) -> None:
        """From the caller's own address."""
        self.socket.inner.send_batch([(data, self.packed)])

    def shout(self, data: bytes) -> None:
        """From a stranger's."""
        self.stranger.sendto(data, self.server)

    def overheard(self, seen: Seen) -> Seen:
        """What came to the stranger."""
        heard = drained(self.stranger)
        seen.reached += sum(map(len, heard))
        seen.successes += sum(data[:2] == b"\1\1" for data in heard)
        return seen

    async def wait(self, condition: Callable[[], object], seconds: float = 5.0) -> float:
        """How long it took; infinity if it did not happen."""
        began = trio.current_time()
        with trio.move_on_after(seconds):
            while not condition():
                await trio.sleep(0.002)
            return trio.current_time() - began
        return float("inf")

    async def ice(self) -> None:
        assert await self.wait(lambda: self.caller.peer.ice.selected is not None) < 5

    async def connected(self, seen: Seen, seconds: float = 5.0) -> bool:
        seen.seconds = await self.wait(lambda: self.caller.connected and self.caller.channel_is_open, seconds)
        seen.connected = seen.seconds <= seconds
        return seen.connected

    async def judge(self, seen: Seen) -> Seen:
        """Does the call live? Ten frames and a message."""
        if not (self.caller.connected and self.caller.channel_is_open) or self.caller.ended:
            return seen
        seen.connected = True
        before, word = len(self.caller.audio), os.urandom(6).hex()
        self.caller.say(word)
        for _ in range(60):
            self.caller.speak()
            await trio.sleep(FRAME_SECONDS)
            if word in self.caller.messages and len(self.caller.audio) - before >= 10:
                break
        seen.echoed = len(self.caller.audio) - before
        seen.message = self.caller.messages.count(word) == 1
        return seen

    async def talk(self, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> float:
        """Speak every 20 ms, and do something beside it; the longest gap between frames heard."""
        began = trio.current_time()
        while trio.current_time() < began + seconds:
            self.caller.speak()
            meanwhile()
            await trio.sleep(FRAME_SECONDS)
        times = [began, *(when for when in self.caller.audio_times if when > began), trio.current_time()]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def check(self, *, key: bytes | None = None, user: str | None = None, **more: Any) -> bytes:
        """A check of the caller's, under its password or another."""
        attributes: dict[str, Any] = {
            "USERNAME": self.user if user is None else user,
            "PRIORITY": 1845501695,
            "ICE-CONTROLLING": 1 << 63,
            **more,
        }
        request = Message(Method.BINDING, Class.REQUEST, os.urandom(12), attributes)
        request.add_message_integrity(self.key if key is None else key)
        request.add_fingerprint()
        return bytes(request)

    async def timed_check(self) -> float:
        """How long a check takes that is sent now."""
        data = self.check()
        self.say(data)
        mark = data[4:20]
        return await self.wait(lambda: any(one[4:20] == mark for one in self.socket.received[-400:]), 2.0)


def drained(sock: socket.socket) -> list[bytes]:
    heard = []
    with suppress(BlockingIOError):
        while True:
            heard.append(sock.recv(65536))
    return heard


@contextmanager
def listeners(count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for number, sock in enumerate(socks):
            sock.bind((f"127.0.0.{9 + number}", 0))
            sock.setblocking(False)
        yield socks


@asynccontextmanager
async def placed(target: Target, edit: Callable[[str], str] = lambda sdp: sdp, **options: Any) -> AsyncIterator[Call]:
    """An offer, its answer, and the caller running. We ask for the DTLS client's role, so that the target serves."""
    caller = callers.Caller(Tap(), **options)
    offer = edit(caller.offer().replace("a=setup:actpass", "a=setup:active"))
    with listeners(1) as [stranger]:
        async with httpx.AsyncClient(base_url=target.url, timeout=10, verify=False) as http:
            response = await http.post("/v1/realtime/calls", content=offer, headers=SDP)
            assert response.status_code == 201, response.text
            caller.accept(response.text)
            async with trio.open_nursery() as nursery:
                call = Call(caller, response.text, stranger)
                nursery.start_soon(caller.run)
                try:
                    yield call
                finally:
                    if not caller.ended:
                        caller.hang_up()
                    nursery.cancel_scope.cancel()
            with trio.move_on_after(5, shield=True):
                await http.post(response.headers["location"] + "/hangup")


@asynccontextmanager
async def live(target: Target, **options: Any) -> AsyncIterator[Call]:
    async with placed(target, **options) as call:
        assert await call.connected(Seen()), "no call to attack"
        for _ in range(10):
            call.caller.speak()
            await trio.sleep(FRAME_SECONDS)
        assert await call.wait(lambda: call.caller.audio) < 5
        yield call


# Records


def record(kind: int, number: int, body: bytes, epoch: int = 0) -> bytes:
    return (
        bytes((kind, 0xFE, 0xFD))
        + epoch.to_bytes(2, "big")
        + number.to_bytes(6, "big")
        + len(body).to_bytes(2, "big")
        + body
    )


def handshake(message: int, sequence: int, body: bytes, *, total: int | None = None, offset: int = 0) -> bytes:
    length = len(body) if total is None else total
    return (
        bytes((message,))
        + length.to_bytes(3, "big")
        + sequence.to_bytes(2, "big")
        + offset.to_bytes(3, "big")
        + len(body).to_bytes(3, "big")
        + body
    )


def hello(*suites: int, number: int = 0) -> bytes:
    message = ClientHello(0xFEFD, os.urandom(32), suites, extensions=())
    return record(HANDSHAKE, number, handshake(1, 0, message.encode()))


NULL_HELLO = hello(0x0002, 0xC006, 0xC010)  # TLS_RSA_WITH_NULL_SHA, TLS_ECDHE_ECDSA_WITH_NULL_SHA, …_RSA_…
GOOD_HELLO = hello(0xC02B, 0xC02F)


def records_of(datagram: bytes) -> list[bytes]:
    found = []
    while len(datagram) >= RECORD_HEADER_LENGTH:
        end = RECORD_HEADER_LENGTH + int.from_bytes(datagram[11:13], "big")
        found.append(datagram[:end])
        datagram = datagram[end:]
    return found


def is_dtls(data: bytes) -> bool:
    return 20 <= data[0] < 64


def rtp(sequence: int, payload: bytes, ssrc: int = 0x1234) -> bytes:
    return (
        b"\x80\x6f"
        + (sequence & 0xFFFF).to_bytes(2, "big")
        + (sequence * 960 & 0xFFFFFFFF).to_bytes(4, "big")
        + ssrc.to_bytes(4, "big")
        + payload
    )


# The attacks, by the row of docs/attacks.md


async def hello_from_outside(target: Target) -> Seen:
    """1. A hello from an address without a check, before the caller's checks, after them, and while it shakes hands."""
    seen = Seen()
    async with placed(target) as call:
        call.caller.stun_only = True
        for data in (NULL_HELLO, GOOD_HELLO) * 5:
            call.shout(data)
        await call.ice()
        for data in (NULL_HELLO, GOOD_HELLO) * 5:
            call.shout(data)
        await trio.sleep(0.1)
        call.caller.stun_only = False
        for data in (NULL_HELLO, GOOD_HELLO) * 5:
            call.shout(data)
        await call.connected(seen)
        await call.judge(seen)
        call.overheard(seen)
    return seen


async def bad_srtp(target: Target) -> Seen:
    """2. A hundred packets that look like SRTP, from the caller's own address and from another."""
    seen = Seen()
    async with live(target) as call:
        for number in range(100):
            data = rtp(number, os.urandom(70))
            call.say(data)
            call.shout(data)
        await call.judge(seen)
        call.overheard(seen)
    return seen


async def media_from_outside(target: Target) -> Seen:
    """3. Forged media and copies of the caller's own, from another address, in a living call."""
    seen = Seen()
    async with live(target) as call:
        copies = [data for data in call.socket.sent if data[0] & 0xC0 == 0x80]
        assert copies

        def forge() -> None:
            for data in (*copies[-5:], rtp(7, os.urandom(70)), call.socket.sent[-1]):
                call.shout(data)

        await call.talk(0.6, forge)
        await call.judge(seen)
        call.overheard(seen)
    return seen


async def media_first(target: Target) -> Seen:
    """4. Media from another address before the caller has any keys: it must not become the way to him."""
    seen = Seen()
    async with placed(target) as call:
        call.caller.stun_only = True
        for number in range(20):
            call.shout(rtp(number, os.urandom(70)))
        await call.ice()
        for number in range(20):
            call.shout(rtp(number, os.urandom(70)))
        call.caller.stun_only = False
        await call.connected(seen)
        call.shout(rtp(100, os.urandom(70)))
        await call.judge(seen)
        call.overheard(seen)
    return seen


async def media_unproven(target: Target) -> Seen:
    """5. One bit of the tag turned, a tag missing, and RTP in the clear, from the caller's own address."""
    seen = Seen()
    async with live(target) as call:
        stream = call.caller.peer._audio
        marks = []
        for number in range(30):
            mark = b"\xf8" + os.urandom(12)
            marks.append(mark)
            plain = rtp(stream._sequence + 2 * number, mark)
            protected = bytearray(stream._srtp.protect_rtp(plain)) if number % 3 else bytearray(plain)
            if number % 3 == 1:
                protected[-1 - number % 10] ^= 1 << number % 8
            call.say(bytes(protected[:-10] if number % 3 == 2 else protected))
        stream._sequence += 100
        await trio.sleep(0.3)
        await call.judge(seen)
        heard = {packet.payload for packet in call.caller.audio}
        seen.bad = sum(mark in heard for mark in marks)
    return seen


def seize_keys(caller: Any) -> bool:
    """Take the keys that the caller's handshake has derived, whatever the server thinks of it."""
    shaking = caller.peer._dtls._association._handshake
    if shaking._schedule is None:
        return False
    keys = caller.peer._dtls._association._srtp_keys(
        Established(shaking._schedule, shaking._group, shaking._srtp_profile)
    )
    caller.peer._audio = AudioStream(AudioParameters(111, 48_000, 0x1234, "caller"), keys, os.urandom)
    caller.peer._sending = True
    return True


async def _impostor(target: Target, prepare: Callable[[Call], None], again: bool, **options: Any) -> Seen:
    """A client that is not who signalling says: does he get in, and does anything of his come back?"""
    seen = Seen()
    async with placed(target, **options) as call:
        call.caller.stun_only = True
        prepare(call)
        call.caller.stun_only = False
        await call.wait(lambda: call.caller.peer._dtls._association._handshake._schedule is not None, 3)
        flight = [data for data in call.socket.sent if is_dtls(data)]
        assert seize_keys(call.caller), "it never got as far as keys"
        for _ in range(3 if again else 1):
            await trio.sleep(0.1)
            for data in flight if again else ():
                call.say(data)
            for _ in range(10):
                call.caller.speak(b"\xf8impostor")
                await trio.sleep(0.005)
        await trio.sleep(0.3)
        seen.connected = call.caller.connected
        seen.bad = sum(len(data) > 20 and data[0] & 0xC0 == 0x80 and data[1] == 111 for data in call.socket.received)
    return seen


async def another_certificate(target: Target) -> Seen:
    """6. The certificate is not the one whose fingerprint was signalled; media comes without waiting for an answer."""
    return await _impostor(target, lambda call: None, again=False, identity=callers.OTHER_IDENTITY)


async def another_certificate_again(target: Target) -> Seen:
    """6. The same, and the last flight is sent again and again, for those who judge only once."""
    return await _impostor(target, lambda call: None, again=True, identity=callers.OTHER_IDENTITY)


async def no_certificate_verify(target: Target) -> Seen:
    """7. The right certificate, which is public, and no proof of its key."""

    def prepare(call: Call) -> None:
        shaking = call.caller.peer._dtls._association._handshake
        honestly_say, honestly_answer = shaking._say, shaking._answer

        def say(message: Any, epoch: int = 0) -> Any:
            return None if isinstance(message, CertificateVerify) else honestly_say(message, epoch)

        def answer(message: Any, raw: Any) -> list[Any]:
            return [
                replace(action, items=tuple(filter(None, action.items))) if isinstance(action, SendFlight) else action
                for action in honestly_answer(message, raw)
            ]

        shaking._say, shaking._answer = say, answer

    return await _impostor(target, prepare, again=False)


async def _before_the_handshake(target: Target, datagrams: list[bytes]) -> Seen:
    """From the address of the caller, whose checks have passed, or by somebody who forges it."""
    seen = Seen()
    async with placed(target) as call:
        call.caller.stun_only = True
        await call.ice()
        seen.usual = max([await call.timed_check() for _ in range(20)])
        before = target.memory()
        for number, data in enumerate(datagrams):
            call.say(data)
            if number % 10 == 9:
                seen.slowest = max(seen.slowest, await call.timed_check())
        await trio.sleep(0.1)
        seen.growth = target.memory() - before
        call.caller.stun_only = False
        await call.connected(seen)
        await call.judge(seen)
    return seen


async def great_promises(target: Target) -> Seen:
    """8. 800 first fragments of messages of 16 MiB, all of them different."""
    promise = (1 << 24) - 1
    return await _before_the_handshake(
        target,
        [
            record(HANDSHAKE, number, handshake(1, number % 9, b"!", total=promise, offset=number))
            for number in range(800)
        ],
    )


async def empty_fragments(target: Target) -> Seen:
    """9. 800 fragments without a byte, of messages without and with a length, forty to a datagram."""
    datagrams = []
    for number in range(800):
        parts = [
            handshake(1 + (number + part) % 20, part % 9, b"", total=0 if part % 2 else 100, offset=0)
            for part in range(40)
        ]
        datagrams.append(record(HANDSHAKE, number, b"".join(parts)))
    return await _before_the_handshake(target, datagrams)


async def reflection(target: Target) -> Seen:
    """11. The offer names victims as its candidates; nobody there has asked for anything."""
    seen = Seen()
    with listeners(4) as victims:
        lines = "".join(
            f"a=candidate:{number} 1 udp {2130706431 - number} {host} {port} typ host\r\n"
            for number, (host, port) in enumerate(victim.getsockname() for victim in victims)
        )
        async with placed(target, lambda offer: re.sub(r"(a=setup:\w+\r\n)", rf"\1{lines}", offer)) as call:
            await call.connected(seen)
            await call.talk(1.0)
            await call.judge(seen)
        seen.reached = sum(len(data) for victim in victims for data in drained(victim))
    return seen


async def amplification(target: Target) -> Seen:
    """12. Requests of every kind of fault; `reached`: bytes of answers beyond those of their requests."""
    seen = Seen()
    async with live(target) as call:
        user = call.user
        requests = [
            call.check(),
            call.check(**{"USE-CANDIDATE": None}),
            call.check(key=b"wrong"),
            call.check(user=user + "x"),
            call.check(user=call.ufrag),
            call.check(user=""),
        ]
        for attributes in ({}, {"USERNAME": user}, {"PRIORITY": 1}, {"ICE-CONTROLLED": 1, "USERNAME": user}):
            bare = Message(Method.BINDING, Class.REQUEST, os.urandom(12), dict(attributes))
            requests.append(bytes(bare))
            bare = Message(Method.BINDING, Class.REQUEST, os.urandom(12), dict(attributes))
            bare.add_message_integrity(call.key)
            bare.add_fingerprint()
            requests.append(bytes(bare))
        for data in requests:
            call.say(data)
            await trio.sleep(0.01)
        await trio.sleep(0.2)
        for mark in {data[4:20] for data in requests}:
            asked = sum(len(one) for one in requests if one[4:20] == mark)
            told = sum(len(one) for one in call.socket.received if one[4:20] == mark and one[0] == 1)
            seen.reached += max(0, told - asked)
        await call.judge(seen)
    return seen


async def injection(target: Target) -> Seen:
    """13. Alerts in the clear and new hellos on the living 5-tuple, and records under keys that are none."""
    seen = Seen()
    async with live(target) as call:
        for number in range(20):
            for sequence in (number, 10_000 + number):
                call.say(record(ALERT, sequence, bytes((2, 40 + number))))
                call.say(record(ALERT, sequence, b"\1\0"))
                call.say(record(HANDSHAKE, sequence, handshake(1, 0, GOOD_HELLO[25:])))
                call.say(record(APPLICATION_DATA, sequence, os.urandom(60), epoch=1))
                call.say(record(CHANGE_CIPHER_SPEC, sequence, b"\1"))
            call.say(GOOD_HELLO)
            await trio.sleep(0.01)
        await call.judge(seen)
    return seen


def spoiled_checks(call: Call) -> list[bytes]:
    """Checks with USE-CANDIDATE that nobody may believe."""
    good = call.check(**{"USE-CANDIDATE": None})
    body = good[20:-8]  # without FINGERPRINT
    integrity = body[-24:]

    def framed(attributes: bytes, fingerprint: bool = True) -> bytes:
        head = good[:2] + len(attributes).to_bytes(2, "big") + good[4:8] + os.urandom(12)
        data = head + attributes
        if fingerprint:
            data = data[:2] + (len(attributes) + 8).to_bytes(2, "big") + data[4:]
            data += b"\x80\x28\0\4" + (zlib.crc32(data) ^ 0x5354554E).to_bytes(4, "big")
        return data

    truncated = body[:-24] + b"\0\x08\0\x0a" + integrity[4:14] + b"\0\0"
    return [
        call.check(key=b"wrong", **{"USE-CANDIDATE": None}),
        framed(body[:-24]),  # none at all
        framed(body),  # of another transaction
        framed(truncated),
        framed(integrity + body[:-24]),  # first instead of last
        framed(body[:-24], fingerprint=False),
    ]


async def hijack(target: Target) -> Seen:
    """14. Checks with USE-CANDIDATE from another address: wrong, missing, cut and misplaced MESSAGE-INTEGRITY."""
    seen = Seen()
    async with live(target) as call:
        for _ in range(5):
            for data in spoiled_checks(call):
                call.shout(data)
            await call.talk(0.1)
        await call.judge(seen)
        call.overheard(seen)
    return seen


async def copied_check(target: Target) -> Seen:
    """14. A true check of the caller's, copied from the wire and sent from another address, USE-CANDIDATE hung on behind."""
    seen = Seen()
    async with live(target) as call:
        before = len(call.socket.sent)
        true = call.check(**{"USE-CANDIDATE": None})
        call.say(true)
        await trio.sleep(0.05)
        copies = [true, *(data for data in call.socket.sent[:before] if data[:2] == b"\0\1")]
        for _ in range(5):
            for data in copies:
                call.shout(data)
            await call.talk(0.1)
        await call.judge(seen)
        call.overheard(seen)
    return seen


async def no_consent(target: Target) -> Seen:
    """15. The caller talks on and has stopped all STUN; `seconds`: until the last frame that it got."""
    seen = Seen()
    async with live(target) as call:
        call.caller.mute_stun = True
        began = trio.current_time()
        await call.talk(36)
        seen.connected = True
        seen.seconds = call.caller.audio_times[-1] - began
    return seen


async def last_flight_lost(target: Target) -> Seen:
    """16. The server's last flight is lost once."""
    seen = Seen()
    lost = []

    def lose(data: bytes) -> list[bytes]:
        kinds = {one[0] for one in records_of(data)} if is_dtls(data) else set()
        if CHANGE_CIPHER_SPEC in kinds and not lost:
            lost.append(data)
            return []
        return [data]

    async with placed(target) as call:
        call.socket.incoming = lose
        await call.connected(seen)
        assert lost
        await call.judge(seen)
    return seen


async def shuffled(target: Target) -> Seen:
    """17. Every record of the handshake apart, shuffled and doubled; then all that was ever sent once more."""
    seen = Seen()
    source = random.Random(17)

    def shuffle(data: bytes) -> list[bytes]:
        if not is_dtls(data):
            return [data, data]
        pieces = records_of(data) * 2
        source.shuffle(pieces)
        return pieces

    async with placed(target) as call:
        call.socket.outgoing = shuffle
        await call.connected(seen)
        marks = [b"\xf8" + os.urandom(12) for _ in range(20)]
        words = [os.urandom(6).hex() for _ in range(20)]
        for mark, word in zip(marks, words):
            call.caller.speak(mark)
            call.caller.say(word)
            await trio.sleep(FRAME_SECONDS)
        call.socket.outgoing = lambda data: [data]
        for data in list(call.socket.sent):
            call.say(data)
        await trio.sleep(0.3)
        heard = [packet.payload for packet in call.caller.audio]
        seen.bad = sum(heard.count(mark) > 1 for mark in marks)
        seen.bad += sum(call.caller.messages.count(word) != 1 for word in words)
        await call.judge(seen)
    return seen


async def rebinding(target: Target) -> Seen:
    """18. The caller's port changes; its next check carries no USE-CANDIDATE. `seconds`: until a frame comes back."""
    return await _rebinding(target)


async def rebinding_nominating(target: Target) -> Seen:
    """18. The same, and a check with USE-CANDIDATE follows at once."""
    return await _rebinding(target, **{"USE-CANDIDATE": None})


async def _rebinding(target: Target, **attributes: Any) -> Seen:
    seen = Seen()
    async with live(target) as call:
        call.socket.rebind()
        call.say(call.check(**attributes))
        heard, began = len(call.caller.audio), trio.current_time()
        while len(call.caller.audio) < heard + 3 and trio.current_time() < began + 8:
            call.caller.speak()
            await trio.sleep(FRAME_SECONDS)
        times = [when for when in call.caller.audio_times[heard:] if when > began + 0.005]
        seen.seconds = times[0] - began if times else float("inf")
        await call.judge(seen)
    return seen


async def token_flood(target: Target) -> Seen:
    """19. Checks for calls that do not exist, 40 every 20 ms, from a stranger and from the caller's own address."""
    seen = Seen()
    source = random.Random(19)
    async with live(target) as call:
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        flood = [call.check(user="".join(source.choices(letters, k=48)) + ":abcd", key=b"x" * 24) for _ in range(400)]
        seen.usual_gap = await call.talk(0.8)
        mark = len(call.socket.received)
        turns = itertools.cycle(range(0, 400, 40))

        def shower() -> None:
            at = next(turns)
            for data in flood[at : at + 40]:
                call.shout(data)
            for data in flood[at : at + 4]:
                call.say(data)

        seen.gap = await call.talk(1.0, shower)
        await trio.sleep(0.2)
        own = {data[4:20] for data in flood}
        seen.reached = sum(len(data) for data in call.socket.received[mark:] if data[0] == 1 and data[4:20] in own)
        await call.judge(seen)
        call.overheard(seen)
    return seen


class InsiderSctp:
    """The caller's DTLS, and SCTP packets of our own through it; what the target says is kept, chunk by chunk."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.peer = call.caller.peer
        self.chunks: list[Any] = []
        honest = self.peer._sctp.receive_untrusted

        def listen(data: bytes, now: float) -> None:
            with suppress(DecodeError):
                self.chunks += parse_packet_untrusted(data).chunks
            honest(data, now)

        self.peer._sctp.receive_untrusted = listen

    @property
    def tag(self) -> int:
        return int(self.peer._sctp._handshake.peer_tag)

    def send(self, *chunks: tuple[int, int, bytes], tag: int | None = None) -> None:
        body = [build_chunk(kind, flags, value) for kind, flags, value in chunks]
        with suppress(LocalError):  # our own side may have been ended by what came back
            self.peer._dtls.send(build_packet(5000, 5000, self.tag if tag is None else tag, body), trio.current_time())
            self.peer._settle(trio.current_time())
            self.call.caller.drain()

    def values(self, kind: int) -> list[bytes]:
        return [bytes(chunk.value) for chunk in self.chunks if chunk.type == kind]


async def malformed_chunks(target: Target) -> Seen:
    """21. 600 damaged packets of every chunk type under the keys of the call, with right checksums and tags; another call
    beside it is the one that must live on."""
    seen = Seen()
    mutator = Mutator(21)
    async with live(target) as bystander, live(target) as call:
        insider = InsiderSctp(call)
        for number in range(600):
            packet = parse_packet_untrusted(mutator.random.choice(MATERIAL_SCTP))
            insider.send(*((chunk.type, chunk.flags, mutator.damage(chunk.value)[:1100]) for chunk in packet.chunks))
            if number % 20 == 0:
                await trio.sleep(0.01)
        seen.gap = await bystander.talk(0.2)
        await bystander.judge(seen)
        heard = len(call.caller.audio)
        await call.talk(0.3)
        seen.bad = int(len(call.caller.audio) == heard)  # his association may be gone, his voice goes on
    return seen


async def forged_cookies(target: Target) -> Seen:
    """21. A cookie fetched by an INIT of the insider's own, edited at every eighth byte; `bad`: COOKIE ACKs for these."""
    seen = Seen()
    async with live(target) as call:
        insider = InsiderSctp(call)
        init = (77).to_bytes(4, "big") + (100_000).to_bytes(4, "big") + b"\0\x10\0\x10" + (9).to_bytes(4, "big")
        insider.send((1, 0, init), tag=0)
        await call.wait(lambda: insider.values(2), 1.0)
        for value in insider.values(2)[:1]:
            tag = int.from_bytes(value[:4], "big")
            at = value.index(b"\0\7", 16)
            cookie = value[at + 4 : at + int.from_bytes(value[at + 2 : at + 4], "big")]
            for place in range(0, len(cookie), 8):
                edited = bytearray(cookie)
                edited[place] ^= 1
                insider.send((10, 0, bytes(edited)), tag=tag)
        await trio.sleep(0.2)
        seen.bad = len(insider.values(11))
        await call.judge(seen)
    return seen


async def long_junk(target: Target) -> Seen:
    """22. Junk of every kind of first byte and of up to 9000 bytes, from a stranger."""
    return await _junk(target, Call.shout)


async def long_junk_inside(target: Target) -> Seen:
    """22. The same from the caller's own address."""
    return await _junk(target, Call.say)


async def _junk(target: Target, send: Callable[[Call, bytes], None]) -> Seen:
    seen = Seen()
    source = random.Random(22)
    async with live(target) as call:
        for size in (1, 2, 11, 12, 13, 19, 20, 64, 576, 1199, 1352, 1353, 1452, 1500, 1501, 2048, 4096, 9000):
            for first in (
                b"\0\1",
                b"\1\1",
                b"\x16\xfe\xfd",
                b"\x17\xfe\xfd\0\1",
                b"\x80\x6f",
                b"\x80\xc8",
                b"\xc5",
                b"",
            ):
                send(call, (first + source.randbytes(size))[:size])
            await trio.sleep(0.005)
        await call.judge(seen)
        call.overheard(seen)
    return seen


async def split_hello(target: Target) -> Seen:
    """23. The hello in fragments of one byte, the last one first, and the first copy of its first byte lost."""
    seen = Seen()
    sendings = []

    def split(data: bytes) -> list[bytes]:
        if data[:1] != b"\x16" or data[RECORD_HEADER_LENGTH] != 1:
            return [data]
        body = data[RECORD_HEADER_LENGTH + HANDSHAKE_HEADER_LENGTH :]
        sendings.append(body)
        base = 10_000 * len(sendings)
        pieces = [
            record(HANDSHAKE, base + at, handshake(1, 0, body[at : at + 1], total=len(body), offset=at))
            for at in reversed(range(len(body)))
        ]
        if len(sendings) == 1:
            pieces.pop()  # its first byte
        return [b"".join(pieces[at : at + 40]) for at in range(0, len(pieces), 40)]

    async with placed(target) as call:
        call.socket.outgoing = split
        await call.connected(seen)
        await call.judge(seen)
    return seen
