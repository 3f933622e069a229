"""When to ask a server again that could not answer, as arithmetic: no clock, no sleep.

1. After each try that failed in passing, wait: twice as long as before, less a random part, so that the calls of a server that
   comes back do not all ask it in one moment.
2. A server that says when (`Retry-After`) is asked then, and not before.
3. It ends with `attempts`, or when the wait would end after `seconds` since the first try.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from protocol.errors import DecodeError
from protocol.wire import Entropy

__all__ = ["Retries", "retry_after_untrusted"]

# Implementation constants
FIRST_SECONDS = 0.25
LONGEST_SECONDS = 4.0
MAX_DIGITS = 9  # of a Retry-After


class Retries:
    """The tries of one request, which began at `now`."""

    def __init__(self, attempts: int, seconds: float, now: float, entropy: Entropy) -> None:
        self.failed = 0
        self._attempts = attempts
        self._until = now + seconds
        self._entropy = entropy

    def wait(self, now: float, retry_after: float | None = None) -> float | None:
        """A try has failed: the seconds until the next one; None: that was the last."""
        self.failed += 1
        if self.failed >= self._attempts:
            return None
        longest = min(FIRST_SECONDS * 2 ** (self.failed - 1), LONGEST_SECONDS)
        seconds = longest * (0.5 + self._entropy(1)[0] / 512)
        if retry_after is not None:
            seconds = max(seconds, retry_after)
        return seconds if now + seconds <= self._until else None


def retry_after_untrusted(value: str, date: str | None) -> float:
    """Seconds of a `Retry-After` (RFC 9110 §10.2.3): a number, or a date, which is held against the answer's own `Date`:
    the server's clock then need not be ours. Raises DecodeError."""
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS:
        return float(text)
    try:
        then, now = parsedate_to_datetime(text), parsedate_to_datetime(date or "")
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        raise DecodeError("retry_after") from None
