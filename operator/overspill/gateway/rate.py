"""Requests and tokens per minute: token buckets, of which each gateway has an even part.

A bucket holds at most what flows into it in ``burst`` seconds. What needs more than it can hold may
go when it is full, and leaves a debt: nothing waits for ever. Where those that wait compete, small
ones would keep it from ever being full: there all borrow, and go as soon as it is not empty. So in
any T seconds no more is taken than ``per_minute * (T + burst) / 60``, and of the largest request
what is above the burst, or all where requests borrow. The gateways that live divide a limit evenly,
by the same names as the slots of engines (``gateway/share.py``), and share no state. Pure; time is
an argument, in monotonic seconds.

https://en.wikipedia.org/wiki/Token_bucket
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from overspill.gateway.share import Share

MINUTE = 60.0  # seconds
NOISE = 1e-6  # requests or tokens; sums of floats that are no more than this apart are the same


class Limits(NamedTuple):
    """What may be used in a minute by all gateways together; None: no limit."""

    requests: int | None = None
    tokens: int | None = None


class Shortage(NamedTuple):
    """What a request has to wait for.

    :param what: ``requests`` or ``tokens``.
    :param limit: of it per minute, of all gateways.
    :param seconds: until there is enough; infinite when the request needs more than the limit.
    """

    what: str
    limit: int
    seconds: float


@dataclass(slots=True)
class Bucket:
    """One limit.

    :param per_minute: what flows in.
    :param capacity: the most that it holds.
    :param level: what it holds; negative: a debt.
    :param at: when it held that.
    """

    per_minute: float
    capacity: float
    level: float
    at: float

    def now(self, now: float) -> float:
        """Return what it holds."""
        return min(self.capacity, self.level + self.per_minute * max(0.0, now - self.at) / MINUTE)

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until an amount may be taken."""
        return self.until(min(amount, self.capacity), now)

    def until(self, level: float, now: float) -> float:
        """Return the seconds until it holds so much."""
        missing = level - self.now(now)
        return missing * MINUTE / self.per_minute if missing > NOISE else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take an amount, or give it back where it is negative."""
        self.level, self.at = min(self.capacity, self.now(now) - amount), max(self.at, now)


@dataclass(slots=True)
class Throttle:
    """The limits of one account at one gateway.

    :param burst: seconds of flow that a bucket holds; but never less than one request.
    :param borrows: a request may go before all of its tokens are there.
    """

    burst: float
    borrows: bool = False
    limits: Limits = field(default_factory=Limits)
    share: Share = field(default_factory=Share)
    requests: Bucket | None = None
    tokens: Bucket | None = None

    def configure(self, limits: Limits, share: Share, now: float) -> None:
        """Use other limits, or another part of them; what was used stays used."""
        if (limits, share) != (self.limits, self.share):
            self.limits, self.share = limits, share
            self.requests = self._resized(self.requests, limits.requests, now)
            self.tokens = self._resized(self.tokens, limits.tokens, now)

    def shortage(self, tokens: int, now: float) -> Shortage | None:
        """Return what a request lacks, None when it may go now; of two the one that lasts."""
        found = []
        if self.tokens and self.limits.tokens:
            needed = min(tokens, 1) if self.borrows else tokens
            wait = math.inf if tokens > self.limits.tokens else self.tokens.wait(needed, now)
            found.append(Shortage("tokens", self.limits.tokens, wait))
        if self.requests and self.limits.requests:
            found.append(Shortage("requests", self.limits.requests, self.requests.wait(1, now)))
        longest = max(found, key=lambda s: s.seconds, default=None)
        return longest if longest and longest.seconds > 0 else None

    def take(self, tokens: int, now: float, *, requests: int = 1) -> None:
        """Count a request, or that it needed other tokens than expected; negative: give back."""
        if self.requests:
            self.requests.take(requests, now)
        if self.tokens:
            self.tokens.take(tokens, now)

    def _resized(self, known: Bucket | None, limit: int | None, now: float) -> Bucket | None:
        if limit is None:
            return None
        part = limit / self.share.of
        capacity = max(1.0, part * self.burst / MINUTE)
        level = capacity if known is None else min(capacity, known.now(now))
        return Bucket(part, capacity, level, now)
