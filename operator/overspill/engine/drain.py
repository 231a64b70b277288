"""After SIGTERM: when may the engine stop?

The pod has left its Service by then (a preStop pause sees to that), so what still runs is what
was accepted before. Engines have no drain of their own; their metrics tell what runs and waits.
"""

from dataclasses import dataclass

# One idle look is not enough: a request is in no gauge while its prompt is being tokenised and
# while its last bytes are being sent.
IDLE_LOOKS = 3
INTERVAL = 0.25  # seconds between looks


@dataclass(frozen=True)
class Drain:
    """The state of one drain; times are seconds of one monotonic clock."""

    deadline: float
    idle_looks: int = 0

    def look(self, active: int | None) -> "Drain":
        """The state after one more look; `active` None means that nobody could tell."""
        return Drain(self.deadline, self.idle_looks + 1 if active == 0 else 0)

    def finished(self, now: float) -> bool:
        """Whether the engine may stop: idle for long enough, or out of time."""
        return self.idle_looks >= IDLE_LOOKS or now >= self.deadline
