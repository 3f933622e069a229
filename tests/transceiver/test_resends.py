"""A caller that asks for the agent's audio again (RTCP NACK), through a whole transceiver in virtual time."""

from __future__ import annotations

import trio

from protocol.agentlink import MediaRecord
from protocol.codecs import OPUS


async def nacking_call(world, caller_class, *, agreed: bool):
    """(caller, the packets of the agent's that it heard)"""
    caller = caller_class(world.network.open("127.0.0.2"), data=False)
    world.backend.echo = False
    if agreed:
        plain = caller.offer
        caller.offer = lambda: plain().replace("a=rtpmap:111", "a=rtcp-fb:111 nack\r\na=rtpmap:111")
    await world.live_call(caller=caller)
    for number in range(20):
        world.backend.last.post(MediaRecord(7, number * 960, 0, OPUS.silence))
    await trio.sleep(1)
    assert len(caller.audio) == 20
    return caller, caller.audio


def resent(caller) -> int:
    """Copies of packets that the caller has: its own replay check drops them."""
    return caller.peer.statistics(trio.current_time()).drops["srtp_replay"]


async def ask(caller, sequences: tuple[int, ...]) -> None:
    caller.peer.request_audio(caller.audio[0].ssrc, sequences)
    caller.drain()
    await trio.sleep(0.05)


async def test_packets_are_sent_again_to_who_agreed_on_nack(world, caller_class, autojump_clock):
    caller, heard = await nacking_call(world, caller_class, agreed=True)
    await ask(caller, (heard[15].sequence, heard[16].sequence))
    assert resent(caller) == 2
    (session,) = world.registry.sessions.values()
    assert session.peer.statistics(trio.current_time()).rtcp["resent"] == 2


async def test_nothing_is_kept_or_sent_again_without_that(world, caller_class, autojump_clock):
    caller, heard = await nacking_call(world, caller_class, agreed=False)
    await ask(caller, (heard[15].sequence,))
    assert resent(caller) == 0


async def test_asking_without_end_brings_no_more_than_two_copies_of_each(world, caller_class, autojump_clock):
    caller, heard = await nacking_call(world, caller_class, agreed=True)
    for _ in range(100):
        await ask(caller, tuple(packet.sequence for packet in heard))
    assert 20 < resent(caller) <= 40
    await ask(caller, tuple(heard[-1].sequence + step & 0xFFFF for step in range(1, 50)))
    assert resent(caller) <= 40, "what was never sent is not sent again"
