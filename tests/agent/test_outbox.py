"""What waits to be written to a link, and in which order it leaves."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from agent.outbox import WRITE_MESSAGES, Outbox
from protocol.agentlink import CallEnd, CallFlush, DataMessage, MediaRecord, decode_binary_untrusted, encode_message

WRITE_SECONDS = 0.001


class Line:
    """A link on which each write takes a millisecond."""

    def __init__(self) -> None:
        self.writes: list[list[object]] = []
        self.times: list[float] = []

    async def send(self, messages: Sequence[str | bytes]) -> None:
        self.writes.append([m if isinstance(m, str) else decode_binary_untrusted(m) for m in messages])
        self.times.append(trio.current_time())
        await trio.sleep(WRITE_SECONDS)

    def time_of(self, message: object) -> float:
        return next(at for at, write in zip(self.times, self.writes) if message in write)


async def speak(outbox: Outbox, handle: int, calls: int) -> None:
    due = trio.current_time() + 0.02 * handle / calls
    while True:
        await trio.sleep_until(due)
        due += 0.02
        outbox.put_media(MediaRecord(handle, 0, 0, b"x"))


async def test_data_and_the_ends_of_calls_leave_while_audio_never_ceases(autojump_clock: object) -> None:
    """More than one frame a write's time: nothing but audio had left."""
    outbox, line = Outbox(), Line()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write, line.send)
        for handle in range(25):
            nursery.start_soon(speak, outbox, handle, 25)
        await trio.sleep(0.1)
        began = trio.current_time()
        written: list[float] = []
        for number in range(100):
            outbox.put_ordered(DataMessage(1, 1, str(number)), lambda: written.append(trio.current_time()))
        outbox.put_ordered(CallEnd(1, "agent_ended"))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    end = line.time_of(encode_message(CallEnd(1, "agent_ended")))
    assert end - began < 2 * WRITE_SECONDS * 101 / WRITE_MESSAGES
    assert [m.data for write in line.writes for m in write if isinstance(m, DataMessage)] == [
        str(number) for number in range(100)
    ]
    assert len(written) == 100
    assert max(written) <= end + WRITE_SECONDS


async def test_a_flood_of_messages_holds_no_frame_and_no_flush_up_for_longer_than_a_write(
    autojump_clock: object,
) -> None:
    outbox, line = Outbox(), Line()
    for number in range(5000):
        outbox.put_ordered(DataMessage(1, 1, str(number)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.write, line.send)
        await trio.sleep(0.01)
        for number in range(10):
            at = trio.current_time()
            record = MediaRecord(2, number, 0, b"x")
            outbox.put_media(record)
            outbox.put_urgent(CallFlush(number))
            await trio.sleep(0.02)
            assert line.time_of((record,)) - at <= WRITE_SECONDS
            assert line.time_of(encode_message(CallFlush(number))) - at <= WRITE_SECONDS
        nursery.cancel_scope.cancel()
    assert max(len(write) for write in line.writes) <= WRITE_MESSAGES + 2
