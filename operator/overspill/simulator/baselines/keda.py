"""KEDA with a Prometheus trigger: the query's value over a threshold, through an HPA.

https://keda.sh/docs/latest/reference/scaledobject-spec/: the value is polled every 30 s
(``pollingInterval``); as an average value it asks for ``ceil(value / threshold)`` replicas through
the HPA that KEDA makes. ``cooldownPeriod`` (300 s) is about the way to zero only.
"""

import math

from overspill.simulator.baselines.hpa import TOLERANCE, HorizontalPodAutoscaler
from overspill.simulator.baselines.shared import Memoryless, replicas_for
from overspill.simulator.fluid import Sight

POLL = 30.0  # seconds


class Keda(Memoryless):
    """A ScaledObject with one trigger and at least one replica."""

    def __init__(self, threshold: float) -> None:
        """Scale for so much work per replica, as a share of its capacity."""
        self._threshold = threshold
        self._hpa = HorizontalPodAutoscaler(threshold)
        self._polled = -math.inf
        self._value = 0.0

    def target(self, sight: Sight) -> int:
        """Return the count that the HPA makes of the last value."""
        if sight.now >= self._polled + POLL:
            self._polled, self._value = sight.now, sight.load
        usage = self._value / self._threshold / max(1, sight.replicas)
        wanted = sight.replicas
        if abs(usage - 1) > TOLERANCE:
            wanted = max(1, replicas_for(self._value / self._threshold))
        return self._hpa.behave(sight.now, sight.replicas, wanted)
