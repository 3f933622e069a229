# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""A caller who has passed every check and turns on us, in virtual time: nothing he does raises, stays or harms another."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from hostile_rig import Insider, Mutator, Rig, callers, identity_with

from protocol.address import pack_address
from protocol.agentlink import MAX_DATA_BYTES
from protocol.routing import Frame, Trunk
from protocol.sctp import ChannelClosed, SctpConfig
from protocol.sctp.packet import build_chunk, build_packet
from protocol.stun import Class, Message, Method
from transceiver.backends.base import Accepted
from transceiver.config import Timeouts
from transceiver.engine import MAX_HANDSHAKES
from transceiver.session import CloseReason
from transceiver.signalling import CallRequest, SignallingError

U32 = 1 << 32


@pytest.fixture
def rig(autojump_clock: trio.testing.MockClock) -> Callable[..., Rig]:
    def make(**config: Any) -> Rig:
        return Rig(autojump_clock, **config)

    return make


def u16(number: int) -> bytes:
    return number.to_bytes(2, "big")


def u32(number: int) -> bytes:
    return (number % U32).to_bytes(4, "big")


def data_chunk(tsn: int, payload: bytes, *, stream: int = 0, ssn: int = 0, flags: int = 3, ppid: int = 51) -> tuple:
    return (0, flags, u32(tsn) + u16(stream) + u16(ssn) + u32(ppid) + payload)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
async def test_no_mutation_of_anything_under_the_keys_raises_or_touches_another_call(
    autojump_clock: Any, rig: Any, seed: int
) -> None:
    """SCTP, RTP, RTCP, STUN, records in the clear, messages, and an agent gone mad; the engine is strict, so a raise fails."""
    rig = rig(timeouts=Timeouts(max_session=1e6))
    bystander, session = rig.live()
    insider = Insider(rig, seed)
    for turn in range(6000):
        insider.step()
        if turn % 10 == 0:
            rig.wait(0.01)
        if turn % 500 == 0:
            rig.wait(insider.random.choice((0.05, 0.3, 2.0)), 0.05)
        insider.renew()
        del rig.backend.attachments[:-20]
    assert session.life.name == "LIVE"
    assert rig.echoes(bystander) == 3
    assert "internal_error" not in rig.engine.drops
    assert len(rig.engine.sessions) == 2
    assert len(rig.engine.routes.by_path) <= 2 * 16
    assert len(rig.engine._heap) < 100


@pytest.mark.slow
@pytest.mark.parametrize("passive", [False, True], ids=["we are the server", "we are the client"])
async def test_no_mutation_of_a_handshake_raises_or_touches_another_call(
    autojump_clock: Any, rig: Any, passive: bool
) -> None:
    """Also when he signs for his nonsense: the transcript and, now and then, the fingerprint belong to what he sent."""
    rig = rig()
    bystander, _ = rig.live()
    mutator = Mutator(7)
    pick = mutator.random
    for _ in range(150):
        identity = callers.IDENTITY
        if pick.random() < 0.4:
            identity = identity_with(mutator.damage(identity.certificate_der) or b"\0")
        caller, session = rig.offer(
            identity=identity, fingerprint=identity.fingerprint(), edit="a=setup:passive" if passive else ""
        )
        handshake = caller.peer._dtls._association._handshake
        honest, chance = handshake._say, pick.choice((0.2, 0.5))

        def say(message: Any, epoch: int = 0, honest: Any = honest, chance: float = chance) -> Any:
            return honest(Mutated(message, mutator) if pick.random() < chance else message, epoch)

        handshake._say = say
        rig.wait(0.1)
        rig.forget(caller)
        session.close(CloseReason.HANGUP, rig.now)
        session.release_now(rig.now)
    assert "internal_error" not in rig.engine.drops
    assert rig.echoes(bystander) == 3
    assert len(rig.engine.sessions) == 1


class Mutated:
    """A handshake message whose bytes are not what they say."""

    def __init__(self, message: Any, mutator: Mutator) -> None:
        self.message_type = message.message_type
        self._bytes = mutator.damage(message.encode())

    def encode(self) -> bytes:
        return self._bytes


async def test_a_goodbye_in_the_same_datagram_as_data_is_a_goodbye(autojump_clock: Any, rig: Any) -> None:
    """DTLS ends with the association above it still up and owing an answer."""
    insider = Insider(rig(), 1)
    peer = insider.caller.peer
    tag, tsn = peer._sctp._handshake.peer_tag, peer._sctp._sender._next_tsn
    peer._dtls.send(build_packet(5000, 5000, tag, [build_chunk(*data_chunk(tsn, b"hi", ssn=1, flags=7))]), 0.0)
    peer._dtls.close(insider.rig.now)
    insider.send(b"".join(output.data for output in peer._dtls.poll() if hasattr(output, "data")))
    assert insider.session.reason is CloseReason.PEER_CLOSED
    assert insider.rig.engine.drops == {}
    assert insider.rig.registry.drops["sctp_without_dtls"] > 0


async def test_a_copied_check_from_another_address_gets_no_answer_and_moves_nothing(
    autojump_clock: Any, rig: Any
) -> None:
    rig = rig()
    caller, session = rig.live()
    thief = rig.network.open("127.0.0.66", 666)
    captured: list[bytes] = []
    honest = caller.socket.send_batch

    def tapped(datagrams: list[tuple[bytes, bytes]]) -> int:
        captured.extend(data for data, _ in datagrams if data[0] == 0)
        return honest(datagrams)

    caller.socket.send_batch = tapped
    rig.wait(8, 0.05)
    assert captured
    path = session.peer.ice.selected
    for check in captured:
        rig.inject(check, thief.address)
    rig.wait(1)
    assert thief.receive_batch() == []
    assert session.peer.ice.selected == path
    assert rig.echoes(caller) == 3


async def test_what_strangers_send_reaches_neither_dtls_nor_srtp_and_is_never_answered(
    autojump_clock: Any, rig: Any
) -> None:
    """ClientHello, RTP, RTCP, alerts, trunk datagrams and noise of up to 9000 bytes, from an address without a check."""
    rig = rig()
    caller, session = rig.live()
    stranger = rig.network.open("127.0.0.77", 777)
    random = Mutator(3).random
    hello = bytes.fromhex("16feff0000000000000000002e0100002200000000000000220000") + bytes(32)
    frames = Trunk(b"x" * 32).encode([Frame(stranger.address, 0, hello)], 1452)
    before = dict(session.peer.statistics(rig.now).drops)
    for size in (*range(64), 100, 576, 1199, 1200, 1201, 1452, 1500, 1501, 2048, 4096, 9000):
        rig.inject(random.randbytes(size), stranger.address)
    for data in (
        hello,
        b"\x80\x6f" + bytes(60),
        b"\x80\xc8" + bytes(60),
        bytes.fromhex("15fefd000000000000000900020228"),
        *frames,
    ):
        for _ in range(20):
            rig.inject(data, stranger.address)
    rig.wait(0.2)
    assert stranger.receive_batch() == []
    assert dict(session.peer.statistics(rig.now).drops) == before
    assert rig.echoes(caller) == 3


async def test_a_hundred_forged_packets_alerts_and_hellos_from_the_callers_own_address_change_nothing(
    autojump_clock: Any, rig: Any
) -> None:
    rig = rig()
    caller, session = rig.live()
    hello = bytes.fromhex("16fefd0000000000000100300100002400000000000000240000") + bytes(34)
    for index in range(100):
        rig.inject(b"\x80\x6f" + u16(index) + os.urandom(60), caller.socket.address)
        rig.inject(b"\x80\xc8\0\6" + os.urandom(60), caller.socket.address)
        rig.inject(bytes.fromhex("15fefd0000000000000009000202") + bytes((40 + index % 10,)), caller.socket.address)
        rig.inject(bytes.fromhex("15fefd00000000000000090002") + b"\1\0", caller.socket.address)
        rig.inject(hello, caller.socket.address)
        rig.inject(
            bytes.fromhex("17fefd0001000000000100") + bytes((index % 200, 40)) + os.urandom(40), caller.socket.address
        )
    assert session.life.name == "LIVE"
    assert rig.echoes(caller) == 3
    caller.say("still here")
    rig.wait(0.1)
    assert caller.messages[-1] == "still here"


async def test_a_tag_with_one_bit_turned_is_counted_once_and_its_packet_not_echoed(
    autojump_clock: Any, rig: Any
) -> None:
    """Nor is one without a tag, or in the clear; the true packet behind them is, with the very same sequence number."""
    rig = rig()
    caller, session = rig.live()
    stream = caller.peer._audio
    for bit in range(0, 80, 9):
        true = caller.peer._audio._srtp.protect_rtp(
            b"\x80\x6f" + u16(stream._sequence) + u32(bit * 960) + u32(0x1234) + b"\xf8" + bytes((bit,)) * 8
        )
        stream._sequence += 1
        place = len(true) - 1 - bit // 8
        flipped = true[:place] + bytes((true[place] ^ 1 << bit % 8,)) + true[place + 1 :]
        for forged in (flipped, true[:-10], b"\x80\x6f" + true[2:12] + b"\xf8in the clear"):
            before = session.all_drops()
            rig.inject(forged, caller.socket.address)
            rig.pump()
            dropped = session.all_drops() - before
            assert dropped in ({"srtp_auth": 1}, {"srtp_malformed": 1})
            assert "srtp_auth" in dropped or forged is not flipped
            assert len(caller.audio) == bit // 9
        rig.inject(true, caller.socket.address)
        rig.wait(0.04)
        assert caller.audio[-1].payload == b"\xf8" + bytes((bit,)) * 8


async def test_no_answer_to_stun_is_larger_than_its_request(autojump_clock: Any, rig: Any) -> None:
    """From the client who knows the password; strangers get no answer at all."""
    rig = rig()
    caller, session = rig.live()
    other = rig.network.open("127.0.0.99", 9)
    user = session.ufrag.decode() + ":" + caller._capabilities.ice.ufrag
    key = caller.remote_ice.pwd.encode()
    for attributes in (
        {"USERNAME": user, "PRIORITY": 1, "ICE-CONTROLLING": 1},
        {"USERNAME": user, "ICE-CONTROLLED": 1},
        {"USERNAME": user},
        {"USERNAME": user + "x", "PRIORITY": 1, "ICE-CONTROLLING": 1},
        {"USERNAME": session.ufrag.decode()},
        {"USERNAME": session.ufrag.decode() + ":"},
    ):
        for wrong in (False, True):
            request = Message(Method.BINDING, Class.REQUEST, os.urandom(12), dict(attributes))
            request.add_message_integrity(b"wrong" if wrong else key)
            request.add_fingerprint()
            rig.inject(bytes(request), other.address)
            answers = [bytes(data) for data, _ in other.receive_batch() if bytes(data[4:20]) == bytes(request)[4:20]]
            assert sum(map(len, answers)) <= len(bytes(request))
            assert not (wrong and answers)
    assert rig.echoes(caller) == 3


async def test_fragment_bombs_and_empty_fragments_cost_nothing_and_the_real_handshake_goes_on(
    autojump_clock: Any, rig: Any
) -> None:
    rig = rig()
    caller, session = rig.offer()
    while session.peer.ice.selected is None:
        rig.wait(0.001)
    record = lambda number, body: b"\x16\xfe\xfd\0\0" + number.to_bytes(6, "big") + u16(len(body)) + body  # noqa: E731
    for number in range(800):  # a promise of 16 MiB each, and a byte of it; then nothing of nothing
        sequence = u16(number % 9)
        bomb = b"\1\xff\xff\xff" + sequence + number.to_bytes(3, "big") + b"\0\0\1!"
        empty = b"\1\0\0\0" + sequence + bytes(6)
        rig.inject(record(1000 + 2 * number, bomb), caller.socket.address)
        rig.inject(record(1001 + 2 * number, empty), caller.socket.address)
    rig.wait(1.5)
    assert session.life.name == "LIVE"
    assert rig.echoes(caller) == 3


async def test_offers_that_nobody_follows_up_are_bounded_and_forgotten(autojump_clock: Any, rig: Any) -> None:
    rig = rig(max_sessions=300, max_half_open=100)
    bystander, _ = rig.live()
    offer = callers.Caller(rig.network.open("127.0.0.50")).offer().encode()
    for index in range(600):
        rig.registry.create(CallRequest(offer))
        if index % 20 == 0:
            rig.pump()
    rig.pump()
    assert len(rig.registry.sessions) == 101
    assert rig.registry.ended["evicted"] == 500
    assert rig.echoes(bystander) == 3
    rig.wait(20, 0.5)
    assert len(rig.registry.sessions) == len(rig.engine.sessions) == 1
    assert len(rig.engine._heap) < 10


async def test_at_the_limit_offers_are_refused_with_a_time_to_come_back(autojump_clock: Any, rig: Any) -> None:
    rig = rig(max_sessions=3, max_half_open=3)
    offers = [rig.live()[0] for _ in range(3)]
    with pytest.raises(SignallingError) as refused:
        rig.registry.create(CallRequest(offers[0].offer().encode()))
    assert (refused.value.status, refused.value.code) == (503, "session_limit")
    assert refused.value.retry_after


@pytest.mark.parametrize(("size", "state"), [(MAX_DATA_BYTES + 1, "ESTABLISHED"), (4 * MAX_DATA_BYTES + 1, "DEAD")])
async def test_a_message_beyond_what_we_announced_costs_him_no_more_than_his_channels_and_nobody_else(
    autojump_clock: Any, rig: Any, size: int, state: str
) -> None:
    rig = rig()
    bystander, _ = rig.live()
    insider = Insider(rig, 1)
    peer = insider.caller.peer
    peer._sctp._channels._max_message_size = 0  # he does not care what our answer said
    peer.send_message(insider.caller.channel, b"x" * size, rig.now)
    insider.flush()
    rig.wait(2)
    assert insider.session.peer._sctp.state.name == state
    assert not any(len(message) > MAX_DATA_BYTES for one in rig.backend.attachments for message in one.messages)
    assert rig.echoes(bystander) == 3


async def test_channels_beyond_the_limit_are_refused_and_the_others_work(autojump_clock: Any, rig: Any) -> None:
    insider = Insider(rig(), 1)
    peer = insider.caller.peer
    peer._sctp._channels._config = replace(SctpConfig(), max_channels=2000)  # else his own side would stop him
    for _ in range(400):
        peer.open_channel("c", insider.rig.now)
        insider.flush()
        insider.rig.pump(3)
    insider.rig.wait(1.5)  # beyond his share of words at once
    [attachment] = insider.rig.backend.attachments
    assert len(attachment.channels) == 256
    assert insider.session.life.name == "LIVE"
    assert insider.rig.echoes(insider.caller) == 3


async def test_labels_cannot_fill_our_memory_or_the_agents_link(autojump_clock: Any, rig: Any) -> None:
    """RFC 8832 allows 128 KiB of label and protocol to a channel, and JSON makes six of each control character."""
    insider = Insider(rig(), 1)
    peer = insider.caller.peer
    for length in (1025, 40_000, 65_535):
        refused = peer.open_channel("\1" * length, insider.rig.now, "\1" * (65_535 if length > 60_000 else 0))
        insider.flush()
        insider.rig.wait(0.5)
        assert refused in [event.channel for event in insider.caller.events if isinstance(event, ChannelClosed)]
    kept = peer.open_channel("\1" * 512, insider.rig.now, "\1" * 512)
    insider.flush()
    insider.rig.wait(0.2)
    assert sorted(insider.rig.backend.last.channels) == [insider.caller.channel, kept]
    assert insider.rig.echoes(insider.caller) == 3


async def test_a_flood_of_data_that_no_agent_reads_is_bounded(autojump_clock: Any, rig: Any) -> None:
    """Nobody is attached: a window full is kept for whoever comes, and he hears all of it; the rest waits with the caller."""
    rig = rig()
    rig.backend.mood = "silent"
    caller, session = rig.offer()
    rig.wait(0.5)
    taken = 0
    for _ in range(40):
        taken += caller.peer.send_message(caller.channel, b"z" * 60_000, rig.now)
        caller.drain()
        rig.wait(0.05)
    assert taken < 30
    inflow = session.conversation.channels._inflow
    assert inflow is not None
    assert 500_000 < inflow.room <= 1024 * 1024 + 256 * 1024
    assert session.peer._sctp._receiver.window == 0
    rig.backend.last.post(Accepted())
    rig.wait(20)
    assert sum(map(len, rig.backend.last.messages)) == taken * 60_000


async def test_a_client_that_closes_its_window_costs_a_bounded_buffer(autojump_clock: Any, rig: Any) -> None:
    """He opens a channel, says that he can take nothing any more, and his agent goes on talking."""
    insider = Insider(rig(), 1)
    rig_, session = insider.rig, insider.session
    insider.chunks((3, 0, u32(session.peer._sctp._sender._next_tsn - 1) + u32(0) + u16(0) + u16(0)))
    insider.caller.peer._sctp._receiver._config = None  # deaf from now on: he acknowledges nothing
    rig_.callers.remove(insider.caller)
    attachment = rig_.backend.last
    for _ in range(100):
        for _ in range(4):
            attachment.post(callers.DataMessage(7, 0, b"w" * 50_000))
        rig_.engine.turn(rig_.now)
    channels = session.conversation.channels
    assert channels._blocked_bytes <= 1024 * 1024
    assert channels.drops["blocked"] > 100
    assert session.peer._sctp._sender.queue.buffered_total <= 4 * 1024 * 1024 + 50_000
    assert ("blocked", 0) in attachment.told


async def test_a_flood_of_frames_from_the_agent_is_bounded(autojump_clock: Any, rig: Any) -> None:
    rig = rig()
    caller, session = rig.live()
    rig.backend.echo = False
    for _ in range(20_000):
        rig.backend.last.post(callers.MediaRecord(7, 0, 0, b"\xf8\xff\xfe"))
    rig.engine.turn(rig.now)
    assert session.all_drops()["downlink_overflow"] > 19_000
    rig.wait(0.5)
    assert 20 <= len(caller.audio) <= 35  # the pace of speech, not that of the flood


async def test_forward_tsns_bundled_by_the_hundred_cost_one(autojump_clock: Any, rig: Any) -> None:
    """Each makes us look through all that waits, which he can make much; an engine that is busy with it serves nobody."""
    insider = Insider(rig(), 1)
    tsn = insider.caller.peer._sctp._sender._next_tsn
    for block in range(0, 1000, 10):  # stretches of two fragments without their other halves, each behind a gap
        begin = [data_chunk(tsn + 2001 + 3 * n, b"b", ssn=6, flags=2) for n in range(block, block + 10)]
        end = [data_chunk(tsn + 2000 + 3 * n, b"e", ssn=5, flags=1) for n in range(block, block + 10)]
        insider.chunks(*end, *begin)
        insider.rig.pump(2)
    drops = insider.session.peer._sctp.drops
    insider.chunks(*((192, 0, u32(tsn + step)) for step in range(140)))
    insider.rig.pump(2)
    assert insider.session.peer._sctp.state.name == "ESTABLISHED"
    assert drops["forward_tsn_repeated"] == 139
    insider.chunks((192, 0, u32(tsn + 140)))
    insider.rig.pump(2)
    assert drops["forward_tsn_repeated"] == 139


async def test_nobody_keeps_a_path_by_checks_from_a_forged_address(autojump_clock: Any, rig: Any) -> None:
    """His call is secure; he sends its checks from the address that a later caller will have. That caller must get through."""
    rig = rig()
    attacker, session = rig.live()
    victim_address = pack_address("127.0.0.3", rig.network._next_port)
    request = Message(
        Method.BINDING,
        Class.REQUEST,
        os.urandom(12),
        {
            "USERNAME": f"{session.ufrag.decode()}:{attacker._capabilities.ice.ufrag}",
            "PRIORITY": 1,
            "ICE-CONTROLLING": 1,
        },
    )
    request.add_message_integrity(attacker.remote_ice.pwd.encode())
    request.add_fingerprint()
    rig.inject(bytes(request), victim_address)
    victim, _ = rig.live()
    assert victim.socket.address == victim_address
    assert rig.echoes(victim) == 3
    assert rig.echoes(attacker) == 3


async def test_nobody_takes_the_path_of_a_call_in_its_handshake_by_checks_from_its_address(
    autojump_clock: Any, rig: Any
) -> None:
    """Before each datagram of the victim there comes an insider's check in his name: his handshake had never ended."""
    rig = rig()
    attacker, session = rig.live()
    victim, theirs = rig.offer()
    while not theirs.peer.ice.proven:
        rig.clock.jump(0.001)
        rig.pump(1)
    assert theirs.transport.name == "HANDSHAKING"
    for _ in range(200):
        request = Message(
            Method.BINDING,
            Class.REQUEST,
            os.urandom(12),
            {
                "USERNAME": f"{session.ufrag.decode()}:{attacker._capabilities.ice.ufrag}",
                "PRIORITY": 1,
                "ICE-CONTROLLING": 1,
            },
        )
        request.add_message_integrity(attacker.remote_ice.pwd.encode())
        request.add_fingerprint()
        rig.inject(bytes(request), victim.socket.address)
        rig.clock.jump(0.01)
        rig.pump(1)
    assert theirs.life.name == "LIVE"
    assert rig.engine.drops["path_taken"] > 100
    assert rig.echoes(victim) == 3
    assert rig.echoes(attacker) == 3


async def test_what_was_said_on_a_channel_that_is_closed_is_not_told_as_that_of_the_next_one(
    autojump_clock: Any, rig: Any
) -> None:
    """Nobody was attached while a channel came, spoke and went, and another took its number."""
    rig = rig()
    rig.backend.mood = "silent"
    caller, session = rig.offer()
    rig.wait(0.5)
    numbers = []
    for word in ("old", "new"):
        numbers.append(caller.peer.open_channel(word, rig.now))
        rig.wait(0.2)
        caller.peer.send_message(numbers[-1], word, rig.now)
        caller.drain()
        rig.wait(0.2)
        if word == "old":
            caller.peer.close_channel(numbers[-1], rig.now)
            caller.drain()
            rig.wait(0.5)
    assert numbers[0] == numbers[1]
    rig.backend.last.post(Accepted())
    rig.wait(0.1)
    assert rig.backend.last.channels[numbers[1]] == "new"
    assert rig.backend.last.messages == ["new"]
    assert session.all_drops()["early_closed"] == 1


async def test_media_waits_for_no_crowd_of_handshakes(autojump_clock: Any, rig: Any) -> None:
    """Callers who hold their last flights back and send them all at once had stopped everybody for a millisecond each."""
    rig = rig(max_sessions=100, max_half_open=100)
    talker, _ = rig.live()
    held: list[tuple[bytes, bytes]] = []
    crowd = []
    for _ in range(40):
        caller, session = rig.offer()
        crowd.append(session)
        honest = caller.socket.send_batch

        def send(datagrams: list[tuple[bytes, bytes]], caller: Any = caller, honest: Any = honest) -> int:
            last = [data for data, _ in datagrams if data[0] == 22 and data[13] != 1]  # no ClientHello
            held.extend((data, caller.socket.address) for data in last)
            return int(honest([one for one in datagrams if one[0] not in last]))

        caller.socket.send_batch = send
    while len({address for _, address in held}) < 40:
        rig.clock.jump(0.01)
        rig.pump(1)
    for data, address in held:
        rig.socket.put(data, address)
    heard = len(rig.backend.attachments[0].audio)
    talker.speak()
    for turn in range(1, 1000):
        rig.engine.turn(rig.now)
        secure = sum(session.transport.name == "SECURE" for session in crowd)
        assert secure <= MAX_HANDSHAKES * turn
        if turn == 1:
            assert len(rig.backend.attachments[0].audio) == heard + 1
        if rig.engine.next_timeout() > rig.now:
            break
    assert secure == 40
    assert rig.echoes(talker) >= 3


async def test_a_turn_that_takes_long_leaves_what_has_come_to_the_next_one(autojump_clock: Any, rig: Any) -> None:
    """512 datagrams of fifty messages each had stopped everybody for 400 ms."""
    rig = rig()
    caller, _ = rig.live()
    for _ in range(rig.socket.batch_size * 3):
        rig.socket.put(os.urandom(100), caller.socket.address)
    readings = iter((0.004, 0.012, 0.003))  # seconds since the turn began, after each batch
    rig.engine._clock = lambda: rig.now + next(readings)
    rig.engine.turn(rig.now)
    assert len(rig.socket._queue) == rig.socket.batch_size
    rig.engine.turn(rig.now)
    assert not rig.socket._queue
