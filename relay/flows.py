"""The flow table: which transceiver a client's datagrams go to, per ingress. A cache, bounded, learned again when lost.

    nothing ──STUN with a good token──▶ probationary ──reply of that transceiver──▶ established ──idle──▶ nothing
                                             └──time──▶ nothing

A probationary flow has only a `pending` transceiver: STUN within a byte budget goes there. An established flow has a
`target`; a STUN that names another transceiver gives it a `pending` one beside, which becomes the target when it has
answered, and not before, nor while the present one talks. Both kinds have their own bound: probationary flows cost an
attacker with one good token only a spoofed address each, so they can never crowd out established ones. Who has a call of
his own can have checks answered from as many addresses as he likes; so each token has only so many flows of either kind,
and a further one takes the place of that token's own flow not heard of for longest.
"""

from __future__ import annotations

import math
from collections import OrderedDict

from protocol.address import TransportAddress

__all__ = ["Flow", "FlowTable"]

_SWEEP_SLICE = 4096  # flows looked at in one step: a sweep must not hold the packet loop for a millisecond


class Flow:
    """One client address on one ingress. Fields are written by FlowTable and RelayCore only."""

    __slots__ = (
        "budget",
        "client",
        "ingress",
        "pending",
        "pending_until",
        "pending_username",
        "seen",
        "talked",
        "target",
        "token",
        "username",
    )

    def __init__(self, client: TransportAddress, ingress: int, now: float) -> None:
        self.client = client
        self.ingress = ingress
        self.seen = now
        self.talked = -math.inf  # when the target last sent what only a call under way has: media, data
        self.target: TransportAddress | None = None
        self.token = b""  # under which the table counts this flow; empty if only a reply taught it
        self.username = b""  # of the last good STUN for the target: the same again needs no second look
        self.pending: TransportAddress | None = None
        self.pending_username = b""
        self.pending_until = 0.0
        self.budget = 0

    def propose(self, target: TransportAddress, username: bytes, budget: int, until: float) -> None:
        """A STUN named a transceiver that has yet to answer. The last one named counts: no proposal blocks another."""
        self.pending = target
        self.pending_username = username
        self.pending_until = until
        self.budget = budget

    def accept(self, target: TransportAddress) -> None:
        """The transceiver answered."""
        self.username = self.pending_username if self.pending == target else b""
        self.talked = -math.inf
        self.target = target
        self.pending = None
        self.pending_username = b""


class FlowTable:
    """`by_ingress[ingress][client]` is the flow; dictionaries, since a look-up happens for every packet."""

    def __init__(
        self, ingresses: int, *, max_flows: int, max_probationary: int, max_per_token: int, idle: float
    ) -> None:
        self.by_ingress: list[dict[TransportAddress, Flow]] = [{} for _ in range(ingresses)]
        self._max_flows = max_flows
        self._max_probationary = max_probationary
        self._max_per_token = max_per_token
        self._idle = idle
        # In the order of their deadlines. (A plain dictionary finds its first key slower, the more were deleted before it.)
        self._probationary: OrderedDict[Flow, None] = OrderedDict()
        self._of_token: dict[bytes, dict[Flow, None]] = {}
        self._established = 0
        self._sweep: list[Flow] = []
        self.expired = 0
        self.lapsed = 0
        self.evicted = 0

    @property
    def established(self) -> int:
        return self._established

    @property
    def probationary(self) -> int:
        return len(self._probationary)

    @property
    def tokens(self) -> int:
        """How many different tokens have flows."""
        return len(self._of_token)

    def is_full(self) -> bool:
        return self._established >= self._max_flows

    def open(self, client: TransportAddress, ingress: int, token: bytes, now: float) -> Flow:
        """A new probationary flow, at the cost of the oldest one if there are too many. The caller proposes."""
        flow = Flow(client, ingress, now)
        self._count_for(token, flow)
        if len(self._probationary) >= self._max_probationary:
            self._evict(next(iter(self._probationary)))
        self.by_ingress[ingress][client] = flow
        self._probationary[flow] = None
        return flow

    def renew(self, flow: Flow, token: bytes) -> None:
        """A new proposal for a probationary flow: it is the youngest again."""
        if flow in self._probationary:
            self._probationary.move_to_end(flow)
            self._count_for(token, flow)

    def establish(self, flow: Flow, target: TransportAddress) -> bool:
        """False if the table is full."""
        if flow.target is None:
            if self.is_full():
                return False
            self._established += 1
            del self._probationary[flow]
        flow.accept(target)
        self._count_for(_token_of(flow.username) or flow.token, flow)
        return True

    def adopt(self, flow: Flow, username: bytes, now: float) -> None:
        """An established flow carries another USERNAME with a good token for the same transceiver."""
        flow.username = username
        flow.seen = now
        self._count_for(_token_of(username), flow)

    def learn(self, client: TransportAddress, ingress: int, target: TransportAddress, now: float) -> bool:
        """A flow that a reply proves; False if the table is full."""
        if self.is_full():
            return False
        flow = Flow(client, ingress, now)
        flow.target = target
        self.by_ingress[ingress][client] = flow
        self._established += 1
        return True

    def expire(self, now: float) -> bool:
        """Forget what is over; bounded work. False while a sweep has more to look at: call again soon."""
        while self._probationary:
            flow = next(iter(self._probationary))
            if flow.pending_until > now:
                break
            self._remove(flow)
            self.lapsed += 1
        if not self._sweep:
            self._sweep = [flow for flows in self.by_ingress for flow in flows.values()]
        part, self._sweep = self._sweep[:_SWEEP_SLICE], self._sweep[_SWEEP_SLICE:]
        limit = now - self._idle
        for flow in part:
            if self.by_ingress[flow.ingress].get(flow.client) is not flow:
                continue  # it had to make room since the sweep began
            if flow.target is not None and flow.seen <= limit:
                self._remove(flow)
                self.expired += 1
        return not self._sweep

    def _count_for(self, token: bytes, flow: Flow) -> None:
        """`flow` is one of this token's; if those of its kind are too many, the one longest silent makes room."""
        if flow.token != token:
            self._uncount(flow)
            flow.token = token
            self._of_token.setdefault(token, {})[flow] = None
        if not token:
            return
        established = flow.target is not None
        kin = [other for other in self._of_token[token] if (other.target is not None) is established]
        if len(kin) > self._max_per_token:
            self._evict(min((other for other in kin if other is not flow), key=lambda other: other.seen))

    def _uncount(self, flow: Flow) -> None:
        flows = self._of_token.get(flow.token)
        if flows is not None and flow in flows:
            del flows[flow]
            if not flows:
                del self._of_token[flow.token]

    def _evict(self, flow: Flow) -> None:
        self._remove(flow)
        self.evicted += 1

    def _remove(self, flow: Flow) -> None:
        self._uncount(flow)
        del self.by_ingress[flow.ingress][flow.client]
        if flow.target is None:
            del self._probationary[flow]
        else:
            self._established -= 1


def _token_of(username: bytes) -> bytes:
    return username.partition(b":")[0]
