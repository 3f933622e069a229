"""Data channels on an association (RFC 8831 §6, RFC 8832 §6).

Opened by us: 1. a free stream identifier of our parity (DTLS client even, server odd); 2. OPEN goes out, user data may
follow at once, in order, until the ACK or other data came; 3. ACK or data opens the channel.
Opened by the peer: OPEN on a stream of its parity opens the channel, ACK is sent.
Negotiated: no DCEP; open as soon as the association is up.
Closed, by whichever side: both directions of its stream are reset (RFC 8831 §6.7); ChannelClosed when both are.
"""

from __future__ import annotations

from collections import Counter

from protocol.errors import DecodeError, LocalError
from protocol.sctp.config import SctpConfig
from protocol.sctp.dcep import ACK, DcepOpen, Delivery, Ppid, build_open, parse_dcep_untrusted
from protocol.sctp.events import (
    ChannelClosed,
    ChannelLimit,
    ChannelMessage,
    ChannelOpened,
    ChannelOverrun,
    ChannelWritable,
    MessageTooLarge,
    Output,
    UnknownChannel,
)
from protocol.sctp.outbound import Sender
from protocol.sctp.outqueue import Message as Outgoing
from protocol.sctp.reassembly import Message
from protocol.sctp.resets import StreamResets

__all__ = ["Channels"]

# Specification constants
MAX_STREAM = 65534  # 65535 is reserved (RFC 8832 §6)

_EMPTY = b"\0"  # SCTP has no empty messages: one byte stands for none (RFC 8831 §6.6)


class _Channel:
    __slots__ = (
        "acknowledged",
        "closing",
        "delivery",
        "incoming_reset",
        "label",
        "open",
        "outgoing_reset",
        "protocol",
    )

    def __init__(self, label: str, protocol: str, delivery: Delivery) -> None:
        self.label = label
        self.protocol = protocol
        self.delivery = delivery
        self.open = False  # ChannelOpened was told
        self.acknowledged = False  # the peer knows it: unordered may begin
        self.closing = False
        self.incoming_reset = False
        self.outgoing_reset = False


class Channels:
    def __init__(
        self,
        *,
        is_client: bool,
        max_message_size_remote: int,
        config: SctpConfig,
        sender: Sender,
        resets: StreamResets,
        outputs: list[Output],
        drops: Counter[str],
    ) -> None:
        self._parity = 0 if is_client else 1
        self._max_message_size = max_message_size_remote  # 0: no limit (RFC 8841 §6.1)
        self._config = config
        self._sender = sender
        self._resets = resets
        self._outputs = outputs
        self._drops = drops
        self._channels: dict[int, _Channel] = {}
        self._blocked: set[int] = set()  # send() returned False; not yet told that there is room
        self._up = False
        self._streams = min(config.streams, MAX_STREAM + 1)
        self._can_reset = True

    # Commands

    def open(self, label: str, protocol: str, delivery: Delivery, negotiated_id: int | None) -> int:
        name, subprotocol = _encode(label), _encode(protocol)
        if len(name) > 0xFFFF or len(subprotocol) > 0xFFFF:
            raise LocalError("label or protocol longer than 65535 bytes")
        if len(self._channels) >= self._config.max_channels:
            raise ChannelLimit(f"{self._config.max_channels} channels are open")
        channel = _Channel(label, protocol, delivery)
        if negotiated_id is None:
            number = self._free()
            self._check_size(12 + len(name) + len(subprotocol))
            self._channels[number] = channel
            self._say(number, build_open(name, subprotocol, delivery))
            return number
        if not 0 <= negotiated_id < self._streams:
            raise ChannelLimit(f"stream {negotiated_id} is not among {self._streams}")
        if negotiated_id in self._channels or self._resets.busy(negotiated_id):
            raise LocalError(f"stream {negotiated_id} is in use")
        channel.acknowledged = True
        self._channels[negotiated_id] = channel
        if self._up:
            self._tell_open(negotiated_id, channel)
        return negotiated_id

    def _free(self) -> int:
        for number in range(self._parity, self._streams, 2):
            if number not in self._channels and not self._resets.busy(number):
                return number
        raise ChannelLimit("no stream identifier is free")

    def _say(self, number: int, message: bytes) -> None:
        """DCEP is reliable and ordered, whatever the channel is (RFC 8832)."""
        self._sender.queue.put(Outgoing(number, Ppid.WEBRTC_DCEP, message, True))

    def send(self, number: int, data: str | bytes, now: float) -> bool:
        channel = self._channels.get(number)
        if channel is None:
            raise UnknownChannel(f"channel {number}")
        if isinstance(data, str):
            payload = _encode(data)
            ppid = Ppid.WEBRTC_STRING if payload else Ppid.WEBRTC_STRING_EMPTY
        else:
            payload = data
            ppid = Ppid.WEBRTC_BINARY if payload else Ppid.WEBRTC_BINARY_EMPTY
        self._check_size(len(payload))
        if channel.closing:
            return False
        queue, delivery = self._sender.queue, channel.delivery
        buffered, total = queue.buffered(number), queue.buffered_total
        # A single message may exceed the buffer: otherwise the largest could never be sent.
        if (buffered and buffered + len(payload) > self._config.send_buffer) or (
            total and total + len(payload) > self._config.send_buffer_total
        ):
            self._blocked.add(number)
            self._drops["send_buffer"] += 1
            return False
        message = Outgoing(number, ppid, payload or _EMPTY, delivery.ordered or not channel.acknowledged)
        if delivery.max_retransmits is not None:
            message.max_retransmits = delivery.max_retransmits
        elif delivery.max_lifetime is not None:
            message.expires = now + delivery.max_lifetime
        queue.put(message)
        return True

    def _check_size(self, size: int) -> None:
        if self._max_message_size and size > self._max_message_size:
            raise MessageTooLarge(f"{size} bytes, the peer accepts {self._max_message_size}")

    def close(self, number: int) -> None:
        channel = self._channels.get(number)
        if channel is None:
            raise UnknownChannel(f"channel {number}")
        self._start_closing(number, channel)

    def _start_closing(self, number: int, channel: _Channel) -> None:
        if channel.closing:
            return
        channel.closing = True
        self._blocked.discard(number)
        if self._can_reset:
            self._resets.request(number)
        else:
            self._finish(number)

    # What the association reports

    def association_up(self, streams: int, can_reset: bool) -> None:
        """`streams` may be used in our direction; without `can_reset` channels just end."""
        self._up = True
        self._streams = min(self._streams, streams)
        self._can_reset = can_reset
        for number, channel in list(self._channels.items()):
            if number >= self._streams or (channel.closing and not can_reset):
                self._finish(number)
            elif channel.acknowledged and not channel.open:
                self._tell_open(number, channel)

    def association_down(self) -> None:
        self._up = False
        for number in list(self._channels):
            self._finish(number)

    def flushed(self) -> None:
        """Something was sent: whoever was refused may try again."""
        if not self._blocked or self._sender.queue.buffered_total > self._config.send_buffer_total // 2:
            return
        for number in sorted(self._blocked):
            if self._sender.queue.buffered(number) <= self._config.send_buffer_low:
                self._blocked.discard(number)
                self._outputs.append(ChannelWritable(number))

    def resets_done(self) -> None:
        for streams in self._resets.incoming:
            for number in streams or tuple(self._channels):
                channel = self._channels.get(number)
                if channel is not None:
                    channel.incoming_reset = True
                    self._start_closing(number, channel)
                    self._finish_if_done(number, channel)
        self._resets.incoming.clear()
        for number in self._resets.outgoing:
            channel = self._channels.get(number)
            if channel is not None:
                channel.outgoing_reset = True
                self._finish_if_done(number, channel)
        self._resets.outgoing.clear()
        for number in self._resets.denied:
            if number in self._channels:
                self._finish(number)
        self._resets.denied.clear()

    def _finish_if_done(self, number: int, channel: _Channel) -> None:
        if channel.incoming_reset and channel.outgoing_reset and number in self._channels:
            self._finish(number)

    def _finish(self, number: int) -> None:
        del self._channels[number]
        self._blocked.discard(number)
        self._outputs.append(ChannelClosed(number))

    def _tell_open(self, number: int, channel: _Channel) -> None:
        channel.open = True
        delivery = channel.delivery
        self._outputs.append(
            ChannelOpened(
                number,
                channel.label,
                channel.protocol,
                delivery.ordered,
                delivery.max_retransmits,
                delivery.max_lifetime,
            )
        )

    # Messages

    def receive(self, message: Message) -> None:
        """May raise DecodeError: the message is dropped, the association goes on."""
        number, ppid, data, is_too_large = message
        if ppid == Ppid.WEBRTC_DCEP:
            self._receive_dcep(number, data)
            return
        channel = self._channels.get(number)
        if channel is None or channel.incoming_reset:
            raise DecodeError("channel_unknown")
        value: str | bytes
        if is_too_large:
            self._peer_knows(number, channel)
            self._outputs.append(ChannelOverrun(number))
            return
        if ppid == Ppid.WEBRTC_STRING:
            try:
                value = data.decode()
            except UnicodeDecodeError:
                # As browsers do: a message with replacement characters, not a hole in the order.
                self._drops["message_utf8"] += 1
                value = data.decode(errors="replace")
        elif ppid == Ppid.WEBRTC_BINARY:
            value = data
        elif ppid == Ppid.WEBRTC_STRING_EMPTY:
            value = ""
        elif ppid == Ppid.WEBRTC_BINARY_EMPTY:
            value = b""
        else:
            raise DecodeError("message_ppid")  # among them the deprecated partial ones, 52 and 54
        self._peer_knows(number, channel)
        if channel.closing:
            raise DecodeError("channel_closing")
        self._outputs.append(ChannelMessage(number, value))

    def _peer_knows(self, number: int, channel: _Channel) -> None:
        channel.acknowledged = True
        if not channel.open and not channel.closing:
            self._tell_open(number, channel)

    def _receive_dcep(self, number: int, data: bytes) -> None:
        channel = self._channels.get(number)
        try:
            message = parse_dcep_untrusted(data)
        except DecodeError:
            self._refuse(number, channel)
            raise
        if not isinstance(message, DcepOpen):
            if channel is None:
                raise DecodeError("channel_unknown")
            self._peer_knows(number, channel)
            return
        if channel is not None:
            raise DecodeError("channel_open_twice")
        if number % 2 == self._parity or number > MAX_STREAM:
            self._refuse(number, channel)
            raise DecodeError("channel_parity")
        if self._resets.busy(number) or len(self._channels) >= self._config.max_channels:
            self._refuse(number, channel)
            raise DecodeError("channel_limit")
        if len(message.label.encode()) + len(message.protocol.encode()) > self._config.max_label:
            self._refuse(number, channel)
            raise DecodeError("channel_label")
        channel = self._channels[number] = _Channel(message.label, message.protocol, message.delivery)
        channel.acknowledged = True
        self._say(number, ACK)
        self._tell_open(number, channel)

    def _refuse(self, number: int, channel: _Channel | None) -> None:
        """Reset our side of the stream: the peer's channel closes (RFC 8832 §6)."""
        if channel is None and self._can_reset:
            self._resets.request(number)


def _encode(text: str) -> bytes:
    # As JavaScript's USVString: a lone surrogate becomes the replacement character.
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
