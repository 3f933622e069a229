"""The check list of the full agent (RFC 8445 §6.1.2): its candidate pairs, and which is to be checked next.

Triggered checks go first, in the order in which they were triggered; then waiting pairs, by priority (§6.1.4.2).
"""

from __future__ import annotations

import collections
from collections.abc import Iterator

from protocol.address import Path
from protocol.ice.candidate import candidate_priority
from protocol.ice.pair import Pair, PairState, Triggered, pair_priority

__all__ = ["CheckList"]

# Specification constants
_LOCAL_PRIORITY = candidate_priority("host")

_ACTIVE = (PairState.WAITING, PairState.IN_PROGRESS)


class CheckList:
    """The pairs of one generation of credentials, at most `max_pairs`."""

    __slots__ = ("_max_pairs", "_pairs", "_triggered")

    def __init__(self, max_pairs: int) -> None:
        self._max_pairs = max_pairs
        self._pairs: dict[Path, Pair] = {}
        self._triggered: collections.deque[Pair] = collections.deque()

    def __getitem__(self, path: Path) -> Pair:
        return self._pairs[path]

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs.values())

    def is_valid(self, path: Path) -> bool:
        pair = self._pairs.get(path)
        return pair is not None and pair.state is PairState.SUCCEEDED

    def add(self, path: Path, priority: int) -> Pair | None:
        """The pair of this path, which may be a new one; None if the list is full."""
        pair = self._pairs.get(path)
        if pair is None and len(self._pairs) < self._max_pairs:
            pair = self._pairs[path] = Pair(path, priority)
        return pair

    @property
    def active(self) -> int:
        """How many pairs wait for a check or have one under way: N in the formula of RFC 8445 §14.3."""
        return sum(pair.state in _ACTIVE for pair in self)

    def next(self, *, controlling: bool, ordinary: bool) -> Pair | None:
        """The pair to check next; without `ordinary` only a triggered one."""
        if self._triggered:
            return self._triggered[0]
        if not ordinary:  # asked after every packet of a call
            return None
        waiting = (pair for pair in self if pair.state is PairState.WAITING)
        return max(waiting, key=lambda pair: _priority(pair, controlling), default=None)

    def trigger(self, pair: Pair) -> None:
        """The peer's own check came along this pair (RFC 8445 §7.3.1.4)."""
        pair.machine.fire(Triggered())
        if pair not in self._triggered:
            self._triggered.append(pair)

    def is_triggered(self, pair: Pair) -> bool:
        return pair in self._triggered

    def untrigger(self, pair: Pair) -> None:
        """Its check went out, or is needed no more."""
        if pair in self._triggered:
            self._triggered.remove(pair)

    def clear_triggered(self) -> None:
        self._triggered.clear()

    def best(self, *, controlling: bool) -> Pair | None:
        """The pair to nominate: valid, of the highest priority, not nominated in vain before."""
        valid = (pair for pair in self if pair.state is PairState.SUCCEEDED and not pair.spent)
        return max(valid, key=lambda pair: _priority(pair, controlling), default=None)

    def is_best(self, pair: Pair, *, controlling: bool) -> bool:
        """No pair that could still succeed has a higher priority."""
        own = _priority(pair, controlling)
        return all(_priority(other, controlling) <= own for other in self if other.state in _ACTIVE)


def _priority(pair: Pair, controlling: bool) -> int:
    ours, theirs = _LOCAL_PRIORITY, pair.remote_priority
    return pair_priority(ours, theirs) if controlling else pair_priority(theirs, ours)
