"""Two whole peers, ours on both sides, over a network in memory and in virtual time."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.address import Path, pack_address
from protocol.demux import Kind, classify_untrusted
from protocol.dtls import DtlsEndpoint, Identity, Role
from protocol.ice import Candidate, IceCredentials, IceFull, IceLite
from protocol.peer import (
    AudioParameters,
    AudioReceived,
    CircuitBroken,
    ConsentLate,
    DataChannelsClosed,
    DataParameters,
    DtlsConnected,
    PathSelected,
    Peer,
    PeerClosed,
    RestartCompleted,
    SendTo,
    TransportFailed,
)
from protocol.rtp import Trip
from protocol.sctp import ChannelMessage, ChannelOpened
from protocol.srtp import SERVER_PREFERENCE

CLIENT, MOVED, SERVER, STRANGER = (
    pack_address("192.0.2.1", 5000),
    pack_address("192.0.2.1", 6000),
    pack_address("192.0.2.2", 3478),
    pack_address("192.0.2.9", 9),
)
IDENTITIES = [Identity.generate(datetime(2026, 1, 1, tzinfo=UTC)) for _ in range(3)]


class Call:
    """A client (full ICE, DTLS client) and a server (ICE-lite, DTLS server); 10 ms between them each way."""

    def __init__(self, *, seed: int = 1, loss: float = 0.0, wrong_fingerprint: bool = False) -> None:
        self.now = 1000.0
        self.source = random.Random(seed)
        self.loss = loss
        self.wire: list[tuple[float, int, Peer, bytes, Path]] = []
        self.sent = 0
        self.client_address = CLIENT
        self.stun_blocked = self.rtcp_blocked = False
        entropy = self.source.randbytes
        mine, yours = IceCredentials("cli0", "c" * 24), IceCredentials("srv0", "s" * 24)
        client_identity, server_identity, other = IDENTITIES
        ice = IceFull(mine, yours, controlling=True, entropy=entropy)
        ice.add_remote_candidate(Candidate("1", 1, "udp", 1, "192.0.2.2", 3478, "host"))
        self.client = Peer(
            ice=ice,
            dtls=DtlsEndpoint(
                Role.CLIENT,
                client_identity,
                peer_fingerprints=(server_identity.fingerprint(),),
                srtp_profiles=SERVER_PREFERENCE,
                entropy=entropy,
            ),
            audio=AudioParameters(111, 48000, 1, "client"),
            data=DataParameters(),
            entropy=entropy,
        )
        expected = other if wrong_fingerprint else client_identity
        self.server = Peer(
            ice=IceLite(yours, mine, entropy=entropy),
            dtls=DtlsEndpoint(
                Role.SERVER,
                server_identity,
                peer_fingerprints=(expected.fingerprint(),),
                srtp_profiles=SERVER_PREFERENCE,
                entropy=entropy,
            ),
            audio=AudioParameters(111, 48000, 2, "server"),
            data=DataParameters(),
            entropy=entropy,
        )
        self.events: dict[Peer, list[object]] = {self.client: [], self.server: []}
        ice.start(self.now)

    def drain(self) -> None:
        client = self.client_address
        for peer, other, source in ((self.client, self.server, client), (self.server, self.client, SERVER)):
            for output in peer.poll():
                if not isinstance(output, SendTo):
                    self.events[peer].append(output)
                    self.react(peer, output)
                elif output.path.remote in (client, SERVER) and not self.is_blocked(output.data):
                    self.sent += 1
                    if self.source.random() >= self.loss:
                        self.wire.append((self.now + 0.01, self.sent, other, output.data, Path(b"", source)))

    def is_blocked(self, data: bytes) -> bool:
        kind = classify_untrusted(data)
        return (self.stun_blocked and kind is Kind.STUN) or (self.rtcp_blocked and kind is Kind.RTCP)

    def react(self, peer: Peer, output: object) -> None:
        if isinstance(output, PathSelected):
            peer.start_dtls(self.now)
        elif isinstance(output, DtlsConnected):
            peer.start_media()

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while True:
            self.drain()
            arrival = min(self.wire, default=(math.inf,))[0]
            timer = min(self.client.next_timeout(), self.server.next_timeout())
            if min(arrival, timer) > end:
                self.now = end
                return
            self.now = max(self.now, min(arrival, timer))
            if arrival <= timer:
                first = min(self.wire)
                self.wire.remove(first)
                first[2].receive_untrusted(first[3], first[4], self.now)
            else:
                self.client.handle_timeout(self.now)
                self.server.handle_timeout(self.now)

    def talk(self, peer: Peer, packets: int) -> None:
        for index in range(packets):
            peer.send_audio(b"frame %d" % index, index * 960, self.now, marker=index == 0)
            self.run(0.02)

    def heard(self, peer: Peer) -> list[bytes]:
        return [event.packet.payload for event in self.events[peer] if isinstance(event, AudioReceived)]

    def all_of(self, peer: Peer, kind: type) -> list:
        return [event for event in self.events[peer] if isinstance(event, kind)]


def test_what_a_channel_promises_reaches_the_other_peer():
    call = Call()
    call.run(1)
    call.client.open_channel("a", call.now, "p", ordered=False, max_retransmits=2)
    call.client.open_channel("b", call.now, max_lifetime=0.5)
    call.run(0.1)
    assert call.all_of(call.server, ChannelOpened) == [
        ChannelOpened(0, "a", "p", False, 2, None),
        ChannelOpened(2, "b", "", True, None, 0.5),
    ]


def test_a_call_connects_talks_both_ways_and_carries_messages():
    call = Call()
    call.run(1)
    assert call.all_of(call.client, DtlsConnected)[0].srtp_profile == SERVER_PREFERENCE[0]
    channel = call.client.open_channel("oai-events", call.now)
    call.run(0.1)
    opened = call.all_of(call.server, ChannelOpened)[0]
    assert (opened.channel, opened.label) == (channel, "oai-events")
    assert call.client.send_message(channel, "hello", call.now)
    assert call.server.send_message(channel, b"", call.now)
    call.talk(call.client, 5)
    call.talk(call.server, 5)
    assert [event.data for event in call.all_of(call.server, ChannelMessage)] == ["hello"]
    assert [event.data for event in call.all_of(call.client, ChannelMessage)] == [b""]
    assert call.heard(call.server) == [b"frame %d" % index for index in range(5)] == call.heard(call.client)
    assert call.client.data_drained
    assert call.server.data_drained


def test_statistics_know_the_round_trip_and_the_loss():
    call = Call()
    call.run(1)
    for _ in range(10):
        call.talk(call.client, 50)
        call.talk(call.server, 50)
    statistics = call.server.statistics(call.now)
    assert statistics.round_trip_time == pytest.approx(0.02, abs=0.002)
    assert (statistics.packets_received, statistics.packets_lost) == (500, 0)
    assert statistics.remote_fraction_lost == 0
    assert statistics.cipher_suite is not None
    assert statistics.path == Path(b"", CLIENT)


def test_statistics_keep_what_was_received_before_the_bye_of_its_source():
    call = Call()
    call.run(1)
    call.talk(call.client, 50)
    call.client._audio.reporter.close(call.now)  # the BYE alone: the call goes on
    call.client.handle_timeout(call.now)
    call.run(0.1)
    statistics = call.server.statistics(call.now)
    assert statistics.rtcp["source_bye"] == 1
    assert (statistics.packets_received, statistics.packets_lost) == (50, 0)
    assert statistics.jitter is None


def test_the_circuit_breaker_stops_audio_tells_why_and_lets_it_go_on_when_reports_come_back():
    call = Call()
    call.run(1)
    call.talk(call.server, 600)
    call.rtcp_blocked = True
    call.talk(call.server, 1100)
    assert call.all_of(call.server, CircuitBroken) == [CircuitBroken("rtcp_timeout")]
    before = len(call.heard(call.client))
    assert not call.server.send_audio(b"x", 0, call.now)
    assert call.server.statistics(call.now).drops["circuit_rtcp_timeout"] > 1
    call.run(1)
    assert len(call.heard(call.client)) == before
    call.rtcp_blocked = False
    call.run(10)  # the client's reports have no block about us: it has not heard us since its last one
    call.talk(call.server, 5)
    assert len(call.heard(call.client)) == before + 5


@pytest.mark.parametrize("way_out", ["resume_media", "path"])
def test_a_breaker_that_tripped_is_reset_when_the_way_is_another(way_out: str):
    call = Call()
    call.run(1)
    breaker = call.server._audio.reporter.breaker
    breaker.tripped = Trip.CONGESTION
    assert not call.server.send_audio(b"x", 0, call.now)
    if way_out == "resume_media":  # consent had been late and came back
        call.server.pause_media()
        call.server.resume_media()
    else:
        call.client_address = MOVED  # a NAT binding anew
        call.run(15)
        assert call.all_of(call.server, PathSelected)[-1].path.remote == MOVED
    assert call.server.send_audio(b"x", 0, call.now)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_call_connects_through_a_fifth_of_its_packets_lost(seed: int):
    call = Call(seed=seed, loss=0.2)
    call.run(6)
    assert call.all_of(call.client, DtlsConnected)
    assert call.all_of(call.server, DtlsConnected)


def test_a_wrong_fingerprint_ends_the_call_before_any_key_is_used():
    call = Call(wrong_fingerprint=True)
    call.run(2)
    call.talk(call.client, 5)
    assert call.all_of(call.server, TransportFailed)[0].reason == "fingerprint_mismatch"
    assert not call.all_of(call.server, DtlsConnected)
    assert call.heard(call.server) == []


def test_what_a_stranger_sends_is_dropped_before_dtls_and_srtp_see_it():
    call = Call()
    call.run(1)
    call.talk(call.client, 1)
    before = call.server.statistics(call.now).packets_received
    for first in (b"\x16\xfe\xfd", b"\x80\x6f", b"\x80\xc8"):
        call.server.receive_untrusted(first + bytes(40), Path(b"", STRANGER), call.now)
    assert call.server.drops["path_not_validated"] == 3
    assert call.server.poll() == []
    call.talk(call.client, 3)
    assert call.server.statistics(call.now).packets_received == before + 3


def test_a_hundred_forged_packets_from_the_right_address_do_not_harm_the_call():
    call = Call()
    call.run(1)
    for index in range(100):
        forged = b"\x80\x6f" + index.to_bytes(2, "big") + bytes(60)
        call.server.receive_untrusted(forged, Path(b"", CLIENT), call.now)
    call.talk(call.client, 10)
    assert len(call.heard(call.server)) == 10


def test_what_is_authentic_but_no_rtp_or_rtcp_is_counted_and_the_call_goes_on():
    call = Call()
    call.run(1)
    call.talk(call.client, 1)
    srtp = call.client._audio._srtp
    header = b"\x6f" + (7).to_bytes(2, "big") + bytes(4) + (3).to_bytes(4, "big")
    broken = [
        srtp.protect_rtp(b"\xa0" + header + b"frame\x00"),  # padding of no length
        srtp.protect_rtcp(b"\x81\xc9\x00\x01" + (1).to_bytes(4, "big")),  # a block that is not there
        b"\x80\xc9\x00\x01" + bytes(40),  # and one that is not authentic
    ]
    for data in broken:
        call.server.receive_untrusted(data, Path(b"", CLIENT), call.now)
    drops = call.server.statistics(call.now).drops
    assert {reason: drops[reason] for reason in ("rtp_padding", "rtcp_malformed", "srtp_auth")} == {
        "rtp_padding": 1,
        "rtcp_malformed": 1,
        "srtp_auth": 1,
    }
    call.talk(call.client, 3)
    assert len(call.heard(call.server)) == 4


def test_media_that_nobody_negotiated_or_that_has_no_keys_yet_is_dropped_and_counted():
    call = Call()
    call.run(0.015)  # the first check has come
    for first in (b"\x80\x6f", b"\x80\xc9"):
        call.server.receive_untrusted(first + bytes(40), Path(b"", CLIENT), call.now)
    assert call.server.drops["srtp_no_keys"] == 2
    call.run(1)
    call.talk(call.client, 3)
    assert len(call.heard(call.server)) == 3


def test_a_key_that_is_used_up_ends_sending_and_raises_nothing():
    call = Call()
    call.run(1)
    call.server._audio._srtp.rtp_left = 2
    assert [call.server.send_audio(b"x", n * 960, call.now) for n in range(4)] == [True, True, False, False]
    call.run(10)
    assert call.server.statistics(call.now).drops["srtp_key_expired"] == 2


@pytest.mark.parametrize(("seed", "loss"), [(1, 0.0), (2, 0.2), (3, 0.2)])
def test_ice8_ice_restarts_under_media_and_messages_without_a_new_key(seed: int, loss: float):
    call = Call(seed=seed)
    call.run(1)
    channel = call.client.open_channel("oai-events", call.now)
    call.run(0.1)
    call.loss = loss
    for index in range(3):
        mine, yours = IceCredentials(f"new{index}", "m" * 24), IceCredentials(f"neu{index}", "y" * 24)
        call.client.restart_ice(mine, yours, call.now)
        call.client.ice.add_remote_candidate(Candidate("1", 1, "udp", 1, "192.0.2.2", 3478, "host"))
        call.server.restart_ice(yours, mine, call.now)
        assert call.client.send_message(channel, str(index), call.now)
        call.talk(call.client, 100)
        call.talk(call.server, 100)
    call.loss = 0.0
    call.run(5)
    for peer in (call.client, call.server):
        assert len(call.all_of(peer, RestartCompleted)) == 3
        assert len(call.all_of(peer, DtlsConnected)) == 1
        assert not call.all_of(peer, TransportFailed)
        assert len(call.heard(peer)) == 300 if not loss else len(call.heard(peer)) > 200
        assert peer.statistics(call.now).drops["path_not_validated"] == 0
    assert [event.data for event in call.all_of(call.server, ChannelMessage)] == ["0", "1", "2"]


def test_ice10_without_a_selected_path_nothing_leaves_but_checks():
    call = Call()
    call.stun_blocked = True
    call.server.start_dtls(call.now)
    call.server.start_media()
    assert not call.server.send_audio(b"x", 0, call.now)
    assert not call.client.send_audio(b"x", 0, call.now)
    call.run(5)
    assert call.wire == []
    assert call.sent == 0


def test_no_media_leaves_while_it_is_paused():
    call = Call()
    call.run(1)
    call.server.pause_media()
    assert not call.server.send_audio(b"x", 0, call.now)
    call.server.resume_media()
    assert call.server.send_audio(b"x", 0, call.now)


def test_a_payload_that_does_not_fit_a_datagram_is_refused_and_counted():
    call = Call()
    call.run(1)
    assert not call.server.send_audio(bytes(1300), 0, call.now)
    assert call.server.drops["audio_payload_too_long"] == 1
    assert call.server.send_audio(bytes(1172), 0, call.now)
    assert max(len(output.data) for output in call.server.poll() if isinstance(output, SendTo)) <= 1200


def test_consent_is_late_when_the_client_falls_silent_though_its_media_goes_on():
    call = Call()
    call.run(1)
    call.stun_blocked = True
    for _ in range(12):
        call.talk(call.client, 50)
    assert call.all_of(call.server, ConsentLate)


def test_goodbyes_are_rtcp_bye_then_close_notify_and_silence_after_them():
    call = Call()
    call.run(1)
    call.talk(call.server, 3)
    call.run(1)
    call.server.close(call.now)
    call.run(0.1)
    assert call.all_of(call.client, PeerClosed)[0].reason == "close_notify"
    assert call.server.next_timeout() == math.inf
    call.server.close(call.now)
    call.server.receive_untrusted(b"\x80\x6f" + bytes(40), Path(b"", CLIENT), call.now)
    assert call.server.poll() == []
    assert not call.server.send_audio(b"x", 0, call.now)


def test_data_channels_come_into_a_call_go_and_come_again_while_the_audio_goes_on():
    call = Call()
    for peer in (call.client, call.server):
        peer.stop_data(call.now)  # a call of audio alone
    call.run(1)
    for _ in range(2):
        for peer in (call.server, call.client):
            peer.start_data(DataParameters(), call.now)
            peer.start_data(DataParameters(), call.now)  # again: nothing
        channel = call.client.open_channel("late", call.now)
        call.run(0.2)
        assert call.client.send_message(channel, "hello", call.now)
        call.talk(call.client, 3)
        assert [event.data for event in call.all_of(call.server, ChannelMessage)] == ["hello"]
        call.server.stop_data(call.now)
        call.run(0.2)
        assert len(call.all_of(call.server, DataChannelsClosed)) == 1
        assert len(call.all_of(call.client, DataChannelsClosed)) == 1  # it has heard our ABORT
        call.client.stop_data(call.now)
        call.talk(call.client, 3)
        assert len(call.heard(call.server)) == 6
        for events in call.events.values():
            events.clear()
    assert call.all_of(call.server, TransportFailed) == []


def test_a_client_hello_that_overtakes_the_start_is_kept():
    call = Call()
    call.react = lambda peer, output: (  # type: ignore[method-assign]
        peer.start_dtls(call.now) if isinstance(output, PathSelected) and peer is call.client else None
    )
    call.run(0.1)
    assert not call.all_of(call.server, DtlsConnected)
    call.server.start_dtls(call.now)
    call.run(0.045)
    assert call.all_of(call.server, DtlsConnected)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200), from_client=st.booleans(), connected=st.booleans())
def test_any_bytes_at_any_time_are_dropped_without_an_exception(data: bytes, from_client: bool, connected: bool):
    call = CONNECTED if connected else Call()
    call.server.receive_untrusted(data, Path(b"", CLIENT if from_client else STRANGER), call.now)
    call.server.poll()


CONNECTED = Call()
CONNECTED.run(1)
