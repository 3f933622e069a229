"""A full ICE agent with one base (RFC 8445): the client of the load generator.

1. `add_remote_candidate` pairs each usable remote candidate with our base; `start` begins.
2. Every Ta one check leaves: triggered ones first, then waiting pairs by priority (§6.1.4.2). Checks repeat by
   `protocol.ice.checks`.
3. The peer's checks are answered; their source becomes a peer-reflexive candidate and gets a triggered check (§7.3).
4. The first pair that succeeds is selected provisionally. The controlling side nominates: REGULAR (§8.1.1) waits a
   little for a better pair, then repeats the check with USE-CANDIDATE; AGGRESSIVE sends USE-CANDIDATE in every check,
   as Firefox does, and takes the first answer. The controlled side takes what the peer nominates.
5. Then consent is asked for every 5 s (RFC 7675), and nothing else is sent.

A role conflict is settled by the tie-breaker, 487, and a switch (§7.3.1.1). The agent gives up when nothing was
selected in `connect_timeout`, or when consent was not renewed for 30 s.
"""

from __future__ import annotations

import collections
import math

from protocol.address import Path
from protocol.errors import DecodeError
from protocol.fsm import Machine
from protocol.ice.candidate import Candidate, candidate_priority
from protocol.ice.checks import Check, Checks, Purpose
from protocol.ice.consent import Consent
from protocol.ice.credentials import IceCredentials
from protocol.ice.events import ConsentLate, ConsentRestored, Failed, IceOutput, PathSelected, SendTo
from protocol.ice.full_state import (
    FULL_AGENT,
    Closed,
    GaveUp,
    IceFullConfig,
    Nomination,
    Selected,
    Started,
    State,
    Validated,
)
from protocol.ice.pair import Answered, Pair, PairState, Sent, Triggered, Unanswered, pair_priority
from protocol.ice.responder import Responder
from protocol.stun.binding import ERROR, REQUEST, SUCCESS, Binding, scan_binding_untrusted
from protocol.wire import Entropy

__all__ = ["IceFull"]

# Specification constants
ROLE_CONFLICT = 487
_LOCAL_PRIORITY = candidate_priority("host")

_DEAD = (State.FAILED, State.CLOSED)


class IceFull:
    """The agent of one call."""

    def __init__(
        self,
        local: IceCredentials,
        remote: IceCredentials,
        *,
        controlling: bool = True,
        entropy: Entropy,
        config: IceFullConfig | None = None,
    ) -> None:
        self._config = config = config or IceFullConfig()
        self._entropy = entropy
        self._responder = Responder(local, remote)
        self._checks = Checks(
            local,
            remote,
            entropy=entropy,
            transmissions=config.check_transmissions,
            final_wait=config.check_final_wait,
        )
        self._consent = Consent(
            entropy=entropy,
            interval=config.consent_interval,
            late=config.consent_late,
            expired=config.consent_expired,
            unprompted=True,
        )
        self._machine = Machine((FULL_AGENT,))
        self._tie_breaker = int.from_bytes(entropy(8), "big")
        self._pairs: dict[Path, Pair] = {}
        self._triggered: collections.deque[Pair] = collections.deque()
        self._pace_at = -math.inf
        self._connect_by = math.inf
        self._nominate_at = math.inf
        self._outputs: list[IceOutput] = []
        self.controlling = controlling
        self.selected: Path | None = None
        self.drops: collections.Counter[str] = collections.Counter()

    @property
    def state(self) -> State:
        return self._machine.state(State)

    @property
    def rtt(self) -> float | None:
        """The smoothed round-trip time of our own checks, in seconds."""
        return self._checks.rtt

    def is_valid(self, path: Path) -> bool:
        """True if a check of ours along `path` succeeded."""
        pair = self._pairs.get(path)
        return pair is not None and pair.state is PairState.SUCCEEDED

    def add_remote_candidate(self, candidate: Candidate) -> None:
        """A candidate of the peer, at any time; those that are not usable are counted and left."""
        address = candidate.transport_address
        if address is None:
            self.drops["ice_candidate_unusable"] += 1
        elif self.state not in _DEAD:
            self._pair(Path(self._config.base, address), candidate.priority)

    def start(self, now: float) -> None:
        self._machine.fire(Started())
        self._connect_by = now + self._config.connect_timeout
        self._pace_at = now

    def receive_untrusted(self, data: bytes | memoryview, path: Path, now: float) -> None:
        """A datagram that looks like STUN. Never raises: what is wrong is counted in `drops`."""
        try:
            if self.state in _DEAD:
                raise DecodeError("ice_closed")
            data = bytes(data)
            binding = scan_binding_untrusted(data)
            if binding.kind == REQUEST:
                self._request_untrusted(data, binding, path)
            elif binding.kind in (SUCCESS, ERROR):
                self._answer_untrusted(data, binding, path, now)
            # Indications are keepalives for NATs (RFC 8445 §11): nothing to do.
        except DecodeError as error:
            self.drops[error.reason] += 1

    def media_authenticated(self, path: Path, now: float) -> None:
        """Media moves nothing here: the controlling side picks its path by checks alone."""

    def handle_timeout(self, now: float) -> None:
        if self.state in _DEAD or self.state is State.NEW:
            return
        sends, expired = self._checks.handle_timeout(now)
        self._outputs += sends
        for check in expired:
            self._unanswered(check, now)
        connected = self.state is State.CONNECTED
        if self._consent.is_expired(now) if connected else now >= self._connect_by:
            self._give_up("consent_expired" if connected else "no_valid_path")
            return
        if connected:
            self._keep_consent(now)
        if now >= self._nominate_at:
            self._nominate(now)
        if now >= self._pace_at:
            self._check_next(now)

    def next_timeout(self) -> float:
        if self.state in _DEAD or self.state is State.NEW:
            return math.inf
        deadline = self._consent.next_timeout() if self.state is State.CONNECTED else self._connect_by
        pace_at = self._pace_at if self._next_pair() is not None else math.inf
        return min(self._checks.next_timeout(), deadline, self._nominate_at, pace_at)

    def poll(self) -> list[IceOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def close(self, now: float) -> None:
        """Dead and silent from now on; ICE has no goodbye."""
        self._machine.fire(Closed())
        self._outputs.clear()
        self._end()

    # What the peer sends

    def _request_untrusted(self, data: bytes, binding: Binding, path: Path) -> None:
        refusal = self._responder.judge_untrusted(data, binding)
        if refusal is None and binding.controlling is self.controlling:
            # RFC 8445 §7.3.1.1: of two controlling agents the greater tie-breaker stays it, of two controlled ones
            # the greater one becomes it; who is wrong is told by 487, or switches.
            if (self._tie_breaker >= binding.tie_breaker) is self.controlling:
                refusal = self._responder.role_conflict_untrusted(data, binding)
            else:
                self.controlling = not self.controlling
        if refusal is not None:
            self.drops["ice_request_refused"] += 1
            self._outputs.append(SendTo(refusal, path))
            return
        self._outputs.append(SendTo(self._responder.success_untrusted(data, binding, path.remote), path))
        pair = self._pair(path, binding.priority or 0)
        if pair is None:
            return
        if binding.use_candidate and not self.controlling:
            pair.nominated = True
            if pair.state is PairState.SUCCEEDED and self.state in (State.VALID, State.CONNECTED):
                self._select(pair)
        if pair.state is not PairState.SUCCEEDED and (self.state is not State.CONNECTED or pair.nominated):
            self._trigger(pair)

    def _answer_untrusted(self, data: bytes, binding: Binding, path: Path, now: float) -> None:
        check = self._checks.answered_untrusted(data, binding, path, now)
        pair = self._pairs[path]
        if binding.kind == ERROR:
            if binding.error_code == ROLE_CONFLICT:
                self._switch_role(check, pair)
            else:
                self.drops["ice_check_refused"] += 1
                self._unanswered(check, now)
            return
        self._succeed(pair, check, now)

    # Checks

    def _pair(self, path: Path, priority: int) -> Pair | None:
        pair = self._pairs.get(path)
        if pair is None:
            if len(self._pairs) >= self._config.max_pairs:
                self.drops["ice_pairs_full"] += 1
                return None
            pair = self._pairs[path] = Pair(path, priority)
        return pair

    def _priority(self, pair: Pair) -> int:
        ours, theirs = _LOCAL_PRIORITY, pair.remote_priority
        return pair_priority(ours, theirs) if self.controlling else pair_priority(theirs, ours)

    def _next_pair(self) -> Pair | None:
        if self._triggered:
            return self._triggered[0]
        if self.state is State.CONNECTED:
            return None
        waiting = (pair for pair in self._pairs.values() if pair.state is PairState.WAITING)
        return max(waiting, key=self._priority, default=None)

    def _check_next(self, now: float) -> None:
        if (pair := self._next_pair()) is None:
            return
        if self._triggered:
            self._triggered.popleft()
        self._pace_at = now + self._config.ta
        pair.machine.fire(Sent())
        self._send(pair, Purpose.ORDINARY, now)

    def _send(self, pair: Pair, purpose: Purpose, now: float) -> None:
        # RFC 8445 §14.3: RTO = MAX (500ms, Ta * N * (Num-Waiting + Num-In-Progress)), and N is 1.
        active = sum(p.state in (PairState.WAITING, PairState.IN_PROGRESS) for p in self._pairs.values())
        use_candidate = self.controlling and (
            purpose is Purpose.NOMINATE
            or (purpose is Purpose.ORDINARY and self._config.nomination is Nomination.AGGRESSIVE)
            or (purpose is Purpose.CONSENT and self._config.repeat_nomination)
        )
        send = self._checks.send(
            pair.path,
            now,
            purpose,
            tie_breaker=self._tie_breaker,
            controlling=self.controlling,
            use_candidate=use_candidate,
            rto=max(self._config.rto, self._config.ta * active),
        )
        self._outputs.append(send)

    def _trigger(self, pair: Pair) -> None:
        """RFC 8445 §7.3.1.4; a check under way is repeated no more, but may still be answered."""
        self._checks.stop_repeating(pair.path)
        pair.machine.fire(Triggered())
        if pair not in self._triggered:
            self._triggered.append(pair)

    def _unanswered(self, check: Check, now: float) -> None:
        pair = self._pairs[check.path]
        if check.purpose is Purpose.ORDINARY and self._checks.find(check.path) is None and pair not in self._triggered:
            pair.machine.fire(Unanswered())
        elif check.purpose is Purpose.NOMINATE and self.state is State.VALID:
            pair.spent = True
            self._nominate_at = now

    def _succeed(self, pair: Pair, check: Check, now: float) -> None:
        pair.machine.fire(Answered())
        if pair in self._triggered:
            self._triggered.remove(pair)
        if self.state is State.CONNECTED:
            if pair.path == self.selected and self._consent.hear(now):
                self._outputs.append(ConsentRestored())
            elif pair.nominated and not self.controlling and pair.path != self.selected:
                self._select(pair)
            return
        if self.state is State.CHECKING:
            self._machine.fire(Validated())
            self.selected = pair.path
            self._consent.start(now)
            if not self._settles(pair, check):
                self._outputs.append(PathSelected(pair.path, nominated=False))
                self._nominate_at = now + self._config.nomination_delay if self.controlling else math.inf
        if self._settles(pair, check):
            self._consent.start(now)
            self._select(pair)
        elif self.controlling and self._nominate_at > now and self._is_best(pair):
            self._nominate(now)

    def _settles(self, pair: Pair, check: Check) -> bool:
        return check.use_candidate if self.controlling else pair.nominated

    # Nomination, roles, consent

    def _is_best(self, pair: Pair) -> bool:
        """No pair that could still succeed has a higher priority."""
        hopeful = (p for p in self._pairs.values() if p.state in (PairState.WAITING, PairState.IN_PROGRESS))
        return all(self._priority(p) <= self._priority(pair) for p in hopeful)

    def _nominate(self, now: float) -> None:
        self._nominate_at = math.inf
        valid = (p for p in self._pairs.values() if p.state is PairState.SUCCEEDED and not p.spent)
        best = max(valid, key=self._priority, default=None)
        under_way = any(c.purpose is Purpose.NOMINATE for c in self._checks)
        if best is not None and self.controlling and self.state is State.VALID and not under_way:
            self._send(best, Purpose.NOMINATE, now)

    def _select(self, pair: Pair) -> None:
        """Nominated and proven. RFC 8445 §8.1.2: no more checks of other pairs."""
        moved = self.state is not State.CONNECTED or pair.path != self.selected
        self._machine.fire(Selected())
        self.selected = pair.path
        self._nominate_at = math.inf
        self._triggered.clear()
        self._checks.stop_repeating()
        if moved:
            self._outputs.append(PathSelected(pair.path, nominated=True))

    def _switch_role(self, check: Check, pair: Pair) -> None:
        """RFC 8445 §7.2.5.1."""
        if check.controlling is self.controlling:
            self.controlling = not self.controlling
            self._tie_breaker = int.from_bytes(self._entropy(8), "big")
        if self.state is not State.CONNECTED:
            self._trigger(pair)

    def _keep_consent(self, now: float) -> None:
        if self._consent.becomes_late(now):
            self._outputs.append(ConsentLate())
        if self.selected is not None and self._consent.asks(now):
            self._send(self._pairs[self.selected], Purpose.CONSENT, now)

    def _give_up(self, reason: str) -> None:
        self._machine.fire(GaveUp())
        self._outputs.append(Failed(reason))
        self._end()

    def _end(self) -> None:
        self._checks.clear()
        self._consent.stop()
        self._pairs.clear()
        self._triggered.clear()
        self.selected = None
