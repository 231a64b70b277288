"""The textbook's answers: lazy capacity provisioning, newsvendor, and counts that never change.

Lazy capacity provisioning (https://doi.org/10.1109/TNET.2012.2226216) stays between two running
optima, of which one charges starts and the other stops. By count, as in ``optimum``, that is:
start a replica when its absence has cost a boot more than its presence would have, and stop it
when its presence has.

A newsvendor holds the quantile of demand at which one more replica pays as often as not:
``1 − 1/ratio`` of the loads that were seen lately.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence

from overspill.simulator.baselines.shared import Memoryless
from overspill.simulator.fluid import Sight


class LazyCapacityProvisioning(Memoryless):
    """Keeps, by count, what not having switched has cost."""

    def __init__(self, ratio: float, boot_ticks: int) -> None:
        """Know the price ratio and what a start costs, in replica-ticks."""
        self._ratio, self._boot = ratio, float(boot_ticks)
        self._walk: list[float] = []  # 0: the running optima agree on off; boot: on on

    def target(self, sight: Sight) -> int:
        """Return the count between the two optima that is nearest to the present one."""
        self._see(sight)
        lowest = sum(1 for w in self._walk if w >= self._boot)
        highest = sum(1 for w in self._walk if w > 0.0)
        return max(lowest, min(sight.replicas, highest))

    def _see(self, sight: Sight) -> None:
        walk, load = self._walk, sight.load
        for n in range(len(walk), max(sight.replicas, math.ceil(load))):
            walk.append(self._boot if n < sight.replicas else 0.0)
        for n, before in enumerate(walk):
            saving = self._ratio * min(1.0, max(0.0, load - n)) - 1
            walk[n] = max(0.0, min(before + saving, self._boot))


class Newsvendor:
    """Holds a quantile of the last minutes' loads."""

    def __init__(self, ratio: float, window: int) -> None:
        """Know the price ratio, and remember so many ticks."""
        self._quantile = max(0.0, 1 - 1 / ratio)
        self._window = window
        self._seen: deque[float] = deque()
        self._sorted: list[float] = []

    def learn(self, now: float, load: float) -> None:
        """Remember a load."""
        self._seen.append(load)
        insort(self._sorted, load)
        if len(self._seen) > self._window:
            del self._sorted[bisect_left(self._sorted, self._seen.popleft())]

    def target(self, sight: Sight) -> int:
        """Return the quantile, rounded to whole replicas."""
        self.learn(sight.now, sight.load)
        index = math.ceil(self._quantile * len(self._sorted)) - 1
        return round(self._sorted[max(0, index)])


class Constant(Memoryless):
    """The same count whatever comes; 0 sends everything to the cloud."""

    def __init__(self, replicas: int) -> None:
        """Hold a count."""
        self._replicas = replicas

    def target(self, sight: Sight) -> int:
        """Return the count."""
        return self._replicas


def best_constant(load: Sequence[float], ratio: float) -> int:
    """Return the count that is cheapest of those that never change, with hindsight.

    The n-th replica pays when it is busy for more than 1/ratio of the time.
    """
    count = 0
    while sum(min(1.0, max(0.0, x - count)) for x in load) * ratio > len(load):
        count += 1
    return count
