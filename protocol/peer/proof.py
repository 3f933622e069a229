"""What may leave for a path that is selected and not yet proven.

ICE proves a path when a check of its own is answered there. Until then all we know is that a check came from there under
the call's password, and its source is easily forged by the one who knows that password: the caller.

1. Whatever is not STUN may be three times as long as what came from such a path, and no longer. (RFC 9000 §8.1 limits
   QUIC's servers in the same way.)
2. A DTLS handshake proves the path if all that we said in it went there: the peer's Finished covers it.
"""

from __future__ import annotations

from collections import Counter

from protocol.address import Path
from protocol.ice import IceFull, IceLite

__all__ = ["MAX_UNPROVEN_FACTOR", "PathProof"]

# Implementation constants
MAX_UNPROVEN_FACTOR = 3


class PathProof:
    """Of the path that `ice` has selected."""

    __slots__ = ("_allowance", "_began", "_drops", "_handshake_path", "_ice", "_path")

    def __init__(self, ice: IceLite | IceFull, drops: Counter[str]) -> None:
        self._ice = ice
        self._drops = drops
        self._path: Path | None = None  # the one that the allowance is for
        self._allowance = 0  # bytes
        self._began = False
        self._handshake_path: Path | None = None  # where all of the handshake has gone so far; None, too, if it moved

    def received(self, size: int, path: Path) -> None:
        ice = self._ice
        if ice.proven or path != ice.selected:
            return
        if path != self._path:
            self._path, self._allowance = path, 0
        self._allowance += MAX_UNPROVEN_FACTOR * size

    def allows(self, size: int, path: Path) -> bool:
        """Whether so much may leave for the selected path now; it counts as sent."""
        if self._ice.proven:
            return True
        if path != self._path or size > self._allowance:
            self._drops["path_not_proven"] += 1
            return False
        self._allowance -= size
        return True

    def handshake_sent(self, path: Path) -> None:
        began, self._began = self._began, True
        self._handshake_path = path if not began or path == self._handshake_path else None

    def handshake_completed(self) -> None:
        if self._handshake_path is not None and isinstance(self._ice, IceLite):  # a full agent proves all paths itself
            self._ice.confirm(self._handshake_path)
