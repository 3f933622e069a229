"""Stream resets, by which data channels close (RFC 6525; RFC 8831 §6.7).

Ours: 1. a stream asked to be reset waits until nothing of it is queued; 2. one request at a time goes out, with T3's
timeout as its timer; 3. the response ends it. "In progress" (the peer has not yet seen our last TSN) is asked again
under a new sequence number: dcSCTP answers a repeated number with its old result for ever. A stream whose reset is
denied is spoilt: its channel ends here, and its identifier is not used again.

Theirs: 1. when every TSN up to the request's last one came, the reset is performed and answered; 2. until then the
answer is "in progress", the request is kept, and answered once more when it was performed (usrsctp waits for that).
Kinds of request that no data channel needs are denied.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

from protocol.sctp.congestion import RoundTrip
from protocol.sctp.inbound import Receiver
from protocol.sctp.outbound import Sender
from protocol.sctp.parameters import OtherReset, OutgoingReset, ResetResponse, ResetResult, build_reconfig
from protocol.sctp.serial import TSN_MASK, unwrap_tsn

__all__ = ["StreamResets"]

# Implementation constants
MAX_STREAMS = 128  # in one request

_DONE = (ResetResult.NOTHING_TO_DO, ResetResult.PERFORMED)
_AGAIN = (ResetResult.IN_PROGRESS, ResetResult.REQUEST_IN_PROGRESS)


class StreamResets:
    """`incoming` and `outgoing` collect streams whose reset is complete, `denied` those of ours that the peer refused;
    the owner clears them."""

    def __init__(
        self, initial_tsn: int, sender: Sender, receiver: Receiver, round_trip: RoundTrip, drops: Counter[str]
    ) -> None:
        self._sender = sender
        self._receiver = receiver
        self._round_trip = round_trip
        self._drops = drops
        self._sequence = initial_tsn  # of our next request (RFC 6525 §4.1)
        self._waiting: dict[int, None] = {}  # ordered set, bounded by the number of streams
        self._request: OutgoingReset | None = None
        self._resend = False
        self._peer_sequence = 0  # expected next
        self._last_result = ResetResult.NOTHING_TO_DO
        self._deferred: OutgoingReset | None = None
        self._spoilt: set[int] = set()  # the peer would not reset them: never used again
        self.incoming: list[tuple[int, ...]] = []
        self.outgoing: list[int] = []
        self.denied: list[int] = []
        self.deadline = math.inf

    def start(self, peer_initial_tsn: int) -> None:
        self._peer_sequence = peer_initial_tsn

    def request(self, stream: int) -> None:
        if self._request is None or stream not in self._request.streams:
            self._waiting[stream] = None

    def busy(self, stream: int) -> bool:
        """A reset of this outgoing stream is wanted, under way or denied: nothing may be sent on it."""
        if stream in self._waiting or stream in self._spoilt:
            return True
        return self._request is not None and stream in self._request.streams

    @property
    def has_something(self) -> bool:
        """`poll` is worth a call."""
        return self._resend or (bool(self._waiting) and self._request is None)

    def poll(self, now: float) -> bytes | None:
        """A RE-CONFIG chunk to send now."""
        if self._request is None:
            streams = [stream for stream in self._waiting if not self._sender.queue.buffered(stream)][:MAX_STREAMS]
            if not streams:
                return None
            for stream in streams:
                del self._waiting[stream]
            self._request = OutgoingReset(0, 0, 0, tuple(streams))
            self._renumber()
        elif not self._resend:
            return None
        self._resend = False
        self.deadline = now + self._round_trip.rto
        return build_reconfig(self._request)

    def _renumber(self) -> None:
        if self._request is not None:
            self._request = replace(
                self._request,
                sequence=self._sequence,
                response_sequence=(self._peer_sequence - 1) & TSN_MASK,
                last_tsn=self._sender.last_tsn & TSN_MASK,
            )
            self._sequence = (self._sequence + 1) & TSN_MASK

    def handle_timeout(self) -> None:
        """Ask again; the association counts the error."""
        self._resend = True
        self.deadline = math.inf

    def receive_response(self, response: ResetResponse, now: float) -> bool:
        """True if it answers the request under way."""
        request = self._request
        if request is None or request.sequence != response.sequence:
            self._drops["reset_response"] += 1
            return False
        if response.result in _AGAIN:
            self._renumber()
            self.deadline = now + self._round_trip.rto
            return True
        if response.result in _DONE:
            for stream in request.streams:
                self._sender.queue.restart(stream)
            self.outgoing += request.streams
        else:
            self._drops["reset_denied"] += 1
            self._spoilt.update(request.streams)
            self.denied += request.streams
        self._request = None
        self.deadline = math.inf
        return True

    def receive_request(self, request: OutgoingReset | OtherReset) -> bytes:
        """The RE-CONFIG chunk to answer with."""
        if request.sequence == (self._peer_sequence - 1) & TSN_MASK:  # our answer was lost
            return build_reconfig(ResetResponse(request.sequence, self._last_result))
        if request.sequence != self._peer_sequence:
            self._drops["reset_sequence"] += 1
            return build_reconfig(ResetResponse(request.sequence, ResetResult.BAD_SEQUENCE_NUMBER))
        self._peer_sequence = (self._peer_sequence + 1) & TSN_MASK
        if isinstance(request, OtherReset):
            self._drops["reset_kind"] += 1
            self._last_result = ResetResult.DENIED
        elif unwrap_tsn(request.last_tsn, self._receiver.cumulative) > self._receiver.cumulative:
            self._deferred = request
            self._last_result = ResetResult.IN_PROGRESS
        else:
            self._perform(request)
        return build_reconfig(ResetResponse(request.sequence, self._last_result))

    def _perform(self, request: OutgoingReset) -> None:
        self._deferred = None
        self._last_result = ResetResult.PERFORMED
        self._receiver.restart_streams(request.streams)
        self.incoming.append(request.streams)

    @property
    def defers(self) -> bool:
        return self._deferred is not None

    def perform_deferred(self) -> bytes | None:
        """After DATA came: the answer to a request that had to wait, if it has to no longer."""
        request = self._deferred
        if request is None or unwrap_tsn(request.last_tsn, self._receiver.cumulative) > self._receiver.cumulative:
            return None
        self._perform(request)
        return build_reconfig(ResetResponse(request.sequence, ResetResult.PERFORMED))

    def clear(self) -> None:
        self._waiting.clear()
        self._request = None
        self._deferred = None
        self._resend = False
        self.deadline = math.inf
