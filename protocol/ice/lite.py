"""The ICE-lite agent of the transceiver: RFC 8445 §2.5 for a server, with paths that move only on proof.

1. Only authenticated checks are answered (see `protocol.ice.responder`); their source becomes a *valid* path, from
   which DTLS and SRTP may be accepted. We know no remote candidates and need none.
2. The first valid path is selected provisionally, so that DTLS can be answered at once; the client's nomination
   (USE-CANDIDATE) settles it. One check of our own goes to the first path: it measures the round trip, and Pion
   nominates sooner for it.
3. A path that is settled or proven moves only after *our own check* to the new address was answered from there.
   (RFC 8445 §7.3.2 lets a lite agent follow USE-CANDIDATE at once; then whoever copies a check from the wire and
   sends it from his own address takes the media.) Such a check is triggered by

       nomination   an authenticated check with USE-CANDIDATE from another path
       media        SRTP that authenticated, from another path, while the selected one was quiet for a moment
       silence      an authenticated check from another path, after the selected one fell silent. The selected path
                    is asked too, and keeps its place if it answers: some clients check several pairs forever.

   Firefox, Pion and aiortc never repeat USE-CANDIDATE, so after a NAT rebinding only the last two save the call.
4. A transaction id that was seen before triggers nothing. Repeated from the same address it gets the same answer
   (RFC 8489 §6.3.1, idempotent); from a new address it is a copy, and gets none. One exception, at the very start
   and while ICE restarts: as long as no answer has proven the path, the copy may be the one that came first. Then the
   second address is asked too, and only its answer makes it valid.
5. Consent (RFC 7675; a lite agent may count requests): see `protocol.ice.consent`.
6. After `restart` the path stays where it is, checks with the old credentials are still answered, and consent is asked
   for under them. A nomination with the new credentials along the selected path, or a move that they prove, completes
   the restart; then the old credentials are worth nothing (RFC 8445 §9, RFC 7675 §5.1).

We are always controlled; a peer that claims to be controlled too is told 487.
"""

from __future__ import annotations

import collections
import enum
import math
from dataclasses import dataclass

from protocol.address import Path
from protocol.errors import DecodeError, LocalError
from protocol.fsm import Cell, Machine, Region, to
from protocol.ice.checks import Purpose
from protocol.ice.consent import INTERVAL, Consent
from protocol.ice.credentials import IceCredentials
from protocol.ice.events import ConsentLate, ConsentRestored, IceOutput, PathSelected, RestartCompleted, SendTo
from protocol.ice.generation import Generation
from protocol.stun.binding import ERROR, REQUEST, SUCCESS, Binding, scan_binding_untrusted
from protocol.wire import Entropy

__all__ = ["IceLite", "IceLiteConfig"]


@dataclass(frozen=True, slots=True)
class IceLiteConfig:
    """All times in seconds."""

    consent_interval: float = INTERVAL
    consent_late: float = 10.0
    path_silence: float = 1.0  # the selected path counts as silent after that long without valid STUN or media
    silence_grace: float = 0.3  # how long the silent path may take to answer before it is left
    media_grace: float = 0.1  # stragglers of the old path after a move must not move it back
    check_transmissions: int = 4  # of our own checks: after 0, 0.5, 1.5 and 3.5 s
    check_final_wait: float = 2.0
    max_paths: int = 8  # valid paths kept; then the one not heard for longest is dropped
    max_transaction_ids: int = 64  # ids remembered; then the oldest is forgotten

    def __post_init__(self) -> None:
        if self.max_paths < 2 or self.max_transaction_ids < 1:
            raise LocalError("a path cannot move when fewer than two are kept")


class PathState(enum.Enum):
    UNKNOWN = "unknown"
    PROVISIONAL = "provisional"
    NOMINATED = "nominated"
    RESTARTING = "restarting"
    CLOSED = "closed"


class Validated:
    """The first authenticated check came."""


class Nominated:
    """An authenticated check with USE-CANDIDATE came, or a move was proven."""


class Restarted:
    """The owner gave new credentials of both sides."""


class Closed:
    """The owner closed the agent."""


_ILLEGAL, _IGNORE = Cell.ILLEGAL, Cell.IGNORE

# UNKNOWN and PROVISIONAL have no deadline of their own: the session table gives up on a call without a path. Nor has
# RESTARTING: the old path carries the call for as long as it has consent.
LITE_PATH = Region(
    name="ice lite path",
    initial=PathState.UNKNOWN,
    events=(Validated, Nominated, Restarted, Closed),
    rows={
        PathState.UNKNOWN: (to(PathState.PROVISIONAL), _ILLEGAL, _IGNORE, to(PathState.CLOSED)),
        PathState.PROVISIONAL: (_ILLEGAL, to(PathState.NOMINATED), to(PathState.RESTARTING), to(PathState.CLOSED)),
        PathState.NOMINATED: (_ILLEGAL, _IGNORE, to(PathState.RESTARTING), to(PathState.CLOSED)),
        PathState.RESTARTING: (_ILLEGAL, to(PathState.NOMINATED), _IGNORE, to(PathState.CLOSED)),
        PathState.CLOSED: (_ILLEGAL, _ILLEGAL, _IGNORE, _IGNORE),
    },
)


class IceLite:
    """The agent of one call. `selected` is where to send; `is_valid` says from where to accept."""

    def __init__(
        self,
        local: IceCredentials,
        remote: IceCredentials,
        *,
        entropy: Entropy,
        config: IceLiteConfig | None = None,
    ) -> None:
        self._config = config = config or IceLiteConfig()
        self._entropy = entropy
        self._generation = Generation.begin(local, remote, entropy=entropy, config=config)
        self._previous: Generation | None = None  # while restarting: that of the selected path
        self._consent = Consent(
            entropy=entropy, interval=config.consent_interval, late=config.consent_late, unprompted=False
        )
        self._machine = Machine((LITE_PATH,))
        self._tie_breaker = int.from_bytes(entropy(8), "big")
        # Valid paths: when STUN last proved each, and under which credentials.
        self._paths: dict[Path, tuple[float, Generation]] = {}
        self._seen: dict[bytes, Path] = {}  # transaction ids of authenticated requests, and where each first came from
        self.proven = False  # our check was answered along the selected path, or see `confirm`
        self.heard = -math.inf  # valid STUN or authenticated media on the selected path
        # Where to move to from a silent path, who proved it, asked since when, not before when.
        self._leaving: tuple[Path, Generation, float, float] | None = None
        self._outputs: list[IceOutput] = []
        self.selected: Path | None = None
        self.drops: collections.Counter[str] = collections.Counter()

    @property
    def rtt(self) -> float | None:
        """The smoothed round-trip time of our own checks, in seconds."""
        return self._generation.checks.rtt

    @property
    def consent_is_late(self) -> bool:
        """`ConsentLate` was told, and no `ConsentRestored` since."""
        return self._consent.late

    @property
    def state(self) -> PathState:
        return self._machine.state(PathState)

    @property
    def nominated(self) -> bool:
        return self.state is PathState.NOMINATED

    def is_valid(self, path: Path) -> bool:
        """True if an authenticated check came from there, or ours to there was answered."""
        return path in self._paths

    def awaits(self, path: Path) -> bool:
        """True if a check of ours to there is under way: its answer must find us, though the path is not valid yet."""
        return any(generation.checks.find(path) is not None for generation in self._generations())

    def receive_untrusted(self, data: bytes | memoryview, path: Path, now: float) -> None:
        """A datagram that looks like STUN. Never raises: what is wrong is counted in `drops`."""
        try:
            if self.state is PathState.CLOSED:
                raise DecodeError("ice_closed")
            data = bytes(data)
            binding = scan_binding_untrusted(data)
            previous, generation = self._previous, self._generation
            if binding.kind == REQUEST:
                if previous is not None and previous.is_asked(binding):
                    generation = previous
                self._request_untrusted(data, binding, generation, path, now)
            elif binding.kind in (SUCCESS, ERROR):
                if previous is not None and previous.has_sent(binding):
                    generation = previous
                self._answer_untrusted(data, binding, generation, path, now)
            # Indications are keepalives for NATs (RFC 8445 §11): nothing to do, and no consent (RFC 7675 §4).
        except DecodeError as error:
            self.drops[error.reason] += 1

    def media_authenticated(self, path: Path, now: float) -> None:
        """SRTP that passed its own authentication and replay check came from `path`."""
        if path == self.selected:
            self.heard = now
        elif self.selected is not None and path in self._paths and now - self.heard >= self._config.media_grace:
            self._propose(self._paths[path][1], path, Purpose.MEDIA, now)

    def confirm(self, path: Path) -> None:
        """By other means than ours the peer has shown that it hears what we send along `path`."""
        self.proven = self.proven or path == self.selected

    def restart(self, local: IceCredentials, remote: IceCredentials, now: float) -> None:
        """New credentials of both sides. Nothing moves yet, and nothing is sent; `RestartCompleted` tells the end.

        A second restart before that replaces the first: of the credentials in between none are good.
        """
        if self.selected is not None and self._previous is None:
            self._previous = self._generation
        self._generation = Generation.begin(local, remote, entropy=self._entropy, config=self._config, rtt=self.rtt)
        self._machine.fire(Restarted())

    def handle_timeout(self, now: float) -> None:
        for generation in self._generations():
            sends, _unanswered = generation.checks.handle_timeout(now)  # what is unanswered proves nothing
            self._outputs += sends
        if self._leaving is not None and now >= self._leaving[3]:
            path, generation, since, _ = self._leaving
            self._leaving = None
            if self.heard <= since:
                self._move(generation, path, now, False)
        if self._consent.becomes_late(now):
            self._outputs.append(ConsentLate())
        if self.selected is not None and self._consent.asks(now):
            self._ask(self._previous or self._generation, self.selected, Purpose.CONSENT, now)

    def next_timeout(self) -> float:
        leave = math.inf if self._leaving is None else self._leaving[3]
        checks = min(generation.checks.next_timeout() for generation in self._generations())
        return min(checks, self._consent.next_timeout(), leave)

    def poll(self) -> list[IceOutput]:
        outputs, self._outputs = self._outputs, []
        return outputs

    def close(self, now: float) -> None:
        """Dead and silent from now on; ICE has no goodbye."""
        self._machine.fire(Closed())
        for generation in self._generations():
            generation.checks.clear()
        self._consent.stop()
        self._leaving = None
        self._outputs.clear()
        self._paths.clear()
        self.selected = None

    # What the client sends

    def _request_untrusted(self, data: bytes, binding: Binding, generation: Generation, path: Path, now: float) -> None:
        responder = generation.responder
        refusal = responder.judge_untrusted(data, binding)
        if refusal is None and binding.controlling is False:
            refusal = responder.role_conflict_untrusted(data, binding)
        if refusal is not None:
            self.drops["ice_request_refused"] += 1
            self._outputs.append(SendTo(refusal, path))
            return
        first = self._seen.get(binding.transaction_id)
        if first is not None and first != path and path not in self._paths:
            if not self.proven or self.state is PathState.RESTARTING:
                self._propose(generation, path, Purpose.NOMINATION, now)
            raise DecodeError("ice_check_copied")
        self._outputs.append(SendTo(responder.success_untrusted(data, binding, path.remote), path))
        if first is not None:
            self.drops["ice_check_repeated"] += 1
            return
        self._remember(binding.transaction_id, path)
        self._validate(generation, path, now)
        value = -1 if binding.nomination is None else binding.nomination
        if path != self.selected and binding.nomination is not None:
            nominates = value > generation.nomination  # libwebrtc's renomination: only a greater value moves
        else:
            nominates = binding.use_candidate or binding.nomination is not None
        self._weigh(generation, path, nominates, value, now)

    def _weigh(self, generation: Generation, path: Path, nominates: bool, nomination: int, now: float) -> None:
        """A fresh authentic check came from `path`: what follows for the selected path?"""
        if self.selected is None:
            self._machine.fire(Validated())
            self._select(generation, path, nominates, nomination, now)
            self._consent.start(now)
            self._ask(generation, path, Purpose.CONSENT, now)
        elif nominates and self.state is PathState.PROVISIONAL and (path == self.selected or not self.proven):
            if path != self.selected:  # of neither path we know that anybody hears us there
                self._propose(generation, path, Purpose.NOMINATION, now, nomination)
            self._select(generation, path, nominates, nomination, now)
        elif path == self.selected:
            self._hear(now)
            if nominates:
                generation.nomination = max(generation.nomination, nomination)
                self._complete_restart(generation)
        elif nominates:
            self._propose(generation, path, Purpose.NOMINATION, now, nomination)
        elif now - self.heard >= self._config.path_silence:
            self._propose(generation, path, Purpose.SILENCE, now)

    def _answer_untrusted(self, data: bytes, binding: Binding, generation: Generation, path: Path, now: float) -> None:
        check = generation.checks.answered_untrusted(data, binding, path, now)
        if binding.kind == ERROR:
            raise DecodeError("ice_check_refused")
        self._validate(generation, path, now)
        if path == self.selected:
            self.proven = True
            self._hear(now)
        elif check.purpose is Purpose.SILENCE:
            not_before = max(now, check.started + self._config.silence_grace)
            self._leaving = (path, generation, check.started, not_before)
        elif check.purpose is Purpose.MEDIA or (
            # A greater renomination may have moved the path while this check was under way.
            check.purpose is Purpose.NOMINATION and not 0 <= check.nomination <= generation.nomination
        ):
            self._move(generation, path, now, check.purpose is Purpose.NOMINATION, check.nomination)

    # What we do about it

    def _generations(self) -> tuple[Generation, ...]:
        return (self._generation,) if self._previous is None else (self._previous, self._generation)

    def _propose(self, generation: Generation, path: Path, purpose: Purpose, now: float, nomination: int = -1) -> None:
        """Ask for the proof that a move needs; one check to a path at a time."""
        check = generation.checks.find(path)
        if check is not None and check.purpose is not Purpose.CONSENT:
            check.purpose = max(check.purpose, purpose)
            check.nomination = max(check.nomination, nomination)
            return
        if sum(len(each.checks) for each in self._generations()) >= self._config.max_paths:
            self.drops["ice_checks_full"] += 1
            return
        self._ask(generation, path, purpose, now, nomination)
        if purpose is Purpose.SILENCE and self.selected is not None:
            self._ask(self._previous or self._generation, self.selected, Purpose.CONSENT, now)

    def _ask(self, generation: Generation, path: Path, purpose: Purpose, now: float, nomination: int = -1) -> None:
        send = generation.checks.send(path, now, purpose, tie_breaker=self._tie_breaker, nomination=nomination)
        self._outputs.append(send)

    def _select(self, generation: Generation, path: Path, nominated: bool, nomination: int, now: float) -> None:
        self.selected = path
        generation.nomination = max(generation.nomination, nomination)
        if nominated:
            self._machine.fire(Nominated())
        self._outputs.append(PathSelected(path, nominated))
        self._leaving = None
        self._hear(now)

    def _move(self, generation: Generation, path: Path, now: float, nominated: bool, nomination: int = -1) -> None:
        """The proof is there: our own check to `path` was answered from there."""
        self.proven = True
        if self.state is PathState.RESTARTING:
            nominated = generation is self._generation
        self._select(generation, path, nominated or self.nominated, nomination, now)
        self._complete_restart(generation)

    def _complete_restart(self, generation: Generation) -> None:
        """The selected path is one that `generation` vouches for; if that is the new one, the old one is over."""
        if self._previous is not None and generation is self._generation:
            self._machine.fire(Nominated())
            self._previous = None
            # Other paths of the client stay valid, but whoever asks there again asks with what is good now.
            self._paths = {path: (proven, generation) for path, (proven, _) in self._paths.items()}
            self._outputs.append(RestartCompleted())

    def _hear(self, now: float) -> None:
        self.heard = now
        if self._consent.hear(now):
            self._outputs.append(ConsentRestored())

    def _validate(self, generation: Generation, path: Path, now: float) -> None:
        if path not in self._paths and len(self._paths) >= self._config.max_paths:
            others = (other for other in self._paths if other != self.selected)
            idle = min(others, key=lambda other: self._paths[other][0])
            del self._paths[idle]
            self.drops["ice_path_evicted"] += 1
        self._paths[path] = (now, generation)

    def _remember(self, transaction_id: bytes, path: Path) -> None:
        if len(self._seen) >= self._config.max_transaction_ids:
            del self._seen[next(iter(self._seen))]
        selected = self.selected
        self._seen[transaction_id] = selected if path == selected else path  # nearly always: one object for all of them
