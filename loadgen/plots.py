"""Line charts as SVG, in the colours of the page around them; no script, no font, nothing to load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

__all__ = ["line_chart"]

# Implementation constants: pixels
WIDTH, HEIGHT = 640, 260
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 28, 40
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2")
TICKS = 5

Point = tuple[float, float]


def line_chart(title: str, series: Sequence[tuple[str, Sequence[Point]]], x_label: str, y_label: str) -> str:
    """One line for each series, from zero upwards; says so when there is nothing to draw."""
    points = [point for _, line in series for point in line]
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        f'<text x="{LEFT}" y="16" class="title">{escape(title)}</text>',
    ]
    if not points:
        return "".join([*parts, f'<text x="{LEFT}" y="{HEIGHT / 2}">nothing was measured</text></svg>'])
    x_step, y_step = _step(max(x for x, _ in points)), _step(max(y for _, y in points))
    x_end, y_end = x_step * TICKS, y_step * TICKS

    def place(x: float, y: float) -> str:
        across = LEFT + x / x_end * (WIDTH - LEFT - RIGHT)
        return f"{across:.1f},{HEIGHT - BOTTOM - y / y_end * (HEIGHT - TOP - BOTTOM):.1f}"

    for tick in range(TICKS + 1):
        x, _ = place(tick * x_step, 0).split(",")
        _, y = place(0, tick * y_step).split(",")
        parts.append(f'<path class="grid" d="M{LEFT},{y}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y}" class="y">{tick * y_step:g}</text>')
        parts.append(f'<text x="{x}" y="{HEIGHT - BOTTOM + 16}" class="x">{tick * x_step:g}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" class="y">{escape(x_label)}</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="16" class="y">{escape(y_label)}</text>')
    for number, (name, line) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in line)
        parts.append(f'<polyline points="{path}" stroke="{colour}"><title>{escape(name)}</title></polyline>')
        at = LEFT + number * 84
        parts.append(f'<text x="{at}" y="{HEIGHT - 6}" fill="{colour}" style="fill:{colour}">{escape(name)}</text>')
    return "".join([*parts, "</svg>"])


def _step(largest: float) -> float:
    """Between two ticks: 1, 2, 2.5 or 5 times a power of ten, so that TICKS of them hold the largest."""
    if largest <= 0:
        return 1 / TICKS
    power: float = 10.0 ** math.floor(math.log10(largest / TICKS))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor * TICKS >= largest * (1 - 1e-9))
