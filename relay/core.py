"""The relay without its sockets: batches in, batches out, time as an argument. It terminates nothing.

From clients (one call per batch and ingress):

1. STUN, DTLS, RTP and RTCP are told apart by their first byte (RFC 7983 §7); everything else is dropped.
2. Not STUN: it goes where its flow goes. No established flow: dropped. (RFC 8445 §12.2 wants a receiver to be ready
   on any candidate; we take only what a check has opened the way for, as every implementation since the ClientHello
   races of 2023.)
3. STUN request: USERNAME begins with our ufrag, which is a route token. The same USERNAME as before on this flow goes
   its way; otherwise the token is opened, judged (forged, stale, another cluster, outside the prefix), and, with
   `verify = "relay"`, MESSAGE-INTEGRITY is checked under the password derived from it. Only then anything is stored.
4. Frames for the same transceiver leave together, in the datagrams that `receive_clients_untrusted` returns.

From transceivers: every reply frame names the client and the ingress, so delivering it needs no state. It also teaches:
a transceiver answers only checks whose integrity it has verified, so its reply establishes the flow it answers.

RFC 8489 §9.1.3 asks for 400 and 401 answers to unauthenticated requests. A relay answers nothing, ever: a request
whose token does not open belongs to nobody, and silence cannot be reflected or amplified.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence

from protocol.address import TransportAddress
from protocol.errors import DecodeError
from protocol.routing import Bundle, KeyRing, Trunk
from protocol.stun import authenticate, peek_username_untrusted, scan_binding_untrusted
from relay.config import RelayConfig
from relay.flows import FlowTable, Proposal
from relay.index import Words, flow_words
from udpio import Datagram

__all__ = ["RelayCore"]

# Specification constants

_COOKIE = b"\x21\x12\xa4\x42"
_BINDING_REQUEST = b"\x00\x01"
_ALERT, _APPLICATION_DATA, _RTP = 21, 23, 128  # first bytes (RFC 7983 §7)
_ERROR_CLASS = (0x01, 0x10)  # both class bits of a STUN message type: an error response

# Implementation constants

_SWEEP_INTERVAL = 1.0
_TALK_SILENCE = 7.0  # seconds; an agent that listens still has RTCP sent every 6.2 at the latest (RFC 3550 §6.3.1)
_FOREIGN, _STUN, _MEDIA = range(3)
# First byte → what it is to us; a table, since this is looked at for every packet.
_KINDS = bytes(
    _STUN if first <= 3 else _MEDIA if 20 <= first <= 63 or 128 <= first <= 191 else _FOREIGN for first in range(256)
)


class RelayCore:
    """One worker's packet logic. `wall_time` is for the age of tokens only. Without `flows`, a table of its own."""

    def __init__(
        self,
        config: RelayConfig,
        keys: KeyRing,
        trunk: Trunk,
        *,
        wall_time: Callable[[], float],
        flows: FlowTable | None = None,
    ) -> None:
        self._config = config
        self._keys = keys
        self._trunk = trunk
        self._wall_time = wall_time
        self._mtu = keys.config.trunk_mtu
        self._sweep_at = -math.inf
        self.flows = flows or FlowTable.create(
            max_flows=config.max_flows,
            max_probationary=config.max_probationary,
            max_per_token=config.max_flows_per_token,
            idle=config.idle_seconds,
        )
        self.drops: Counter[str] = Counter()
        self.frames_up = 0  # client → transceiver
        self.frames_down = 0
        self.opened = 0  # probationary flows
        self.established = 0  # answered
        self.moved = 0  # established flows that another transceiver has answered
        self.learned = 0  # from a reply alone

    def receive_clients_untrusted(
        self, batch: Sequence[tuple[memoryview, TransportAddress]], ingress: int, now: float
    ) -> list[Datagram]:
        """What clients sent to one listen address; returns trunk datagrams to send. Never raises for any bytes."""
        flows, addresses = self.flows, self.flows.transceivers.addresses
        targets, seen = flows.cells.target, flows.cells.seen
        bundles: dict[int, Bundle] = {}
        forwarded = 0
        for data, client in batch:
            kind = _KINDS[data[0]] if data else _FOREIGN
            words = flow_words(client, ingress)
            row = flows.find_words(words)
            target = targets[row]
            if kind == _MEDIA and target:
                seen[row] = now
            else:
                try:
                    target = self._route_untrusted(kind, data, words, row, now)
                except DecodeError as refused:
                    self.drops[refused.reason] += 1
                    continue
            bundle = bundles.get(target)
            if bundle is None:
                bundle = bundles[target] = self._trunk.bundle(self._mtu, ingress)
            bundle.add(client, data)
            forwarded += 1
        self.frames_up += forwarded
        return [(datagram, addresses[target]) for target, bundle in bundles.items() for datagram in bundle.finish()]

    def receive_trunk_untrusted(
        self, batch: Sequence[tuple[memoryview, TransportAddress]], now: float
    ) -> list[list[Datagram]]:
        """What came over the trunk; returns, by ingress, datagrams to send to clients. Never raises for any bytes.

        The payloads are views into the batch: send them before the next one is received.
        """
        flows, cells, numbers = self.flows, self.flows.cells, self.flows.transceivers.numbers
        out: list[list[Datagram]] = [[] for _ in self._config.listen]
        contains = self._keys.prefix.contains
        for datagram, source in batch:
            if not contains(source):  # even a replayed datagram teaches us nobody outside the prefix
                self.drops["trunk_source"] += 1
                continue
            try:
                frames = self._trunk.decode_untrusted(datagram)
            except DecodeError as refused:
                self.drops[refused.reason] += 1
                continue
            for client, ingress, payload in frames:
                if ingress >= len(out):
                    self.drops["trunk_ingress"] += 1
                    continue
                words = flow_words(client, ingress)
                row = flows.find_words(words)
                target = cells.target[row]
                if target and target == numbers.get(source):
                    cells.seen[row] = now
                    first = payload[0] if payload else 0
                    if first >= _RTP or first == _APPLICATION_DATA:
                        cells.talked[row] = now
                    elif first == _ALERT:  # perhaps its goodbye
                        cells.talked[row] = -math.inf
                else:
                    self._learn(row, words, source, payload, now)
                out[ingress].append((payload, client))
                self.frames_down += 1
        return out

    def handle_timeout(self, now: float) -> None:
        """Safe to call early."""
        if now >= self._sweep_at:
            self._sweep_at = now + (_SWEEP_INTERVAL if self.flows.expire(now) else 0.0)

    def next_timeout(self) -> float:
        return self._sweep_at if self.flows.established or self.flows.probationary else math.inf

    # ---- what is not the straight way -------------------------------------------------------------------------------

    def _route_untrusted(self, kind: int, data: memoryview, words: Words, row: int, now: float) -> int:
        """The transceiver of a datagram that is not plainly media of an established flow; or DecodeError."""
        cells = self.flows.cells
        if kind == _FOREIGN:
            raise DecodeError("foreign_protocol")
        if kind == _MEDIA:
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
                cells.seen[row] = now
                return cells.target[row]
            if cells.pending[row] and name == cells.pending_username[row] and now < cells.until[row]:
                return self._spend(row, length)
        return self._route_token_untrusted(data, username, words, row, now)

    def _route_answer(self, length: int, row: int, now: float) -> int:
        """An answer to a check of ours, or an indication: it carries no token and goes where its flow goes."""
        cells = self.flows.cells
        if cells.target[row]:
            cells.seen[row] = now
            return cells.target[row]
        if not cells.pending[row] or now >= cells.until[row]:
            raise DecodeError("no_flow")
        return self._spend(row, length)

    def _route_token_untrusted(self, data: memoryview, username: bytes, words: Words, row: int, now: float) -> int:
        flows = self.flows
        ufrag = username.partition(b":")[0]
        token = self._keys.open_untrusted(ufrag)
        target = flows.cells.target[row]
        known = target != 0 and flows.transceivers.addresses[target] == token.address
        settings = self._keys.config
        # An established flow fails open: no clock that jumped ends a call.
        if not known and token.is_stale(self._wall_time(), settings.token_max_age, settings.token_clock_tolerance):
            raise DecodeError("token_stale")
        if self._config.verify == "relay":
            request = bytes(data)
            password = self._keys.derive_password(ufrag).encode("ascii")
            if not authenticate(request, scan_binding_untrusted(request), password):
                raise DecodeError("integrity")
        if known:
            flows.adopt(row, flows.digest(username), flows.digest(ufrag), now)
            return target
        if not target and flows.is_full():
            raise DecodeError("table_full")
        proposal = Proposal(
            token.address,
            flows.digest(username),
            flows.digest(ufrag),
            self._config.probationary_bytes,
            now + self._config.probationary_seconds,
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

    def _spend(self, row: int, length: int) -> int:
        cells = self.flows.cells
        budget = cells.budget[row]
        if length > budget:
            raise DecodeError("probationary_budget")
        cells.budget[row] = budget - length
        return cells.pending[row]

    def _learn(self, row: int, words: Words, source: TransportAddress, payload: bytes | memoryview, now: float) -> None:
        """A reply from a transceiver that is not (yet) the target of the flow."""
        if len(payload) >= 2 and (payload[0] & 1, payload[1] & 0x10) == _ERROR_CLASS and payload[0] <= 3:
            return  # "I do not know this session" is no reason to send it more
        flows, cells = self.flows, self.flows.cells
        if not row:
            if len(payload) > 0 and payload[0] & 0xFD == 1:
                return  # a STUN answer: the flow of its check has had to make room, and must not come back this way
            if self._config.learn_from_replies:
                if flows.learn(words, source, now):
                    self.learned += 1
                else:
                    self.drops["table_full_reply"] += 1
            return
        pending = cells.pending[row]
        answered = pending != 0 and flows.transceivers.addresses[pending] == source and now < cells.until[row]
        if not cells.target[row]:
            if answered or self._config.learn_from_replies:
                if flows.establish(row, source, now):
                    self.established += 1
                else:
                    self.drops["table_full_reply"] += 1
        elif answered and now - cells.talked[row] < _TALK_SILENCE:
            # Who has a call of his own can have a check answered in anybody's name, but nobody gets media to an address
            # where he does not hear it. A client that really has a new call has ended the old one.
            self.drops["flow_talking"] += 1
        elif answered:
            flows.establish(row, source, now)
            self.moved += 1
