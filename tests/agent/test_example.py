"""The example does what its docstring says."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from trio.abc import Clock

from agent.codecs import open_encoder
from examples.greeter import greeter
from protocol.agentlink import CallEnd
from protocol.codecs import PCMU


async def test_the_greeter_greets_tells_how_long_one_spoke_and_hangs_up_when_told_to(
    autojump_clock: Clock,
    open_link: Callable[..., Awaitable[object]],
    play: Callable[..., object],
    speech: Callable[[int, int], list[bytes]],
    quiet: Callable[[int, int], list[bytes]],
):
    client = await open_link(greeter)
    play(client)
    await client.start_call()
    await client.open_channel()
    await client.until(lambda: client.data)
    assert client.data[0].data.startswith("Hello! This is call rtc_1;")
    encoder = open_encoder(PCMU)
    await client.say([encoder.encode(piece) for piece in speech(8000, 2000) + quiet(8000, 1000)])
    assert client.data[1].data in ("You spoke for 1.9 s.", "You spoke for 2.0 s.", "You spoke for 2.1 s.")
    await client.send_data(1, 1, "bye")
    await client.until(lambda: client.of(CallEnd))
    assert client.of(CallEnd) == [CallEnd(1, "said_goodbye")]
