"""What several baselines have in common."""

import math
from collections import deque

ROUNDING = 1e-9  # replicas; that much of a float's sum is no work


class Memoryless:
    """A policy that takes nothing from before the run."""

    def learn(self, now: float, load: float) -> None:
        """It learns nothing from the past."""


class Window:
    """The values of the last seconds, oldest first."""

    def __init__(self, seconds: float) -> None:
        """Keep what is younger than so many seconds."""
        self._seconds = seconds
        self._seen: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float) -> None:
        """Take up a value, and drop what has become too old."""
        self._seen.append((now, value))
        while self._seen[0][0] <= now - self._seconds:
            self._seen.popleft()

    def values(self, since: float = -math.inf) -> list[float]:
        """Return those that came later than ``since``, in seconds."""
        return [value for time, value in self._seen if time > since]


def replicas_for(work: float) -> int:
    """Return how many replicas do some work.

    :param work: in replicas at their target.
    """
    return math.ceil(work - ROUNDING)
