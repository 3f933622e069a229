# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""Further offers in live calls: hold and resume, data channels that come and go, ICE restarts, refusals that harm nothing."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import pytest
import trio

from protocol.agentlink import MediaRecord, PlayedReason
from protocol.codecs import OPUS
from protocol.ice import IceCredentials
from protocol.peer import DataParameters, DtlsConnected, RestartCompleted
from protocol.sctp import ChannelMessage
from protocol.sdp import Direction, parse_untrusted, read_answer
from transceiver.media import Played
from transceiver.signalling import CallRequest, SignallingError


async def talk(caller: Any, frames: int = 10) -> int:
    """Speak for a while; how many frames came back."""
    before = len(caller.audio)
    for _ in range(frames):
        caller.speak()
        await trio.sleep(0.02)
    await trio.sleep(0.1)
    return len(caller.audio) - before


def reoffer(world: Any, call_id: str, caller: Any, old: str = "", new: str = "") -> str:
    answer = world.registry.renegotiate(call_id, caller.offer().replace(old, new).encode())
    assert answer is not None
    return str(answer.body)


async def test_the_same_offer_again_changes_nothing_but_the_version(autojump_clock: Any, world: Any) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    answers = [reoffer(world, call_id, caller) for _ in range(2)]
    assert [parse_untrusted(answer).session.lines[1].value.split()[2] for answer in answers] == ["2", "3"]
    assert await talk(caller) == 10
    caller.say("still here")
    await trio.sleep(0.1)
    assert caller.messages == ["still here"]
    assert sum(isinstance(event, DtlsConnected) for event in caller.events) == 1
    assert list(world.engine.sessions) == [session.ufrag]
    assert len(world.backend.attachments) == 1


@pytest.mark.parametrize("direction", ["sendonly", "inactive"])
async def test_a_caller_on_hold_gets_no_audio_until_the_call_is_taken_up_again(
    autojump_clock: Any, world: Any, direction: str
) -> None:
    caller, call_id = await world.live_call()
    assert await talk(caller) == 10
    reoffer(world, call_id, caller, "a=sendrecv", f"a={direction}")
    agent = world.backend.last
    heard = len(agent.audio)
    assert await talk(caller) == 0
    # sendonly: the agent hears on, and what it says is dropped; inactive: it hears nothing
    assert len(agent.audio) - heard == (10 if direction == "sendonly" else 0)
    drops = world.registry.sessions[call_id].all_drops()
    assert drops["agent_audio_held" if direction == "sendonly" else "audio_held"] == 10
    assert world.registry.all_drops() == drops  # not only when the call has ended
    reoffer(world, call_id, caller)
    assert await talk(caller) == 10
    sequences = [packet.sequence for packet in caller.audio]
    assert sequences == list(range(sequences[0], sequences[0] + 20))
    assert caller.audio[10].marker  # a talkspurt begins


async def test_an_agent_speaks_on_at_its_pace_while_it_is_held_and_is_never_stuck(
    autojump_clock: Any, world: Any
) -> None:
    caller, call_id = await world.live_call()
    agent = world.backend.last
    for number in range(150):
        agent.post(MediaRecord(7, number * 960, 0, OPUS.silence + bytes([number])))
    await trio.sleep(1)
    reoffer(world, call_id, caller, "a=sendrecv", "a=inactive")
    await trio.sleep(1)
    reoffer(world, call_id, caller)
    await trio.sleep(2)
    heard = [packet.payload[-1] for packet in caller.audio]
    first = next(number for number in range(150) if heard[number] != number)
    assert 49 <= first <= 52
    assert heard[first:] == list(range(150 - len(heard[first:]), 150))
    assert 99 <= heard[first] <= 102
    assert [packet.marker for packet in caller.audio].index(True, 1) == first
    assert caller.audio[first].timestamp - caller.audio[0].timestamp & 0xFFFFFFFF == heard[first] * 960
    reports = [told for told in agent.told if isinstance(told, Played)]
    assert reports[-1] == Played(150 * 960, 0, PlayedReason.DRAINED)


async def test_an_agent_is_not_stuck_with_a_caller_who_never_listens(
    autojump_clock: Any, world: Any, caller_class: Any
) -> None:
    caller = caller_class(world.network.open("127.0.0.2"))
    caller._capabilities = dataclasses.replace(caller._capabilities, direction=Direction.SENDONLY)
    await world.live_call(caller=caller)
    for number in range(50):
        world.backend.last.post(MediaRecord(7, number * 960, 0, OPUS.silence))
    await trio.sleep(2)
    assert caller.audio == []
    reports = [told for told in world.backend.last.told if isinstance(told, Played)]
    assert reports[-1] == Played(50 * 960, 0, PlayedReason.DRAINED)


async def test_a_caller_who_only_listened_may_speak_later(autojump_clock: Any, world: Any, caller_class: Any) -> None:
    caller = caller_class(world.network.open("127.0.0.2"))
    capabilities = caller._capabilities
    caller._capabilities = dataclasses.replace(capabilities, direction=Direction.RECVONLY)
    caller, call_id = await world.live_call(caller=caller)
    caller.speak()
    await trio.sleep(0.1)
    assert world.backend.last.audio == []
    caller._capabilities = capabilities
    reoffer(world, call_id, caller)
    assert await talk(caller) == 10


async def test_a_caller_who_takes_the_word_while_consent_is_late_is_heard_once_it_is_back(
    autojump_clock: Any, world: Any, caller_class: Any, wait_until: Any
) -> None:
    caller = caller_class(world.network.open("127.0.0.2"))
    capabilities = caller._capabilities
    caller._capabilities = dataclasses.replace(capabilities, direction=Direction.RECVONLY)
    caller, call_id = await world.live_call(caller=caller)
    session = world.registry.sessions[call_id]
    caller.mute_stun = True
    await wait_until(lambda: session.transport.name == "SUSPECT", 30)
    caller._capabilities = capabilities
    reoffer(world, call_id, caller)
    await trio.sleep(0.1)
    caller.mute_stun = False
    await wait_until(lambda: session.transport.name == "SECURE", 10)
    assert await talk(caller) == 10


async def test_a_data_channel_is_added_to_a_call_of_audio_and_dropped_again(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call(data=False)
    for _ in range(2):
        caller._with = (True, True)
        answer = reoffer(world, call_id, caller)
        settled = read_answer(parse_untrusted(answer), caller._capabilities)
        assert settled.data is not None
        caller.peer.start_data(DataParameters(), trio.current_time())
        caller.channel = caller.peer.open_channel("oai-events", trio.current_time())
        caller.drain()
        caller.say("hello")
        await wait_until(lambda: caller.messages)
        assert world.backend.last.channels == {caller.channel: "oai-events"}
        reoffer(world, call_id, caller, "m=application 9", "m=application 0")
        await wait_until(lambda: not world.backend.last.channels)
        caller.peer.stop_data(trio.current_time())
        caller.messages.clear()
        assert await talk(caller) == 10


async def test_audio_is_dropped_from_a_call_and_comes_back(autojump_clock: Any, world: Any) -> None:
    caller, call_id = await world.live_call()
    assert "m=audio 0 " in reoffer(world, call_id, caller, "m=audio 9", "m=audio 0")
    assert await talk(caller) == 0
    caller.say("only words")
    await trio.sleep(0.1)
    assert caller.messages == ["only words"]
    reoffer(world, call_id, caller)
    assert await talk(caller) == 10


async def test_an_offer_with_new_ice_credentials_restarts_ice_under_the_call(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    before = session.ufrag
    caller._capabilities = dataclasses.replace(caller._capabilities, ice=IceCredentials.generate(os.urandom))
    settled = read_answer(parse_untrusted(reoffer(world, call_id, caller)), caller._capabilities)
    assert settled.remote_ice.ufrag.encode() == session.ufrag != before
    caller.peer.restart_ice(caller._capabilities.ice, settled.remote_ice, trio.current_time())
    for candidate in settled.remote_candidates:
        caller.peer.ice.add_remote_candidate(candidate)
    assert await talk(caller, 50) == 50
    assert sum(isinstance(event, RestartCompleted) for event in caller.events) == 1
    assert list(world.engine.sessions) == [session.ufrag]
    answer = reoffer(world, call_id, caller)  # those credentials are in force now
    assert read_answer(parse_untrusted(answer), caller._capabilities).remote_ice == settled.remote_ice


@pytest.mark.parametrize(
    ("old", "new", "status", "code"),
    [
        ("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:", 400, "invalid_fingerprint"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF", "m=video 9 UDP/TLS/RTP/SAVPF", 400, "media_section_changed"),
        ("a=ice-pwd:", "a=ice-pwd:x", 400, "invalid_ice_restart"),
        ("a=setup:actpass", "a=setup:passive", 422, "new_dtls_association"),
        ("111", "112", 422, "codec_changed"),
        ("a=sctp-port:5000", "a=sctp-port:5001", 422, "data_channel_changed"),
    ],
)
async def test_a_call_outlives_an_offer_that_it_cannot_follow(
    autojump_clock: Any, world: Any, old: str, new: str, status: int, code: str
) -> None:
    caller, call_id = await world.live_call()
    with pytest.raises(SignallingError) as refused:
        reoffer(world, call_id, caller, old, new)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert world.registry.refused[code] == 1
    assert await talk(caller) == 10
    caller.say("still here")
    await trio.sleep(0.1)
    assert [event.data for event in caller.events if isinstance(event, ChannelMessage)] == ["still here"]
    assert parse_untrusted(reoffer(world, call_id, caller)).session.lines[1].value.split()[2] == "2"


async def test_an_offer_that_names_an_ice_session_of_before_is_too_late(autojump_clock: Any, world: Any) -> None:
    caller, call_id = await world.live_call()
    offer = caller.offer().encode()
    etag = world.registry.renegotiate(call_id, offer).etag
    assert world.registry.renegotiate(call_id, offer, etag).etag == etag  # the same ICE session
    for stale in ('"another"', f"W/{etag}", "nonsense"):
        with pytest.raises(SignallingError) as refused:
            world.registry.renegotiate(call_id, offer, stale)
        assert (refused.value.status, refused.value.code) == (412, "precondition_failed")
    caller._capabilities = dataclasses.replace(caller._capabilities, ice=IceCredentials.generate(os.urandom))
    assert world.registry.renegotiate(call_id, caller.offer().encode(), etag).etag != etag


async def test_a_call_that_is_ending_or_unknown_takes_no_offers(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    assert world.registry.renegotiate("rtc_nobody", caller.offer().encode()) is None
    world.registry.hang_up(call_id)
    await wait_until(lambda: world.registry.sessions[call_id].life.name == "CLOSING", 1)
    assert world.registry.renegotiate(call_id, caller.offer().encode()) is None


async def test_a_call_may_be_renegotiated_before_its_first_check(
    autojump_clock: Any, world: Any, caller_class: Any
) -> None:
    caller = caller_class(world.network.open("127.0.0.2"), data=False)
    created = world.registry.create(CallRequest(caller.offer().encode()))
    caller._with = (True, True)
    caller.accept(reoffer(world, created.call_id, caller))
    world.nursery.start_soon(caller.run)
    with trio.fail_after(5):
        while not caller.channel_is_open:
            await trio.sleep(0.01)
    assert await talk(caller) == 10
