"""All targets. To add one: an entry in the tuple of its file, and a first line in its corpus."""

from __future__ import annotations

from fuzz.cores import CORE_TARGETS
from fuzz.parsers import PARSER_TARGETS
from fuzz.target import Target

__all__ = ["TARGETS"]

TARGETS: tuple[Target, ...] = PARSER_TARGETS + CORE_TARGETS
