"""The three kinds of error of the protocol core.

`DecodeError`   bytes that are not what they should be: drop them, count them by reason, go on.
`RemoteError`   the peer broke the rules of an association: that association is dead; carries the code to tell it.
`LocalError`    we misused a core: a bug of ours, never caught on purpose.
"""

from __future__ import annotations

__all__ = ["DecodeError", "LocalError", "ProtocolError", "RemoteError"]


class ProtocolError(Exception):
    """Base of all errors of the protocol core; never raised itself."""


class DecodeError(ProtocolError):
    """Undecodable or unacceptable bytes from the network: noise, to be dropped and counted.

    `reason` is a short stable word in snake_case, fit for a metric label; it never contains bytes of the peer.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class RemoteError(ProtocolError):
    """The peer broke the rules; fatal to this association. `code` is the wire code to answer with (alert, cause)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{reason} ({code})")
        self.code = code
        self.reason = reason


class LocalError(ProtocolError):
    """A core was called in a way its contract forbids: a bug on our side."""
