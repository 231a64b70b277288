"""What the rows of the autoscaler's benchmark say: table, chart, and the bars, met or missed.

Rows of one cell (trace, price ratio, boot) are compared as cost over the cell's own optimum, so
that seeds with more load count no more than others.
"""

import math
import statistics
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Cell = tuple[str, str, float, float]  # level, trace, price ratio, boot in seconds
Interval = tuple[float, float]  # mean and half of its 95 % interval

# Student's t, two-sided 95 %, by the number of seeds
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}
COST_BAR, FORECAST_BAR, ATTAINED_BAR = 1.03, 1.05, 0.99
OURS, FORECAST = "overspill", "overspill, forecast "


def interval(values: list[float]) -> Interval:
    """Return the mean and half of its 95 % interval; infinite for one value."""
    n = len(values)
    half = T95[n] * statistics.stdev(values) / math.sqrt(n) if n > 1 else math.inf
    return statistics.mean(values), half


def over_optimum(rows: list[Row]) -> dict[Cell, dict[str, dict[float, dict[int, float]]]]:
    """Return cost over optimum by cell, policy, setting and seed."""
    found: dict[Cell, dict[str, dict[float, dict[int, float]]]] = {}
    for r in rows:
        cell = (r["level"], r["trace"], r["price_ratio"], r["boot_s"])
        # The best constant count is another one for each seed.
        value = 0.0 if r["policy"] == "constant" else r["setting"]
        settings = found.setdefault(cell, {}).setdefault(r["policy"], {})
        settings.setdefault(value, {})[r["seed"]] = r["cost"] / r["optimum"]
    return found


def best(settings: dict[float, dict[int, float]]) -> dict[int, float]:
    """Return the seeds' values of the setting that is cheapest on average."""
    return min(settings.values(), key=lambda seeds: statistics.mean(seeds.values()))


def bars(rows: list[Row]) -> list[tuple[bool, str]]:
    """Return each bar of issue 6: whether it is met, and in words with its figures."""
    cells = over_optimum(rows)
    fluid = {cell: policies for cell, policies in cells.items() if cell[0] == "fluid"}
    large = {cell: policies for cell, policies in fluid.items() if cell[1] == "m-large"}
    result = [_against_lcp(cell, policies) for cell, policies in large.items()]
    result += [
        _cost(cell, policies) for cell, policies in large.items() if cell[2:] == (3.0, 120.0)
    ]
    result += [bar for cell, policies in fluid.items() for bar in _forecasts(cell, policies)]
    discrete = {cell: None for cell in cells if cell[0] == "discrete"}
    result += [bar for cell in discrete for bar in _requests(cell, rows)]
    return result


def keeps(row: Row) -> float:
    """Return the least share of requests that are within both objectives."""
    return float(row["ttft_attainment"] + row["itl_attainment"] - 1)


def _requests(cell: Cell, rows: list[Row]) -> list[tuple[bool, str]]:
    """99 % in both objectives at every seed, and cheaper than who else does that."""
    here = [r for r in rows if (r["level"], r["trace"], r["price_ratio"], r["boot_s"]) == cell]
    worst: dict[tuple[str, float], float] = {}
    for r in here:
        key = (r["policy"], r["setting"])
        worst[key] = min(keeps(r), worst.get(key, 1.0))
    kept = [r for r in here if worst[(r["policy"], r["setting"])] >= ATTAINED_BAR]
    ours = worst[(OURS, 0.0)]
    text = f"{_named(cell)}: {ours:.2%} of the requests or more in both objectives, bar 99 %"
    result = [(ours >= ATTAINED_BAR, text)]
    costs = {name: best(settings) for name, settings in over_optimum(kept).get(cell, {}).items()}
    means = {name: statistics.mean(seeds.values()) for name, seeds in costs.items()}
    own = means.pop(OURS, math.inf)
    rival = min(means, key=lambda name: means[name], default="nobody")
    than = means.get(rival, math.inf)
    text = f"{_named(cell)}: {own:.4f} of the fluid optimum; cheapest other: {rival}, {than:.4f}"
    return [*result, (own < than, text)]


def _named(cell: Cell) -> str:
    return f"{cell[1]}, ratio {cell[2]:g}, boot {cell[3]:g} s"


def _against_lcp(
    cell: Cell, policies: dict[str, dict[float, dict[int, float]]]
) -> tuple[bool, str]:
    """Better than lazy capacity provisioning beyond the interval of the paired differences."""
    ours, theirs = best(policies[OURS]), best(policies["lcp"])
    mean, half = interval([theirs[seed] - ours[seed] for seed in ours])
    figures = f"cheaper than lcp by {mean:.4f} ± {half:.4f} of the optimum"
    return mean > half, f"{_named(cell)}: {figures}"


def _cost(cell: Cell, policies: dict[str, dict[float, dict[int, float]]]) -> tuple[bool, str]:
    mean = statistics.mean(best(policies[OURS]).values())
    return mean <= COST_BAR, f"{_named(cell)}: {mean:.4f} of the optimum, bar {COST_BAR}"


def _forecasts(
    cell: Cell, policies: dict[str, dict[float, dict[int, float]]]
) -> list[tuple[bool, str]]:
    """No forecast, however wrong, may cost more than 5 % over none."""
    wrong = {
        name.removeprefix(FORECAST): best(v) for name, v in policies.items() if FORECAST in name
    }
    if "none" not in wrong:
        return []
    none = wrong.pop("none")
    result = []
    for name, seeds in wrong.items():
        worst = max(value / none[seed] for seed, value in seeds.items())
        text = f"{_named(cell)}: forecast {name} costs {worst:.4f} of none, bar {FORECAST_BAR}"
        result.append((worst <= FORECAST_BAR, text))
    return result


def verdict(rows: list[Row]) -> str:
    """Return the bars as lines."""
    return "\n".join(f"{'met   ' if met else 'MISSED'} {text}" for met, text in bars(rows))


def table(rows: list[Row]) -> str:
    """Return cost over optimum as text, at each policy's best setting: a column per cell."""
    cells = over_optimum(rows)
    lines = []
    for trace in dict.fromkeys(cell[:2] for cell in cells):
        columns = {cell: policies for cell, policies in cells.items() if cell[:2] == trace}
        names = dict.fromkeys(name for policies in columns.values() for name in policies)
        heads = "".join(f"{f'k{c[2]:g} {c[3]:g}s':>10}" for c in columns)
        lines.append(f"{' '.join(trace):28}{heads}")
        for name in names:
            shown = (best(p[name]) if name in p else None for p in columns.values())
            means = (f"{statistics.mean(s.values()):10.4f}" if s else " " * 10 for s in shown)
            lines.append(f"{name:28}{''.join(means)}")
    return "\n".join(lines)


def chart(rows: list[Row], path: Path) -> None:
    """Draw cost over optimum by policy for ratio 3, boot 120 s; nothing without matplotlib.

    A bar is a policy at its best setting with its 95 % interval over seeds, ours in its own colour.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    cells = {c: p for c, p in over_optimum(rows).items() if c[2:] == (3.0, 120.0)}
    figure = Figure(figsize=(6 * len(cells), 4.5), layout="constrained")
    for place, (cell, policies) in enumerate(cells.items(), 1):
        values = {n: interval(list(best(s).values())) for n, s in policies.items() if n != "cloud"}
        names = sorted(values, key=lambda n: values[n][0], reverse=True)
        percent = [100 * (values[n][0] - 1) for n in names]
        halves = [100 * h if math.isfinite(h) else 0.0 for _, h in (values[n] for n in names)]
        axes = figure.add_subplot(1, len(cells), place)
        colours = ["tab:orange" if n.startswith(OURS) else "tab:blue" for n in names]
        drawn = axes.barh(names, percent, xerr=halves, color=colours)
        axes.bar_label(drawn, fmt="%.1f %%", padding=3)
        axes.margins(x=0.15)
        axes.set(title=f"{cell[0]}: {_named(cell)}", xlabel="% dearer than with hindsight")
    figure.savefig(path, dpi=120)
