"""Whether one that fails should be asked: a circuit breaker with half-open probes.

Closed until a request fails, then open for a rest. After the rest one request probes and the others
do not: an answer closes it, another failure makes the next rest twice as long, up to a minute. A
provider that limits the rate says itself for how long (Retry-After). What a request that began
before the rest tells is about the past: it neither closes it nor begins another rest.
Pure; time is an argument, in monotonic seconds.

https://martinfowler.com/bliki/CircuitBreaker.html
"""

from dataclasses import dataclass

from overspill.providers.base import Fault, ProviderUnusable

LONGEST_REST = 60.0  # seconds
# Seconds without a word, after which another request may probe: a whole answer may take minutes,
# and of a provider that hangs no more than a few find it out at a time.
LONGEST_PROBE = 5.0


@dataclass(slots=True)
class Breaker:
    """The breaker of one provider.

    :param until: end of the newest rest; what began earlier tells of the past.
    :param rests: in a row.
    :param failure: the newest, None since an answer.
    :param probe: when the request that probes began, None without one.
    """

    until: float = 0.0
    rests: int = 0
    failure: ProviderUnusable | None = None
    probe: float | None = None

    @property
    def half_open(self) -> bool:
        """Whether the next request, once it has rested, is a probe."""
        return self.rests > 0

    def pause(self, now: float) -> float:
        """Return the seconds until another request may go."""
        if now < self.until or self.probe is None:
            return max(0.0, self.until - now)
        return max(0.0, self.probe + LONGEST_PROBE - now)

    def begin(self, now: float) -> None:
        """Let a request go."""
        if self.half_open:
            self.probe = now

    def failed(self, failure: ProviderUnusable, began: float, now: float) -> None:
        """Rest. Requests that were under way together and fail count as one failure.

        :param began: when the request was let go.
        """
        if began < self.until <= now:
            return
        if self.until <= now:
            self.rests += 1
        self.until = max(self.until, now + self._rest(failure))
        self.failure, self.probe = failure, None

    def answered(self, began: float) -> None:
        """Close it."""
        if began >= self.until:
            self.rests, self.failure, self.probe = 0, None, None

    def ended(self, began: float) -> None:
        """Let another request probe, if this one did and has told nothing."""
        if self.probe == began:
            self.probe = None

    def forgive(self, now: float) -> None:
        """Give it a new chance, now."""
        self.until, self.rests, self.failure, self.probe = now, 0, None, None

    def _rest(self, failure: ProviderUnusable) -> float:
        if failure.told and failure.fault is Fault.RATE_LIMITED:
            return failure.cooldown
        return min(LONGEST_REST, failure.cooldown * 2.0 ** min(self.rests - 1, 6))
