"""From msgspec's words about a value that does not fit to the API's."""

from __future__ import annotations

import re
from typing import NoReturn

import msgspec

from protocol.realtime.errors import ApiError, Code

__all__ = ["raise_for"]

_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]+)`")
_EXPECTED = re.compile(r"^Expected `([^`]+)`, got `([^`]+)`")


def raise_for(error: msgspec.ValidationError, beneath: str = "") -> NoReturn:
    """Raises the ApiError for it; `beneath` is the path of the value that was looked at."""
    text = str(error)
    place = _PLACE.search(text)
    what = text[: place.start()] if place else text
    param = ".".join(part for part in (beneath, place[1] if place else "") if part)
    if missing := _MISSING.search(what):
        param = f"{param}.{missing[1]}" if param else missing[1]
        raise ApiError(Code.MISSING_PARAMETER, f"Missing required parameter: '{param}'.", param) from None
    if expected := _EXPECTED.search(what):
        message = f"Invalid type for '{param}': expected {expected[1]}, but got {expected[2]} instead."
        raise ApiError(Code.INVALID_TYPE, message, param) from None
    raise ApiError(Code.INVALID_VALUE, f"Invalid value for '{param}': {what}.", param or None) from None
