"""What is not the straight way of a packet: STUN with route tokens from clients, replies that open or move a flow.

1. Not STUN and no established flow: dropped. (RFC 8445 §12.2 wants a receiver to be ready on any candidate; we take only
   what a check has opened the way for, as every implementation since the ClientHello races of 2023.)
2. STUN request: USERNAME begins with our ufrag, which is a route token. The same USERNAME as before on this flow goes
   its way; otherwise the token is opened, judged (forged, stale, another cluster, outside the prefix), and, with
   `verify = "relay"`, MESSAGE-INTEGRITY is checked under the password derived from it. Only then anything is stored.
3. A reply teaches: a transceiver answers only checks whose integrity it has verified, so its reply establishes the flow
   it answers. And only what the transceiver sends keeps a flow: a client that goes on when its call is over holds no place.

Opening tokens is the only dear thing that a stranger can ask for, so it has a budget of its own: `stun_per_second`, of
which a twentieth may be spent at once. Beyond it such requests are dropped (`stun_budget`) and media goes on; a client
repeats its check. A request that repeats its flow's USERNAME opens no token and needs no budget. Strangers leave a fifth of
what may be spent at once: an established flow whose USERNAME we do not know (it has restarted ICE, or we were restarted and
were told of it) is refilled first, or a flood would cost it its consent. Each such flow may draw on that fifth once in _REFILL
seconds, or one caller could spend it for all.

RFC 8489 §9.1.3 asks for 400 and 401 answers to unauthenticated requests. A relay answers nothing, ever: a request
whose token does not open belongs to nobody, and silence cannot be reflected or amplified.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable

from protocol.address import TransportAddress
from protocol.errors import DecodeError
from protocol.routing import KeyRing
from protocol.stun import authenticate, peek_username_untrusted, scan_binding_untrusted
from relay.config import RelayConfig
from relay.flows import FlowTable, Proposal
from relay.index import Words

__all__ = ["FOREIGN", "KINDS", "MEDIA", "STUN", "FlowRules", "is_goodbye", "is_talk"]

# Specification constants

_COOKIE = b"\x21\x12\xa4\x42"
_BINDING_REQUEST = b"\x00\x01"
_ALERT, _APPLICATION_DATA, _RTP = 21, 23, 128  # first bytes (RFC 7983 §7)
_ERROR_CLASS = (0x01, 0x10)  # both class bits of a STUN message type: an error response

# Implementation constants

_TALK_SILENCE = 7.0  # seconds; an agent that listens still has RTCP sent every 6.2 at the latest (RFC 3550 §6.3.1)
_STUN_BURST = 0.05  # seconds' worth of the budget that may be spent at once
_STUN_RESERVE = 0.2  # share of it that is for established flows
_REFILL = 0.2  # seconds between two that an established flow has of that share
_REFILL_SLOTS = 4096  # flows share them by their row: who is kept waiting by another asks again
FOREIGN, STUN, MEDIA = range(3)
# First byte → what it is to us; a table, since this is looked at for every packet.
KINDS = bytes(
    STUN if first <= 3 else MEDIA if 20 <= first <= 63 or 128 <= first <= 191 else FOREIGN for first in range(256)
)


def is_talk(first: int) -> bool:
    """What only a call under way has: media, data."""
    return first >= _RTP or first == _APPLICATION_DATA


def is_goodbye(first: int) -> bool:
    """Perhaps: an alert."""
    return first == _ALERT


class FlowRules:
    """Judges single packets, and counts. `wall_time` is for the age of tokens only."""

    def __init__(
        self, config: RelayConfig, keys: KeyRing, *, wall_time: Callable[[], float], flows: FlowTable | None = None
    ) -> None:
        self.config = config
        self._keys = keys
        self._wall_time = wall_time
        self.flows = flows or FlowTable.create(
            max_flows=config.max_flows,
            max_probationary=config.max_probationary,
            max_per_token=config.max_flows_per_token,
            idle=config.idle_seconds,
        )
        self._stun_most = max(1.0, config.stun_per_second * _STUN_BURST)
        self._stun_reserve = (self._stun_most - 1) * _STUN_RESERVE
        self._stun_left = self._stun_most
        self._stun_at = -math.inf
        self._refilled = array("d", [-math.inf]) * _REFILL_SLOTS
        self.drops: Counter[str] = Counter()
        self.not_learned: Counter[str] = Counter()  # reply frames that were delivered and taught nothing, by reason
        self.frames_up = 0  # client → transceiver
        self.frames_down = 0
        self.opened = 0  # probationary flows
        self.established = 0  # answered
        self.moved = 0  # established flows that another transceiver has answered
        self.learned = 0  # from a reply alone

    def count_refused(self, *, up: int = 0, down: int = 0) -> None:
        """So many frames that were counted as forwarded, and that the kernel did not take."""
        if up:
            self.frames_up -= up
            self.drops["trunk_refused"] += up
        if down:
            self.frames_down -= down
            self.drops["client_refused"] += down

    def route_untrusted(self, kind: int, data: memoryview, words: Words, row: int, now: float) -> int:
        """The transceiver of a datagram that is not plainly media of an established flow; or DecodeError."""
        cells = self.flows.cells
        if kind == FOREIGN:
            raise DecodeError("foreign_protocol")
        if kind == MEDIA:
            raise DecodeError("probationary" if row else "no_flow")
        # RFC 8489 §5: what is not framed so is not STUN.
        length = len(data)
        if length < 20 or data[4:8] != _COOKIE or (data[2] << 8 | data[3]) + 20 != length or length & 3:
            raise DecodeError("not_stun")
        if data[:2] != _BINDING_REQUEST:
            return self._route_answer(length, row, now)
        username = peek_username_untrusted(data)
        if row:
            name = self.flows.digest(username)
            if cells.target[row] and name == cells.username[row]:
                return cells.target[row]
            if cells.pending[row] and name == cells.pending_username[row] and now < cells.until[row]:
                return self._spend(row, length)
        return self._route_token_untrusted(data, username, words, row, now)

    def _route_answer(self, length: int, row: int, now: float) -> int:
        """An answer to a check of ours, or an indication: it carries no token and goes where its flow goes."""
        cells = self.flows.cells
        if cells.target[row]:
            return cells.target[row]
        if not cells.pending[row] or now >= cells.until[row]:
            raise DecodeError("no_flow")
        return self._spend(row, length)

    def _route_token_untrusted(self, data: memoryview, username: bytes, words: Words, row: int, now: float) -> int:
        flows = self.flows
        target = flows.cells.target[row]
        self._spend_stun(now, row if target else 0)
        ufrag = username.partition(b":")[0]
        token = self._keys.open_untrusted(ufrag)
        known = target != 0 and flows.transceivers.addresses[target] == token.address
        settings = self._keys.config
        # An established flow fails open: no clock that jumped ends a call.
        if not known and token.is_stale(self._wall_time(), settings.token_max_age, settings.token_clock_tolerance):
            raise DecodeError("token_stale")
        if self.config.verify == "relay":
            request = bytes(data)
            password = self._keys.derive_password(ufrag).encode("ascii")
            if not authenticate(request, scan_binding_untrusted(request), password):
                raise DecodeError("integrity")
        if known:
            flows.adopt(row, flows.digest(username), flows.digest(ufrag))
            return target
        if not target and not self._has_room(now):
            raise DecodeError("table_full")
        proposal = Proposal(
            token.address,
            flows.digest(username),
            flows.digest(ufrag),
            self.config.probationary_bytes,
            now + self.config.probationary_seconds,
        )
        if row:
            stored = flows.propose(row, proposal)
        else:
            row = flows.open(words, proposal, now)
            stored = row != 0
            self.opened += stored
        if not stored:
            raise DecodeError("too_many_transceivers")
        return self._spend(row, len(data))

    def _spend_stun(self, now: float, row: int) -> None:
        """`row`: of an established flow, or 0."""
        left = min(self._stun_most, self._stun_left + (now - self._stun_at) * self.config.stun_per_second)
        self._stun_at = now
        self._stun_left = left
        if left < 1 + self._stun_reserve:
            slot = row % _REFILL_SLOTS
            if not row or left < 1 or now - self._refilled[slot] < _REFILL:
                raise DecodeError("stun_budget")
            self._refilled[slot] = now
        self._stun_left = left - 1

    def _spend(self, row: int, length: int) -> int:
        cells = self.flows.cells
        budget = cells.budget[row]
        if length > budget:
            raise DecodeError("probationary_budget")
        cells.budget[row] = budget - length
        return cells.pending[row]

    def _has_room(self, now: float) -> bool:
        """For one more established flow."""
        return not self.flows.is_full() or self.flows.reclaim(now)

    def announced(self, words: Words, source: TransportAddress, now: float) -> None:
        """A transceiver says that the call of this client is with it: as good as a reply, and no better."""
        row = self.flows.find_words(words)
        target = self.flows.cells.target[row]
        if not target or self.flows.transceivers.addresses[target] != source:
            self.learn(row, words, source, b"", now)

    def learn(self, row: int, words: Words, source: TransportAddress, payload: bytes | memoryview, now: float) -> None:
        """A reply from a transceiver that is not (yet) the target of the flow."""
        if len(payload) >= 2 and (payload[0] & 1, payload[1] & 0x10) == _ERROR_CLASS and payload[0] <= 3:
            return  # "I do not know this session" is no reason to send it more
        flows, cells = self.flows, self.flows.cells
        if not row:
            if len(payload) > 0 and payload[0] & 0xFD == 1:
                return  # a STUN answer: the flow of its check has had to make room, and must not come back this way
            if self.config.learn_from_replies:
                if self._has_room(now) and flows.learn(words, source, now):
                    self.learned += 1
                else:
                    self.not_learned["table_full"] += 1
            return
        pending = cells.pending[row]
        answered = pending != 0 and flows.transceivers.addresses[pending] == source and now < cells.until[row]
        if not cells.target[row]:
            if answered or self.config.learn_from_replies:
                if self._has_room(now) and flows.establish(row, source, now):
                    self.established += 1
                else:
                    self.not_learned["table_full"] += 1
        elif answered and now - cells.talked[row] < _TALK_SILENCE:
            # Who has a call of his own can have a check answered in anybody's name, but nobody gets media to an address
            # where he does not hear it. A client that really has a new call has ended the old one.
            self.not_learned["flow_talking"] += 1
        elif answered:
            flows.establish(row, source, now)
            self.moved += 1
