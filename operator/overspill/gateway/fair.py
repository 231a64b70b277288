"""Who is served next: higher priority first, then fair shares of the keys by weight.

Start-time fair queueing (Goyal, Vin and Cheng 1996, https://doi.org/10.1145/248157.248171) with
one flow per key: each time a request of a flow is served, the flow's tag grows by the service time
that is expected of it, divided by the flow's weight; the smallest tag is served next. What a
request took more or less than expected is charged to its flow when it ends.

A flow that begins to wait starts at its own old tag, but behind the others by one service time of
all slots at most. So a key that asks for less than its share may come in bursts, and nobody saves
up turns while idle. When nobody of a priority waits any more all is forgotten there: who used what
nobody wanted owes nothing. Pure; no clock.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from overspill.api.keys import ClientKey
from overspill.gateway.balance import Replica
from overspill.gateway.prefix import Blocks


class Waiter(Protocol):
    """A request in the queue."""

    @property
    def key(self) -> ClientKey:
        """Whose it is."""

    @property
    def blocks(self) -> Blocks:
        """Of its prompt."""

    @property
    def avoid(self) -> Replica | None:
        """What has refused it; only of one that had its turn before."""

    def grant(self, replica: Replica) -> None:
        """Take the slot that is now reserved for it."""

    def recheck(self) -> None:
        """Decide again: something that matters has changed."""

    def displace(self) -> None:
        """Leave: the queue is full, and others come before it."""


@dataclass(slots=True, eq=False)
class Flow:
    """The requests of one key that wait, the oldest first."""

    weight: int
    tag: float  # of the first one: seconds of a slot's time, divided by the weight
    waiting: deque[Waiter] = field(default_factory=deque)


@dataclass(slots=True, eq=False)
class Level:
    """All flows of one priority."""

    virtual: float = 0.0  # tag of the request that was served last
    size: int = 0
    flows: dict[str, Flow] = field(default_factory=dict)

    def start(self, key: ClientKey, cost: float, credit: float) -> float:
        """Return the tag of the next request that this key would add."""
        flow = self.flows.get(key.id)
        if flow is None:
            return self.virtual - credit
        if not flow.waiting:
            return max(flow.tag, self.virtual - credit)
        return flow.tag + len(flow.waiting) * cost / flow.weight

    def before(self, key: ClientKey, start: float, cost: float) -> int:
        """Return how many requests of other keys are served before one with this tag."""
        count, earlier = 0, True  # of two equal tags, that of the older flow
        for name, flow in self.flows.items():
            if name == key.id:
                earlier = False
            elif flow.waiting and start >= flow.tag:
                turns = (start - flow.tag) * flow.weight / cost
                first = math.floor(turns) + 1 if earlier else math.ceil(turns)
                count += min(len(flow.waiting), first)
        return count


class FairQueue:
    """The requests of one service that wait, at all priorities.

    :param cost: seconds that a request is expected to take.
    :param slots: requests that are served at the same time.
    """

    def __init__(self, cost: float, slots: int = 0) -> None:
        self.cost, self.slots = cost, slots
        self._again: deque[Waiter] = deque()  # had their turn once before
        self._levels: dict[int, Level] = {}

    def __bool__(self) -> bool:
        return bool(self._again or self._levels)

    def __len__(self) -> int:
        return len(self._again) + sum(level.size for level in self._levels.values())

    def __iter__(self) -> Iterator[Waiter]:
        """Yield all, in the order in which they would be served now."""
        yield from self._again
        for priority in sorted(self._levels, reverse=True):
            starts = [
                (flow.tag + place * self.cost / flow.weight, waiter)
                for flow in self._levels[priority].flows.values()
                for place, waiter in enumerate(flow.waiting)
            ]
            yield from (waiter for _, waiter in sorted(starts, key=lambda start: start[0]))

    def add(self, waiter: Waiter, *, first: bool = False) -> None:
        """Let a request wait, before all others when it had its turn once before."""
        if first:
            self._again.append(waiter)
            return
        level = self._levels.setdefault(waiter.key.priority, Level())
        flow = level.flows.setdefault(waiter.key.id, Flow(waiter.key.weight, -math.inf))
        flow.weight = waiter.key.weight
        if not flow.waiting:
            flow.tag = max(flow.tag, level.virtual - self._credit)
        flow.waiting.append(waiter)
        level.size += 1

    def pop(self, free: Sequence[Replica]) -> Waiter:
        """Return the next one, and charge its flow.

        :param free: the replicas that have a slot; who avoids all of them is passed over.
        :raises IndexError: when nobody waits who may have one.
        """
        for waiter in self._again:
            if any(replica is not waiter.avoid for replica in free):
                self._again.remove(waiter)
                self.charge(waiter.key, self.cost)
                return waiter
        if not self._levels:
            raise IndexError("nobody waits")
        priority = max(self._levels)
        level = self._levels[priority]
        flow = min((f for f in level.flows.values() if f.waiting), key=lambda f: f.tag)
        level.virtual = max(level.virtual, flow.tag)
        flow.tag += self.cost / flow.weight
        waiter = flow.waiting.popleft()
        self._left(priority, level)
        return waiter

    def remove(self, waiter: Waiter) -> bool:
        """Take one out; whether it was there."""
        if waiter in self._again:
            self._again.remove(waiter)
            return True
        priority = waiter.key.priority
        level = self._levels.get(priority)
        flow = level.flows.get(waiter.key.id) if level else None
        if level is None or flow is None or waiter not in flow.waiting:
            return False
        flow.waiting.remove(waiter)
        self._left(priority, level)
        return True

    def charge(self, key: ClientKey, seconds: float) -> None:
        """Add what a request took more (or less) than was expected of it."""
        level = self._levels.get(key.priority)
        flow = level.flows.get(key.id) if level else None
        if flow is not None:
            flow.tag += seconds / flow.weight

    def ahead(self, waiter: Waiter) -> int:
        """Return how many of those who wait now are served before this one."""
        if waiter in self._again:
            return self._again.index(waiter)
        level = self._levels[waiter.key.priority]
        flow = level.flows[waiter.key.id]
        place = flow.waiting.index(waiter)
        start = flow.tag + place * self.cost / flow.weight
        return self._above(waiter.key) + place + level.before(waiter.key, start, self.cost)

    def ahead_of_next(self, key: ClientKey) -> int:
        """Return how many would be served before a request that this key adds now."""
        level = self._levels.get(key.priority)
        if level is None:
            return self._above(key)
        flow = level.flows.get(key.id)
        own = len(flow.waiting) if flow else 0
        start = level.start(key, self.cost, self._credit)
        return self._above(key) + own + level.before(key, start, self.cost)

    def keys(self) -> set[ClientKey]:
        """Return those whose requests wait."""
        flows = (f for level in self._levels.values() for f in level.flows.values())
        return {flow.waiting[0].key for flow in flows if flow.waiting}

    def last(self) -> Waiter | None:
        """Return the one that is served last of all, but for those that had their turn before."""
        if not self._levels:
            return None
        flows = reversed(self._levels[min(self._levels)].flows.values())
        return max((f for f in flows if f.waiting), key=self._end).waiting[-1]

    def comes_before(self, key: ClientKey, last: Waiter) -> bool:
        """Whether a request that this key adds now would be served before the last one."""
        if key.priority != last.key.priority:
            return key.priority > last.key.priority
        level = self._levels[key.priority]
        return level.start(key, self.cost, self._credit) < self._end(level.flows[last.key.id])

    @property
    def _credit(self) -> float:
        return self.slots * self.cost

    def _end(self, flow: Flow) -> float:
        return flow.tag + (len(flow.waiting) - 1) * self.cost / flow.weight

    def _above(self, key: ClientKey) -> int:
        """Return how many come first whatever the tags are."""
        higher = (level.size for p, level in self._levels.items() if p > key.priority)
        return len(self._again) + sum(higher)

    def _left(self, priority: int, level: Level) -> None:
        level.size -= 1
        if not level.size:
            del self._levels[priority]
