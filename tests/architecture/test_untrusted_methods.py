"""The same promise for whatever has a state: every public `*_untrusted` method of ours is found by name, and each either is
driven here or lies beneath one that is.

Methods named `receive_untrusted` must not raise at all; the others give a result or raise `DecodeError`.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import random
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.codecs.g711 import G711Decoder
from agent.codecs.opus import OpusDecoder, find_opus
from agent.openai_http.retry import retry_after_untrusted
from agent.openai_http.shapes import decode_chunk_untrusted, decode_transcription_untrusted, error_text_untrusted
from agent.openai_http.sse import SseParser
from agent.realtime.session import RealtimeSession
from agent.upstream.contact import Reach
from agent.upstream.session import BridgeSession
from agent.upstream.statistics import UpstreamStatistics
from agent.upstream.uplink import Uplink
from loadgen.conversation import Conversation
from loadgen.distribution import Histogram
from loadgen.frames import read_frame_untrusted
from loadgen.realtime import House, Output, read_event_untrusted
from loadgen.script import Habits, Script, Sentence
from loadgen.sound import is_sound_untrusted
from loadgen.tally import AudioTally, DataTally
from loadgen.turns import TurnFigures
from loadgen.words import read_farewell_untrusted, read_slots_untrusted
from protocol.address import Path as NetworkPath
from protocol.address import pack_address
from protocol.codecs import PCMU, KeyPresses
from protocol.dtls import CookieExchange, DtlsEndpoint, Identity, Role, SrtpKeys
from protocol.dtls.groups import GROUPS
from protocol.errors import DecodeError, LocalError
from protocol.ice import IceCredentials, IceFull, IceLite
from protocol.peer import AudioParameters, DataParameters, Peer
from protocol.peer.audio import AudioStream
from protocol.routing import KeyRing, RoutingConfig, Trunk, TrunkHead, TrunkKind
from protocol.rtp import RtcpReporter
from protocol.sctp import Association
from protocol.sctp.cookie import CookieJar
from protocol.srtp import Arena, SrtpProfile, SrtpTransport, library_named, profile_lengths
from relay.config import RelayConfig
from relay.core import RelayCore
from relay.gate import TrunkGate
from relay.greeter import Greeter
from relay.rules import KINDS
from relay.sockets import CLIENT_SLOT, TRUNK_SLOT
from transceiver.relays import Relays
from transceiver.signalling.client_secrets import ClientSecrets
from udpio import ReceiveArena

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors"
PACKAGES = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]

ROUTING = RoutingConfig(keys=("1:" + "5a" * 32,), trunk_keys=("a5" * 32,))
KEYS, TRUNK = KeyRing.parse(ROUTING), Trunk.parse(ROUTING)
CLIENT = pack_address("192.0.2.7", 40000)
PATH = NetworkPath(b"", CLIENT)
OURS, THEIRS = IceCredentials("ours", "o" * 22), IceCredentials("theirs", "t" * 22)
US = Identity.generate(datetime(2026, 1, 1, tzinfo=UTC))
PROFILE = SrtpProfile.SRTP_AEAD_AES_128_GCM
SRTP_KEY = bytes(sum(profile_lengths(PROFILE)))


def entropy() -> Callable[[int], bytes]:
    return random.Random(5).randbytes


def dtls(role: Role) -> DtlsEndpoint:
    endpoint = DtlsEndpoint(
        role, US, peer_fingerprints=(US.fingerprint(),), srtp_profiles=(PROFILE,), entropy=entropy()
    )
    endpoint.start(0.0)
    return endpoint


def peer() -> Peer:
    made = Peer(
        ice=IceLite(OURS, THEIRS, entropy=entropy()),
        dtls=dtls(Role.SERVER),
        audio=AudioParameters(payload_type=111, clock_rate=48000, ssrc=1, cname="c"),
        data=DataParameters(remote_sctp_port=5000, remote_max_message_size=65536),
        entropy=entropy(),
    )
    made.start_dtls(0.0)
    return made


def lane() -> Feed:
    made = peer()
    keys = SrtpKeys(PROFILE, SRTP_KEY, SRTP_KEY)
    made._audio = AudioStream(AudioParameters(payload_type=111, clock_rate=48000, ssrc=1, cname="c"), keys, entropy())
    made._audio.reporter.packet_received(0, 1, 0, 20, 0.0)
    made.ice.selected = PATH
    opened = made.lane(lambda *_: True)
    assert opened is not None

    def feed(data: bytes) -> None:
        arena = library_named().arena(bytearray(b"-" + data))
        opened.receive_untrusted(arena, 1, len(data), 0.0)
        header = b"\x90\x6f" + data[2:8].ljust(6) + bytes(4)  # and as one of a source that is known, rightly protected
        try:
            protected = SrtpTransport(PROFILE, SRTP_KEY, SRTP_KEY).protect_rtp(header + data[:1300])
        except LocalError:
            return
        arena = library_named().arena(bytearray(protected))
        opened.receive_untrusted(arena, 0, len(protected), 0.0)

    return feed


def association() -> Association:
    made = Association(is_client=False, max_message_size_remote=65536, entropy=entropy())
    made.connect(0.0)
    return made


def relay() -> RelayCore:
    return RelayCore(RelayConfig(), KEYS, TRUNK, wall_time=lambda: 0.0)


Feed = Callable[[bytes], object]


def bridge() -> BridgeSession:
    statistics = UpstreamStatistics()
    return BridgeSession(
        Reach(10.0, 60.0, entropy(), 0.0),
        Uplink(16_000, statistics, lambda: None),
        statistics,
        offered=None,
        has_audio=True,
        max_sound_bytes=1 << 20,
        entropy=entropy(),
    )


def notices() -> Feed:
    """As genuine ones of either kind."""
    greeter = Greeter(TRUNK, b"12345678")
    return lambda data: greeter.hear_untrusted(
        TrunkKind.HELLO if len(data) % 2 else TrunkKind.ANNOUNCE, data, CLIENT, 0.0
    )


def hellos() -> Feed:
    """As the body of a hello under the trunk's key, from a relay that is known."""
    relays = Relays(TRUNK, 1452, lambda: iter(()))
    relays.heard(CLIENT, 0.0)
    return lambda data: relays.hear_untrusted(TRUNK.seal(TrunkHead(TrunkKind.HELLO, False, 0, 0), data), CLIENT, 0.0)


def at_zero(method: Callable[[bytes, float], object]) -> Feed:
    return lambda data: method(data, 0.0)


def presses(method: Callable[[bytes, int], object]) -> Feed:
    return lambda data: method(data, 960 * len(data))


def from_client(method: Callable[[bytes, NetworkPath, float], object]) -> Feed:
    return lambda data: method(data, PATH, 0.0)


def batched(method: Callable[..., object], *rest: object) -> Feed:
    return lambda data: method([(memoryview(data), CLIENT)], *rest)


def in_place(method: Callable[[Arena, int, int], object]) -> Feed:
    def feed(data: bytes) -> object:
        return method(library_named().arena(bytearray(b"-" + data)), 1, len(data))

    return feed


def received(size: int, take: Callable[[ReceiveArena], Callable[[int], object]]) -> Feed:
    """The same datagram in 1 slot or in 20: one by one, and as arrays."""
    arena = ReceiveArena(20, size, 2)
    forward = take(arena)

    def feed(data: bytes) -> None:
        count = 20 if len(data) % 2 else 1
        for index in range(count):
            arena.put(index, data, CLIENT)
        arena.survey(count)
        forward(count)

    return feed


def gate(arena: ReceiveArena) -> TrunkGate:
    core = relay()
    return TrunkGate(core, TRUNK, KEYS.prefix, arena, 1, core.greeter)


def reporter() -> RtcpReporter:
    return RtcpReporter(ssrc=1, cname="c", clock_rate=48000, entropy=entropy())


def group_drivers() -> dict[str, Callable[[], Feed]]:
    made = {}
    for group in GROUPS:
        kind = type(group.begin(entropy()))
        made[f"{kind.__module__}.{kind.__name__}.shared_untrusted"] = lambda group=group: (
            group.begin(entropy()).shared_untrusted
        )
    return made


def conversation() -> Conversation:
    """One that listens for an answer."""
    silence = {"PCMU": PCMU.silence}
    script = Script((Sentence("a", {"PCMU": (b"\x00" * 160,)}, 0, 0),), silence)
    found = Conversation(0, script, TurnFigures(), Habits())
    found.use_codec("PCMU")
    for word in ("created", "updated"):
        found.receive_untrusted(f'{{"type":"session.{word}"}}', 0.0)
    found.handle_timeout(60.0)
    found.frame_left(60.0)
    return found


DRIVERS: dict[str, Callable[[], Feed]] = {
    "protocol.dtls.cookies.CookieExchange.receive_untrusted": lambda: (
        lambda data: CookieExchange(entropy(), 0.0).receive_untrusted(data, b"address", 0.0)
    ),
    "protocol.codecs.telephone_event.KeyPresses.detect_untrusted": lambda: presses(KeyPresses().detect_untrusted),
    "protocol.dtls.endpoint.DtlsEndpoint.receive_untrusted": lambda: at_zero(dtls(Role.SERVER).receive_untrusted),
    "protocol.ice.full.IceFull.receive_untrusted": lambda: from_client(
        IceFull(OURS, THEIRS, entropy=entropy()).receive_untrusted
    ),
    "protocol.ice.lite.IceLite.receive_untrusted": lambda: from_client(
        IceLite(OURS, THEIRS, entropy=entropy()).receive_untrusted
    ),
    "protocol.peer.endpoint.Peer.receive_untrusted": lambda: from_client(peer().receive_untrusted),
    "protocol.peer.lane.MediaLane.receive_untrusted": lane,
    "protocol.routing.token.KeyRing.open_untrusted": lambda: KEYS.open_untrusted,
    "protocol.routing.trunk.Trunk.decode_untrusted": lambda: TRUNK.decode_untrusted,
    "protocol.routing.trunk.Trunk.split_untrusted": lambda: TRUNK.split_untrusted,
    "protocol.routing.trunk.Trunk.open_untrusted": lambda: TRUNK.open_untrusted,
    "protocol.rtp.reporter.RtcpReporter.receive_untrusted": lambda: at_zero(reporter().receive_untrusted),
    "protocol.sctp.association.Association.receive_untrusted": lambda: at_zero(association().receive_untrusted),
    "protocol.sctp.cookie.CookieJar.taste_untrusted": lambda: at_zero(CookieJar(entropy()).taste_untrusted),
    "protocol.srtp.transport.SrtpTransport.unprotect_rtp_untrusted": lambda: (
        SrtpTransport(PROFILE, SRTP_KEY, SRTP_KEY).unprotect_rtp_untrusted
    ),
    "protocol.srtp.transport.SrtpTransport.unprotect_rtcp_untrusted": lambda: (
        SrtpTransport(PROFILE, SRTP_KEY, SRTP_KEY).unprotect_rtcp_untrusted
    ),
    "protocol.srtp.transport.SrtpTransport.unprotect_rtp_in_place_untrusted": lambda: in_place(
        SrtpTransport(PROFILE, SRTP_KEY, SRTP_KEY).unprotect_rtp_in_place_untrusted
    ),
    "protocol.srtp.transport.SrtpTransport.unprotect_rtcp_in_place_untrusted": lambda: in_place(
        SrtpTransport(PROFILE, SRTP_KEY, SRTP_KEY).unprotect_rtcp_in_place_untrusted
    ),
    "relay.downlink.Downlink.forward_untrusted": lambda: received(
        TRUNK_SLOT, lambda arena: lambda count: list(relay().downlink(arena).forward_untrusted(count, 0.0))
    ),
    "relay.gate.TrunkGate.open_untrusted": lambda: received(
        TRUNK_SLOT, lambda arena: lambda count: list(gate(arena).open_untrusted(count, 0.0))
    ),
    "relay.gate.TrunkGate.is_right_untrusted": lambda: received(
        TRUNK_SLOT, lambda arena: lambda count: gate(arena).is_right_untrusted(count - 1, 0.0)
    ),
    "relay.rules.FlowRules.route_untrusted": lambda: (
        lambda data: relay().route_untrusted(KINDS[data[0]] if data else 0, memoryview(data), (5, 0, 0), 0, 0.0)
    ),
    "relay.uplink.Uplink.forward_untrusted": lambda: received(
        CLIENT_SLOT, lambda arena: lambda count: relay().uplink(arena, 0, 2).forward_untrusted(count, 0.0)
    ),
    "relay.core.RelayCore.receive_clients_untrusted": lambda: batched(relay().receive_clients_untrusted, 0, 0.0),
    "relay.core.RelayCore.receive_trunk_untrusted": lambda: batched(relay().receive_trunk_untrusted, 0.0),
    "relay.greeter.Greeter.hear_untrusted": notices,
    "transceiver.relays.Relays.hear_untrusted": hellos,
    "transceiver.signalling.client_secrets.ClientSecrets.open_untrusted": lambda: (
        lambda data: ClientSecrets(bytes(32), entropy()).open_untrusted("ek_v1_" + data.decode("latin-1"), 0.0)
    ),
    "agent.realtime.session.RealtimeSession.receive_untrusted": lambda: at_zero(
        RealtimeSession(entropy=entropy()).receive_untrusted
    ),
    "agent.realtime.session.RealtimeSession.receive_in_steps_untrusted": lambda: (
        lambda data: list(RealtimeSession(entropy=entropy(), plays=False).receive_in_steps_untrusted(data, 0.0))
    ),
    "agent.openai_http.retry.retry_after_untrusted": lambda: (
        lambda data: retry_after_untrusted(data.decode("latin-1"), data[::-1].decode("latin-1"))
    ),
    "agent.openai_http.shapes.decode_chunk_untrusted": lambda: (
        lambda data: decode_chunk_untrusted(data.decode("utf-8", "replace"))
    ),
    "agent.openai_http.shapes.decode_transcription_untrusted": lambda: decode_transcription_untrusted,
    "agent.openai_http.shapes.error_text_untrusted": lambda: error_text_untrusted,
    "agent.openai_http.sse.SseParser.feed_untrusted": lambda: SseParser().feed_untrusted,
    "agent.upstream.session.BridgeSession.receive_client_untrusted": lambda: bridge().receive_client_untrusted,
    "agent.upstream.session.BridgeSession.receive_service_untrusted": lambda: (
        lambda data: bridge().receive_service_untrusted(data.decode("utf-8", "replace"), 0.0)
    ),
    "agent.codecs.g711.G711Decoder.decode_untrusted": lambda: G711Decoder("PCMU").decode_untrusted,
    "agent.codecs.g711.G711Decoder.recover_untrusted": lambda: (
        lambda data: G711Decoder("PCMU").recover_untrusted(data, 160)
    ),
    "loadgen.frames.read_frame_untrusted": lambda: read_frame_untrusted,
    "loadgen.words.read_farewell_untrusted": lambda: lambda data: read_farewell_untrusted(data.decode("latin-1")),
    "loadgen.words.read_slots_untrusted": lambda: lambda data: read_slots_untrusted(data.decode("latin-1")),
    "loadgen.realtime.read_event_untrusted": lambda: read_event_untrusted,
    "loadgen.realtime.House.run_untrusted": lambda: (
        lambda data: House().run_untrusted(Output("function_call", "c", "set_light", data.decode("latin-1")))
    ),
    "loadgen.sound.is_sound_untrusted": lambda: lambda data: is_sound_untrusted("opus", data),
    "loadgen.conversation.Conversation.receive_untrusted": lambda: at_zero(conversation().receive_untrusted),
    "loadgen.conversation.Conversation.hear_untrusted": lambda: at_zero(conversation().hear_untrusted),
    "loadgen.tally.AudioTally.receive_untrusted": lambda: at_zero(
        AudioTally(bytes(8), 1, Histogram()).receive_untrusted
    ),
    "loadgen.tally.DataTally.receive_untrusted": lambda: at_zero(DataTally(1, Histogram()).receive_untrusted),
    **group_drivers(),
}
"""Something fresh that takes bytes, for each name."""

if (opus := find_opus()) is not None:
    DRIVERS["agent.codecs.opus.OpusDecoder.decode_untrusted"] = lambda: OpusDecoder(opus).decode_untrusted
    DRIVERS["agent.codecs.opus.OpusDecoder.recover_untrusted"] = lambda: (
        lambda data: OpusDecoder(opus).recover_untrusted(data, 320)
    )

BENEATH = {
    "agent.realtime.client_events.decode_client_event_untrusted": "agent.realtime.session.RealtimeSession.receive_untrusted",
    "agent.realtime.client_events.event_id_of_untrusted": "agent.realtime.session.RealtimeSession.receive_untrusted",
    "agent.upstream.events.decode_client_head_untrusted": "agent.upstream.session.BridgeSession.receive_client_untrusted",
    "agent.upstream.events.decode_object_untrusted": "agent.upstream.session.BridgeSession.receive_service_untrusted",
    "agent.upstream.events.decode_service_event_untrusted": "agent.upstream.session.BridgeSession.receive_service_untrusted",
    "agent.upstream.playing.Playing.put_sound_untrusted": "agent.upstream.session.BridgeSession.receive_service_untrusted",
    "agent.codecs._CodecDecoder.decode_untrusted": "agent.codecs.g711.G711Decoder.decode_untrusted",  # a Protocol
    "agent.codecs._CodecDecoder.recover_untrusted": "agent.codecs.g711.G711Decoder.recover_untrusted",
    "agent.codecs.opus.OpusDecoder.recover_untrusted": "agent.codecs.g711.G711Decoder.recover_untrusted",
    "agent.codecs.opus.OpusDecoder.decode_untrusted": "agent.codecs.g711.G711Decoder.decode_untrusted",  # no libopus
    "loadgen.call.Call.receive_untrusted": "protocol.peer.endpoint.Peer.receive_untrusted",
    "loadgen.conversing.SpokenFrames.receive_untrusted": "loadgen.conversation.Conversation.hear_untrusted",
    "loadgen.call.Call.hear_untrusted": "protocol.peer.lane.MediaLane.receive_untrusted",
    "protocol.dtls.association12.Association12.receive_untrusted": "protocol.dtls.endpoint.DtlsEndpoint.receive_untrusted",
    "protocol.dtls.epochs12.Epochs12.open_untrusted": "protocol.dtls.endpoint.DtlsEndpoint.receive_untrusted",
    "protocol.dtls.groups.group.KeyExchange.shared_untrusted": "protocol.dtls.groups.x25519._Exchange.shared_untrusted",
    "protocol.dtls.protection12.Protection12.open_untrusted": "protocol.dtls.endpoint.DtlsEndpoint.receive_untrusted",
    "protocol.ice.checks.Checks.answered_untrusted": "protocol.ice.full.IceFull.receive_untrusted",
    "protocol.ice.responder.Responder.judge_untrusted": "protocol.ice.lite.IceLite.receive_untrusted",
    "protocol.ice.responder.Responder.role_conflict_untrusted": "protocol.ice.full.IceFull.receive_untrusted",
    "protocol.ice.responder.Responder.success_untrusted": "protocol.ice.lite.IceLite.receive_untrusted",
    "protocol.peer.audio.AudioStream.receive_rtcp_untrusted": "protocol.peer.endpoint.Peer.receive_untrusted",
    "protocol.peer.audio.AudioStream.receive_rtp_untrusted": "protocol.peer.endpoint.Peer.receive_untrusted",
    "protocol.sctp.handshake.Handshake.accept_cookie_untrusted": "protocol.sctp.association.Association.receive_untrusted",
    "protocol.sctp.handshake.Handshake.accept_init_ack_untrusted": "protocol.sctp.association.Association.receive_untrusted",
    "protocol.sctp.handshake.Handshake.answer_init_untrusted": "protocol.sctp.association.Association.receive_untrusted",
    "transceiver.session.session.Session.receive_untrusted": "protocol.peer.endpoint.Peer.receive_untrusted",
}
"""Reached only through another; the tests beside each drive it with its keys and in its states."""


def public_untrusted() -> set[str]:
    """Methods of all packages, and functions outside `protocol` (those inside: test_untrusted.py)."""
    found = set()
    for package in PACKAGES:
        for info in pkgutil.walk_packages([str(ROOT / package)], package + "."):
            if info.name.endswith("__main__"):
                continue
            for name, member in vars(importlib.import_module(info.name)).items():
                if getattr(member, "__module__", None) != info.name:
                    continue
                if inspect.isclass(member):
                    found |= {
                        f"{info.name}.{name}.{method}"
                        for method, function in vars(member).items()
                        if is_public(method) and inspect.isfunction(function)
                    }
                elif inspect.isfunction(member) and is_public(name) and package != "protocol":
                    found.add(f"{info.name}.{name}")
    return found


def is_public(name: str) -> bool:
    return name.endswith("_untrusted") and not name.startswith("_")


def corpus() -> list[bytes]:
    return [
        bytes.fromhex(json.loads(line)["hex"])
        for file in sorted(VECTORS.glob("*.jsonl"))
        for line in file.read_text().splitlines()[:12]
    ]


CORPUS = corpus()


def feed(name: str, datagrams: list[bytes]) -> None:
    take = DRIVERS[name]()
    for data in datagrams:
        try:
            take(data)
        except DecodeError as refused:
            assert not name.endswith(".receive_untrusted"), "noise is dropped and counted, not raised"
            assert refused.reason.replace("_", "").isalnum(), "a reason is a metric label"


def test_every_method_that_touches_bytes_from_the_network_is_driven():
    assert public_untrusted() == set(DRIVERS) | set(BENEATH)
    assert set(BENEATH.values()) <= set(DRIVERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DRIVERS))
@settings(max_examples=40, deadline=None, derandomize=True)
@given(datagrams=st.lists(st.binary(max_size=1500), min_size=1, max_size=4))
def test_any_bytes_are_taken_or_refused(name: str, datagrams: list[bytes]):
    feed(name, datagrams)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_what_browsers_send_first_whole_or_damaged_is_taken_or_refused(name: str):
    source = random.Random(name)
    damaged = []
    for datagram in CORPUS:
        changed = bytearray(datagram)
        changed[source.randrange(len(changed))] ^= 1 << source.randrange(8)
        damaged += [datagram, bytes(changed), bytes(changed[: source.randrange(len(changed))])]
    feed(name, damaged)
