"""The media lane of one call: the short way of audio packets, beside the cores (docs/adr/0018).

Almost every packet of a call is alike: RTP of a source that is known, along the selected path, under keys that hold. Here
it is authenticated where it lies, counted by the same statistics as everywhere, and handed to `deliver`, without an
object of its own.

Receiving:
1. The header tells whether it is such a packet. If not, it has not been touched: give it to `Peer.receive_untrusted`.
2. It is opened in place. One that does not authenticate is counted, and gone.
3. `deliver` takes the frame, or says no: then it comes out of `Peer.poll` as AudioReceived, like any other.

Sending: header, payload and tag are written into the sender's arena, if `Peer.send_audio` would send, too, and would have
nothing to decide. If not, nothing has happened.

Every rule stays where it was: this file asks the cores' own state each time (selected path, proof, breaker, key) and holds
none of its own. tests/protocol/peer/test_lane.py drives both ways with the same packets and compares all that they did.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from protocol.address import Path
from protocol.errors import DecodeError, LocalError
from protocol.peer.audio import MAX_PAYLOAD, TRANSPORT_SEQUENCE_LENGTH, AudioStream
from protocol.peer.events import AudioReceived
from protocol.rtp.extensions import extension_layout, find_element
from protocol.rtp.packet import RTP_HEADER, RTP_HEADER_LENGTH, parse_rtp_untrusted
from protocol.rtp.resend import CAPACITY
from protocol.srtp import RTP_TRAILER, Arena
from protocol.srtp.library import ERRORS
from protocol.srtp.transport import MAX_PROTECTED_LENGTH

if TYPE_CHECKING:
    from protocol.peer.endpoint import Peer

__all__ = ["DONE", "LEFT", "SEND_ROOM", "SETTLE", "Deliver", "MediaLane"]

Deliver = Callable[[int, int, int, int, bytes, float], bool]
"""(second byte of the header, SSRC, sequence number, timestamp, payload, now) → whether the frame was taken."""

# What became of a packet
LEFT = 0  # untouched
DONE = 1
SETTLE = 2  # the peer has something to say

# Specification constants
_BARE = 0x80  # version 2, no padding, no extension, no contributing sources
_EXTENDED = 0x90
_RTCP = 0xC0  # RFC 5761 §4: 192 to 223 in the second byte

SEND_ROOM = RTP_HEADER_LENGTH + RTP_TRAILER
"""Bytes that a packet takes besides its payload, at most."""

_unpack_header = RTP_HEADER.unpack_from
_RESEND_MASK = CAPACITY - 1


class _Packers(dict[int, Callable[..., None]]):
    """By the payload's size: writes a packet, header and all, by one call. Made when one is needed; sizes are few."""

    def __missing__(self, size: int) -> Callable[..., None]:
        packer = self[size] = struct.Struct(f"{RTP_HEADER.format}{size}s").pack_into
        return packer


_PACK = _Packers()


class MediaLane:
    """Made by `Peer.lane` for one selected path. It is worth nothing once `is_open` is False: ask for another."""

    __slots__ = (
        "_audio",
        "_breaker",
        "_deliver",
        "_ice",
        "_layout",
        "_layout_length",
        "_layout_mask",
        "_longest",
        "_payload_type",
        "_peer",
        "_protect",
        "_resend",
        "_sender",
        "_sequence_at",
        "_sources",
        "_srtp",
        "_ssrc",
        "_timestamp_offset",
        "_unprotect",
        "path",
    )

    def __init__(self, peer: Peer, audio: AudioStream, path: Path, deliver: Deliver) -> None:
        self.path = path
        self._peer = peer
        self._audio = audio
        self._deliver = deliver
        self._ice = peer.ice
        self._srtp = srtp = audio._srtp
        self._unprotect = srtp.inbound.unprotect_rtp
        self._protect = srtp.outbound.protect_rtp
        self._sources = audio.reporter.sources
        self._sender = audio.reporter.sender
        self._breaker = audio.reporter.breaker
        self._payload_type = audio.parameters.payload_type
        self._ssrc = audio.parameters.ssrc
        self._timestamp_offset = audio._timestamp_offset
        self._resend = audio.resend
        self._longest = MAX_PAYLOAD if audio.red is None else -1  # a RED packet has to be put together
        self._layout_length = -1  # of the header extensions seen last, with their own head
        self._layout_mask = self._layout = 0
        self._sequence_at = 0  # in them: the transport-wide sequence number, if there is one and it is wanted

    @property
    def is_open(self) -> bool:
        """Whether packets along `path` may go this way."""
        return self._ice.selected is self.path

    def receive_untrusted(self, arena: Arena, offset: int, length: int, now: float) -> int:
        """LEFT, DONE or SETTLE. The datagram lies in the arena and came along `path`; never raises for what is in it."""
        if not RTP_HEADER_LENGTH <= length <= MAX_PROTECTED_LENGTH or offset + length > arena.size:
            return LEFT
        view = arena.view
        first, second, sequence, timestamp, ssrc = _unpack_header(view, offset)
        source = self._sources.get(ssrc)
        ice = self._ice
        if (
            source is None
            or (first != _BARE and first != _EXTENDED)
            or second & 0xE0 == _RTCP
            or ice.selected is not self.path
        ):
            return LEFT
        holder = arena.length
        holder[0] = length
        if status := self._unprotect(arena.base + offset, holder):
            self._audio.refuse(status)
            return DONE
        ice.heard = now
        end = offset + holder[0]
        if first == _BARE:
            start = offset + RTP_HEADER_LENGTH
        elif not (start := self._payload_start_untrusted(view, offset, end)):
            return DONE
        payload = view[start:end].tobytes()
        source.receive(sequence, timestamp, end - start, now)
        became = DONE
        at = self._sequence_at
        if first == _EXTENDED and at and self._note_arrival(view, offset + RTP_HEADER_LENGTH + at, ssrc, now):
            became = SETTLE
        if payload and self._deliver(second, ssrc, sequence, timestamp, payload, now):
            return became
        self._peer.tell(AudioReceived(parse_rtp_untrusted(view[offset:end])))
        return SETTLE

    def _note_arrival(self, view: memoryview, at: int, ssrc: int, now: float) -> bool:
        """Note when the packet came; whether feedback left."""
        audio = self._audio
        if audio.arrivals is None or not audio.arrivals.record(view[at] << 8 | view[at + 1], now):
            return False
        audio.send_arrivals(ssrc, now)
        self._peer.send_feedback()
        return True

    def _payload_start_untrusted(self, view: memoryview, offset: int, end: int) -> int:
        """Behind the header extensions; 0 if they are wrong, which is counted.

        The elements of one packet lie as those of the one before: only when that changes are they read one by one.
        """
        block = offset + RTP_HEADER_LENGTH
        start = block + 4
        if start <= end:
            start += 4 * (view[block + 2] << 8 | view[block + 3])
        elements = bytes(view[block : min(start, end)])
        if len(elements) == self._layout_length and start <= end:  # as long as they say
            number = int.from_bytes(elements, "big")
            if number & self._layout_mask == self._layout:
                return start
        try:
            parse_rtp_untrusted(view[offset:end])
        except DecodeError as error:
            self._audio.drops[error.reason] += 1
            return 0
        self._layout_length = len(elements)
        self._layout_mask = extension_layout(elements)
        self._layout = int.from_bytes(elements, "big") & self._layout_mask
        wanted = self._audio.parameters.transport_cc_id
        if wanted is not None:
            self._sequence_at = find_element(elements, wanted, TRANSPORT_SEQUENCE_LENGTH)
        return start

    def send(self, arena: Arena, offset: int, payload: bytes, timestamp: int, marker: bool, now: float) -> int:
        """Write the next packet at `offset` of the arena: its length; negative: the peer has something to say, besides.
        0: this is for `Peer.send_audio`, and nothing has happened. Takes SEND_ROOM bytes more than the payload."""
        size = len(payload)
        srtp, sender, breaker, ice = self._srtp, self._sender, self._breaker, self._ice
        sent = sender.packets_sent
        if (
            size > self._longest
            or offset + size + SEND_ROOM > arena.size
            or not self._peer._sending
            or not sent
            or ice.selected is not self.path
            or not ice.proven
            or breaker.tripped is not None
            or srtp.rtp_left <= 0
        ):
            return 0
        audio = self._audio
        sequence = audio._sequence
        audio._sequence = sequence + 1 & 0xFFFF
        timestamp = timestamp + self._timestamp_offset & 0xFFFFFFFF
        view, holder, second = arena.view, arena.length, self._payload_type
        if marker:
            second |= 0x80
        _PACK[size](view, offset, _BARE, second, sequence, timestamp, self._ssrc, payload)
        holder[0] = RTP_HEADER_LENGTH + size
        srtp.rtp_left -= 1
        if status := self._protect(arena.base + offset, holder):
            raise LocalError(f"cannot protect RTP: {ERRORS[status]}")
        length: int = holder[0]
        if (resend := self._resend) is not None:  # as its `keep`
            resend.packets[sequence & _RESEND_MASK] = view[offset : offset + length].tobytes()
            resend.newest = sequence
        sender.packets_sent = sent + 1  # as its `send`
        sender.octets_sent += size
        sender.last_timestamp = timestamp
        sender.last_sent = now
        if not breaker.packet_sent(now):
            return length
        self._peer.tell_trip()
        return -length
