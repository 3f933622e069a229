"""The replay window: RFC 6347 §4.1.2.6, RFC 4303 §3.4.3. One for each epoch that has keys.

`fresh` is asked before the cipher is, `mark` is told only what the cipher has authenticated: a forged record never
moves the window.
"""

from __future__ import annotations

__all__ = ["ReplayWindow"]

_SIZE = 256  # records; RFC 6347 §4.1.2.6 asks for at least 32 and prefers 64


class ReplayWindow:
    __slots__ = ("_bits", "_mask", "_size", "_top")

    def __init__(self, size: int = _SIZE) -> None:
        self._size = size
        self._mask = (1 << size) - 1
        self._top = -1  # the highest number marked
        self._bits = 0  # bit n: top - n was marked

    def fresh(self, number: int) -> bool:
        behind = self._top - number
        return behind < 0 or (behind < self._size and not self._bits >> behind & 1)

    def mark(self, number: int) -> None:
        ahead = number - self._top
        if ahead > self._size:
            self._bits, self._top = 1, number
        elif ahead > 0:
            self._bits = (self._bits << ahead | 1) & self._mask
            self._top = number
        else:
            self._bits |= 1 << -ahead
