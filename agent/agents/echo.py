"""`echo`: every audio frame and every data message goes back as it came."""

from __future__ import annotations

import trio

from agent.call import Call

__all__ = ["echo"]


async def echo(call: Call) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(echo_audio, call)
        nursery.start_soon(echo_messages, call)


async def echo_audio(call: Call) -> None:
    async for frame in call.frames():
        await call.send_frame(frame.payload)


async def echo_messages(call: Call) -> None:
    async for message in call.messages():
        await call.send_message(message.data, message.channel)
