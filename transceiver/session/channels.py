"""The data channels of a call, between the caller's SCTP association and the agent.

1. The client opens channels, `oai-events` among them; the agent is told, and messages go both ways.
2. What the client says before an agent is attached waits; what the agent says faster than the client takes it waits too,
   and the agent is told to stop. Both queues are bounded in bytes: beyond, messages are dropped and counted.
3. When another agent takes the call over, the channels that are open are introduced to it anew.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec

from protocol.errors import LocalError
from protocol.peer import Peer
from protocol.sctp import ChannelClosed, ChannelMessage, ChannelOpened, ChannelWritable
from transceiver.backends.base import Attachment

__all__ = ["EVENTS_LABEL", "Channels"]

# Specification constants
EVENTS_LABEL = "oai-events"

# Implementation constants, in bytes of messages per call
MAX_EARLY_BYTES = 256 * 1024
MAX_BLOCKED_BYTES = 1024 * 1024
MESSAGE_OVERHEAD = 64  # what a message costs besides its bytes: bounds floods of empty ones


def _cost(data: str | bytes) -> int:
    return len(data) + MESSAGE_OVERHEAD


class Channels:
    """Routes; the session says when an agent comes and goes."""

    __slots__ = ("_attachment", "_blocked", "_blocked_bytes", "_early", "_early_bytes", "_open", "_peer", "drops")

    def __init__(self, peer: Peer, drops: Counter[str]) -> None:
        self._peer = peer
        self._attachment: Attachment | None = None
        self._open: dict[int, ChannelOpened] = {}
        self._early: list[tuple[ChannelOpened | None, ChannelMessage]] = []
        self._early_bytes = 0
        self._blocked: dict[int, deque[str | bytes]] = {}
        self._blocked_bytes = 0
        self.drops = drops

    # The agent

    @property
    def attachment(self) -> Attachment | None:
        """The agent that has been told of what is open."""
        return self._attachment

    def attach(self, attachment: Attachment) -> None:
        self._attachment = attachment
        for channel in self._open.values():
            attachment.channel_opened(channel.channel, channel.label, channel.protocol)
        for channel_number in self._blocked:
            attachment.channel_blocked(channel_number)
        early, self._early, self._early_bytes = self._early, [], 0
        for channel_then, message in early:
            if self._open.get(message.channel) is channel_then:
                attachment.message(message.channel, message.data)
            else:  # its channel was closed meanwhile; another may have its number
                self.drops["early_closed"] += 1

    def detach(self) -> None:
        self._attachment = None

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

    def opened(self, event: ChannelOpened) -> None:
        self._open[event.channel] = event
        if self._attachment is not None:
            self._attachment.channel_opened(event.channel, event.label, event.protocol)

    def closed(self, event: ChannelClosed) -> None:
        self._open.pop(event.channel, None)
        self._blocked_bytes -= sum(map(_cost, self._blocked.pop(event.channel, ())))
        if self._attachment is not None:
            self._attachment.channel_closed(event.channel)

    def all_closed(self) -> None:
        """The association is gone."""
        for channel in list(self._open):
            self.closed(ChannelClosed(channel))

    def received(self, event: ChannelMessage) -> None:
        if self._attachment is not None:
            self._attachment.message(event.channel, event.data)
        elif self._early_bytes + _cost(event.data) > MAX_EARLY_BYTES:
            self.drops["too_early"] += 1
        else:
            self._early.append((self._open.get(event.channel), event))
            self._early_bytes += _cost(event.data)

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
