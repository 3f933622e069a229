"""A report to read."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table

from bench.figures import Bar, Report, Section, spread

__all__ = ["number", "render"]


def render(report: Report) -> Iterable[RenderableType]:
    for section in report.sections:
        yield _table(section)
        for bar in section.bars:
            yield _judged(section, bar)
        for note in section.notes:
            yield f"[yellow]{note}[/]"
    machine = report.machine
    yield (
        f"{machine['processor']}, {machine['cpus']} CPUs, kernel {machine['kernel']}, Python {machine['python']}; "
        f"load before {machine['load_before']}; {report.seconds:.0f} s"
    )
    yield "Quote the ratios, medians over rounds: times drift with the machine. Own code: what is not the kernel's."


def _judged(section: Section, bar: Bar) -> str:
    against = bar.subject if bar.reference is None else f"{bar.subject} / {bar.reference}"
    verdict = section.verdict(bar)
    if verdict is None:
        return f"  {bar.what}: {against}: bar ≤ {bar.limit:g}: [yellow]not measured[/]"
    reached = verdict.reached
    between = f" ({number(reached.low)} – {number(reached.high)})" if reached.low != reached.high else ""
    word = "[green]met[/]" if verdict.met else "[red]missed[/]"
    if verdict.met is None:
        word = f"[yellow]not judged: {bar.unlike}[/]"
    return f"  {bar.what}: {against}: bar ≤ {bar.limit:g}: [bold]{number(reached.median)}[/]{between} {word}"


def _table(section: Section) -> Table:
    has_own = any(series.own for series in section.series)
    table = Table(title=section.title, title_justify="left", title_style="bold")
    table.add_column("")
    for heading in ("median", "lowest – highest", *(["own code"] if has_own else []), "ours to it"):
        table.add_column(heading, justify="right", no_wrap=True)
    for what in dict.fromkeys(series.what for series in section.series):
        alike = [series for series in section.series if series.what == what]
        table.add_row(f"[bold]{what}, {alike[0].unit}[/]")
        for series in alike:
            value = spread(series.rounds)
            ratio = section.ratio_to(series) if series.is_reference else None
            own = number(spread(series.own).median) if series.own else ""
            table.add_row(
                f"  {series.subject}",
                number(value.median),
                f"{number(value.low)} – {number(value.high)}" if len(series.rounds) > 1 else "",
                *([own] if has_own else []),
                "" if ratio is None else number(ratio.median),
                end_section=series is alike[-1],
            )
    return table


def number(value: float) -> str:
    """As many digits as say something."""
    size = abs(value)
    if not value or size >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if size >= 20 else f"{value:.2f}" if size >= 0.1 else f"{value:.2g}"
