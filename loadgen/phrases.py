"""How the report says things in words: the network, the generator's own delays, what failures mean, values of tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["describe_failure", "describe_limit", "describe_network", "say", "total_by_kind"]

# Implementation constants
EXPLAINED = 0.5  # share of a latency that our own delay must have, or it is not what made it

_HINTS = {
    "no_audio": "does the agent there return what it hears? `just up --agent echo` does, the parrot does not; "
    "with an agent that converses: --conversation",
    "no_session": "does the agent there speak the OpenAI Realtime API?",
    "offer_no_connection": "nobody listens there; is `just up` running?",
}
"""Of what made every call fail."""

_MEANINGS = {
    "hangup_status_404": "the server no longer had the call: it had ended it, or the process that had it died",
}
"""Of what may happen to any call."""


def describe_failure(reason: str, *, all_failed: bool) -> str | None:
    """What it means, where that is known."""
    return _MEANINGS.get(reason) or (_HINTS.get(reason) if all_failed else None)


def describe_network(network: Mapping[str, Any]) -> str:
    """Of a summary: its conditions with their units, and how often calls change their port."""
    parts = [f"{name.replace('_', ' ')} {_measured(name, value)}" for name, value in network["conditions"].items()]
    if network["rebind_every_s"] is not None:
        parts.append(f"each call on another port every {network['rebind_every_s']:g} s")
    return ", ".join(parts) or "nothing lost"


def _measured(name: str, value: float) -> str:
    if name in ("delay", "jitter"):
        return f"{value * 1000:g} ms"
    if name in ("loss", "burst_loss", "reorder", "duplication"):
        return f"{value * 100:g} %"
    return f"{value:g}{ {'burst_length': ' datagrams', 'mtu': ' bytes', 'rate': ' bytes/s'}.get(name, '') }"


def describe_limit(generator: Mapping[str, Any], shown: float | None) -> str:
    """That the generator was at a limit of its own, and whether that can be why latencies went up to `shown` ms.

    Its delays are measured: who was late by less than half of a latency did not make it, and does not acquit the stack.
    """
    delays = [generator["worst_lateness_ms"], generator["receive_delay_ms"]["max"], generator["call_lateness_p99_ms"]]
    own = max((delay for delay in delays if delay is not None), default=0.0)
    why = ", ".join(generator["limit"])
    if shown is None or own >= EXPLAINED * shown:
        return f"the generator was at its limit ({why}), up to {own:g} ms late: what is slow here may be its own doing"
    return (
        f"the generator was at its limit ({why}), but no more than {own:g} ms late: "
        f"that alone does not explain {shown:g} ms there and back"
    )


def total_by_kind(costs: Iterable[tuple[str, float]], kind: str) -> dict[str, float]:
    """As they are, but all processes of one `kind` (`generator`, `generator 2` …) as one, by its name."""
    found: dict[str, float] = {}
    for name, cost in costs:
        key = kind if name.partition(" ")[0] == kind else name
        found[key] = found.get(key, 0.0) + cost
    return found


def say(value: object) -> str:
    """A value of the summary, for people."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case Mapping():
            return ", ".join(f"{name} {say(one)}" for name, one in value.items()) or "none"
        case list() | tuple():
            return ", ".join(map(say, value)) or "none"
        case float() if math.isinf(value):
            return "without end"
    return str(value)
