"""Ray Serve and SkyServe: a wish that must last before it is followed.

Ray Serve (https://docs.ray.io/en/latest/serve/advanced-guides/advanced-autoscaling.html):
``replicas × (1 + factor × (ongoing / target / replicas − 1))``, held 30 s up and 600 s down.

SkyServe (https://docs.skypilot.co/en/latest/serving/autoscaling.html): ``ceil(rate / target)`` of
the last 60 s, looked at every 20 s, held 300 s up and 1,200 s down.
"""

import math

from overspill.simulator.baselines.shared import Memoryless, Window, replicas_for
from overspill.simulator.fluid import Sight

QPS_WINDOW, SKY_INTERVAL = 60.0, 20.0  # seconds


class Delay:
    """Follows a wish when its direction has held for a while."""

    def __init__(self, up: float, down: float) -> None:
        """Hold wishes for so many seconds."""
        self._hold = {1: up, -1: down, 0: 0.0}
        self._direction, self._since = 0, 0.0

    def follow(self, now: float, replicas: int, wanted: int) -> int:
        """Return the wish when it has held long enough, else the count as it is."""
        direction = (wanted > replicas) - (wanted < replicas)
        if direction != self._direction:
            self._direction, self._since = direction, now
        if now - self._since < self._hold[direction]:
            return replicas
        self._direction = 0
        return wanted


class RayServe(Memoryless):
    """One deployment's autoscaling policy."""

    def __init__(self, target: float, factor: float = 1.0) -> None:
        """Scale for a target share of capacity, by a smoothing factor."""
        self._target, self._factor = target, factor
        self._delay = Delay(30.0, 600.0)

    def target(self, sight: Sight) -> int:
        """Return the count for the next tick."""
        replicas = max(1, sight.replicas)
        smoothed = replicas + self._factor * (sight.load / self._target - replicas)
        wanted = max(1, replicas_for(smoothed))
        return self._delay.follow(sight.now, replicas, wanted)


class SkyServe(Memoryless):
    """One service's request rate autoscaler."""

    def __init__(self, target: float) -> None:
        """Scale for so much work per replica, as a share of its capacity."""
        self._target = target
        self._delay = Delay(300.0, 1200.0)
        self._seen = Window(QPS_WINDOW)
        self._looked = -math.inf
        self._count = 0

    def target(self, sight: Sight) -> int:
        """Return the count of the last look."""
        self._seen.add(sight.now, sight.load)
        if sight.now < self._looked + SKY_INTERVAL:
            return self._count
        self._looked = sight.now
        loads = self._seen.values()
        rate = sum(loads) / len(loads)
        wanted = max(1, replicas_for(rate / self._target))
        self._count = self._delay.follow(sight.now, max(1, sight.replicas), wanted)
        return self._count
