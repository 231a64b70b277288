"""A bounded, fair queue of one service before the slots of its replicas.

A replica gets no more requests than it computes at the same time: what waits, waits
here, where it can still be spilled, refused or cancelled. No I/O; time is an argument.
Of an engine's slots these are this gateway's share.

A key that floods a service fills the queue, but takes no place from others: when the queue is
full, a request that would be served before the last one takes its place, and the last is refused.
"""

import contextlib
from collections.abc import Mapping

from overspill.api.keys import ClientKey
from overspill.gateway.balance import SUSPECT_SECONDS, Address, Replica, best, free
from overspill.gateway.fair import FairQueue, Waiter
from overspill.gateway.prefix import Blocks, Mirror
from overspill.gateway.promises import Promises

PRIOR_SERVICE_SECONDS = 1.0  # mean service time before the first request has ended
# The mean service time is that of the last 30 s, but of 10 requests at least, and 200 at most: then
# it is good to a twentieth where times vary as much as lengths of answers do (standard deviation
# near the mean; that of the mean is it times √(weight ÷ 2)).
MEMORY_SECONDS, LEAST_WEIGHT, MOST_WEIGHT = 30.0, 1 / 200, 1 / 10
REFUSALS = 3  # in a row, before a replica is suspected
PROMISES_PER_PLACE = 10  # at most so many wait outside per place in the queue,
MOST_PROMISES = 2_000  # and so many at all
KEPT_PART = 2  # of the queue, one in so many places may be kept for those who were promised one


class Admission:
    """The slots and the queue of one service.

    :param limit: requests that may wait.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.replicas: dict[Address, Replica] = {}
        self._left: dict[Address, Replica] = {}  # not ready any more, but still at work
        self.mean_service_seconds = PRIOR_SERVICE_SECONDS
        self.waiting = FairQueue(PRIOR_SERVICE_SECONDS)
        self.promises = Promises(min(limit * PROMISES_PER_PLACE, MOST_PROMISES))
        self._turn = 0
        self._running, self._since = 0, 0.0  # requests in all replicas, since when so many
        # Slot-seconds that were used and requests that ended, the newest weighing most.
        self._used, self._ended, self._last = PRIOR_SERVICE_SECONDS, 1.0, 0.0

    def set_replicas(self, slots: Mapping[Address, int], now: float) -> None:
        """Replace the ready replicas, keeping the load of those that stay or come back.

        :param slots: that this gateway may use of each.
        """
        known = self._left | self.replicas
        self.replicas = {a: known.get(a) or Replica(a, n) for a, n in slots.items()}
        self._left = {a: r for a, r in known.items() if r.load and a not in self.replicas}
        for replica in self._left.values():
            # It may come back as a new process.
            replica.mirror, replica.limit, replica.blocked = Mirror(), None, False
        for address, replica in self.replicas.items():
            replica.slots = slots[address]
        self.waiting.slots = sum(slots.values())
        self.grant_free(now)

    def acquire(
        self, now: float, blocks: Blocks = (), avoid: Replica | None = None
    ) -> Replica | None:
        """Reserve a slot at once, or return None when the request has to wait.

        :param blocks: of its prompt.
        :param avoid: a replica that has refused this request.
        """
        if self.waiting or not (replicas := free(self.replicas.values(), now, avoid)):
            return None
        return self._reserve(replicas, blocks, now)

    def release(
        self,
        replica: Replica,
        now: float,
        service_seconds: float | None = None,
        key: ClientKey | None = None,
    ) -> None:
        """Give a slot back; the next in the queue gets it.

        :param service_seconds: how long the request held the slot, whatever its end was: who left
            or failed used it as well. None when the replica never had it.
        :param key: whose it was, to charge it what it took beyond the mean.
        """
        replica.load -= 1
        if not replica.load:
            self._left.pop(replica.address, None)
        self._run(-1, now)
        if key is not None:
            self.waiting.charge(key, (service_seconds or 0.0) - self.mean_service_seconds)
        if service_seconds is not None:
            self._count(now)
        self.grant_free(now)

    def suspect(self, replica: Replica, now: float) -> None:
        """Leave a replica that failed out for a moment; call ``grant_free`` after it."""
        replica.suspect_until = now + SUSPECT_SECONDS

    def has_other(self, replica: Replica | None) -> bool:
        """Whether there is another replica than this, be it busy or left out for a moment."""
        return any(other is not replica for other in self.replicas.values())

    def has_refused(self, replica: Replica, now: float) -> bool:
        """Note that a replica refused a request of which no other has said the same.

        Whether it is the replica's fault shows when another answers or refuses that request too.
        Until then one that refuses all, and quickly, would draw the whole load: after a few in a
        row it is left out. Of the only one that could answer now, nothing is concluded.

        :returns: whether it is left out for a moment; call ``recheck`` then.
        """
        others = (r for r in self.replicas.values() if r is not replica)
        if not any(other.suspect_until <= now for other in others):
            return False
        replica.refusals += 1
        if replica.refusals >= REFUSALS:
            self.suspect(replica, now)
        return replica.refusals >= REFUSALS

    def room(self, key: ClientKey, now: float, *, promised: bool = False) -> bool:
        """Whether a request of this key may wait: a place is free, or the last one is behind it.

        :param promised: it was told to come back now, so a place is kept for it.
        """
        kept = 0 if promised else min(self.promises.kept(now), self.limit // KEPT_PART)
        if len(self.waiting) < self.limit - kept:
            return True
        last = self.waiting.last()
        return last is not None and self.waiting.comes_before(key, last)

    def line(self, key: ClientKey) -> float:
        """Return how many leave the queue before a place is free for one more that is refused now.

        Those of the same key that were refused before come first, and other keys take their share
        meanwhile; one that wants less than its share makes this too many, never too few.
        """
        promised = self.promises.by_key
        others = {k for k in self.waiting.keys() | promised.keys() if k.priority >= key.priority}
        own = sum(number for k, number in promised.items() if k.id == key.id)
        return (own + 1) * sum(k.weight for k in others | {key}) / key.weight

    def enqueue(self, waiter: Waiter, *, first: bool = False) -> None:
        """Let a request wait that had ``room``, at the front when it had its turn once before."""
        if not first and len(self.waiting) >= self.limit and (last := self.waiting.last()):
            self.waiting.remove(last)
            last.displace()
        self.waiting.add(waiter, first=first)

    def leave(self, waiter: Waiter) -> None:
        """Take a request out of the queue, if it is still there."""
        self.waiting.remove(waiter)

    def grant_free(self, now: float) -> None:
        """Give free slots to those whose turn it is."""
        with contextlib.suppress(IndexError):  # nobody waits who may have one
            while self.waiting and (replicas := free(self.replicas.values(), now)):
                waiter = self.waiting.pop(replicas)
                able = [replica for replica in replicas if replica is not waiter.avoid]
                waiter.grant(self._reserve(able, waiter.blocks, now))

    def recheck(self) -> None:
        """Let every waiting request decide again, the next to be served first."""
        for waiter in tuple(self.waiting):
            waiter.recheck()

    def slots(self, now: float) -> tuple[int, int]:
        """Return all and the free slots of replicas that are not suspected."""
        usable = [r for r in self.replicas.values() if r.suspect_until <= now]
        return sum(r.slots for r in usable), sum(r.free for r in usable)

    def _run(self, more: int, now: float) -> None:
        self._used += self._running * (now - self._since)
        self._running, self._since = self._running + more, now

    def _count(self, now: float) -> None:
        """Learn from a request that ended.

        The slots' time counts whether its requests have ended or not: a mean of those that ended
        would be too short whenever many long ones have just begun.
        """
        self._ended += 1.0
        self.mean_service_seconds = self.waiting.cost = self._used / self._ended
        weight = min(MOST_WEIGHT, max(LEAST_WEIGHT, (now - self._last) / MEMORY_SECONDS))
        self._used, self._ended = self._used * (1 - weight), self._ended * (1 - weight)
        self._last = now

    def _reserve(self, replicas: list[Replica], blocks: Blocks, now: float) -> Replica:
        replica = best(replicas, blocks)
        replica.mirror.add(blocks)
        replica.load += 1
        self._run(1, now)
        self._turn += 1
        replica.used = self._turn
        return replica
