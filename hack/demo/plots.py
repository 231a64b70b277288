"""Three plots over one time axis: replicas, time to first token, requests by destination."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter

from demo.stages import Run

# Okabe-Ito: told apart by people with any colour vision. https://jfly.uni-koeln.de/color/
BLUE, ORANGE, GREY, GREEN = "#0072B2", "#D55E00", "#8A8A8A", "#009E73"
BIN = 5.0  # seconds per bar of the request plot


def draw(run: Run, path: Path) -> None:
    """Write the plots as a PNG."""
    start = run.watcher.samples[0].t
    figure, axes = plt.subplots(3, 1, figsize=(11, 9), sharex=True, layout="constrained")
    _replicas(axes[0], run, start)
    _ttft(axes[1], run, start)
    _destinations(axes[2], run, start)
    for axis in axes:
        _stages(axis, run, start, named=axis is axes[0])
        axis.spines[["top", "right"]].set_visible(False)
    axes[2].set_xlabel("seconds since the first look")
    figure.suptitle("Overspill: one service, two GPUs, one cloud", x=0.01, ha="left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _replicas(axis: Any, run: Run, start: float) -> None:
    samples = run.watcher.samples
    t = [s.t - start for s in samples]
    axis.step(t, [s.desired for s in samples], GREY, where="post", label="wanted", ls="--")
    axis.step(t, [s.ready for s in samples], BLUE, where="post", label="ready", lw=2)
    axis.step(t, [s.pending for s in samples], ORANGE, where="post", label="pending")
    axis.fill_between(
        t, 0, 1, where=[s.full for s in samples], transform=axis.get_xaxis_transform(),
        step="post", color=ORANGE, alpha=0.10, lw=0, label="cluster full",
    )  # fmt: skip
    axis.set_ylabel("replicas")
    axis.set_ylim(bottom=-0.1)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.legend(loc="upper right", frameon=False, ncols=4)


def _ttft(axis: Any, run: Run, start: float) -> None:
    for local, colour, label in ((True, BLUE, "local"), (False, ORANGE, "cloud")):
        chosen = [
            s for s in run.sent if (s.destination == "local") == local and s.ttft_ms is not None
        ]
        points = [(s.t - start, (s.ttft_ms or 0) / 1000) for s in chosen]
        if points:
            axis.plot(*zip(*points, strict=True), ".", color=colour, ms=4, label=label)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter("{x:g}")  # 0.2, not 2 × 10⁻¹
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel("time to first token, s")
    axis.legend(loc="upper right", frameon=False, ncols=2)


def _destinations(axis: Any, run: Run, start: float) -> None:
    last = max([s.t - start for s in run.sent], default=0)
    edges = [i * BIN for i in range(int(last / BIN) + 2)]
    local = [s.t - start for s in run.sent if s.destination == "local"]
    away = [s.t - start for s in run.sent if s.destination not in ("", "local")]
    failed = [s.t - start for s in run.sent if s.failed]
    axis.hist(
        [local, away, failed], bins=edges, stacked=True,
        color=[BLUE, ORANGE, "black"], label=["local", "cloud", "failed"],
    )  # fmt: skip
    axis.set_ylabel(f"requests sent per {BIN:.0f} s")
    axis.legend(loc="upper right", frameon=False, ncols=3)


def _stages(axis: Any, run: Run, start: float, *, named: bool) -> None:
    for i, stage in enumerate(run.stages):
        x = stage.began - start
        axis.axvline(x, color=GREY, lw=0.6)
        if named:  # in two rows, for the first stages are short
            axis.annotate(
                stage.name, (x, 1.0), xycoords=axis.get_xaxis_transform(),
                xytext=(2, 3 + 11 * (i % 2)), textcoords="offset points", fontsize=8, color=GREY,
            )  # fmt: skip
