"""A full ICE agent with one base (RFC 8445): the client of the load generator.

1. `add_remote_candidate` pairs each usable remote candidate with our base; `start` begins.
2. Every Ta one check leaves: triggered ones first, then waiting pairs by priority (§6.1.4.2). Checks repeat by
   `protocol.ice.checks`.
3. The peer's checks are answered; their source becomes a peer-reflexive candidate and gets a triggered check (§7.3).
4. The first pair that succeeds is selected provisionally. The controlling side nominates: REGULAR (§8.1.1) waits a
   little for a better pair, then repeats the check with USE-CANDIDATE; AGGRESSIVE sends USE-CANDIDATE in every check,
   as Firefox does, and takes the first answer. The controlled side takes what the peer nominates.
5. Then consent is asked for every 5 s (RFC 7675), and nothing else is sent.
6. After `restart` the old path carries on under the old credentials, until a pair is nominated under the new ones (§9).

A role conflict is settled by the tie-breaker, 487, and a switch (§7.3.1.1). The agent gives up when nothing was
selected in `connect_timeout`, or when consent was not renewed for 30 s.
"""

from __future__ import annotations

import collections
import math

from protocol.address import Path
from protocol.errors import DecodeError
from protocol.fsm import Machine
from protocol.ice.candidate import Candidate
from protocol.ice.checklist import CheckList
from protocol.ice.checks import Check, Purpose
from protocol.ice.consent import Consent
from protocol.ice.credentials import IceCredentials
from protocol.ice.events import ConsentLate, ConsentRestored, Failed, IceOutput, PathSelected, RestartCompleted, SendTo
from protocol.ice.full_state import (
    FULL_AGENT,
    Closed,
    GaveUp,
    IceFullConfig,
    Nomination,
    Restarted,
    Selected,
    Started,
    State,
    Validated,
)
from protocol.ice.generation import Generation
from protocol.ice.pair import Answered, Pair, PairState, Sent, Unanswered
from protocol.stun.binding import ERROR, REQUEST, SUCCESS, Binding, scan_binding_untrusted
from protocol.wire import Entropy

__all__ = ["IceFull"]

# Specification constants
ROLE_CONFLICT = 487

_DEAD = (State.FAILED, State.CLOSED)
_SETTLED = (State.CONNECTED, State.RESTARTING)  # a path was selected, and has to keep consent


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
        self._generation = Generation.begin(local, remote, entropy=entropy, config=config)
        self._previous: Generation | None = None  # while restarting: that of the selected path
        self._left: Path | None = None  # the path before the last restart: what was on its way along it is welcome
        self._consent = Consent(
            entropy=entropy,
            interval=config.consent_interval,
            late=config.consent_late,
            expired=config.consent_expired,
            unprompted=True,
        )
        self._machine = Machine((FULL_AGENT,))
        self._tie_breaker = int.from_bytes(entropy(8), "big")
        self._pairs = CheckList(config.max_pairs)
        self._pace_at = -math.inf
        self._connect_by = self._nominate_at = math.inf
        self._outputs: list[IceOutput] = []
        self.controlling = controlling
        self.selected: Path | None = None
        self.proven = True  # nothing is selected before a check of ours was answered there
        self.heard = -math.inf  # authenticated media, for the same word of the lite agent
        self.drops: collections.Counter[str] = collections.Counter()

    @property
    def state(self) -> State:
        return self._machine.state(State)

    @property
    def rtt(self) -> float | None:
        """The smoothed round-trip time of our own checks, in seconds."""
        return self._generation.checks.rtt

    @property
    def consent_is_late(self) -> bool:
        """`ConsentLate` was told, and no `ConsentRestored` since."""
        return self._consent.late

    def is_valid(self, path: Path) -> bool:
        """True if a check of ours along `path` succeeded, or media went along it until the last restart."""
        return self._pairs.is_valid(path) or (
            path == (self._left if self._previous is None else self.selected) and self.state not in _DEAD
        )

    def awaits(self, path: Path) -> bool:
        return self._generation.checks.find(path) is not None

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

    def restart(self, local: IceCredentials, remote: IceCredentials, now: float) -> None:
        """New credentials of both sides; then add the peer's candidates again. `RestartCompleted` tells the end.

        The role stays. A second restart before that replaces the first.
        """
        if self.selected is not None and self._previous is None:
            self._previous = self._generation
        self._generation = Generation.begin(local, remote, entropy=self._entropy, config=self._config, rtt=self.rtt)
        self._machine.fire(Restarted())
        self._pairs = CheckList(self._config.max_pairs)
        self._nominate_at = math.inf
        self._pace_at = now
        if self.state is State.CHECKING:
            self._connect_by = now + self._config.connect_timeout

    def receive_untrusted(self, data: bytes | memoryview, path: Path, now: float) -> None:
        """A datagram that looks like STUN. Never raises: what is wrong is counted in `drops`."""
        try:
            if self.state in _DEAD:
                raise DecodeError("ice_closed")
            data = bytes(data)
            binding = scan_binding_untrusted(data)
            previous = self._previous
            if binding.kind == REQUEST:
                if previous is not None and previous.is_asked(binding):
                    self._answer_request_untrusted(data, binding, previous, path)
                else:
                    self._request_untrusted(data, binding, path, now)
            elif binding.kind in (SUCCESS, ERROR):
                if previous is not None and previous.has_sent(binding):
                    self._answer_previous_untrusted(data, binding, previous, path, now)
                else:
                    self._answer_untrusted(data, binding, path, now)
            # Indications are keepalives for NATs (RFC 8445 §11): nothing to do.
        except DecodeError as error:
            self.drops[error.reason] += 1

    def media_authenticated(self, path: Path, now: float) -> None:
        """Media moves nothing here: the controlling side picks its path by checks alone."""

    def handle_timeout(self, now: float) -> None:
        if self.state in _DEAD or self.state is State.NEW:
            return
        if self._previous is not None:
            sends, _unanswered = self._previous.checks.handle_timeout(now)
            self._outputs += sends
        sends, expired = self._generation.checks.handle_timeout(now)
        self._outputs += sends
        for check in expired:
            self._unanswered(check, now)
        connected = self.state in _SETTLED
        if self._consent.is_expired(now) if connected else now >= self._connect_by:
            self._machine.fire(GaveUp())
            self._outputs.append(Failed("consent_expired" if connected else "no_valid_path"))
            self._end()
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
        deadline = self._consent.next_timeout() if self.state in _SETTLED else self._connect_by
        pace_at = self._pace_at if self._next_pair() is not None else math.inf
        previous = math.inf if self._previous is None else self._previous.checks.next_timeout()
        return min(self._generation.checks.next_timeout(), previous, deadline, self._nominate_at, pace_at)

    def poll(self) -> list[IceOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def close(self, now: float) -> None:
        """Dead and silent from now on; ICE has no goodbye."""
        self._machine.fire(Closed())
        self._outputs.clear()
        self._end()

    # What the peer sends

    def _answer_request_untrusted(self, data: bytes, binding: Binding, generation: Generation, path: Path) -> bool:
        """Answer a request, by success or with its fault; whether it was a success."""
        responder = generation.responder
        refusal = responder.judge_untrusted(data, binding)
        if refusal is None and binding.controlling is self.controlling:
            # RFC 8445 §7.3.1.1: of two controlling agents the greater tie-breaker stays it, of two controlled ones
            # the greater one becomes it; who is wrong is told by 487, or switches.
            if (self._tie_breaker >= binding.tie_breaker) is self.controlling:
                refusal = responder.role_conflict_untrusted(data, binding)
            else:
                self.controlling = not self.controlling
        if refusal is not None:
            self.drops["ice_request_refused"] += 1
            self._outputs.append(SendTo(refusal, path))
            return False
        self._outputs.append(SendTo(responder.success_untrusted(data, binding, path.remote), path))
        return True

    def _request_untrusted(self, data: bytes, binding: Binding, path: Path, now: float) -> None:
        if not self._answer_request_untrusted(data, binding, self._generation, path):
            return
        pair = self._pair(path, binding.priority or 0)
        if pair is None:
            return
        if self._is_nominated(binding, pair):
            pair.nominated = True
            if pair.state is PairState.SUCCEEDED and self.state in (State.VALID, *_SETTLED):
                self._select(pair, now)
        if pair.state is not PairState.SUCCEEDED and (self.state is not State.CONNECTED or pair.nominated):
            self._trigger(pair)

    def _is_nominated(self, binding: Binding, pair: Pair) -> bool:
        """Whether the peer, which controls, nominates `pair`. Of renominations only a greater one counts."""
        if self.controlling or (binding.nomination is None and not binding.use_candidate):
            return False
        if binding.nomination is None:
            return True
        if binding.nomination <= self._generation.nomination:
            return pair.path == self.selected
        self._generation.nomination = binding.nomination
        for other in self._pairs:
            other.nominated = False
        return True

    def _answer_previous_untrusted(
        self, data: bytes, binding: Binding, previous: Generation, path: Path, now: float
    ) -> None:
        """An answer under the old credentials: it keeps consent of the path that they carry, and does nothing else."""
        previous.checks.answered_untrusted(data, binding, path, now)
        if binding.kind == SUCCESS and path == self.selected and self._consent.hear(now):
            self._outputs.append(ConsentRestored())

    def _answer_untrusted(self, data: bytes, binding: Binding, path: Path, now: float) -> None:
        check = self._generation.checks.answered_untrusted(data, binding, path, now)
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
        pair = self._pairs.add(path, priority)
        if pair is None:
            self.drops["ice_pairs_full"] += 1
        return pair

    def _next_pair(self) -> Pair | None:
        return self._pairs.next(controlling=self.controlling, ordinary=self.state is not State.CONNECTED)

    def _check_next(self, now: float) -> None:
        if (pair := self._next_pair()) is None:
            return
        self._pairs.untrigger(pair)
        self._pace_at = now + self._config.ta
        pair.machine.fire(Sent())
        self._send(self._generation, pair.path, Purpose.ORDINARY, now)

    def _send(self, generation: Generation, path: Path, purpose: Purpose, now: float) -> None:
        # RFC 8445 §14.3: RTO = MAX (500ms, Ta * N * (Num-Waiting + Num-In-Progress)), and N is 1.
        use_candidate = self.controlling and (
            purpose is Purpose.NOMINATE
            or (purpose is Purpose.ORDINARY and self._config.nomination is Nomination.AGGRESSIVE)
            or (purpose is Purpose.CONSENT and self._config.repeat_nomination)
        )
        send = generation.checks.send(
            path,
            now,
            purpose,
            tie_breaker=self._tie_breaker,
            controlling=self.controlling,
            use_candidate=use_candidate,
            rto=max(self._config.rto, self._config.ta * self._pairs.active),
        )
        self._outputs.append(send)

    def _trigger(self, pair: Pair) -> None:
        """RFC 8445 §7.3.1.4; a check under way is repeated no more, but may still be answered."""
        self._generation.checks.stop_repeating(pair.path)
        self._pairs.trigger(pair)

    def _unanswered(self, check: Check, now: float) -> None:
        pair = self._pairs[check.path]
        under_way = self._generation.checks.find(check.path) is not None
        if check.purpose is Purpose.ORDINARY and not under_way and not self._pairs.is_triggered(pair):
            pair.machine.fire(Unanswered())
        elif check.purpose is Purpose.NOMINATE and self.state in (State.VALID, State.RESTARTING):
            pair.spent = True
            self._nominate_at = now

    def _succeed(self, pair: Pair, check: Check, now: float) -> None:
        pair.machine.fire(Answered())
        self._pairs.untrigger(pair)
        if self.state is State.CONNECTED:
            if pair.path == self.selected:
                if self._consent.hear(now):
                    self._outputs.append(ConsentRestored())
            elif pair.nominated and not self.controlling:
                self._select(pair, now)
            return
        first = self.state is State.CHECKING
        if first:
            self._machine.fire(Validated())
            self.selected = pair.path
            self._consent.start(now)
        settles = check.use_candidate if self.controlling else pair.nominated
        if not settles:
            if first:
                self._outputs.append(PathSelected(pair.path, nominated=False))
            if self.controlling and self._nominate_at == math.inf:
                self._nominate_at = now + self._config.nomination_delay
        if settles:
            self._select(pair, now)
        elif self.controlling and self._nominate_at > now and self._pairs.is_best(pair, controlling=self.controlling):
            self._nominate(now)

    # Nomination, roles, consent

    def _nominate(self, now: float) -> None:
        self._nominate_at = math.inf
        best = self._pairs.best(controlling=self.controlling)
        under_way = any(c.purpose is Purpose.NOMINATE for c in self._generation.checks)
        choosing = self.state in (State.VALID, State.RESTARTING)
        if best is not None and self.controlling and choosing and not under_way:
            self._send(self._generation, best.path, Purpose.NOMINATE, now)

    def _select(self, pair: Pair, now: float) -> None:
        """Nominated and proven. RFC 8445 §8.1.2: no more checks of other pairs."""
        moved = self.state is State.VALID or pair.path != self.selected
        restarted = self._previous is not None
        if restarted:
            self._left, self._previous = self.selected, None
        self._machine.fire(Selected())
        self.selected = pair.path
        self._nominate_at = math.inf
        self._pairs.clear_triggered()
        self._generation.checks.stop_repeating()
        if moved:
            self._outputs.append(PathSelected(pair.path, nominated=True))
        if (moved or restarted) and self._consent.start(now):
            self._outputs.append(ConsentRestored())
        if restarted:
            self._outputs.append(RestartCompleted())

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
            self._send(self._previous or self._generation, self.selected, Purpose.CONSENT, now)

    def _end(self) -> None:
        self._previous = self._left = None
        self._generation.checks.clear()
        self._consent.stop()
        self._pairs = CheckList(self._config.max_pairs)
        self.selected = None
