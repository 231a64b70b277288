"""Every policy by its name, ours among them, with the settings of a sweep.

Ours is the code that the operator is to run, with the prices and the boot that it is told.
Lazy capacity provisioning and the newsvendor see prices too; the others only a target.
"""

from collections.abc import Callable
from dataclasses import dataclass

from overspill.autoscaler.economics import EconomicsState, Prices, choose
from overspill.simulator.baselines import aibrix, classic, delayed, hpa, keda, knative
from overspill.simulator.fluid import Policy, Setting, Sight

TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)  # of a replica's capacity
WINDOWS = (1, 4, 8, 20, 40, 120)  # ticks, of the newsvendor


class Overspill:
    """The autoscaler's economics, over a fluid."""

    def __init__(self, prices: Prices, state: EconomicsState | None = None) -> None:
        """Know the prices and how long a boot takes.

        :param state: what another one has learned.
        """
        self._prices = prices
        self.state = state

    def learn(self, now: float, load: float) -> None:
        """Look at the past; nothing is decided."""
        if self.state is None:
            self.state = EconomicsState.start(now, load)
        else:
            self.state = self.state.learn(now, load)

    def target(self, sight: Sight) -> int:
        """Return the count that is cheaper than its neighbours."""
        if self.state is None:
            self.state = EconomicsState.start(sight.now, sight.load)
            return sight.replicas
        choice, self.state = choose(sight.now, self.state, sight.load, sight.replicas, self._prices)
        return choice.replicas


@dataclass(frozen=True)
class Contender:
    """A policy with what a sweep may set."""

    make: Callable[[Setting, float], Policy]
    values: tuple[float, ...]  # to sweep
    default: float  # as documented
    sees_prices: bool = False


def _plain(make: Callable[[float], Policy]) -> Callable[[Setting, float], Policy]:
    return lambda setting, value: make(value)


CONTENDERS: dict[str, Contender] = {
    "overspill": Contender(
        lambda s, _: Overspill(Prices(s.ratio, s.boot)), (0.0,), 0.0, sees_prices=True
    ),
    "lcp": Contender(
        lambda s, _: classic.LazyCapacityProvisioning(s.ratio, s.boot_ticks),
        (0.0,),
        0.0,
        sees_prices=True,
    ),
    "newsvendor": Contender(
        lambda s, value: classic.Newsvendor(s.ratio, int(value)), WINDOWS, 20, sees_prices=True
    ),
    "hpa": Contender(_plain(hpa.HorizontalPodAutoscaler), TARGETS, 0.7),
    "keda": Contender(_plain(keda.Keda), TARGETS, 0.7),
    "kpa": Contender(_plain(knative.KnativePodAutoscaler), TARGETS, 0.7),
    "apa": Contender(_plain(aibrix.AibrixPodAutoscaler), TARGETS, 0.7),
    "ray": Contender(_plain(delayed.RayServe), TARGETS, 0.7),
    "skyserve": Contender(_plain(delayed.SkyServe), TARGETS, 1.0),
    "cloud": Contender(_plain(lambda _: classic.Constant(0)), (0.0,), 0.0),
}
