"""What a server says of its own on the data channel, among the echoes: a goodbye, or an agent's counts of our audio."""

from __future__ import annotations

import msgspec

__all__ = [
    "FAREWELL",
    "METER_ANSWER",
    "METER_QUESTION",
    "SLOT_COUNTS",
    "read_farewell_untrusted",
    "read_slots_untrusted",
]

# Specification constants: transceiver/session, agent/agents/meter.py
FAREWELL = "antiphon.call.ended"
METER_QUESTION = '{"type":"meter.slots"}'
METER_ANSWER = '{"type":"meter.slots",'
SLOT_COUNTS = ("expected", "in_time", "recovered", "by_copy", "late", "within_200_ms")

# Implementation constants
MAX_COUNT = 1 << 40
MAX_REASON = 40  # characters of a word that the other side chose


def read_farewell_untrusted(message: str) -> str:
    """The reason of a goodbye; `unknown` if there is none to read."""
    try:
        event = msgspec.json.decode(message)
    except (msgspec.DecodeError, RecursionError):
        return "unknown"
    reason = event.get("reason") if isinstance(event, dict) else None
    return reason[:MAX_REASON] if isinstance(reason, str) else "unknown"


def read_slots_untrusted(message: str) -> dict[str, int] | None:
    """The counts that can be; None if it tells none."""
    try:
        counts = msgspec.json.decode(message, type=dict[str, str | int])
    except (msgspec.DecodeError, RecursionError):
        return None
    found = {name: counts.get(name) for name in SLOT_COUNTS}
    return {name: count for name, count in found.items() if isinstance(count, int) and 0 <= count <= MAX_COUNT}
