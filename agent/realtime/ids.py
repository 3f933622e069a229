"""Names of things, in the API's manner: a word for the kind, and letters that nobody guesses."""

from __future__ import annotations

from protocol.wire import Entropy

__all__ = ["new_id"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_LENGTH = 21


def new_id(kind: str, entropy: Entropy) -> str:
    """`kind`: sess, conv, item, resp, event, call."""
    number = int.from_bytes(entropy(16), "big")
    letters = []
    for _ in range(_LENGTH):
        number, digit = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[digit])
    return f"{kind}_{''.join(letters)}"
