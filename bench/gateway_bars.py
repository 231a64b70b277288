"""What the rows of the gateway's benchmark say: a table with ratios; bars, met or missed."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
Cell = tuple[bool, int, int]  # stream, bytes of a request's body, connections

OURS, RIVAL, SLOWEST = "overspill", "vllm-router", "litellm"
# Requests/s over vllm-router's, CPU per chunk over its, requests/s over LiteLLM's.
REQUESTS_BAR, REQUESTS_AIM, CHUNK_BAR, CHUNK_AIM, SLOWEST_BAR = 0.7, 1.0, 1.5, 1.0, 40.0


def cells(rows: Sequence[Row]) -> dict[Cell, dict[str, list[Row]]]:
    """Return the rounds of each target, by what it was asked for."""
    found: dict[Cell, dict[str, list[Row]]] = {}
    for row in rows:
        cell = (row["stream"], row["body_bytes"], row["connections"])
        found.setdefault(cell, {}).setdefault(row["target"], []).append(row)
    return found


def median(rounds: Sequence[Row], name: str) -> float:
    """Return a value's median over the rounds that have it, 0 when none has."""
    return statistics.median([r[name] for r in rounds if r[name] is not None] or [0.0])


def ratio(mine: Sequence[Row], other: Sequence[Row], name: str) -> float:
    """Return the ratio of two medians, 0 when there is nothing to compare with."""
    below = median(other, name)
    return median(mine, name) / below if below else 0.0


def bars(rows: Sequence[Row]) -> list[tuple[bool, str]]:
    """Return each bar: whether it is met, and in words with its figure."""
    found = []
    for cell, targets in cells(rows).items():
        if OURS not in targets:
            continue
        if RIVAL in targets:
            found.append(_against_rival(cell, targets[OURS], targets[RIVAL]))
        if SLOWEST in targets and not cell[0]:
            times = ratio(targets[OURS], targets[SLOWEST], "requests_per_s")
            text = f"{named(cell)}: {times:.0f} × {SLOWEST}'s requests/s, bar {SLOWEST_BAR:.0f}"
            found.append((times >= SLOWEST_BAR, text))
    failed = {r["target"]: 0 for r in rows}
    for row in rows:
        failed[row["target"]] += row["errors"]
    if OURS in failed:
        found.append((failed[OURS] == 0, f"{failed[OURS]} errors, bar 0"))
    return found


def _against_rival(cell: Cell, mine: Sequence[Row], other: Sequence[Row]) -> tuple[bool, str]:
    if cell[0]:
        found, unit = ratio(mine, other, "cpu_us_per_chunk"), "CPU per chunk"
        met, bar, aim = 0 < found <= CHUNK_BAR, CHUNK_BAR, CHUNK_AIM
    else:
        found, unit = ratio(mine, other, "requests_per_s"), "requests/s"
        met, bar, aim = found >= REQUESTS_BAR, REQUESTS_BAR, REQUESTS_AIM
    return met, f"{named(cell)}: {found:.2f} × {RIVAL}'s {unit}, bar {bar}, aim {aim}"


def named(cell: Cell) -> str:
    """Return what was asked for, in words."""
    stream, size, connections = cell
    return f"{'streams' if stream else f'{size} B'}, {connections} connections"


COLUMNS: list[tuple[str, str, str]] = [
    ("requests/s", "requests_per_s", ".0f"),
    ("µs/request", "cpu_us_per_request", ".0f"),
    ("µs/chunk", "cpu_us_per_chunk", ".1f"),
    ("p50 ms", "p50_ms", ".1f"),
    ("p99 ms", "p99_ms", ".1f"),
]


def table(rows: Sequence[Row]) -> str:
    """Return medians over the rounds with lowest and highest, and ratios to vllm-router."""
    head = "".join(f"{title:>25}" for title, _, _ in COLUMNS)
    lines = [f"{'':30}{head}{'RSS MB':>8}{'errors':>8}{'req/s ×':>9}{'CPU ×':>8}"]
    for cell, targets in cells(rows).items():
        lines.append(named(cell))
        for target, rounds in targets.items():
            text = f"  {target + ' ' + rounds[0]['policy']:28}"
            text += "".join(f"{spread(rounds, name, form):>25}" for _, name, form in COLUMNS)
            text += f"{median(rounds, 'rss_mb'):8.0f}{sum(r['errors'] for r in rounds):8}"
            cost = "cpu_us_per_chunk" if cell[0] else "cpu_us_per_request"
            for name in ("requests_per_s", cost):
                text += f"{ratio(rounds, targets.get(RIVAL, ()), name):8.2f} "
            lines.append(text.rstrip())
    return "\n".join(lines)


def spread(rounds: Sequence[Row], name: str, form: str) -> str:
    """Return a value's median, lowest and highest; nothing where it is not measured."""
    values = [r[name] for r in rounds if r[name] is not None]
    if not values:
        return ""
    shown: list[Callable[[list[float]], float]] = [statistics.median, min, max]
    middle, low, high = (format(f(values), form) for f in shown)
    return f"{middle} ({low}–{high})"
