"""An echo that never falls silent: while nothing new comes from the caller, it says the last thing again.

./just up --agent examples.insistent:insistent
"""

import trio

from agent import Call


async def insistent(call: Call) -> None:
    frames = call.frames()
    payload = None
    while not call.ended:
        with trio.move_on_after(0.030):  # a frame is 20 ms
            async for frame in frames:
                payload = frame.payload
                break
        if payload is not None:
            await call.send_frame(payload)
