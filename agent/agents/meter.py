"""`meter`: an echo that also says how well the caller's audio came: the load generator asks for it.

A text message {"type": "meter.slots"} is answered with the same type and the counts of `protocol.agentlink.SlotCounts`.
"""

from __future__ import annotations

import trio

from agent.call import Call
from protocol.agentlink import METER_QUESTION, SlotTally

__all__ = ["meter"]


async def meter(call: Call) -> None:
    tally = SlotTally(call.codec.clock_rate if call.codec is not None else 48_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_echo_audio, call, tally)
        nursery.start_soon(_echo_messages, call, tally)


async def _echo_audio(call: Call, tally: SlotTally) -> None:
    async for frame in call.frames():
        now = trio.current_time()
        tally.add(frame.rtp_time, now, gap=frame.gap, fec=frame.fec, recovered=frame.recovered)
        await call.send_frame(frame.payload)


async def _echo_messages(call: Call, tally: SlotTally) -> None:
    async for message in call.messages():
        data = tally.answer() if message.data == METER_QUESTION else message.data
        await call.send_message(data, message.channel)
