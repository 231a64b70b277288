"""Dirty keys and the workers that clean them.

A key that is marked twice before a worker comes is reconciled once; one that is marked while it
is worked on is reconciled again after that, never twice at a time. Failures back off per key,
1 s to 30 s, as do conflicts from the fourth in a row on, and are tried for as long as the object
exists: giving up would leave a service broken after the API server healed. Bounds: the set holds a
key at most once, so it is never larger than the number of our objects; marks that an earlier one
overtook are swept out.

Nothing is worked on without the lease; keys wait for it.
"""

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import structlog

from overspill.cluster import ClusterError, Conflict, Fenced, backoff
from overspill.controller.catalog import Key
from overspill.controller.metrics import Metrics

log = structlog.get_logger(__name__)

WORKERS = 8
RECONCILE_SECONDS = 50.0  # longest that one reconcile may take
RETRY_LONGEST = 30.0  # seconds, so that all is well within a minute after an outage
SPARE = 100  # overtaken marks that may lie in the heap before it is swept
CONFLICT_SECONDS = 0.2  # the object changed under us: the event is on its way
CONFLICTS = 3  # in a row, after which somebody writes as often as we do

Reconcile = Callable[[Key], Awaitable[float | None]]


@dataclass
class DirtyKeys:
    """Keys that need a reconcile, now or later."""

    _due: dict[Key, float] = field(default_factory=dict)  # monotonic seconds
    _heap: list[tuple[float, Key]] = field(default_factory=list)
    _busy: set[Key] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._due)

    def mark(self, keys: Iterable[Key], delay: float = 0.0) -> None:
        """Mark keys for a reconcile after ``delay`` seconds; an earlier mark stands.

        :param delay: below 0: at once, and before what became due in so many seconds before.
        """
        due = time.monotonic() + delay
        for key in keys:
            if due < self._due.get(key, float("inf")):
                self._due[key] = due
                heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self._due) + SPARE:
            self._heap = [(due, key) for key, due in self._due.items()]
            heapq.heapify(self._heap)
        self._changed.set()

    async def take(self) -> Key:
        """Wait for a key that is due and not being worked on; ``done`` gives it back."""
        while True:
            self._changed.clear()
            key, wait = self._next(time.monotonic())
            if key is not None:
                return key
            try:
                async with asyncio.timeout(wait):  # wait_for can lose a cancellation
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        """Say that the work on a key has ended."""
        self._busy.discard(key)
        if key in self._due:
            heapq.heappush(self._heap, (self._due[key], key))
        self._changed.set()

    def _next(self, now: float) -> tuple[Key | None, float | None]:
        """Return a key that is due, or how long until one is (None: nothing waits)."""
        while self._heap:
            due, key = self._heap[0]
            if self._due.get(key) != due or key in self._busy:
                heapq.heappop(self._heap)  # marked earlier meanwhile, or ``done`` puts it back
            elif due > now:
                return None, due - now
            else:
                heapq.heappop(self._heap)
                del self._due[key]
                self._busy.add(key)
                return key, None
        return None, None


class Worker:
    """Reconciles dirty keys, several at a time."""

    def __init__(
        self,
        keys: DirtyKeys,
        reconcile: Reconcile,
        leading: Callable[[], Awaitable[None]],
        metrics: Metrics,
    ) -> None:
        """Make a worker.

        :param leading: waits until we hold the lease, and may work.
        """
        self._keys = keys
        self._reconcile = reconcile
        self._leading = leading
        self._metrics = metrics
        self._failures: dict[Key, int] = {}
        self._conflicts: dict[Key, int] = {}
        self._since: dict[Key, float] = {}  # keys in work, monotonic seconds

    def stalled(self, now: float, limit: float) -> bool:
        """Whether a reconcile has been running for longer than ``limit`` seconds."""
        return any(now - since > limit for since in self._since.values())

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await self._leading()
            key = await self._keys.take()
            self._since[key] = time.monotonic()
            try:
                delay = await self._attempt(key)
            finally:
                del self._since[key]
                self._keys.done(key)
            self._metrics.dirty.set(len(self._keys))
            if delay is not None:
                self._keys.mark([key], delay)

    async def _attempt(self, key: Key) -> float | None:
        """Reconcile once; return seconds until the next try, None when all is well."""
        try:
            with self._metrics.seconds.labels(key.kind).time():
                async with asyncio.timeout(RECONCILE_SECONDS):
                    delay = await self._reconcile(key)
        except Fenced:
            return random.uniform(0, 1)  # noqa: S311 - spread, no secret
        except Conflict as error:
            return self._conflicted(key, error)
        except (ClusterError, TimeoutError) as error:
            return self._failed(key, error)
        except Exception as error:
            # A bug with one object must not stop the others.
            log.exception("reconcile failed", kind=key.kind, key=key.path)
            return self._failed(key, error)
        self._failures.pop(key, None)
        self._conflicts.pop(key, None)
        self._metrics.reconciles.labels(key.kind, "ok").inc()
        return delay

    def _conflicted(self, key: Key, error: Conflict) -> float:
        self._metrics.reconciles.labels(key.kind, "conflict").inc()
        log.info("changed meanwhile", kind=key.kind, key=key.path, error=str(error))
        conflicts = self._conflicts[key] = self._conflicts.get(key, 0) + 1
        if conflicts <= CONFLICTS:
            return CONFLICT_SECONDS
        return backoff(conflicts - CONFLICTS, longest=RETRY_LONGEST)

    def _failed(self, key: Key, error: Exception) -> float:
        self._metrics.reconciles.labels(key.kind, "error").inc()
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        asked = error.retry_after if isinstance(error, ClusterError) else 0.0
        delay = max(asked, backoff(failures, longest=RETRY_LONGEST))
        log.warning(
            "reconcile failed",
            kind=key.kind,
            key=key.path,
            error=str(error) or type(error).__name__,
            failures=failures,
            retry_in=round(delay, 1),
        )
        return delay
