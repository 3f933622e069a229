"""A report to read."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table

from bench.figures import Report, Section, spread

__all__ = ["render"]


def render(report: Report) -> Iterable[RenderableType]:
    for section in report.sections:
        yield _table(section)
        for note in section.notes:
            yield f"[yellow]{note}[/]"
    machine = report.machine
    yield (
        f"{machine['processor']}, {machine['cpus']} CPUs, kernel {machine['kernel']}, Python {machine['python']}; "
        f"load before {machine['load_before']}; {report.seconds:.0f} s"
    )
    yield "Quote the ratios: the median over rounds of ours to that reference. Times drift with the machine."


def _table(section: Section) -> Table:
    table = Table(title=section.title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("median", "lowest – highest", "ours to it"):
        table.add_column(heading, justify="right", no_wrap=True)
    for what in dict.fromkeys(series.what for series in section.series):
        alike = [series for series in section.series if series.what == what]
        table.add_row(f"[bold]{what}, {alike[0].unit}[/]")
        for series in alike:
            value = spread(series.rounds)
            ratio = section.ratio_to(series) if series.is_reference else None
            table.add_row(
                f"  {series.subject}",
                _number(value.median),
                f"{_number(value.low)} – {_number(value.high)}" if len(series.rounds) > 1 else "",
                "" if ratio is None else f"{ratio.median:.2f}",
                end_section=series is alike[-1],
            )
    return table


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"
