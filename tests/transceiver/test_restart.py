# ruff: noqa: ANN401  (what fixtures give cannot be imported here, so it stays untyped)
"""ICE restarts of live calls: new credentials, perhaps a new address, and not a frame lost between two keys."""

from __future__ import annotations

import os
from typing import Any

import trio

from protocol.codecs import OPUS
from protocol.ice import Candidate, IceCredentials
from protocol.peer import DtlsConnected, RestartCompleted
from protocol.stun.binding import binding_request


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
