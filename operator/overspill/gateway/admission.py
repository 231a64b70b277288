"""A bounded first-in-first-out queue of one service before the slots of its replicas.

A replica gets no more requests than it computes at the same time: what waits, waits
here, where it can still be spilled, refused or cancelled. No I/O; time is an argument.
Of an engine's slots these are this gateway's share.
"""

from collections import deque
from collections.abc import Mapping
from typing import Protocol

from overspill.gateway.balance import SUSPECT_SECONDS, Address, Replica, choose

PRIOR_SERVICE_SECONDS = 1.0  # mean service time before the first request has ended
SMOOTHING = 0.1  # weight of the newest request in the mean service time


class Waiter(Protocol):
    """A request in the queue."""

    def grant(self, replica: Replica) -> None:
        """Take the slot that is now reserved for it."""

    def recheck(self) -> None:
        """Decide again: something that matters has changed."""


class Admission:
    """The slots and the queue of one service.

    :param limit: requests that may wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.replicas: dict[Address, Replica] = {}
        self._left: dict[Address, Replica] = {}  # not ready any more, but still at work
        self.waiting: deque[Waiter] = deque()
        self.mean_service_seconds = PRIOR_SERVICE_SECONDS
        self._turn = 0
        self._ended = 0

    def set_replicas(self, slots: Mapping[Address, int], now: float) -> None:
        """Replace the ready replicas, keeping the load of those that stay or come back.

        :param slots: that this gateway may use of each.
        """
        known = self._left | self.replicas
        self.replicas = {a: known.get(a) or Replica(a, n) for a, n in slots.items()}
        self._left = {a: r for a, r in known.items() if r.load and a not in self.replicas}
        for address, replica in self.replicas.items():
            replica.slots = slots[address]
        self.grant_free(now)

    def acquire(self, now: float) -> Replica | None:
        """Reserve a slot at once, or return None when the request has to wait."""
        return None if self.waiting else self._take(now)

    def release(self, replica: Replica, now: float, service_seconds: float | None = None) -> None:
        """Give a slot back; the next in the queue gets it.

        :param service_seconds: how long the request took in the replica, None when it failed.
        """
        replica.load -= 1
        if not replica.load:
            self._left.pop(replica.address, None)
        if service_seconds is not None:
            self._ended += 1
            weight = max(SMOOTHING, 1 / self._ended)  # the first ones are simply averaged
            self.mean_service_seconds += weight * (service_seconds - self.mean_service_seconds)
        self.grant_free(now)

    def suspect(self, replica: Replica, now: float) -> None:
        """Leave a replica that failed out for a moment; call ``grant_free`` after it."""
        replica.suspect_until = now + SUSPECT_SECONDS

    def enqueue(self, waiter: Waiter, *, first: bool = False) -> None:
        """Let a request wait, at the front when it had its turn once before."""
        (self.waiting.appendleft if first else self.waiting.append)(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Take a request out of the queue, if it is still there."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)

    def grant_free(self, now: float) -> None:
        """Give free slots to those who wait longest."""
        while self.waiting and (replica := self._take(now)) is not None:
            self.waiting.popleft().grant(replica)

    def recheck(self) -> None:
        """Let every waiting request decide again, the oldest first."""
        for waiter in tuple(self.waiting):
            waiter.recheck()

    def ahead(self, waiter: Waiter | None) -> int:
        """Return how many wait before this request (all of them when it is not queued yet)."""
        if waiter is None:
            return len(self.waiting)
        return next((i for i, w in enumerate(self.waiting) if w is waiter), len(self.waiting))

    def slots(self, now: float) -> tuple[int, int]:
        """Return all and the free slots of replicas that are not suspected."""
        usable = [r for r in self.replicas.values() if r.suspect_until <= now]
        free = sum(max(0, r.slots - r.load) for r in usable)
        return sum(r.slots for r in usable), free

    def _take(self, now: float) -> Replica | None:
        replica = choose(self.replicas.values(), now)
        if replica is not None:
            replica.load += 1
            self._turn += 1
            replica.used = self._turn
        return replica
