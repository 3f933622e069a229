"""An agent that never stops talking: it repeats the caller's first second until the caller hangs up.

./just up --agent examples.refrain:refrain
"""

from agent import Call


async def refrain(call: Call) -> None:
    verse: list[bytes] = []
    async for frame in call.frames():
        verse.append(frame.payload)
        if len(verse) * 20 >= 1000:
            break
    while verse:
        for payload in verse:
            await call.send_frame(payload)  # waits while five seconds are still to be played
