"""One call in progress: what the link delivers to it, and the task in which the agent's function runs.

1. The agent's function runs until it returns, raises, or its call ends under it.
2. If it returned or raised first, the caller is told: `agent_ended`, `agent_failed`. One agent's exception ends its own
   call, is logged, and touches nothing else.
3. If the call ended first, the streams end, sending raises CallEnded, and the function has a few seconds to finish.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import trio

from agent.call import Call
from agent.downlink import Downlink
from agent.events import CallEnded, ChannelClosed, ChannelOpened, Digit, Draining, Frame, Message, Played
from agent.inbox import Inbox, Note
from agent.outbox import Outbox
from agent.statistics import Statistics
from protocol.agentlink import FIRST_CONTROLLER, CallPlayed, CallStart, DataMessage, MediaFlags, MediaRecord
from protocol.codecs import Codec
from protocol.errors import DecodeError
from service.logs import get_logger

__all__ = ["Agent", "LiveCall", "is_only_call_ended", "names_over_websocket"]

Agent: TypeAlias = Callable[[Call], Awaitable[None]]

# (marker, gap, recovered, fec) for each combination of the flags, in the order of `Frame`
_FLAGS = tuple(
    tuple(bool(flags & flag) for flag in (MediaFlags.MARKER, MediaFlags.GAP, MediaFlags.RECOVERED, MediaFlags.FEC))
    for flags in range(16)
)

new_tuple = tuple.__new__

# Implementation constants
GRACE_SECONDS = 5.0


class LiveCall:
    def __init__(self, start: CallStart, codec: Codec | None, outbox: Outbox, statistics: Statistics) -> None:
        self.handle = start.handle
        self.is_over = False
        self._codec = codec
        self._statistics = statistics
        self._inbox = Inbox(statistics)
        self._downlink = Downlink(start.handle, codec, outbox, statistics)
        self._scope = trio.CancelScope()
        self._log = get_logger().bind(call=start.call_id)
        self.call = Call(
            start.call_id,
            start.session,
            codec,
            self._inbox,
            self._downlink,
            self.end,
            client=start.client,
            expires_at=start.expires_at,
        )

    # What the link delivers. Nothing here waits.

    def receive_frame(self, record: MediaRecord) -> None:
        """Raises DecodeError for a frame that the codec does not know: agents see good frames only."""
        codec = self._codec
        if codec is None or not record.payload:
            raise DecodeError("link_unexpected_media")
        _, rtp_time, flags, payload = record
        duration = codec.count_samples_untrusted(payload) * 1000 / codec.clock_rate
        # Frame's own constructor is a function in Python: it takes three times as long.
        self._inbox.put_frame(new_tuple(Frame, (payload, rtp_time, duration, *_FLAGS[flags & 0x0F])))

    def receive_data(self, message: DataMessage) -> None:
        if not self._downlink.has_channel(message.channel):
            raise DecodeError("link_unknown_channel")
        self._note(Message(message.data, message.channel))

    def open_channel(self, channel: int, label: str, protocol: str) -> None:
        self._downlink.open_channel(channel, label)
        self._note(ChannelOpened(channel, label, protocol, sideband=channel >= FIRST_CONTROLLER))

    def close_channel(self, channel: int) -> None:
        self._downlink.close_channel(channel)
        self._note(ChannelClosed(channel))

    def block_channel(self, channel: int) -> None:
        self._downlink.block(channel)

    def unblock_channel(self, channel: int) -> None:
        self._downlink.unblock(channel)

    def report_played(self, report: CallPlayed) -> None:
        self._downlink.report_played(report.rtp_time, report.reason)
        self._inbox.put_played(Played(self._downlink.played_ms, float(report.buffered_ms), report.reason))

    def press(self, digit: str) -> None:
        self._note(Digit(digit))

    def announce_drain(self) -> None:
        self._note(Draining())

    def close(self, reason: str) -> None:
        """The other side, or the link, ended the call."""
        self._downlink.close(reason)
        self._wind_down()

    def end(self, reason: str) -> None:
        """We end the call."""
        self._downlink.end(reason)
        self._wind_down()

    def _note(self, note: Note) -> None:
        if not self._inbox.put_note(note):
            self._log.warning("the agent reads its messages too slowly")
            self.end("agent_overloaded")

    def _wind_down(self) -> None:
        self.is_over = True
        self._inbox.close()
        self._scope.deadline = min(self._scope.deadline, trio.current_time() + GRACE_SECONDS)

    # The task.

    async def run(self, agent: Agent) -> None:
        self._log.info("call started", codec=self._codec.name if self._codec else None)
        try:
            with self._scope:
                await self._run_isolated(agent)
            if self._scope.cancelled_caught:
                self._log.warning("the agent did not finish in time after its call had ended")
        finally:
            reason = self.call.ended or "cancelled"
            self._statistics.count_end(reason)
            self._log.info("call ended", reason=reason, played_ms=round(self.call.played))

    async def _run_isolated(self, agent: Agent) -> None:
        try:
            await agent(self.call)
            self.end("agent_ended")
        except Exception as error:  # noqa: BLE001 - the one place where an agent's bugs stop
            if not is_only_call_ended(error):
                self._log.error("the agent failed", exc_info=error)
                self.end("agent_failed")


def names_over_websocket(agent: Agent, name: str) -> tuple[str, ...]:
    """Of an agent with that name, or of those that it stands for: who serves sessions by WebSocket (agent/sessions.py)."""
    able: bool | tuple[str, ...] = getattr(agent, "over_websocket", False)
    return able if isinstance(able, tuple) else (name,) if able else ()


def is_only_call_ended(error: Any) -> bool:  # noqa: ANN401
    """Nobody is there to speak to any more, which an agent need not catch."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(CallEnded)[1] is None
    return isinstance(error, CallEnded)
