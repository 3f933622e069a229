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
from relay.flows import Flow, FlowTable
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
    """One worker's packet logic. `wall_time` is for the age of tokens only."""

    def __init__(self, config: RelayConfig, keys: KeyRing, trunk: Trunk, *, wall_time: Callable[[], float]) -> None:
        self._config = config
        self._keys = keys
        self._trunk = trunk
        self._wall_time = wall_time
        self._mtu = keys.config.trunk_mtu
        self._sweep_at = -math.inf
        self.flows = FlowTable(
            len(config.listen),
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
        flows = self.flows.by_ingress[ingress]
        bundles: dict[TransportAddress, Bundle] = {}
        forwarded = 0
        for data, client in batch:
            kind = _KINDS[data[0]] if data else _FOREIGN
            flow = flows.get(client)
            target: TransportAddress | None
            if kind == _MEDIA and flow is not None and (target := flow.target) is not None:
                flow.seen = now
            else:
                try:
                    flow, target = self._route_untrusted(kind, data, client, ingress, flow, now)
                except DecodeError as refused:
                    self.drops[refused.reason] += 1
                    continue
            bundle = bundles.get(target)
            if bundle is None:
                bundle = bundles[target] = self._trunk.bundle(self._mtu, ingress)
            bundle.add(client, data)
            forwarded += 1
        self.frames_up += forwarded
        return [(datagram, target) for target, bundle in bundles.items() for datagram in bundle.finish()]

    def receive_trunk_untrusted(
        self, batch: Sequence[tuple[memoryview, TransportAddress]], now: float
    ) -> list[list[Datagram]]:
        """What came over the trunk; returns, by ingress, datagrams to send to clients. Never raises for any bytes.

        The payloads are views into the batch: send them before the next one is received.
        """
        tables = self.flows.by_ingress
        out: list[list[Datagram]] = [[] for _ in tables]
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
                if ingress >= len(tables):
                    self.drops["trunk_ingress"] += 1
                    continue
                flow = tables[ingress].get(client)
                if flow is not None and flow.target == source:
                    flow.seen = now
                    first = payload[0] if payload else 0
                    if first >= _RTP or first == _APPLICATION_DATA:
                        flow.talked = now
                    elif first == _ALERT:  # perhaps its goodbye
                        flow.talked = -math.inf
                else:
                    self._learn(flow, client, ingress, source, payload, now)
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

    def _route_untrusted(
        self, kind: int, data: memoryview, client: TransportAddress, ingress: int, flow: Flow | None, now: float
    ) -> tuple[Flow, TransportAddress]:
        """The flow and transceiver of a datagram that is not plainly media of an established flow; or DecodeError."""
        if kind == _FOREIGN:
            raise DecodeError("foreign_protocol")
        if kind == _MEDIA:
            raise DecodeError("no_flow" if flow is None else "probationary")
        # RFC 8489 §5: what is not framed so is not STUN.
        length = len(data)
        if length < 20 or data[4:8] != _COOKIE or (data[2] << 8 | data[3]) + 20 != length or length & 3:
            raise DecodeError("not_stun")
        if data[:2] != _BINDING_REQUEST:
            return self._route_answer(length, flow, now)
        username = peek_username_untrusted(data)
        if flow is not None:
            if flow.target is not None and username == flow.username:
                flow.seen = now
                return flow, flow.target
            if flow.pending is not None and username == flow.pending_username and now < flow.pending_until:
                return flow, self._spend(flow, flow.pending, length)
        return self._route_token_untrusted(data, username, client, ingress, flow, now)

    def _route_answer(self, length: int, flow: Flow | None, now: float) -> tuple[Flow, TransportAddress]:
        """An answer to a check of ours, or an indication: it carries no token and goes where its flow goes."""
        if flow is None:
            raise DecodeError("no_flow")
        if flow.target is not None:
            flow.seen = now
            return flow, flow.target
        if flow.pending is None or now >= flow.pending_until:
            raise DecodeError("no_flow")
        return flow, self._spend(flow, flow.pending, length)

    def _route_token_untrusted(
        self, data: memoryview, username: bytes, client: TransportAddress, ingress: int, flow: Flow | None, now: float
    ) -> tuple[Flow, TransportAddress]:
        ufrag = username.partition(b":")[0]
        token = self._keys.open_untrusted(ufrag)
        known = flow is not None and flow.target == token.address
        settings = self._keys.config
        # An established flow fails open: no clock that jumped ends a call.
        if not known and token.is_stale(self._wall_time(), settings.token_max_age, settings.token_clock_tolerance):
            raise DecodeError("token_stale")
        if self._config.verify == "relay":
            request = bytes(data)
            password = self._keys.derive_password(ufrag).encode("ascii")
            if not authenticate(request, scan_binding_untrusted(request), password):
                raise DecodeError("integrity")
        if flow is not None and known:
            self.flows.adopt(flow, username, now)
            return flow, token.address
        if flow is None or flow.target is None:
            if self.flows.is_full():
                raise DecodeError("table_full")
            if flow is None:
                flow = self.flows.open(client, ingress, ufrag, now)
                self.opened += 1
            else:
                self.flows.renew(flow, ufrag)
        until = now + self._config.probationary_seconds
        flow.propose(token.address, username, self._config.probationary_bytes, until)
        return flow, self._spend(flow, token.address, len(data))

    def _spend(self, flow: Flow, target: TransportAddress, length: int) -> TransportAddress:
        if length > flow.budget:
            raise DecodeError("probationary_budget")
        flow.budget -= length
        return target

    def _learn(
        self,
        flow: Flow | None,
        client: TransportAddress,
        ingress: int,
        source: TransportAddress,
        payload: bytes | memoryview,
        now: float,
    ) -> None:
        """A reply from a transceiver that is not (yet) the target of the flow."""
        if len(payload) >= 2 and (payload[0] & 1, payload[1] & 0x10) == _ERROR_CLASS and payload[0] <= 3:
            return  # "I do not know this session" is no reason to send it more
        if flow is None:
            if len(payload) > 0 and payload[0] & 0xFD == 1:
                return  # a STUN answer: the flow of its check has had to make room, and must not come back this way
            if self._config.learn_from_replies:
                if self.flows.learn(client, ingress, source, now):
                    self.learned += 1
                else:
                    self.drops["table_full_reply"] += 1
            return
        answered = flow.pending == source and now < flow.pending_until
        if flow.target is None:
            if answered or self._config.learn_from_replies:
                if not self.flows.establish(flow, source):
                    self.drops["table_full_reply"] += 1
                    return
                flow.seen = now
                self.established += 1
        elif answered and now - flow.talked < _TALK_SILENCE:
            # Who has a call of his own can have a check answered in anybody's name, but nobody gets media to an address
            # where he does not hear it. A client that really has a new call has ended the old one.
            self.drops["flow_talking"] += 1
        elif answered:
            self.flows.establish(flow, source)
            flow.seen = now
            self.moved += 1
