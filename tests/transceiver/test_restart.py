# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""ICE restarts of live calls: new credentials, perhaps a new address, and not a frame lost between two keys."""

from __future__ import annotations

import os
from typing import Any

import pytest
import trio

from protocol.codecs import OPUS
from protocol.ice import Candidate, IceCredentials
from protocol.peer import DtlsConnected, RestartCompleted
from protocol.sdp import parse_fragment_untrusted
from protocol.stun.binding import binding_request
from transceiver.registry import entity_tag
from transceiver.signalling import CallRequest, SignallingError


def restart(world: Any, caller: Any, call_id: str) -> tuple[IceCredentials, IceCredentials]:
    """Both ends restart, as signalling would have them do; the old credentials of both."""
    session = world.registry.sessions[call_id]
    old = (
        caller._capabilities.ice,
        IceCredentials(session.ufrag.decode(), world.registry._keys.derive_password(session.ufrag)),
    )
    remote = IceCredentials.generate(os.urandom)
    local = world.registry.restart_ice(session, remote)
    caller.peer.restart_ice(remote, local, trio.current_time())
    caller.peer.ice.add_remote_candidate(Candidate("1", 1, "udp", 1, "127.0.0.1", 4000, "host"))
    return old


async def talk_through_a_restart(world: Any, caller: Any, call_id: str, wait_until: Any, socket: Any) -> list[int]:
    """Three seconds of speech and messages, the restart in the first third; the numbers of the frames that came back."""
    for number in range(150):
        if number == 50:
            restart(world, caller, call_id)
            caller.socket = socket or caller.socket
        assert caller.speak(OPUS.silence + number.to_bytes(2, "big"))
        if number % 10 == 0:
            caller.say(str(number))
        await trio.sleep(0.02)
    await wait_until(lambda: len(caller.messages) == 15)
    assert caller.messages == [str(number) for number in range(0, 150, 10)]
    assert sum(isinstance(event, RestartCompleted) for event in caller.events) == 1
    assert sum(isinstance(event, DtlsConnected) for event in caller.events) == 1
    return [int.from_bytes(packet.payload[-2:], "big") for packet in caller.audio]


async def test_ice8_not_a_frame_is_lost_in_a_restart_and_no_key_is_made_anew(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    old_ufrag, path = session.ufrag, session.peer.ice.selected
    assert await talk_through_a_restart(world, caller, call_id, wait_until, None) == list(range(150))
    assert list(world.engine.sessions) == [session.ufrag] != [old_ufrag]
    assert session.peer.ice.selected == path


async def test_ice8_a_restart_carries_a_call_to_a_new_address_within_three_frames(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    path = session.peer.ice.selected
    heard = await talk_through_a_restart(world, caller, call_id, wait_until, world.network.open("127.0.0.7"))
    assert sorted(heard) == heard
    assert len(heard) >= 147
    assert session.peer.ice.selected != path


async def test_ice8_after_the_restart_the_old_credentials_reach_nobody(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    client, server = restart(world, caller, call_id)
    stranger = world.network.open("127.0.0.9")

    async def is_answered() -> bool:
        check = binding_request(
            os.urandom(12),
            f"{server.ufrag}:{client.ufrag}".encode(),
            server.pwd.encode(),
            priority=1,
            controlling=True,
            tie_breaker=1,
        )
        stranger.send_batch([(check, world.address)])
        await trio.sleep(0.001)
        return bool(stranger.receive_batch())

    assert await is_answered()
    await wait_until(lambda: any(isinstance(event, RestartCompleted) for event in caller.events))
    await trio.sleep(0.1)
    assert not await is_answered()
    assert world.engine.drops["unknown_call"] == 1


# PATCH (RFC 9725 §4.3)


def fragment(ice: IceCredentials, *lines: str) -> bytes:
    own = ["a=ice-options:trickle", "a=group:BUNDLE 0 1", "m=audio 9 UDP/TLS/RTP/SAVPF 111", "a=mid:0"]
    own += [f"a=ice-ufrag:{ice.ufrag}", f"a=ice-pwd:{ice.pwd}", *lines]
    return "".join(f"{line}\r\n" for line in own).encode()


CANDIDATES = (
    "a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1",
    "a=candidate:2 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active",
    "a=candidate:3 1 udp 2122260223 4f2f1b9c-3a1b.local 61765 typ host",
    "a=candidate:4 1 udp 2122260223 host.example.org 61766 typ host",
    "a=candidate:nonsense",
    "a=end-of-candidates",
)


async def test_w2_trk1_trickled_candidates_of_every_kind_are_taken_and_draw_no_check(
    autojump_clock: Any, world: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    sent: list[bytes] = []
    world.network.deliver = lambda _source, destination, _data: sent.append(destination) or True
    for tag in (entity_tag(session), "*", f'"x", {entity_tag(session)}'):
        body = fragment(caller._capabilities.ice, *CANDIDATES)
        assert world.registry.update_ice(call_id, tag, body) is None
    assert world.registry.update_ice(call_id, entity_tag(session), b"a=end-of-candidates\r\n") is None
    await trio.sleep(1)
    assert set(sent) <= {world.address, caller.socket.address}


async def test_w2_ice8_a_patch_with_new_credentials_restarts_the_call(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    before = entity_tag(session)
    ours = IceCredentials.generate(os.urandom)
    restarted = world.registry.update_ice(call_id, "*", fragment(ours, *CANDIDATES))
    assert restarted.etag == entity_tag(session) != before
    answered = parse_fragment_untrusted(restarted.body)
    assert answered.ice is not None
    assert answered.end_of_candidates
    assert restarted.body.startswith("a=ice-lite\r\na=ice-options:trickle\r\na=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS")
    assert "\r\na=mid:0\r\n" in restarted.body
    caller.peer.restart_ice(ours, answered.ice, trio.current_time())
    for candidate in answered.candidates:
        caller.peer.ice.add_remote_candidate(candidate)
    await wait_until(lambda: any(isinstance(event, RestartCompleted) for event in caller.events))
    caller.speak()
    caller.say("still here")
    await wait_until(lambda: caller.audio and caller.messages == ["still here"])
    with pytest.raises(SignallingError) as refused:  # what was trickled for the old session comes too late
        world.registry.update_ice(call_id, before, fragment(caller._capabilities.ice, *CANDIDATES))
    assert refused.value.status == 412


async def test_w2_a_restart_whose_answer_was_lost_may_be_asked_for_again_and_the_old_path_lives_on(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    for _ in range(3):
        assert world.registry.update_ice(call_id, "*", fragment(IceCredentials.generate(os.urandom)))
        await trio.sleep(20)
    caller.speak()
    caller.say("on the old path")
    await wait_until(lambda: caller.audio and caller.messages == ["on the old path"])


async def test_w2_a_patch_that_is_refused_changes_nothing(autojump_clock: Any, world: Any, wait_until: Any) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    ice, tag = caller._capabilities.ice, entity_tag(session)
    fresh = IceCredentials.generate(os.urandom)
    for if_match, body, status, code in (
        (None, fragment(fresh), 428, "precondition_required"),
        ('"other"', fragment(fresh), 412, "precondition_failed"),
        (tag, fragment(IceCredentials(ice.ufrag, fresh.pwd)), 400, "invalid_ice_restart"),
        (tag, fragment(IceCredentials(fresh.ufrag, ice.pwd)), 400, "invalid_ice_restart"),
        (tag, fragment(fresh, "a=ice-ufrag:other"), 400, "invalid_ice_credentials"),
        (tag, b"a=ice-ufrag:abcd\r\n", 400, "invalid_ice_credentials"),
        (tag, fragment(ice, *CANDIDATES[:1] * 101), 400, "too_many_candidates"),
        (tag, b"\xff", 400, "not_sdp"),
        (tag, b"", 400, "empty_sdp"),
    ):
        with pytest.raises(SignallingError) as refused:
            world.registry.update_ice(call_id, if_match, body)
        assert (refused.value.status, refused.value.code) == (status, code)
    assert list(world.engine.sessions) == [session.ufrag]
    assert entity_tag(session) == tag
    world.registry.hang_up(call_id)
    await wait_until(lambda: caller.ended)
    with pytest.raises(SignallingError) as refused:
        world.registry.update_ice(call_id, "*", fragment(fresh))
    assert refused.value.status == 404


async def test_restarts_without_a_check_win_no_time_and_leave_no_name(
    autojump_clock: Any, world: Any, wait_until: Any, caller_class: Any
) -> None:
    offer = CallRequest(caller_class(world.network.open()).offer().encode())
    call_id = world.registry.create(offer).call_id
    began = trio.current_time()
    while call_id in world.registry.sessions and trio.current_time() - began < 60:
        world.registry.update_ice(call_id, "*", fragment(IceCredentials.generate(os.urandom)))
        assert len(world.engine.sessions) == 1
        await trio.sleep(1)
    assert trio.current_time() - began < 18
    assert world.reason_of() == {"ice_timeout": 1}
    assert world.engine.sessions == {}


async def test_a_call_that_ends_while_it_restarts_leaves_no_name_behind(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    restart(world, caller, call_id)
    world.registry.hang_up(call_id)
    await wait_until(lambda: not world.registry.sessions)
    assert world.engine.sessions == {}


async def test_restarts_one_after_another_keep_two_names_at_most(
    autojump_clock: Any, world: Any, wait_until: Any
) -> None:
    caller, call_id = await world.live_call()
    session = world.registry.sessions[call_id]
    first = session.ufrag
    for _ in range(5):
        restart(world, caller, call_id)
        assert list(world.engine.sessions) == [first, session.ufrag]
    caller.speak()
    await wait_until(lambda: caller.audio)
    await wait_until(lambda: list(world.engine.sessions) == [session.ufrag])
