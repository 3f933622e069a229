# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""Whole calls through engine, registry and session, in virtual time; the caller is made of our own protocol cores."""

from __future__ import annotations

import math
import random
import re
import struct
import time
from dataclasses import replace
from typing import Any

import pytest
import trio

from protocol.address import pack_address
from protocol.agentlink import DataMessage, MediaFlags, MediaRecord, PlayedReason
from protocol.codecs import OPUS
from protocol.rtp import ntp_from_unix
from protocol.rtp.ntp import short_ntp, short_to_seconds
from protocol.rtp.rtcp import ReceiverReport
from protocol.stun import parse_message_untrusted
from protocol.stun.binding import binding_request
from transceiver.backends.base import Ended, Flushed, Lost
from transceiver.config import Timeouts
from transceiver.media import Played
from transceiver.media.downlink import HUSH_FRAMES
from transceiver.signalling import CallRequest, SignallingError


async def test_audio_and_messages_come_back_from_an_echoing_agent(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    for number in range(25):
        assert caller.speak(OPUS.silence + bytes([number]))
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.audio) == 25)
    assert [packet.payload[-1] for packet in caller.audio] == list(range(25))
    timestamps = [packet.timestamp - caller.audio[0].timestamp & 0xFFFFFFFF for packet in caller.audio]
    assert timestamps == [960 * number for number in range(25)]
    assert [packet.marker for packet in caller.audio] == [True] + [False] * 24
    for message in ("hello", "", b"\x00\x01", b"", "x" * 65_536):
        caller.say(message)
    await wait_until(lambda: len(caller.messages) == 5)
    assert caller.messages == ["hello", "", b"\x00\x01", b"", "x" * 65_536]
    assert world.backend.last.channels == {caller.channel: "oai-events"}
    stages = world.registry.sessions[call_id].stages
    assert {"ice", "dtls", "agent", "live", "channel", "audio_in", "audio_out"} <= set(stages)


async def test_a_call_through_a_relay_sounds_the_same(
    autojump_clock: Any, world: Any, wait_until: Any, caller_class: Any
) -> None:
    socket = world.relayed(pack_address("203.0.113.5", 777))
    caller, _ = await world.call(caller_class(socket))
    await wait_until(lambda: caller.channel_is_open)
    for _ in range(10):
        caller.speak()
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.audio) == 10)
    caller.say("through the trunk")
    await wait_until(lambda: caller.messages == ["through the trunk"])


@pytest.mark.parametrize("host", ["203.0.113.5", "2001:db8::5"])
async def test_stun6_a_check_through_a_relay_is_answered_with_the_clients_own_address(
    autojump_clock: Any, world: Any, caller_class: Any, host: str
) -> None:
    relayed = world.relayed(pack_address(host, 777))
    caller = caller_class(relayed)
    created = world.registry.create(CallRequest(caller.offer().encode()))
    session = world.registry.sessions[created.call_id]
    check = binding_request(
        bytes(12),
        session.ufrag + b":" + caller.ufrag.encode(),
        world.registry._keys.derive_password(session.ufrag).encode(),
        priority=1,
        controlling=True,
        tie_breaker=1,
    )
    relayed.send_batch([(check, world.address)])
    await trio.sleep(0.01)
    answers = [bytes(data) for data, _ in relayed.receive_batch()]
    mapped = [parse_message_untrusted(data).attributes.get("XOR-MAPPED-ADDRESS") for data in answers]
    assert (host, 777) in mapped


async def test_a_call_over_ipv6_behind_a_relay(
    autojump_clock: Any, world: Any, wait_until: Any, caller_class: Any
) -> None:
    caller, _ = await world.call(caller_class(world.relayed(pack_address("2001:db8::5", 777))))
    await wait_until(lambda: caller.channel_is_open)
    caller.speak()
    await wait_until(lambda: caller.audio)


async def test_audio_alone_and_data_alone_are_calls_too(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    listener, _ = await world.live_call(data=False)
    writer, _ = await world.live_call(audio=False)
    listener.speak()
    writer.say("hello")
    await wait_until(lambda: listener.audio and writer.messages == ["hello"])
    assert world.backend.attachments[0].call.codec is OPUS
    assert world.backend.attachments[1].call.codec is None


async def test_keys_that_the_caller_presses_reach_the_agent(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    caller, call_id = await world.live_call()
    payload_type = world.registry.sessions[call_id].peer._audio.parameters.telephone_event_payload_type
    stream = caller.peer._audio
    stream.parameters = replace(stream.parameters, payload_type=payload_type)
    for digit, start in ((4, 960), (2, 9600)):
        for duration in (960, 1920, 2880, 2880, 2880):
            end = duration == 2880
            caller.peer.send_audio(struct.pack("!BBH", digit, end << 7 | 10, duration), start, trio.current_time())
            caller.drain()
            await trio.sleep(0.02)
    await wait_until(lambda: ("digit", "2") in world.backend.last.told)
    assert [word[1] for word in world.backend.last.told if isinstance(word, tuple)] == ["4", "2"]
    assert not world.backend.last.audio


async def test_each_call_has_an_ssrc_and_a_cname_of_its_own(world: Any, caller_class: Any) -> None:
    offer = caller_class(None).offer().encode()
    answers = [world.registry.create(CallRequest(offer)).answer for _ in range(20)]
    sources = [re.search(r"^a=ssrc:(\d+) cname:(\S+)", answer, re.MULTILINE) for answer in answers]
    assert all(sources)
    assert len({source[1] for source in sources if source}) == len({source[2] for source in sources if source}) == 20


async def test_our_sender_reports_tell_the_time_of_day(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    caller, _ = await world.live_call()
    for _ in range(50):
        caller.speak()
        await trio.sleep(0.02)
    (source,) = caller.peer._audio.reporter.sources.values()
    await wait_until(lambda: source.report_block(0).last_sender_report)
    told = source.report_block(0).last_sender_report
    assert abs(short_to_seconds(told - short_ntp(ntp_from_unix(time.time())))) < 10


# How calls end


async def test_a_caller_who_reports_that_nearly_all_is_lost_ends_the_call_by_its_circuit_breaker(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    caller.speak()
    caller.peer._audio.reporter._due = math.inf  # its honest reports are not sent
    for _ in range(4):
        for _ in range(255):
            caller.speak()
            await trio.sleep(0.02)
        (source,) = caller.peer._audio.reporter.sources.values()
        # No delay of its own: the round trip is the time since our last sender report.
        block = replace(source.report_block(trio.current_time()), fraction_lost=230, delay_since_last_sender_report=0)
        report = caller.peer._audio._srtp.protect_rtcp(ReceiverReport(0x1234, (block,)).serialize())
        caller.socket.send_batch([(report, world.address)])
    await wait_until(lambda: not world.registry.sessions)
    assert world.reason_of() == {"transport_failed": 1}
    assert not session.peer.send_audio(b"x", 0, trio.current_time())


async def test_hanging_up_by_http_tells_client_and_agent_the_reason(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    assert world.registry.hang_up(call_id)
    await wait_until(lambda: caller.ended)
    assert caller.told_reason == "hangup"
    assert caller.ended == "close_notify"
    assert world.backend.last.ended == "hangup"
    assert world.registry.sessions == {}
    assert world.reason_of() == {"hangup": 1}
    assert not world.registry.hang_up(call_id)


async def test_when_the_client_says_goodbye_the_agent_is_told(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    caller, _ = await world.live_call()
    caller.hang_up()
    await wait_until(lambda: not world.registry.sessions)
    assert world.reason_of() == {"peer_closed": 1}
    assert world.backend.last.ended == "peer_closed"


async def test_when_the_agent_hangs_up_the_client_is_told(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    caller, _ = await world.live_call()
    world.backend.last.post(Ended("bored"))
    await wait_until(lambda: caller.ended)
    assert caller.told_reason == "agent_ended"
    assert world.reason_of() == {"agent_ended": 1}


async def test_a_wrong_fingerprint_gets_no_media_and_its_own_reason(
    autojump_clock: Any, world: Any, wait_until: Any, other_identity: Any
) -> None:
    caller, _ = await world.call(identity=other_identity)
    await wait_until(lambda: not world.registry.sessions)
    assert world.reason_of() == {"fingerprint_mismatch": 1}
    assert not caller.connected
    assert not caller.speak()
    assert world.backend.last.audio == []
    assert world.backend.last.messages == []
    assert world.backend.last.ended == "fingerprint_mismatch"


async def test_each_day_has_a_certificate_of_its_own_and_calls_keep_theirs(
    autojump_clock: Any, world: Any, caller_class: Any, wait_until: Any
) -> None:
    def fingerprint() -> str:
        created = world.registry.create(CallRequest(caller_class(world.network.open()).offer().encode()))
        found = re.search("a=fingerprint:(.*)", created.answer)
        assert found
        return found[1]

    first = fingerprint()
    assert fingerprint() == first
    await trio.sleep(86_390)
    assert fingerprint() == first
    old, call_id = await world.live_call()
    await trio.sleep(8)
    late = caller_class(world.network.open("127.0.0.2"))  # offers today, and shakes hands tomorrow
    late.accept(world.registry.create(CallRequest(late.offer().encode())).answer)
    await trio.sleep(5)
    assert fingerprint() != first
    world.nursery.start_soon(late.run)
    await wait_until(lambda: late.connected)
    await world.live_call()
    assert len([session for session in world.registry.sessions.values() if session.life.name == "LIVE"]) == 3
    assert f"a=fingerprint:{first}" in world.registry.renegotiate(call_id, old.offer().encode()).body


async def test_an_offer_that_nobody_follows_up_is_forgotten(autojump_clock: Any, world: Any, caller_class: Any) -> None:
    world.registry.create(CallRequest(caller_class(world.network.open()).offer().encode()))
    await trio.sleep(14.9)
    assert len(world.registry.sessions) == 1
    await trio.sleep(0.2)
    assert world.reason_of() == {"ice_timeout": 1}


async def test_checks_without_a_handshake_are_given_up(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    began = trio.current_time()
    caller, _ = await world.call()
    caller.stun_only = True
    await wait_until(lambda: not world.registry.sessions, 30)
    assert world.reason_of() == {"dtls_timeout": 1}
    assert 9 < trio.current_time() - began < 11


async def test_without_consent_media_pauses_after_ten_seconds_and_the_call_ends_after_thirty(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    caller.speak()
    await wait_until(lambda: caller.audio)
    began = trio.current_time()
    caller.mute_stun = True
    while trio.current_time() - began < 20:
        caller.speak()
        await trio.sleep(0.5)
    heard = len(caller.audio)
    assert session.transport.name == "SUSPECT"
    last = began
    sent_to_caller: list[bytes] = []

    def watch(_: bytes, destination: bytes, data: bytes) -> bool:
        nonlocal last
        if destination == caller.socket.address:
            last = trio.current_time()
            sent_to_caller.append(data)
        return True

    world.network.deliver = watch
    await wait_until(lambda: not world.registry.sessions, 60)
    assert world.reason_of() == {"consent_lost": 1}
    ended = trio.current_time()
    assert 25 < ended - began <= 32
    caller.speak()
    await trio.sleep(60)
    assert last <= ended  # neither media nor DTLS, not even a goodbye (RFC 7675 §5.1)
    assert not any(data[0] == 21 for data in sent_to_caller)
    assert not any(128 <= data[0] < 192 for data in sent_to_caller)  # nor RTCP since the pause
    assert len(caller.audio) == heard


async def test_consent_that_grew_late_during_the_handshake_is_late_after_it(
    autojump_clock: Any, make_world: Any, wait_until: Any
) -> None:
    world = make_world(timeouts=Timeouts(consent_late=2.0, dtls_handshake=9.0))
    caller, call_id = await world.call()
    session = world.registry.sessions[call_id]
    world.network.deliver = lambda _source, _destination, data: data[0] < 4  # STUN alone
    await wait_until(lambda: session.peer.ice.nominated)
    caller.mute_stun = True
    await trio.sleep(3)
    world.network.deliver = lambda _source, _destination, _data: True
    await wait_until(lambda: caller.connected)
    await trio.sleep(0.2)
    assert session.transport.name == "SUSPECT"
    caller.speak()
    await trio.sleep(0.2)
    assert caller.audio == []
    await wait_until(lambda: not world.registry.sessions, 25)
    assert world.reason_of() == {"consent_lost": 1}


async def test_consent_that_comes_back_brings_the_media_back(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    caller.mute_stun = True
    await wait_until(lambda: session.transport.name == "SUSPECT", 30)
    caller.mute_stun = False
    await wait_until(lambda: session.transport.name == "SECURE", 10)
    caller.speak()
    await wait_until(lambda: caller.audio)


# The agent


async def test_without_an_agent_the_call_waits_and_says_why_it_gave_up(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.mood = "absent"
    caller, _ = await world.call()
    await wait_until(lambda: caller.channel_is_open)
    await wait_until(lambda: caller.ended, 40)
    assert caller.told_reason == "agent_unavailable"


async def test_an_agent_that_refuses_is_asked_again(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    world.backend.mood = "refuse"
    caller, _ = await world.call()
    await trio.sleep(2)
    assert len(world.backend.attachments) >= 3
    world.backend.mood = "accept"
    caller.speak()
    await wait_until(lambda: caller.channel_is_open)
    await trio.sleep(1)
    caller.say("are you there?")
    await wait_until(lambda: caller.messages == ["are you there?"])


async def test_an_agent_that_always_refuses_is_the_reason(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    world.backend.mood = "refuse"
    caller, _ = await world.call()
    await wait_until(lambda: caller.ended, 40)
    assert caller.told_reason == "agent_refused"


async def test_an_agent_that_does_not_answer_is_left_for_another(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.mood = "silent"
    await world.call()
    await wait_until(lambda: len(world.backend.attachments) == 2, 10)
    assert world.backend.attachments[0].ended == "agent_unavailable"


async def test_what_the_client_says_before_the_agent_is_there_is_kept_for_it(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.mood = "absent"
    caller, _ = await world.call()
    await wait_until(lambda: caller.channel_is_open)
    caller.say("first")
    caller.say("second")
    await trio.sleep(1)
    world.backend.mood = "accept"
    await wait_until(lambda: caller.messages == ["first", "second"])


@pytest.mark.parametrize("mood", ["silent", "refuse", "absent"])
async def test_what_the_caller_speaks_before_the_agent_is_there_is_kept_for_it(
    autojump_clock: Any, make_world: Any, wait_until: Any, mood: str
) -> None:
    world = make_world(timeouts=Timeouts(backend_connect=0.3, backend_retry=0.2))
    world.backend.mood = mood
    caller, call_id = await world.call()
    await wait_until(lambda: caller.connected)
    assert world.registry.sessions[call_id].life.name == "STARTING"
    for _ in range(10):
        caller.speak()
        await trio.sleep(0.02)
    world.backend.mood = "accept"
    await wait_until(lambda: world.registry.sessions[call_id].life.name == "LIVE")
    caller.speak()
    await wait_until(lambda: len(world.backend.last.audio) == 11)
    first, *others = (record.rtp_time for record in world.backend.last.audio)
    assert others == [first + 960 * number for number in range(1, 11)]
    assert not any(record.flags & MediaFlags.GAP for record in world.backend.last.audio)


async def test_of_what_is_spoken_long_before_an_agent_comes_the_last_second_is_kept(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.mood = "absent"
    caller, call_id = await world.call()
    await wait_until(lambda: caller.connected)
    for _ in range(100):
        caller.speak()
        await trio.sleep(0.02)
    world.backend.mood = "accept"
    await wait_until(lambda: world.registry.sessions[call_id].life.name == "LIVE")
    heard = world.backend.last.audio
    assert len(heard) == 51
    assert heard[0].flags & MediaFlags.GAP


async def test_when_the_agent_is_lost_the_call_lives_and_another_takes_it_over(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    first = world.backend.last
    first.post(Lost())
    await wait_until(lambda: len(world.backend.attachments) == 2)
    second = world.backend.last
    await wait_until(lambda: second.channels)
    assert second.channels == {caller.channel: "oai-events"}
    first.post(MediaRecord(7, 0, 0, OPUS.silence))  # words of the dead are ignored
    first.post(Ended("late"))
    caller.say("still here")
    caller.speak()
    await wait_until(lambda: caller.messages == ["still here"] and caller.audio)
    assert len(caller.audio) == 1
    assert world.registry.sessions[call_id].life.name == "LIVE"


async def test_speech_sent_in_one_go_is_paced_reported_and_cut_by_a_flush(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.echo = False
    caller, _ = await world.live_call()
    agent = world.backend.last
    began = trio.current_time()
    for number in range(100):
        agent.post(MediaRecord(7, number * 960, 0, b"\xf8\x01\x02"))
    await trio.sleep(1.0)
    agent.post(Flushed())
    await trio.sleep(0.5)
    said = sum(packet.payload != OPUS.silence for packet in caller.audio)
    assert 49 <= said <= 53
    assert all(packet.payload == OPUS.silence for packet in caller.audio[said:])
    assert len(caller.audio) == said + HUSH_FRAMES
    gaps = [after - before for before, after in zip(caller.audio_times, caller.audio_times[1:])]
    assert max(gaps) < 0.045
    assert caller.audio_times[0] - began < 0.01
    reports = [word for word in agent.told if isinstance(word, Played)]
    assert [report.reason for report in reports][-1] is PlayedReason.FLUSHED
    assert reports[-1].rtp_time == said * 960
    assert 4 <= len(reports) <= 6


async def test_data_faster_than_the_client_takes_it_stops_the_agent_and_loses_nothing(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    world.backend.echo = False
    caller, _ = await world.live_call()
    agent = world.backend.last
    for number in range(80):
        agent.post(DataMessage(7, caller.channel, bytes([number]) * 10_000))
    await wait_until(lambda: len(caller.messages) == 80, 60)
    assert [message[0] for message in caller.messages] == list(range(80))
    assert agent.told == [("blocked", caller.channel), ("writable", caller.channel)]
    agent.post(DataMessage(7, 999, b"to nobody"))
    agent.post(DataMessage(7, caller.channel, b"after"))
    await wait_until(lambda: caller.messages[-1] == b"after")


# Limits and the end of the process


async def test_at_the_limit_offers_are_refused_until_a_call_ends(
    autojump_clock: Any, make_world: Any, wait_until: Any, caller_class: Any
) -> None:
    world = make_world(max_sessions=2)
    _, first = await world.live_call()
    await world.live_call()
    offer = CallRequest(caller_class(world.network.open()).offer().encode())
    with pytest.raises(SignallingError) as refused:
        world.registry.create(offer)
    assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "session_limit", 5)
    world.registry.hang_up(first)
    await wait_until(lambda: len(world.registry.sessions) == 1)
    world.registry.create(offer)


async def test_the_oldest_half_open_call_makes_room_and_live_ones_are_untouched(
    autojump_clock: Any, make_world: Any, wait_until: Any, caller_class: Any
) -> None:
    world = make_world(max_half_open=3)
    caller, live = await world.live_call()
    offer = CallRequest(caller_class(world.network.open()).offer().encode())
    ids = [world.registry.create(offer).call_id for _ in range(5)]
    await wait_until(lambda: world.reason_of() == {"evicted": 2})
    assert set(world.registry.sessions) == {live, *ids[2:]}
    caller.say("alive")
    await wait_until(lambda: caller.messages == ["alive"])


async def test_draining_refuses_offers_lets_calls_finish_and_ends(
    autojump_clock: Any, make_world: Any, wait_until: Any, caller_class: Any
) -> None:
    world = make_world(timeouts=Timeouts(drain=20))
    leaving, _ = await world.live_call()
    staying, _ = await world.live_call()
    await world.call()  # still being set up: it goes at once
    began = trio.current_time()
    world.registry.drain()
    with pytest.raises(SignallingError) as refused:
        world.registry.create(CallRequest(leaving.offer().encode()))
    assert (refused.value.status, refused.value.code) == (503, "draining")
    await wait_until(lambda: '{"type":"antiphon.draining"}' in leaving.messages)
    leaving.speak()
    await wait_until(lambda: leaving.audio)
    leaving.hang_up()
    with trio.fail_after(25):
        await world.registry.wait_empty()
    assert 19 < trio.current_time() - began < 22
    assert staying.told_reason == "drained"
    assert world.reason_of() == {"peer_closed": 1, "drained": 2}


async def test_shutting_down_says_goodbye_to_all_at_once(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    callers = [(await world.live_call())[0] for _ in range(3)]
    world.registry.shut_down()
    assert world.registry.sessions == {}
    await world.registry.wait_empty()
    await wait_until(lambda: all(caller.ended for caller in callers))
    assert [caller.told_reason for caller in callers] == ["shutdown"] * 3


# Strangers


async def test_a_stranger_decides_nothing(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    caller, _ = await world.live_call()
    stranger = world.network.open("127.0.0.9")
    hello = bytes([22, 254, 253]) + bytes(10) + b"\x00\x00"
    for data in (
        hello,
        b"\x80\x6f" + bytes(40),
        b"\xc5\x20\0\0\0\1" + bytes(40),
        b"\x00\x01" + bytes(18),
        b"",
        b"\xff" * 1200,
    ):
        stranger.send_batch([(data, world.address)])
    await trio.sleep(0.1)
    assert stranger.receive_batch() == []
    caller.speak()
    await wait_until(lambda: caller.audio)
    assert world.engine.drops["unknown_path"] >= 2
    assert world.engine.drops["trunk_forged"] == 1


async def test_a_caller_cannot_take_the_path_of_another_by_checks_from_a_forged_address(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    victim, _ = await world.live_call()
    attacker, _ = await world.live_call()
    genuine, forged = attacker.socket, ForgingSocket(attacker.socket, victim.socket)
    attacker.socket = forged  # its checks, valid for its own call, now seem to come from the victim
    await trio.sleep(12)
    assert world.engine.drops["path_taken"] >= 1
    attacker.socket = genuine
    victim.speak()
    victim.say("still mine")
    await wait_until(lambda: victim.audio and victim.messages == ["still mine"])


async def test_row14_copies_that_overtake_every_check_of_a_caller_neither_stop_his_call_nor_take_it(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    """Somebody beside the caller who hears all he sends, and whose copies are always there first."""
    thief = world.network.open("127.0.0.9")
    stolen: set[bytes] = set()

    def overtake(source: bytes, destination: bytes, data: bytes) -> bool:
        if destination == world.address and source != thief.address and data[0] < 4 and data not in stolen:
            stolen.add(data)
            thief.send_batch([(data, world.address)])
        return True

    world.network.deliver = overtake
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    for _ in range(1000):
        caller.speak()
        await trio.sleep(0.02)
    assert len(caller.audio) > 950
    assert session.peer.ice.selected.remote == caller.socket.address
    assert len(stolen) >= 5
    assert {data[0] for data, _ in thief.receive_batch()} <= {0, 1}  # answers and questions, of no use to him


async def test_a_caller_who_checks_many_paths_is_still_heard_on_the_one_in_use(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    """A laptop with a few interfaces against a relay with a few addresses: each pair is a path, and is checked."""
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    password = world.registry._keys.derive_password(session.ufrag)
    in_use = session.peer.ice.selected
    for number in range(40):
        check = binding_request(
            number.to_bytes(12, "big"),
            session.ufrag + b":" + caller.ufrag.encode(),
            password.encode(),
            priority=1,
            controlling=True,
            tie_breaker=1,
        )
        world.network.open(f"127.0.1.{number + 1}").send_batch([(check, world.address)])
    caller.speak()
    await wait_until(lambda: caller.audio)
    assert session.peer.ice.selected == in_use
    assert len(session.paths) == 16
    assert world.engine.drops["unknown_path"] == 0


async def test_shutting_down_without_a_call_is_over_at_once(autojump_clock: Any, world: Any) -> None:
    world.registry.shut_down()
    with trio.fail_after(1):
        await world.registry.wait_empty()


class ForgingSocket:
    """Sends from another's address, receives at its own."""

    def __init__(self, own: Any, others: Any) -> None:
        self.receive_batch = own.receive_batch
        self.wait_readable = own.wait_readable
        self.close = own.close
        self.send_batch = others.send_batch


async def test_mutated_packets_beside_a_live_call_harm_nothing(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    source = random.Random(7)
    recorded: list[bytes] = []

    def record(_: bytes, destination: bytes, data: bytes) -> bool:
        if destination == world.address and len(recorded) < 200:
            recorded.append(data)
        return True

    world.network.deliver = record
    caller, _ = await world.live_call()
    caller.speak()
    caller.say("x" * 3000)
    await wait_until(lambda: len(caller.messages) == 1)
    world.network.deliver = None
    stranger = world.network.open("127.0.0.9")
    for _ in range(40):
        for _ in range(50):
            data = bytearray(source.choice(recorded))
            for _ in range(source.randint(0, 4)):
                data[source.randrange(len(data))] = source.randrange(256)
            sender = source.choice((stranger, caller.socket))
            sender.send_batch([(bytes(data[: source.randint(0, len(data))]), world.address)])
        await trio.sleep(0.01)
    caller.speak()
    caller.say("unharmed")
    await wait_until(lambda: len(caller.audio) == 2 and caller.messages[-1] == "unharmed")
    assert world.engine.drops["internal_error"] == 0


async def test_a_call_survives_a_change_of_the_clients_address(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, _ = await world.live_call()
    caller.socket = world.network.open("127.0.0.2")
    began = trio.current_time()
    while not caller.audio and trio.current_time() - began < 10:
        caller.speak()
        await trio.sleep(0.02)
    assert caller.audio
    caller.say("moved")
    await wait_until(lambda: caller.messages == ["moved"])


async def test_a_call_that_fails_inside_ends_alone(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    world.engine._strict = False
    broken, _ = await world.live_call()
    healthy, _ = await world.live_call()

    def fail(*_: object) -> None:
        raise RuntimeError("a bug of ours, wherever it may be")

    world.backend.attachments[0].message = fail
    broken.say("boom")
    await wait_until(lambda: world.reason_of() == {"internal_error": 1})
    await wait_until(lambda: broken.told_reason == "internal_error")
    healthy.say("fine")
    await wait_until(lambda: healthy.messages == ["fine"])


async def test_a_transceiver_set_up_active_begins_the_handshake_itself(
    autojump_clock: Any, make_world: Any, wait_until: Any, other_identity: Any
) -> None:
    world = make_world(setup="active")
    caller, call_id = await world.live_call()
    assert "a=setup:active" in world.registry.renegotiate(call_id, caller.offer().encode()).body
    assert caller.channel % 2 == 1  # RFC 8832 §6: the DTLS server, now the caller, opens the odd ones
    caller.speak()
    caller.say("hello")
    await wait_until(lambda: caller.audio and caller.messages == ["hello"])
    refused, _ = await world.call(identity=other_identity)
    await wait_until(lambda: world.reason_of())
    assert world.reason_of() == {"fingerprint_mismatch": 1}
    assert not refused.connected
