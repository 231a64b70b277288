"""Knative's pod autoscaler (KPA) on requests per second.

https://knative.dev/docs/serving/autoscaling/kpa-specific/: a stable window of 60 s and a panic
window of a tenth of it; ``ceil(average / target)`` within twice down and a thousand times up. It
panics when the short window wants at least twice what is ready, then only rises, and calms down
when it has not wanted that for a stable window.
"""

import math

from overspill.simulator.baselines.shared import Memoryless, Window, replicas_for
from overspill.simulator.fluid import Sight

STABLE, PANIC = 60.0, 6.0  # seconds
MAX_UP, MAX_DOWN = 1000.0, 2.0
PANIC_THRESHOLD = 2.0


class KnativePodAutoscaler(Memoryless):
    """One revision's scaler."""

    def __init__(self, target: float) -> None:
        """Scale for so much work per pod, as a share of its capacity."""
        self._target = target
        self._seen = Window(STABLE)
        self._panicked: float | None = None  # last time that it wanted to
        self._highest = 0  # while in panic

    def target(self, sight: Sight) -> int:
        """Return the count that the windows ask for."""
        now, ready = sight.now, max(1, sight.ready)
        self._seen.add(now, sight.load)
        stable, panic = (self._wanted(now, window, ready) for window in (STABLE, PANIC))
        if self._raw(now, PANIC) / ready >= PANIC_THRESHOLD:
            if self._panicked is None:
                self._highest = 0
            self._panicked = now
        elif self._panicked is not None and now - self._panicked >= STABLE:
            self._panicked = None
        if self._panicked is None:
            return max(1, stable)
        self._highest = max(self._highest, panic, sight.ready)
        return self._highest

    def _raw(self, now: float, window: float) -> int:
        loads = self._seen.values(now - window)
        return replicas_for(sum(loads) / len(loads) / self._target)

    def _wanted(self, now: float, window: float, ready: int) -> int:
        up, down = math.ceil(MAX_UP * ready), math.floor(ready / MAX_DOWN)
        return max(down, min(self._raw(now, window), up))
