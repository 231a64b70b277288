"""One self-contained HTML page of a simulation: plain SVG, no script, nothing from the network.

For each policy replicas against demand, what went to the cloud, and latency where there is one;
for all of them the cost over time. Charts of one kind have one scale, so that policies compare.
Long runs are drawn in ``COLUMNS`` stretches: a thin band shows the lowest and the highest of each,
a line the mean. Colours are those of Okabe and Ito
(https://jfly.uni-koeln.de/color/), which colour-blind people can tell apart.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from overspill.simulator.timeline import Timeline

COLUMNS = 480
WIDTH, HEIGHT, LEFT, BOTTOM = 920, 150, 56, 22  # pixels
GREY, BLUE, ORANGE, GREEN, RED = "#888888", "#0072B2", "#E69F00", "#009E73", "#D55E00"
PALETTE = (ORANGE, BLUE, GREEN, RED, "#CC79A7", "#56B4E9", "#F0E442", "#000000", GREY)
# Spacing of the marks on the axis of time: unit and hours.
UNITS = {"min": 60.0, "h": 1.0, "d": 1 / 24}
TICKS = (
    *(("min", minutes / 60) for minutes in (1, 2, 5, 10, 30)),
    *(("h", float(hours)) for hours in (1, 2, 6)),
    *(("d", 24.0 * days) for days in (1, 2, 7, 30)),
)

STYLE = """\
body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em 1em .2em 0;text-align:right}
td:first-child,th:first-child{text-align:left}tr{border-bottom:1px solid #ddd}
svg{display:block;width:100%;height:auto}figure{margin:.8em 0}figcaption{color:#555}
.key{display:inline-block;width:1em;height:.25em;margin:0 .3em .25em .8em}
@media print{section{break-inside:avoid}}"""


@dataclass(frozen=True)
class Curve:
    """One line of a chart."""

    name: str
    colour: str
    values: Sequence[float | None]
    band: bool = False  # show lowest and highest of each stretch


@dataclass(frozen=True)
class Tops:
    """Where the scales of all policies' charts end."""

    replicas: float
    spilled: float
    ttft: float

    @classmethod
    def of(cls, timelines: Sequence[Timeline]) -> "Tops":
        """Return room for everything there is."""
        return cls(
            _top(values for t in timelines for values in (t.demand, t.billed, t.ready)),
            _top(t.spilled for t in timelines),
            _top(t.ttft or () for t in timelines),
        )


def _top(series: Iterable[Sequence[float | None]]) -> float:
    known = (value for values in series for value in values if value is not None)
    return _round_up(max(known, default=0.0))


def page(
    title: str,
    facts: Sequence[str],
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    timelines: Sequence[Timeline],
) -> str:
    """Return the page.

    :param facts: sentences about what was simulated.
    :param header: of the table of policies.
    :param rows: its cells, the cheapest policy first.
    :param timelines: in the same order.
    """
    tops = Tops.of(timelines)
    sections = "".join(_section(timeline, tops) for timeline in timelines)
    said = " ".join(escape(fact) for fact in facts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{said}</p>{_table(header, rows)}"
        f"<section><h2>Cost over time</h2>{_costs(timelines)}</section>{sections}</body></html>\n"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def _costs(timelines: Sequence[Timeline]) -> str:
    curves = [Curve(t.policy, PALETTE[n % len(PALETTE)], t.cost) for n, t in enumerate(timelines)]
    top = _top(t.cost for t in timelines)
    return _chart("USD since the beginning", curves, timelines[0].step, top)


def _section(timeline: Timeline, tops: Tops) -> str:
    replicas = [
        Curve("demand", GREY, timeline.demand, band=True),
        Curve("billed", ORANGE, timeline.billed),
        Curve("ready", BLUE, timeline.ready),
    ]
    spilled = [Curve("to the cloud", RED, timeline.spilled, band=True)]
    step, work = timeline.step, "in replicas' worth of work"
    charts = [
        _chart(f"replicas, and demand {work}", replicas, step, tops.replicas),
        _chart(f"spilled, {work}", spilled, step, tops.spilled),
    ]
    if timeline.ttft is not None:
        latency = [Curve("TTFT p95", GREEN, timeline.ttft, band=True)]
        charts.append(_chart("seconds to the first token, local answers", latency, step, tops.ttft))
    return f"<section><h2>{escape(timeline.policy)}</h2>{''.join(charts)}</section>"


def _chart(caption: str, curves: Sequence[Curve], step: float, top: float) -> str:
    """Draw curves over one axis of time, with their key."""
    shrunk = [(curve, list(_stretches(curve.values))) for curve in curves]
    hours = len(curves[0].values) * step / 3600
    drawn = "".join(_curve(curve, points, top) for curve, points in shrunk)
    key = "".join(
        f'<span class="key" style="background:{c.colour}"></span>{escape(c.name)}' for c in curves
    )
    return (
        f"<figure><figcaption>{escape(caption)}{key}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(caption)}">'
        f"{_axes(top, hours)}{drawn}</svg></figure>"
    )


def _stretches(values: Sequence[float | None]) -> Iterator[tuple[float, float, float, float]]:
    """Yield place (0 to 1), lowest, mean and highest of each stretch that has values."""
    count = len(values)
    columns = min(COLUMNS, count)
    for column in range(columns):
        part = values[column * count // columns : (column + 1) * count // columns]
        known = [value for value in part if value is not None]
        if known:
            yield (column + 0.5) / columns, min(known), sum(known) / len(known), max(known)


def _round_up(value: float) -> float:
    """Return the next number with one digit, so that the axis ends at it; 1 for nothing."""
    if value < 1e-9:
        return 1.0
    digit = 10.0 ** math.floor(math.log10(value))
    return math.ceil(value / digit - 1e-9) * digit


def _curve(curve: Curve, points: Sequence[tuple[float, float, float, float]], top: float) -> str:
    line = " ".join(_point(place, mean, top) for place, _, mean, _ in points)
    drawn = f'<polyline points="{line}" fill="none" stroke="{curve.colour}" stroke-width="1.3"/>'
    if not curve.band:
        return drawn
    above = [_point(place, high, top) for place, _, _, high in points]
    below = [_point(place, low, top) for place, low, _, _ in reversed(points)]
    outline = " ".join(above + below)
    return f'<polygon points="{outline}" fill="{curve.colour}" opacity=".25"/>{drawn}'


def _point(place: float, value: float, top: float) -> str:
    x = LEFT + place * (WIDTH - LEFT - 8)
    y = HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - 10)
    return f"{x:.1f},{y:.1f}"


def _axes(top: float, hours: float) -> str:
    """Draw grid lines with their numbers: values on the left, time below."""
    lines = []
    for part in (0.0, 0.5, 1.0):
        x, y = _point(0.0, part * top, top).split(",")
        lines.append(
            f'<line x1="{x}" x2="{WIDTH - 8}" y1="{y}" y2="{y}" stroke="#ddd"/>'
            f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" font-size="11" text-anchor="end">'
            f"{part * top:,.12g}</text>"
        )
    unit, every = next(((u, h) for u, h in TICKS if hours / h <= 8), TICKS[-1])
    for count in range(int(hours / every) + 1):
        x = _point(count * every / hours, 0.0, top).split(",")[0]
        lines.append(
            f'<text x="{x}" y="{HEIGHT - 5}" font-size="11" text-anchor="middle">'
            f"{count * every * UNITS[unit]:g} {unit}</text>"
        )
    return "".join(lines)
