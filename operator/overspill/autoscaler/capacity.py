"""How much one replica does: throughput as a function of the batch, fitted online.

A request takes the longer the more others are in its replica: to a good approximation its time
there is a constant and a part for each request of the batch. Both follow from what is measured
anyway, the mean time in a replica and the mean batch, by a regression that forgets. A replica with
a full batch then answers batch ÷ time, by Little's law.

As long as all batches were alike the slope cannot be known: half of the time is taken to grow with
the batch. That errs little near the batch that was seen, and unlearns itself.
"""

from dataclasses import dataclass

MEMORY = 300  # observations that are remembered
PRIOR_DEVIATION = 0.1  # of the mean batch: spread of batches below which the prior slope counts
PRIOR_SLOPE = 0.5  # of the mean time per request of the mean batch


@dataclass(frozen=True, slots=True)
class Capacity:
    """What is known of one service's replicas. Nothing, before the first observation."""

    seen: int = 0
    batch: float = 0.0  # mean requests in a replica
    residence: float = 0.0  # mean seconds that a request spends in it
    variance: float = 0.0  # of the batch
    covariance: float = 0.0

    def observe(self, batch: float, residence: float) -> "Capacity":
        """Return what is known after one more minute was seen.

        :param batch: mean requests in a ready replica; more than 0.
        :param residence: mean seconds that a request spent there.
        """
        seen = min(self.seen + 1, MEMORY)
        share = 1 / seen
        x, y = batch - self.batch, residence - self.residence
        return Capacity(
            seen,
            self.batch + share * x,
            self.residence + share * y,
            (1 - share) * (self.variance + share * x * x),
            (1 - share) * (self.covariance + share * x * y),
        )

    def rate(self, slots: int) -> float | None:
        """Return the requests/s of a replica whose batch is full; None while nobody knows.

        :param slots: requests in a full batch.
        """
        if not self.seen or self.residence <= 0.0:
            return None
        proportional = self.residence / self.batch
        prior = (PRIOR_DEVIATION * self.batch) ** 2
        slope = (self.covariance + prior * PRIOR_SLOPE * proportional) / (self.variance + prior)
        slope = max(0.0, min(slope, proportional))
        full = self.residence + slope * (slots - self.batch)
        return slots / full if full > 0.0 else None  # rounding of absurd numbers


UNKNOWN = Capacity()
