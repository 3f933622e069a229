"""Draws state tables as Markdown with Mermaid diagrams: from the tables alone, which they cannot disagree with."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from agent.realtime import tables as realtime
from agent.upstream import tables as upstream
from protocol.fsm import Cell, Joint, Region, To
from transceiver.session.reasons import CloseReason
from transceiver.session.tables import JOINTS, REGIONS

__all__ = ["draw_call", "draw_realtime", "draw_upstream"]

HEADER = """# {title}

Generated from `{source}` by `./just docs`. Do not edit.

A dot means that the event is legal there and changes nothing; a cross, that it cannot happen (our bug if it does).
Effects stand in parentheses.
"""


def _effects(target: To) -> str:
    names = ", ".join(effect.name.lower() for effect in target.effects)
    return f" ({names})" if names else ""


def _cell(cell: To | Cell) -> str:
    if isinstance(cell, To):
        return cell.state.name + _effects(cell)
    return "·" if cell is Cell.IGNORE else "✗"


def _diagram(region: Region) -> list[str]:
    lines = ["```mermaid", "stateDiagram-v2", f"  [*] --> {region.initial.name}"]
    for state, row in region.rows.items():
        deadline = region.deadlines.get(state)
        for event, cell in zip(region.events, row, strict=True):
            if isinstance(cell, To):
                clock = f" ⏱ {deadline.timeout}" if deadline is not None and deadline.event is event else ""
                lines.append(f"  {state.name} --> {cell.state.name}: {event.__name__}{clock}{_effects(cell)}")
    return [*lines, "```"]


def _table(region: Region) -> list[str]:
    lines = [
        f"| {region.name} | " + " | ".join(event.__name__ for event in region.events) + " | deadline |",
        "|---" * (len(region.events) + 2) + "|",
    ]
    for state, row in region.rows.items():
        deadline = region.deadlines.get(state)
        clock = f"`{deadline.timeout}` → {deadline.event.__name__}" if deadline else ""
        lines.append(f"| {state.name}: {state.value} | " + " | ".join(map(_cell, row)) + f" | {clock} |")
    return lines


def _states(states: frozenset[enum.Enum]) -> str:
    kind = type(next(iter(states)))
    return f"{kind.__name__.lower()} is " + " or ".join(state.name for state in kind if state in states)


def _joint(rule: Joint) -> str:
    kind = type(rule.then.state).__name__.lower()
    return f"* {' and '.join(map(_states, rule.when))} → {kind} {rule.then.state.name}{_effects(rule.then)}"


def draw_call() -> str:
    lines = _page("The states of a call", "transceiver/session/tables.py", REGIONS, JOINTS)
    lines += ["## The words for why a call ended", "", *(f"* `{reason.value}`" for reason in CloseReason)]
    return "\n".join(lines) + "\n"


def draw_realtime() -> str:
    regions = (*realtime.SESSION_REGIONS, *realtime.RESPONSE_REGIONS)
    lines = _page("The states of a Realtime session", "agent/realtime/tables.py", regions, realtime.RESPONSE_JOINTS)
    return "\n".join(lines).rstrip() + "\n"


def draw_upstream() -> str:
    regions = (*upstream.CONTACT_REGIONS, upstream.PLAYBACK)
    lines = _page("The states of a bridge", "agent/upstream/tables.py", regions, upstream.CONTACT_JOINTS)
    return "\n".join(lines).rstrip() + "\n"


def _page(title: str, source: str, regions: Iterable[Region], joints: Iterable[Joint]) -> list[str]:
    lines = [HEADER.format(title=title, source=source)]
    for region in regions:
        lines += [f"## {region.name}", "", *_diagram(region), "", *_table(region), ""]
    return [*lines, "## Joint rules, applied to a fixed point after every event", "", *map(_joint, joints), ""]
