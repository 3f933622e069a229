"""A section as a picture: SVG by hand, no script, no font of its own; readable on light and on dark ground.

Under each load a bar for each subject, ours in colour: its median, a line from the lowest to the highest round, and darker
the part that is its own code. A red mark on a bar of ours is where it has to end: that share of its reference's median. What is
far beyond ours is cut off at the right.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from bench.figures import Report, Section, Series, spread
from bench.render import number

__all__ = ["file_name", "section_chart"]

# Implementation constants: pixels
WIDTH, LEFT, RIGHT = 900, 310, 240
ROW, THICK, GAP, TOP, BOTTOM = 22, 14, 34, 40, 70
FAR = 3.0  # times the largest of ours
STYLE = """\
svg { background: #ffffff; font: 12px system-ui, sans-serif; }
text { fill: #1f2328; dominant-baseline: middle; } .name, .foot { fill: #59636e; } .name { text-anchor: end; }
.title { font-size: 15px; font-weight: 600; } .load { font-weight: 600; } .ours { fill: #2f81f7; } .theirs { fill: #a8b1bb; }
.own { fill: #000000; fill-opacity: 0.3; } .spread { stroke: #59636e; } .bar { stroke: #cf222e; stroke-width: 3; }
.met { fill: #1a7f37; } .missed { fill: #cf222e; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; } text { fill: #e6edf3; } .name, .foot { fill: #9198a1; } .theirs { fill: #59636e; }
.spread { stroke: #d1d7e0; } .met { fill: #3fb950; } .missed { fill: #f85149; } }
"""


def file_name(section: Section) -> str:
    """Of the picture: the first words of the title."""
    return section.title.partition(":")[0].replace(" ", "-") + ".svg"


def section_chart(section: Section, report: Report) -> str:
    loads = list(dict.fromkeys(series.what for series in section.series))
    height = TOP + len(loads) * GAP + len(section.series) * ROW + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(section.title)}">',
        f"<style>{STYLE}</style>",
        f'<text x="16" y="20" class="title">{escape(section.title)}</text>',
    ]
    y = TOP
    for load in loads:
        alike = [series for series in section.series if series.what == load]
        parts.append(f'<text x="16" y="{y + GAP / 2}" class="load">{escape(load)}, {escape(alike[0].unit)}</text>')
        y += GAP
        scale = (WIDTH - LEFT - RIGHT) / _largest(alike)
        for series in alike:
            parts += _row(section, series, y + ROW / 2, scale)
            y += ROW
    machine = report.machine
    for line in (
        "medians over rounds; dark: own code, the rest is the kernel's work for it; red mark: where the bar is",
        f"{machine['processor']}, {machine['cpus']} CPUs, kernel {machine['kernel']}, load before {machine['load_before']}",
        report.command,
    ):
        y += BOTTOM // 4
        parts.append(f'<text x="16" y="{y}" class="foot">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _largest(alike: Sequence[Series]) -> float:
    """What the whole width stands for."""
    high = max(spread(series.rounds).high for series in alike)
    ours = max((spread(series.rounds).high for series in alike if not series.is_reference), default=high)
    return min(high, FAR * ours) or high or 1.0


def _row(section: Section, series: Series, y: float, scale: float) -> list[str]:
    value, top, most = spread(series.rounds), y - THICK / 2, WIDTH - LEFT - RIGHT
    kind = "theirs" if series.is_reference else "ours"
    parts = [
        f'<text x="{LEFT - 8}" y="{y:g}" class="name">{escape(series.subject)}</text>',
        f'<rect x="{LEFT}" y="{top:g}" width="{min(most, value.median * scale):.1f}" height="{THICK}" class="{kind}"/>',
    ]
    if series.own:
        own = min(most, spread(series.own).median * scale)
        parts.append(f'<rect x="{LEFT}" y="{top:g}" width="{own:.1f}" height="{THICK}" class="own"/>')
    if value.low != value.high and value.high * scale <= most:
        parts.append(
            f'<path class="spread" d="M{LEFT + value.low * scale:.1f},{y:g}H{LEFT + value.high * scale:.1f}"/>'
        )
    words, at = number(value.median), LEFT + min(most, value.high * scale)
    for verdict in section.verdicts():
        bar = verdict.bar
        if (bar.what, bar.subject) != (series.what, series.subject):
            continue
        reference = None if bar.reference is None else section.find(bar.what, bar.reference)
        mark = LEFT + bar.limit * scale * (1.0 if reference is None else spread(reference.rounds).median)
        if mark < WIDTH - RIGHT + 40:
            parts.append(f'<path class="bar" d="M{mark:.1f},{top - 2:g}V{top + THICK + 2:g}"/>')
            at = max(at, mark)
        reached = "" if reference is None else f"{number(verdict.reached.median)} "
        tick = "not judged" if verdict.met is None else "met" if verdict.met else "missed"
        words += f' <tspan class="{tick}">{reached}≤ {bar.limit:g} {tick}</tspan>'
    parts.append(f'<text x="{at + 8:.1f}" y="{y:g}">{words}</text>')
    return parts
