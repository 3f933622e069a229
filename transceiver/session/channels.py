"""The data channels of a call, between the caller's SCTP association and the agent.

1. The client opens channels, `oai-events` among them; the agent is told, and messages go both ways.
2. What the client says before an agent is attached waits, as does what is beyond his share (inflow.py): the window of his
   association closes meanwhile. While the agent's link is behind, it waits for that.
3. What the agent says faster than the client takes it waits too, and the agent is told to stop; beyond a bound in bytes,
   messages are dropped and counted.
4. What is larger than we take was dropped before it came here. On `oai-events` we say so, for the agent never sees it.
5. When another agent takes the call over, the channels that are open are introduced to it anew.
"""

from __future__ import annotations

import math
import os
from collections import Counter, deque

import msgspec

from protocol.errors import LocalError
from protocol.peer import Peer
from protocol.sctp import ChannelClosed, ChannelMessage, ChannelOpened, ChannelOverrun, ChannelWritable
from transceiver.backends.base import Attachment
from transceiver.refusals import too_large
from transceiver.session.inflow import RETRY_SECONDS, Inflow, Said

__all__ = ["EVENTS_LABEL", "Channels"]

# Specification constants
EVENTS_LABEL = "oai-events"

# Implementation constants, in bytes of messages per call
MAX_BLOCKED_BYTES = 1024 * 1024
MESSAGE_OVERHEAD = 64  # what a message costs besides its bytes: bounds floods of empty ones


def _cost(data: str | bytes) -> int:
    return len(data) + MESSAGE_OVERHEAD


class Channels:
    """Routes; the session says when an agent comes and goes."""

    __slots__ = ("_attachment", "_blocked", "_blocked_bytes", "_inflow", "_known", "_open", "_peer", "drops", "due")

    def __init__(self, peer: Peer, drops: Counter[str]) -> None:
        self._peer = peer
        self._attachment: Attachment | None = None
        self._open: dict[int, ChannelOpened] = {}
        self._known: dict[int, ChannelOpened] = {}  # those that the agent knows of: it hears in order, and later
        self._inflow: Inflow | None = None  # made when the client says something
        self._blocked: dict[int, deque[str | bytes]] = {}
        self._blocked_bytes = 0
        self.drops = drops
        self.due = math.inf
        """When `handle_timeout` has something to do."""

    # The agent

    @property
    def attachment(self) -> Attachment | None:
        """The agent that has been told of what is open."""
        return self._attachment

    def attach(self, attachment: Attachment, now: float) -> None:
        self._attachment = attachment
        self._known = self._open.copy()
        for channel in self._open.values():
            attachment.channel_opened(channel.channel, channel.label, channel.protocol)
        for channel_number in self._blocked:
            attachment.channel_blocked(channel_number)
        if self._inflow is not None and self._inflow.waiting:
            self._tell_waiting(attachment, self._inflow, now)

    def detach(self) -> None:
        self._attachment = None
        self.due = math.inf
        if self._inflow is not None and self._inflow.waiting:
            self._inflow.drop_words()

    def end(self) -> None:
        """The call is over: what waits will not be told."""
        if self._inflow is not None and self._attachment is not None:
            self.drops["data_untold"] += len(self._inflow.waiting)

    def handle_timeout(self, now: float) -> None:
        """Tell the agent what has waited."""
        if now >= self.due and self._attachment is not None and self._inflow is not None:
            self._tell_waiting(self._attachment, self._inflow, now)

    def send(self, channel: int, data: str | bytes, now: float) -> None:
        """A message from the agent."""
        if channel not in self._open:
            self.drops["unknown_channel"] += 1
        elif channel in self._blocked:
            self._hold(channel, data)
        elif not self._try(channel, data, now):
            self._blocked[channel] = deque()
            self._hold(channel, data)
            if self._attachment is not None:
                self._attachment.channel_blocked(channel)

    def tell(self, event: dict[str, str], now: float) -> bool:
        """A word of our own to the client, on `oai-events`; False if it has not opened that channel."""
        for channel in self._open.values():
            if channel.label == EVENTS_LABEL:
                return self._try(channel.channel, msgspec.json.encode(event).decode(), now)
        return False

    # The client

    def opened(self, event: ChannelOpened, now: float) -> None:
        self._open[event.channel] = event
        if self._attachment is not None:
            self._say(event, now)

    def closed(self, event: ChannelClosed, now: float) -> None:
        self._open.pop(event.channel, None)
        self._blocked_bytes -= sum(map(_cost, self._blocked.pop(event.channel, ())))
        if self._attachment is not None:
            self._say(event, now)

    def all_closed(self, now: float) -> None:
        """The association is gone."""
        for channel in list(self._open):
            self.closed(ChannelClosed(channel), now)

    def received(self, event: ChannelMessage, now: float) -> None:
        self._say(event, now)

    def overrun(self, event: ChannelOverrun, now: float) -> None:
        channel = self._open.get(event.channel)
        if channel is not None and channel.label == EVENTS_LABEL:
            self.send(event.channel, too_large(os.urandom), now)

    def _say(self, said: Said, now: float) -> None:
        inflow, attachment = self._inflow, self._attachment
        if inflow is None:
            inflow = self._inflow = Inflow()
        channel = self._open.get(said.channel)
        if attachment is None or inflow.waiting or not attachment.has_room or not inflow.take(now):
            if attachment is not None:
                self.drops["data_waited"] += 1
                self.due = min(self.due, now + RETRY_SECONDS)
            inflow.put(channel, said)
            self._peer.keep_unread(inflow.octets, inflow.room, now)
        else:
            self._tell(attachment, channel, said)

    def _tell_waiting(self, attachment: Attachment, inflow: Inflow, now: float) -> None:
        while inflow.waiting and attachment.has_room and inflow.take(now):
            self._tell(attachment, *inflow.pop())
        self.due = now + RETRY_SECONDS if inflow.waiting else math.inf
        self._peer.keep_unread(inflow.octets, inflow.room, now)

    def _tell(self, attachment: Attachment, channel: ChannelOpened | None, said: Said) -> None:
        match said:
            case ChannelOpened():
                self._known[said.channel] = said
                attachment.channel_opened(said.channel, said.label, said.protocol)
            case ChannelClosed():
                self._known.pop(said.channel, None)
                attachment.channel_closed(said.channel)
            case _ if self._known.get(said.channel) is channel:
                attachment.message(said.channel, said.data)
            case _:  # said to an earlier agent, or to none, on a channel that was closed meanwhile
                self.drops["early_closed"] += 1

    def writable(self, event: ChannelWritable, now: float) -> None:
        waiting = self._blocked.get(event.channel)
        if waiting is None:
            return
        while waiting:
            if not self._try(event.channel, waiting[0], now):
                return
            self._blocked_bytes -= _cost(waiting.popleft())
        del self._blocked[event.channel]
        if self._attachment is not None:
            self._attachment.channel_writable(event.channel)

    def _hold(self, channel: int, data: str | bytes) -> None:
        if self._blocked_bytes + _cost(data) > MAX_BLOCKED_BYTES:
            self.drops["blocked"] += 1
            return
        self._blocked[channel].append(data)
        self._blocked_bytes += _cost(data)

    def _try(self, channel: int, data: str | bytes, now: float) -> bool:
        """False when the client's buffer is full. A message that can never be sent is dropped."""
        try:
            return self._peer.send_message(channel, data, now)
        except LocalError as error:  # larger than the client takes, or the channel is closing
            self.drops[type(error).__name__] += 1
            return True
