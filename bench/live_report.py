"""What the rows of bench/live.py say: table and chart."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lab.load import Sent
from live_watch import Look

Row = dict[str, Any]
COLOURS = {"overspill": "#0072B2", "hpa": "#E69F00", "keda": "#009E73"}  # Okabe and Ito
LOCAL = "local"


def attains(sent: Sent, ttft: float, itl: float) -> bool:
    """Whether an answer came whole and in time.

    :param ttft: seconds to its first token at most.
    :param itl: seconds from one to the next at most, on average.
    """
    if sent.failed or sent.ttft_ms is None:
        return False
    first = sent.ttft_ms / 1000
    return first <= ttft and (sent.seconds - first) / max(1, sent.pieces - 1) <= itl


def row(
    system: str, sent: Sequence[Sent], kept: int, seconds: float, gpu: float, request: float
) -> Row:
    """Return one line of the result.

    :param sent: requests that count.
    :param kept: how many of them kept the objective.
    :param seconds: of replicas, to pay.
    :param gpu: US dollars of a replica and hour.
    :param request: US dollars of a request at the provider.
    """
    spilled = sum(s.destination not in ("", LOCAL) for s in sent)
    own, cloud = seconds / 3600 * gpu, spilled * request
    return {
        "system": system,
        "requests": len(sent),
        "failed": sum(s.failed for s in sent),
        "objective_attained": round(kept / len(sent), 4),
        "replica_seconds": round(seconds),
        "spilled_share": round(spilled / len(sent), 4),
        "gpu_usd": round(own, 4),
        "cloud_usd": round(cloud, 4),
        "total_usd": round(own + cloud, 4),
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [
        f"{'system':11}{'requests':>9}{'failed':>7}{'kept':>9}{'replica s':>11}{'spilled':>9}"
        f"{'GPU $':>9}{'cloud $':>9}{'total $':>9}"
    ]
    lines += [
        f"{r['system']:11}{r['requests']:9}{r['failed']:7}{r['objective_attained']:9.2%}"
        f"{r['replica_seconds']:11}{r['spilled_share']:9.2%}"
        f"{r['gpu_usd']:9.4f}{r['cloud_usd']:9.4f}{r['total_usd']:9.4f}"
        for r in rows
    ]
    return "\n".join(lines)


def chart(
    rows: Sequence[Row],
    looks: Sequence[Look],
    begun: float,
    load: Callable[[float], float],
    until: float,
    path: Path,
) -> None:
    """Draw each system's replicas against the load.

    :param begun: when the lead began, in seconds since the epoch.
    :param load: replicas that it keeps busy, by seconds since then.
    :param until: seconds since then.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.2 * len(rows) + 0.6), layout="constrained")
    times = range(int(until))
    loads = [load(t) for t in times]
    for axes, r in zip(figure.subplots(len(rows), sharex=True, sharey=True), rows, strict=True):
        name = r["system"]
        axes.fill_between(times, loads, color="#cccccc", lw=0, label="load, in replicas")
        for what, style in (("pods", "-"), ("ready", ":")):
            counts = [getattr(look, what)[name] for look in looks]
            seconds = [look.t - begun for look in looks]
            axes.step(seconds, counts, style, where="post", color=COLOURS[name], label=what)
        axes.set_title(
            f"{name}: ${r['total_usd']:.3f}, {r['spilled_share']:.1%} spilled, objective kept by "
            f"{r['objective_attained']:.1%}", loc="left", fontsize=10,
        )  # fmt: skip
        axes.legend(loc="upper right", fontsize=8, frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylabel("replicas")
    axes.set_xlabel("seconds")
    axes.set_xlim(0, until)
    axes.set_ylim(bottom=0)
    figure.savefig(path, dpi=130)
