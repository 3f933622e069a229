"""The report as a page: one HTML file with its plots inside, to be opened anywhere, kept, or sent to somebody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise

from loadgen.phrases import describe_network, say
from loadgen.plots import Point, line_chart
from loadgen.report import Summary, sentences
from loadgen.stages import STAGE_NAMES
from loadgen.timeline import Sample
from loadgen.turnreport import turn_counts, turn_times

__all__ = ["render_page"]

MIB = 1 << 20

STYLE = """\
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 0.5rem 0 1.5rem } th, td { padding: 0.15rem 0.8rem; text-align: right }
th:first-child, td:first-child { text-align: left } tr + tr { border-top: 1px solid #8884 }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 1rem }
svg { width: 100% } svg text { font-size: 11px; fill: currentColor } svg .title { font-weight: 600 }
svg .x { text-anchor: middle } svg .y { text-anchor: end; dominant-baseline: middle }
svg polyline { fill: none; stroke-width: 1.6 } svg .grid { stroke: #8884 }
.well { color: #059669 } .bad { color: #dc2626 } .warn { color: #b45309 }
"""


def render_page(summary: Summary, samples: Sequence[Sample], command: str) -> str:
    """All of it; `command` is what was typed."""
    shares = list(next(iter(summary.setup_ms.values())))
    times = {STAGE_NAMES.get(stage, stage): spread for stage, spread in summary.setup_ms.items()}
    if summary.turns:
        times |= turn_times(summary.turns)
    else:
        times |= {
            "audio there and back": summary.audio["round_trip_ms"],
            "data there and back": summary.data["round_trip_ms"],
        }
    counts = ("sent", "received", "early", "lost", "late", "duplicated", "foreign", "corrupt")
    body = [
        f"<h1>{'well' if summary.ok else 'not well'}</h1>",
        f"<p><code>{escape(command)}</code></p>",
        *(f'<p class="{tone}">{escape(text)}</p>' for tone, text in sentences(summary)),
        *(
            [
                '<div class="plots">',
                *_plots(summary, samples),
                "</div>",
                "<h2>milliseconds</h2>",
                _table(["", *shares], ([name, *map(say, spread.values())] for name, spread in times.items())),
                *_turns(summary),
                "<h2>counts</h2>",
                _table(
                    ["", "audio frames", "data messages"],
                    ([name, say(summary.audio[name]), say(summary.data.get(name))] for name in counts),
                ),
            ]
            if summary.has_figures
            else []
        ),
        *_processes(summary),
        "<h2>the generator itself</h2>",
        _table(["", ""], ([name.replace("_", " "), say(value)] for name, value in summary.generator.items())),
        "<h2>the network between</h2>",
        _table(["", ""], ([name.replace("_", " "), say(value)] for name, value in _network(summary))),
    ]
    head = (
        f'<meta charset="utf-8"><title>Antiphon: load of {summary.calls["wanted"]} calls</title><style>{STYLE}</style>'
    )
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _processes(summary: Summary) -> Iterable[str]:
    if summary.processes:
        heads = list(next(iter(summary.processes.values())))
        yield "<h2>the processes, while all calls talked</h2>"
        yield _table(
            ["", *(head.replace("_", " ") for head in heads)],
            ([name, *map(say, figures.values())] for name, figures in summary.processes.items()),
        )


def _network(summary: Summary) -> Iterable[tuple[str, object]]:
    network = summary.network
    yield "conditions", describe_network(network)
    yield from ((name, value) for name, value in network.items() if name not in ("conditions", "rebind_every_s"))


def _turns(summary: Summary) -> Iterable[str]:
    if summary.turns:
        yield "<h2>turns</h2>"
        yield _table(["", ""], ([name, str(count)] for name, count in turn_counts(summary.turns)))
        yield "<h2>what the agent heard</h2>"
        yield _table(["", "turns"], ([said or "(no words)", str(n)] for said, n in summary.turns["heard"].items()))


def _plots(summary: Summary, samples: Sequence[Sample]) -> Iterable[str]:
    def spread(curve: Sequence[float | None]) -> list[Point]:
        return [(float(percent), value) for percent, value in enumerate(curve) if value is not None]

    stages = [(stage, spread(curve)) for stage, curve in summary.curves["setup"].items()]
    yield line_chart("set-up by stage", stages, "percentile", "ms")
    if summary.turns:
        answers = [(name, spread(curve)) for name, curve in summary.curves["turns"].items()]
        yield line_chart("answers", answers, "percentile", "ms")
    else:
        trips = [(kind, spread(summary.curves["round_trip"][kind])) for kind in ("audio", "data")]
        yield line_chart("there and back", trips, "percentile", "ms")
    yield line_chart(
        "calls",
        [(name, [(one.at, float(getattr(one, name))) for one in samples]) for name in ("placed", "talking", "failed")],
        "seconds",
        "calls",
    )
    yield line_chart("late", [("late", _late(samples))], "seconds", "‰ of the frames that came back")
    if names := list(dict.fromkeys(name for one in samples for name in one.processes)):
        yield line_chart("memory", [(name, _memory(samples, name)) for name in names], "seconds", "MiB")
        yield line_chart("CPU", [(name, _cpu(samples, name)) for name in names], "seconds", "cores")
    yield line_chart(
        "frames a second",
        [(name, _rates(samples, name)) for name in ("sent", "received", "late")],
        "seconds",
        "frames/s",
    )


def _rates(samples: Sequence[Sample], name: str) -> list[Point]:
    return [
        (after.at, (getattr(after, name) - getattr(before, name)) / (after.at - before.at))
        for before, after in pairwise(samples)
        if after.at > before.at
    ]


def _late(samples: Sequence[Sample]) -> list[Point]:
    return [
        (after.at, 1000 * (after.late - before.late) / (after.received - before.received))
        for before, after in pairwise(samples)
        if after.received > before.received
    ]


def _memory(samples: Sequence[Sample], name: str) -> list[Point]:
    return [(one.at, one.processes[name].resident / MIB) for one in samples if name in one.processes]


def _cpu(samples: Sequence[Sample], name: str) -> list[Point]:
    return [
        (after.at, (after.processes[name].cpu - before.processes[name].cpu) / (after.at - before.at))
        for before, after in pairwise(samples)
        if name in before.processes and name in after.processes and after.at > before.at
    ]


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{row(heads, 'th')}{''.join(row(cells, 'td') for cells in rows)}</table>"
