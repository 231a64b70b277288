"""A run as a few curves over time, the same for both levels, so that one report shows either."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from overspill.simulator import discrete, fluid
from overspill.simulator.meter import SCRAPE


@dataclass(frozen=True)
class Timeline:
    """One policy's run, a value for each step."""

    policy: str
    step: float  # seconds
    demand: Sequence[float]  # offered, in replicas' worth of work
    ready: Sequence[float]
    billed: Sequence[float]  # replicas, pending ones among them
    spilled: Sequence[float]  # in replicas' worth of work
    cost: Sequence[float]  # USD since the beginning
    ttft: Sequence[float | None] | None = None  # p95 of local answers in seconds


def of_fluid(policy: str, run: fluid.Run) -> Timeline:
    """Return a fluid run's curves."""
    setting = run.setting
    spilled = [max(0.0, x - n) for x, n in zip(run.load, run.ready, strict=True)]
    costs = (
        setting.tick_cost * (n + setting.ratio * x)
        for n, x in zip(run.billed, spilled, strict=True)
    )
    return Timeline(
        policy, setting.tick, run.load, run.ready, run.billed, spilled, list(accumulate(costs))
    )


def of_discrete(policy: str, outcome: discrete.Outcome, capacity: float) -> Timeline:
    """Return a discrete-event run's curves.

    :param capacity: requests/s of one replica with a full batch.
    """
    samples = outcome.samples
    return Timeline(
        policy,
        SCRAPE,
        [s.arrived / capacity for s in samples],
        [s.ready for s in samples],
        [s.billed for s in samples],
        [s.spilled / capacity for s in samples],
        [s.cost for s in samples],
        [s.ttft_p95 for s in samples],
    )
