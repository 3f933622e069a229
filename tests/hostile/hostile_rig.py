# ruff: noqa: ANN401  (the rig of the transceiver's tests cannot be imported by name, so what it gives stays untyped)
"""A transceiver's engine and callers in one thread and in virtual time, and a caller that holds all keys and uses them badly.

`Rig` has no tasks: `pump` moves datagrams until nobody has anything more to say, `wait` moves the clock. The engine is strict,
so that an exception that any packet provokes comes out here instead of ending one call in silence.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import random
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path as FilePath
from types import ModuleType, SimpleNamespace
from typing import Any

import trio
import trio.testing

from protocol.address import Path, pack_address
from protocol.errors import LocalError, RemoteError
from protocol.ice import Candidate
from protocol.routing import KeyRing, Trunk
from protocol.sctp.packet import build_chunk, build_packet, parse_packet_untrusted
from protocol.stun import Class, Message, Method
from transceiver.backends.base import Accepted, Ended, Flushed, Lost, Refused
from transceiver.config import TransceiverConfig
from transceiver.engine import Engine
from transceiver.registry import Registry
from transceiver.session import CloseReason
from transceiver.signalling import CallRequest
from udpio import MemoryNetwork


def _load(name: str, file: FilePath) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


callers = _load("transceiver_test_rig", FilePath(__file__).parents[1] / "transceiver" / "conftest.py")


def identity_with(certificate: bytes) -> Any:
    """The caller's key with any bytes for a certificate; the fingerprint is theirs."""
    honest = callers.IDENTITY.fingerprint()
    fingerprint = replace(honest, value=hashlib.sha256(certificate).digest())
    return SimpleNamespace(
        certificate_der=certificate, private_key=callers.IDENTITY.private_key, fingerprint=lambda *_: fingerprint
    )


SERVER = pack_address("127.0.0.1", 4000)
NETWORKS = 8  # callers come from 127.0.0.2 and up


class Rig:
    """Use inside `trio.run(…, clock=MockClock())`; nothing here awaits."""

    def __init__(self, clock: trio.testing.MockClock, *, strict: bool = True, **config: Any) -> None:
        self.clock = clock
        self.network = MemoryNetwork()
        self.socket = self.network.open("127.0.0.1", 4000)
        self.engine = Engine(self.socket, Trunk.parse(callers.ROUTING), direct=True, strict=strict)
        self.backend = callers.ScriptedBackend()
        self.backend.engine = self.engine
        self.registry = Registry(
            TransceiverConfig(direct=True, **config),
            engine=self.engine,
            backend=self.backend,
            keys=KeyRing.parse(callers.ROUTING),
            identity=callers.OTHER_IDENTITY,
            address=SERVER,
            candidates=(Candidate("1", 1, "udp", 1, "127.0.0.1", 4000, "host"),),
        )
        self.callers: list[Any] = []

    @property
    def now(self) -> float:
        return trio.current_time()

    def offer(self, **options: Any) -> tuple[Any, Any]:
        """A caller whose offer was answered: (caller, session). `fingerprint` is what he signals, `edit` his a=setup line,
        `agree` what else his capabilities have."""
        fingerprint, edit, agree = options.pop("fingerprint", None), options.pop("edit", ""), options.pop("agree", {})
        caller = callers.Caller(self.network.open(f"127.0.0.{2 + len(self.callers) % NETWORKS}"), **options)
        if fingerprint is not None:
            caller._capabilities = replace(caller._capabilities, fingerprint=fingerprint)
        caller._capabilities = replace(caller._capabilities, **agree)
        offer = caller.offer()
        created = self.registry.create(
            CallRequest((offer.replace("a=setup:actpass", edit) if edit else offer).encode())
        )
        caller.accept(created.answer)
        self.callers.append(caller)
        return caller, self.registry.sessions[created.call_id]

    def live(self, **options: Any) -> tuple[Any, Any]:
        caller, session = self.offer(**options)
        for _ in range(200):
            self.wait(0.01)
            if session.life.name == "LIVE" and caller.channel_is_open:
                return caller, session
        raise AssertionError(f"no live call: {session.life}, {session.transport}, {session.reason}")

    def forget(self, caller: Any) -> None:
        self.callers.remove(caller)
        caller.socket.close()

    def pump(self, rounds: int = 50) -> None:
        for _ in range(rounds):
            moved = False
            for caller in self.callers:
                moved |= self._pump_caller(caller)
            sent = self.socket.counters.datagrams_sent
            queued = bool(self.engine._inbox or self.socket._queue)
            self.engine.turn(self.now)
            if not (moved or queued or self.socket.counters.datagrams_sent != sent or self.engine._inbox):
                return

    def _pump_caller(self, caller: Any) -> bool:
        batch = caller.socket.receive_batch()
        for data, source in batch:
            with suppress(LocalError):  # a caller who broke his own state has only himself to blame
                caller.peer.receive_untrusted(bytes(data), Path(b"", source), self.now)
                caller.drain()
        with suppress(LocalError):
            caller.peer.handle_timeout(self.now)
            caller.drain()
        return bool(batch)

    def wait(self, seconds: float, step: float = 0.01) -> None:
        end = self.now + seconds
        while self.now < end - 1e-9:
            self.clock.jump(min(step, end - self.now))
            self.pump()

    def inject(self, data: bytes, source: bytes) -> None:
        """A datagram from anywhere, as the engine's socket would bring it."""
        self.socket.put(data, source)
        self.engine.turn(self.now)

    def echoes(self, caller: Any, frames: int = 3) -> int:
        """How many of the frames that this caller says come back to him."""
        before = len(caller.audio)
        for _ in range(frames):
            caller.speak()
            self.wait(0.02)
        self.wait(0.1)
        return len(caller.audio) - before


class Mutator:
    """Seeded damage to bytes: most often small, sometimes without any respect."""

    EXTREMES = (b"\0", b"\xff", b"\x7f\xff", b"\x80\0", b"\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x80\0\0\0")

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def damage(self, data: bytes) -> bytes:
        body = bytearray(data)
        for _ in range(self.random.choice((1, 1, 1, 2, 4, 16))):
            self._one(body)
        return bytes(body)

    def _one(self, body: bytearray) -> None:
        pick = self.random
        if not body:
            body += pick.randbytes(pick.randrange(1, 40))
            return
        at = pick.randrange(len(body))
        match pick.randrange(9):
            case 0:
                body[at] ^= 1 << pick.randrange(8)
            case 1:
                body[at] = pick.randrange(256)
            case 2:
                extreme = pick.choice(self.EXTREMES)
                body[at : at + len(extreme)] = extreme
            case 3:
                del body[at:]
            case 4:
                del body[at : at + pick.randrange(1, 9)]
            case 5:
                body[at:at] = pick.randbytes(pick.randrange(1, 9))
            case 6:
                piece = body[at : at + pick.randrange(1, 40)]
                spot = pick.randrange(len(body))
                body[spot:spot] = piece
            case 7:
                body += pick.randbytes(pick.randrange(1, 64))
            case _:
                body[at : at + 2] = (len(body) - at + pick.randrange(-6, 7) & 0xFFFF).to_bytes(2, "big")


class Insider:
    """A caller who has passed every check and now sends what he likes under the keys of his call."""

    def __init__(self, rig: Rig, seed: int, **options: Any) -> None:
        self.rig = rig
        self.mutator = Mutator(seed)
        self.random = self.mutator.random
        self.options = options
        self.sent = 0
        self.calls = 0
        self.sctp_seen: list[bytes] = []
        self.rtcp_seen: list[bytes] = []
        self._sequence = 0
        self.begin()

    def begin(self) -> None:
        """A new call; what its caller says on SCTP is remembered as material."""
        self.caller, self.session = self.rig.live(**self.options)
        self.calls += 1
        self.caller.say("material " * self.random.choice((1, 400)))
        self.rig.wait(0.05)

    @property
    def alive(self) -> bool:
        if self.session.life.name != "LIVE" or self.caller.ended:
            return False
        mine, ours = self.caller.peer._sctp, self.session.peer._sctp
        return mine is None or self.random.random() < 0.1 or "DEAD" not in (mine.state.name, ours.state.name)

    def renew(self) -> None:
        """If the call has come to its end, by what we did to it, place another."""
        if not self.alive:
            self.rig.forget(self.caller)
            self.session.close(CloseReason.HANGUP, self.rig.now)
            self.session.release_now(self.rig.now)
            self.begin()

    def sctp(self, packet: bytes) -> None:
        peer = self.caller.peer
        with suppress(LocalError, RemoteError):
            peer._dtls.send(packet, self.rig.now)
            self.flush()

    def chunks(self, *chunks: tuple[int, int, bytes], tag: int | None = None) -> None:
        """A well-formed SCTP packet of chunks (type, flags, value)."""
        handshake = self.caller.peer._sctp._handshake
        body = [build_chunk(kind, flags, value) for kind, flags, value in chunks]
        self.sctp(build_packet(5000, 5000, handshake.peer_tag if tag is None else tag, body))

    def flush(self) -> None:
        peer = self.caller.peer
        peer._settle(self.rig.now)
        self.caller.drain()

    def random_sctp(self) -> None:
        pick = self.random
        association = self.caller.peer._sctp
        if association is None:
            return
        packet = self._sctp_material()
        parsed = parse_packet_untrusted(packet)
        chunks = []
        for chunk in parsed.chunks:
            kind = chunk.type if pick.random() < 0.8 else pick.choice((*range(16), 130, 192, 194, 255, 64, 128))
            value = self.mutator.damage(chunk.value) if pick.random() < 0.8 else chunk.value
            if kind == 0 and len(value) >= 12 and pick.random() < 0.8:  # DATA that is near what is expected
                value = (association._sender._next_tsn + pick.randrange(-2, 30) & 0xFFFFFFFF).to_bytes(
                    4, "big"
                ) + value[4:]
            chunks.append((kind, chunk.flags if pick.random() < 0.5 else pick.randrange(256), value[:1100]))
        if pick.random() < 0.1:
            chunks *= 2
        self.chunks(*chunks, tag=None if pick.random() < 0.97 else 0)

    def _sctp_material(self) -> bytes:
        packet = self.random.choice(MATERIAL_SCTP)
        fatal = packet[12] in (1, 2, 6, 7, 8, 14)  # most of these end the association at once
        return MATERIAL_SCTP[0] if fatal and self.random.random() < 0.9 else packet

    def random_rtp(self) -> None:
        pick = self.random
        audio = self.caller.peer._audio
        self._sequence = self._sequence + pick.choice((1, 1, 1, 2, 50, 4000, -3)) & 0xFFFF
        ssrc = pick.choice((0x1234, 0x1234, pick.randrange(4)))
        extension = pick.choice((b"", b"", b"\xbe\xde\0\1\x10\x80\0\0", b"\x10\0\0\1\1\1\xff\0"))
        first = 0x80 | (0x10 if extension else 0)
        kind = pick.choice((111, 111, 111, 0, 126, pick.randrange(128)))
        packet = (
            bytes((first, kind))
            + self._sequence.to_bytes(2, "big")
            + pick.choice((self._sequence * 960, pick.randrange(1 << 32))).to_bytes(4, "big")
            + ssrc.to_bytes(4, "big")
            + extension
            + pick.choice((b"\xf8\xff\xfe", b"", pick.randbytes(pick.randrange(1, 1200))))
        )
        if pick.random() < 0.5:
            packet = packet[:1] + self.mutator.damage(packet[1:])
            packet = bytes((packet[0] ^ pick.choice((0, 0x20, 0x10, 1)),)) + packet[1:]
        with suppress(LocalError):
            self.send(audio._srtp.protect_rtp(packet))

    def random_rtcp(self) -> None:
        pick = self.random
        audio = self.caller.peer._audio
        packet = self.mutator.damage(pick.choice(MATERIAL_RTCP))
        packet = b"\x80" + bytes((pick.randrange(192, 224),)) + packet[2:] if pick.random() < 0.3 else packet
        with suppress(LocalError):
            self.send(audio._srtp.protect_rtcp(packet))

    def random_stun(self) -> None:
        """Binding messages of every class with sound integrity and fingerprint under them, and nonsense inside."""
        pick = self.random
        message = Message(
            message_method=Method.BINDING,
            message_class=pick.choice((Class.REQUEST, Class.REQUEST, Class.REQUEST, Class.RESPONSE, Class.INDICATION)),
            transaction_id=os.urandom(12) if pick.random() < 0.8 else bytes(12),
            attributes={"USERNAME": self.session.ufrag.decode() + ":" + self.caller._capabilities.ice.ufrag},
        )
        if pick.random() < 0.7:
            message.attributes["PRIORITY"] = pick.randrange(1 << 32)
        if pick.random() < 0.5:
            message.attributes["USE-CANDIDATE"] = None
        role = pick.choice(("ICE-CONTROLLING", "ICE-CONTROLLED", ""))
        if role:
            message.attributes[role] = pick.randrange(1 << 64)
        message.add_message_integrity(self.caller.remote_ice.pwd.encode())
        message.add_fingerprint()
        data = bytes(message)
        if pick.random() < 0.3:
            data = self.mutator.damage(data)
        if pick.random() < 0.2:  # from another address, so that paths come and go
            self.rig.inject(data, pack_address(f"127.0.9.{pick.randrange(1, 30)}", pick.randrange(1, 65536)))
            self.sent += 1
        else:
            self.send(data)

    def random_noise(self) -> None:
        """Damaged copies of real records and packets, as a man on the path can send them."""
        self.send(self.mutator.damage(self.random.choice(MATERIAL_WIRE)))

    def random_message(self) -> None:
        pick = self.random
        if self.caller.peer._sctp is None:
            return
        data = pick.choice(("", "x" * pick.randrange(3000), b"", pick.randbytes(pick.randrange(3000))))
        with suppress(LocalError, RemoteError):
            if pick.random() < 0.2:
                self.caller.peer.open_channel("c" * pick.randrange(50), self.rig.now)
            elif pick.random() < 0.1:
                self.caller.peer.close_channel(pick.randrange(0, 40, 2), self.rig.now)
            else:
                self.caller.peer.send_message(pick.choice((0, 0, 2, 4)), data, self.rig.now)
            self.flush()

    def random_agent(self) -> None:
        """The agent's side gone mad: any word at any time, on this call's attachments, the present one and old ones."""
        pick = self.random
        attachments = [one for one in self.rig.backend.attachments[-4:] if one.call is self.session]
        if not attachments:
            return
        record, data = callers.MediaRecord, callers.DataMessage
        event = pick.choice(
            (
                record(
                    7, pick.randrange(1 << 32), pick.randrange(256), pick.randbytes(pick.choice((0, 1, 3, 200, 1500)))
                ),
                record(7, pick.randrange(1 << 32), 0, b"\xf8\xff\xfe"),
                data(7, pick.choice((0, 0, 2, 65535)), pick.randbytes(pick.randrange(2000))),
                data(7, 0, "é" * pick.randrange(2000)),
                Flushed(),
                Flushed(),
                Accepted(),
                pick.choice((Lost(), Refused("no"), Ended("bored"), Accepted(), Flushed(), Flushed())),
            )
        )
        pick.choice(attachments).post(event)

    def send(self, data: bytes) -> None:
        self.sent += 1
        self.rig.inject(data, self.caller.socket.address)

    def step(self) -> None:
        """One act of malice."""
        act = self.random.choices(
            (
                self.random_sctp,
                self.random_rtp,
                self.random_rtcp,
                self.random_stun,
                self.random_noise,
                self.random_message,
                self.random_agent,
            ),
            (8, 3, 3, 3, 4, 1, 2),
        )[0]
        act()
        self.sent += act in (self.random_sctp, self.random_message)


def _sctp_packets() -> list[bytes]:
    """One packet for each kind of chunk, as a well-behaved peer would fill it."""
    u32, u16 = (lambda n: n.to_bytes(4, "big")), (lambda n: n.to_bytes(2, "big"))
    parameter = lambda kind, value: u16(kind) + u16(len(value) + 4) + value + bytes(-len(value) % 4)  # noqa: E731
    init = (
        u32(7) + u32(100_000) + u16(1024) + u16(1024) + u32(9) + parameter(0xC000, b"") + parameter(0x8008, b"\x82\xc0")
    )
    opening = b"\x03\0\0\0\0\0\0\0\0\5\0\0label"
    chunks = [
        (0, 3, u32(1) + u16(0) + u16(1) + u32(51) + b"hello"),
        (0, 3, u32(1) + u16(6) + u16(0) + u32(50) + opening),
        (0, 2, u32(1) + u16(0) + u16(1) + u32(53) + b"begin" * 40),
        (0, 1, u32(1) + u16(0) + u16(1) + u32(53) + b"end" * 40),
        (0, 7, u32(1) + u16(2) + u16(0) + u32(56) + b"\0"),
        (1, 0, init),
        (2, 0, init + parameter(7, bytes(60))),
        (3, 0, u32(1) + u32(100_000) + u16(2) + u16(1) + u16(2) + u16(3) + u16(9) + u16(10) + u32(5)),
        (4, 0, parameter(1, b"heart")),
        (5, 0, parameter(1, b"beat")),
        (6, 0, b"\0\x0c\0\4"),
        (7, 0, u32(1)),
        (8, 0, b""),
        (9, 0, b"\0\3\0\x08\0\0\0\1"),
        (10, 0, bytes(80)),
        (11, 0, b""),
        (14, 0, b""),
        (130, 0, parameter(13, u32(1) + u32(1) + u32(1) + u16(0) + u16(2))),
        (130, 0, parameter(16, u32(1) + u32(1))),
        (130, 0, parameter(17, u32(1) + u16(4) + u16(0)) + parameter(15, u32(2))),
        (192, 0, u32(5) + u16(0) + u16(3) + u16(2) + u16(9)),
        (194, 0, u32(5) + u16(0) + u16(0) + u32(3)),
    ]
    packets = [build_packet(5000, 5000, 1, [build_chunk(*chunk)]) for chunk in chunks]
    packets.append(
        build_packet(5000, 5000, 1, [build_chunk(*chunk) for chunk in chunks if chunk[0] not in (1, 2, 6, 14)])
    )
    return packets


def _rtcp_packets() -> list[bytes]:
    block = bytes.fromhex("00001234 10000005 00010203 00000044 11223344 00010000")
    sender = b"\x81\xc8\0\x0c" + bytes.fromhex("00001234") + os.urandom(20) + block
    receiver = b"\x81\xc9\0\7" + bytes.fromhex("00001234") + block
    names = b"\x81\xca\0\4" + bytes.fromhex("00001234") + b"\1\6caller\0\0\0\0"[:12]
    goodbye = b"\x81\xcb\0\2" + bytes.fromhex("00001234") + b"\3bye"
    nack = b"\x81\xcd\0\3" + bytes.fromhex("00001234 00000002 00070003")
    extended = b"\x80\xcf\0\4" + bytes.fromhex("00001234 04000002 1122334455667788")
    return [sender, receiver, receiver + names, sender + names + goodbye, nack, extended, receiver + nack + extended]


MATERIAL_SCTP = _sctp_packets()
MATERIAL_RTCP = _rtcp_packets()
MATERIAL_WIRE = [
    bytes.fromhex("16fefd0000000000000001000c") + bytes(12),
    bytes.fromhex("16feff000000000000000000310100002500000000000000 25fefd") + bytes(34),
    bytes.fromhex("15fefd00000000000000090002 0228"),
    bytes.fromhex("14fefd00000000000000030001 01"),
    bytes.fromhex("17fefd00010000000000070030") + os.urandom(48),
    b"\x80\x6f" + os.urandom(60),
    b"\x80\xc8" + os.urandom(60),
    bytes.fromhex("000100002112a442") + os.urandom(12),
    bytes.fromhex("0101000c2112a442") + os.urandom(24),
    b"\xc5\x20" + os.urandom(60),
    b"\x40" + os.urandom(30),
    b"",
]
