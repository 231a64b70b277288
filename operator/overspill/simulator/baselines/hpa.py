"""HorizontalPodAutoscaler v2 on one metric per pod, with its default behaviour.

https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details:
``desired = ceil(current × metric / target)``, nothing within a tolerance of 10 %; pods that are not
ready count as 0 on the way up. Up at most 100 % or four pods in 15 s, whichever is more; down to
the highest recommendation of the last five minutes.
"""

from overspill.simulator.baselines.shared import Memoryless, Window, replicas_for
from overspill.simulator.fluid import Sight

TOLERANCE = 0.1
STABILISATION = 300.0  # seconds, down


def recommend(replicas: int, ready: int, load: float, target: float) -> int:
    """Return the count before behaviour.

    :param load: all work, in replicas; what is ready shares it.
    :param target: share of its capacity that a pod should use.
    """
    if not replicas or not ready:
        return max(1, replicas)
    ratio = load / ready / target
    if abs(ratio - 1) <= TOLERANCE:
        return replicas
    if ratio > 1:
        # All pods, those that are not ready at 0; a reversed direction changes nothing.
        all_pods = load / replicas / target
        return max(replicas, replicas_for(replicas * all_pods)) if all_pods > 1.1 else replicas
    return max(1, replicas_for(ready * ratio))


class HorizontalPodAutoscaler(Memoryless):
    """The controller's state: its recommendations of the last five minutes."""

    def __init__(self, target: float) -> None:
        """Scale for a target share of capacity."""
        self._target = target
        self._recent = Window(STABILISATION)

    def target(self, sight: Sight) -> int:
        """Return the count for the next 15 s."""
        wanted = recommend(sight.replicas, sight.ready, sight.load, self._target)
        return self.behave(sight.now, sight.replicas, wanted)

    def behave(self, now: float, replicas: int, wanted: int) -> int:
        """Return the count after stabilisation and rates."""
        self._recent.add(now, wanted)
        if wanted < replicas:
            return min(replicas, int(max(self._recent.values())))
        return min(wanted, max(2 * replicas, replicas + 4))
