"""Draws the session tables: `python -m transceiver.session.draw` rewrites docs/generated/session-states.md.

The drawing is made from the tables alone, so it cannot disagree with them; a test fails when the file is stale.
"""

from __future__ import annotations

import enum
from pathlib import Path

from protocol.fsm import Cell, Joint, Region, To
from transceiver.session.reasons import CloseReason
from transceiver.session.tables import JOINTS, REGIONS

__all__ = ["TARGET", "draw"]

TARGET = Path(__file__).parents[2] / "docs" / "generated" / "session-states.md"

HEADER = """# The states of a call

Generated from `transceiver/session/tables.py` by `./just docs`. Do not edit.

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


def draw() -> str:
    """The whole page, as Markdown with Mermaid diagrams."""
    lines = [HEADER]
    for region in REGIONS:
        lines += [f"## {region.name}", "", *_diagram(region), "", *_table(region), ""]
    lines += ["## Joint rules, applied to a fixed point after every event", "", *map(_joint, JOINTS), ""]
    lines += ["## The words for why a call ended", "", *(f"* `{reason.value}`" for reason in CloseReason)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(draw(), encoding="utf-8")
