"""Cores with a state, behind their keys: what an insider can say.

A fuzzer cannot guess an HMAC or a checksum; so these targets complete what the input began: verification tag and CRC32c of
SCTP, MESSAGE-INTEGRITY and FINGERPRINT of STUN, the tag of the trunk. An input is several datagrams, each behind a length of
two bytes. `receive_untrusted` must not raise, its owner can always drain it, and its timers always come to rest.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from fuzz.target import Target, datagrams, promise, seeded, tagged
from protocol.address import Path, pack_address
from protocol.dtls import CookieExchange, Datagram, DtlsEndpoint, Identity, Role
from protocol.ice import IceCredentials, IceFull, IceLite
from protocol.routing import KeyRing, RoutingConfig, Trunk
from protocol.rtp import RtcpReporter
from protocol.sctp import Association, Packet
from protocol.sctp.chunks import ChunkType
from protocol.sctp.packet import build_chunk, build_packet, parse_packet_untrusted
from protocol.sctp.parameters import Init, build_init, parse_init_untrusted
from protocol.srtp import SrtpProfile
from protocol.stun.integrity import message_fingerprint, message_integrity
from relay.config import RelayConfig
from relay.core import RelayCore

__all__ = ["CORE_TARGETS"]

_OURS, _THEIRS = IceCredentials("ours", "o" * 22), IceCredentials("theirs", "t" * 22)
_CLIENT = pack_address("192.0.2.7", 40000)
_TRANSCEIVER = pack_address("127.0.0.1", 4000)
_PATHS = (Path(b"", _CLIENT), Path(b"", pack_address("192.0.2.8", 40001)))
_US = Identity.generate(datetime(2026, 1, 1, tzinfo=UTC))
_ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,))
_KEYS, _TRUNK = KeyRing.parse(_ROUTING), Trunk.parse(_ROUTING)
_BOOT = b"\x01boot\x02\x03\x04"  # announcements in the corpus name it

_MAXIMUM_WAKES = 400  # a core whose timers fire more often after one input does not come to rest


class _Core(Protocol):
    def poll(self) -> object: ...
    def next_timeout(self) -> float: ...
    def handle_timeout(self, now: float) -> None: ...


def _rest(core: _Core, now: float, seconds: float = 100.0) -> None:
    """Let its timers run out, as its owner would."""
    end = now + seconds
    core.poll()
    for _ in range(_MAXIMUM_WAKES):
        due = core.next_timeout()
        if math.isinf(due) or due > end:
            return
        now = max(now, due)
        core.handle_timeout(now)
        core.poll()
    promise(False, "the timers do not come to rest")


def _dtls(role: Role) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        core = DtlsEndpoint(
            role,
            _US,
            peer_fingerprints=(_US.fingerprint(),),
            srtp_profiles=(SrtpProfile.SRTP_AEAD_AES_128_GCM,),
            entropy=seeded(),
        )
        core.start(0.0)
        core.poll()
        now = 0.0
        for datagram in datagrams(data):
            now += 0.01
            core.receive_untrusted(datagram, now)
            core.poll()
        promise(not core.is_connected, "connected to a peer who has no certificate of ours")
        _rest(core, now)

    return run


def _cookie(data: bytes) -> None:
    """A bare listener: an answer is no longer than what asked for it, and nothing but our cookie makes state."""
    core = CookieExchange(seeded(), 0.0)
    for number, datagram in enumerate(datagrams(data)):
        answer = core.receive_untrusted(datagram, bytes(_CLIENT), float(number))
        if isinstance(answer, Datagram):
            promise(len(answer.data) <= len(datagram), "an amplifier")


def _sctp(data: bytes) -> None:
    """Each datagram: the chunks of a packet of the established peer."""
    core = Association(is_client=False, max_message_size_remote=65536, entropy=seeded())
    init = Init(7, 1 << 20, 1024, 1024, 1000, extensions=frozenset({130, 192}), forward_tsn=True)
    core.receive_untrusted(build_packet(5000, 5000, 0, [build_init(ChunkType.INIT, init)]), 0.0)
    (answer,) = (output for output in core.poll() if isinstance(output, Packet))
    accepted = parse_init_untrusted(parse_packet_untrusted(answer.data).chunks[0].value)
    promise(accepted.cookie is not None, "no cookie")
    echo = build_chunk(ChunkType.COOKIE_ECHO, 0, accepted.cookie or b"")
    core.receive_untrusted(build_packet(5000, 5000, accepted.tag, [echo]), 0.0)
    core.poll()
    channel = core.open_channel("ours", negotiated_id=0)
    core.send(channel, b"x" * 3000, 0.0)
    core.poll()
    now = 0.0
    for datagram in datagrams(data):
        now += 0.01
        core.receive_untrusted(build_packet(5000, 5000, accepted.tag, [datagram]), now)
        core.poll()
    _rest(core, now, 20.0)


def _binding(attributes: bytes, key: bytes) -> bytes:
    """A check with these attributes, complete and authentic. The first two bytes choose class and transaction."""
    kind = (0x0001, 0x0101, 0x0111, 0x0011)[attributes[0] & 3] if attributes else 1
    transaction = attributes[1:2] * 12 if len(attributes) > 1 else bytes(12)
    body = attributes[2:]
    body = body[: len(body) & ~3]

    def head(length: int) -> bytes:
        return struct.pack("!HHI", kind, length, 0x2112A442) + transaction

    before = head(len(body) + 24) + body
    sealed = before[20:] + struct.pack("!HH", 0x0008, 20) + message_integrity(before, key)
    complete = head(len(sealed) + 8) + sealed
    return complete + struct.pack("!HHI", 0x8028, 4, message_fingerprint(complete))


def _ice(make: Callable[[], IceLite | IceFull]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        core = make()
        now = 0.0
        for datagram in datagrams(data):
            now += 0.3
            path = _PATHS[len(datagram) & 1]
            complete = _binding(datagram, _OURS.pwd.encode())
            core.receive_untrusted(complete, path, now)
            core.poll()
        _rest(core, now, 20.0)

    return run


def _full(controlling: bool) -> IceFull:
    core = IceFull(_OURS, _THEIRS, entropy=seeded(), controlling=controlling)
    core.start(0.0)
    return core


def _relay(data: bytes) -> None:
    """Even datagrams come from callers, odd ones over the trunk, with a tag that is right."""
    core = RelayCore(RelayConfig(), _KEYS, _TRUNK, wall_time=lambda: 1.8e9, boot=_BOOT)
    for number, datagram in enumerate(datagrams(data)):
        if number % 2:
            core.receive_trunk_untrusted([(memoryview(tagged(_TRUNK, datagram)), _TRANSCEIVER)], 0.1 * number)
        else:
            core.receive_clients_untrusted([(memoryview(datagram), _CLIENT)], 0, 0.1 * number)


def _reporter(data: bytes) -> None:
    core = RtcpReporter(ssrc=1, cname="c", clock_rate=48000, entropy=seeded())
    now = 0.0
    for datagram in datagrams(data):
        now += 0.02
        core.receive_untrusted(datagram, now)
        if len(datagram) >= 12:
            first, timestamp, ssrc = struct.unpack_from("!HII", datagram)
            core.packet_received(ssrc, first, timestamp, len(datagram), now)
        core.poll()


CORE_TARGETS: tuple[Target, ...] = (
    Target("core-dtls-server", _dtls(Role.SERVER), 6000),
    Target("core-dtls-client", _dtls(Role.CLIENT), 6000),
    Target("core-dtls-cookie", _cookie, 1500),
    Target("core-sctp", _sctp, 2000),
    Target("core-ice-lite", _ice(lambda: IceLite(_OURS, _THEIRS, entropy=seeded())), 2000),
    Target("core-ice-controlling", _ice(lambda: _full(True)), 2000),
    Target("core-ice-controlled", _ice(lambda: _full(False)), 2000),
    Target("core-rtcp", _reporter, 1000),
    Target("core-relay", _relay, 1500),
)
