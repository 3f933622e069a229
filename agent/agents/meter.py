"""`meter`: an echo that also says how well the caller's audio came: the load generator asks for it.

A text message {"type": "meter.slots"} is answered with the same type and the counts of `agent.slots.SlotCounts`.
"""

from __future__ import annotations

import msgspec
import trio

from agent.call import Call
from agent.slots import SlotCounts, SlotTally

__all__ = ["meter"]

QUESTION = '{"type":"meter.slots"}'


class Answer(SlotCounts, tag_field="type", tag="meter.slots", kw_only=True):
    pass


async def meter(call: Call) -> None:
    tally = SlotTally(call.codec.clock_rate if call.codec is not None else 48_000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_echo_audio, call, tally)
        nursery.start_soon(_echo_messages, call, tally)


async def _echo_audio(call: Call, tally: SlotTally) -> None:
    async for frame in call.frames():
        tally.add(frame, trio.current_time())
        await call.send_frame(frame.payload)


async def _echo_messages(call: Call, tally: SlotTally) -> None:
    async for message in call.messages():
        data = message.data
        if data == QUESTION:
            data = msgspec.json.encode(Answer(**msgspec.structs.asdict(tally.counts))).decode()
        await call.send_message(data, message.channel)
