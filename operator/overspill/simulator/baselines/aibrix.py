"""AIBrix's pod autoscaler (APA): the ratio of usage to target, with fluctuation tolerances.

https://aibrix.readthedocs.io/latest/features/autoscaling/metric-based-autoscaling.html: nothing
within 10 % above or below the target, at most twice the pods up and half of them down; every 10 s,
here every tick. It reckons with the pods it sees, pending ones among them.
"""

from overspill.simulator.baselines.shared import Memoryless, replicas_for
from overspill.simulator.fluid import Sight

TOLERANCE_UP, TOLERANCE_DOWN = 0.1, 0.1
RATE_UP, RATE_DOWN = 2, 2


def desired(replicas: int, load: float, target: float) -> int:
    """Return the wanted count.

    :param load: all work, in replicas.
    :param target: share of its capacity that a pod should use.
    """
    ratio = load / replicas / target
    wanted = replicas_for(replicas * ratio)
    if ratio > 1 + TOLERANCE_UP:
        return min(wanted, replicas * RATE_UP)
    if ratio < 1 - TOLERANCE_DOWN:
        return max(wanted, replicas // RATE_DOWN)
    return replicas


class AibrixPodAutoscaler(Memoryless):
    """One PodAutoscaler object with at least one pod."""

    def __init__(self, target: float) -> None:
        """Scale for a target share of capacity."""
        self._target = target

    def target(self, sight: Sight) -> int:
        """Return the count for the next tick."""
        return max(1, desired(max(1, sight.replicas), sight.load, self._target))
