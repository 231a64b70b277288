"""Leader election over a Lease: of several operators one acts.

The protocol of client-go (https://pkg.go.dev/k8s.io/client-go/tools/leaderelection): the holder
renews the Lease; others take it once they have seen it unchanged for its whole duration, by
their own monotonic clock, so that clocks need not agree.

Limits: a lease does not fence. A process that was stopped for a minute still believes in itself
when it wakes, so every write asks :meth:`Leader.check` first, and writes to existing objects
carry the resourceVersion that was read. A stale leader thus stops within one write.
"""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from overspill.cluster.backoff import backoff
from overspill.cluster.client import Cluster
from overspill.cluster.errors import ClusterError, Conflict, Fenced, NotFound
from overspill.cluster.kinds import LEASE

log = structlog.get_logger(__name__)

DURATION = 15  # seconds after which others may take an unrenewed lease
MARGIN = 5.0  # seconds before that at which the holder stops by itself
POLL = 0.25  # seconds
RENEW = 4.0  # seconds between two renewals
LOOK = 1.0  # seconds between two looks at another's lease, so that it is taken within 17 s
TRY_SECONDS = 4.0  # of one renewal; after one on a dead connection there is time for another


@dataclass
class Leader:
    """This process' part in the election."""

    cluster: Cluster
    namespace: str
    name: str
    identity: str
    deadline: float = 0.0  # monotonic seconds until which we may write
    # Another's lease: resourceVersion ("" while it is missing), since when unchanged.
    _seen: tuple[str, float] = ("", float("-inf"))
    # Labels and annotations, which say whose release it belongs to; one made anew has them again.
    _marks: dict[str, Any] = field(default_factory=dict)

    def held(self, now: float) -> bool:
        """Whether this process is the leader.

        :param now: monotonic seconds.
        """
        return now < self.deadline

    def check(self) -> None:
        """Refuse a write when we are not the leader.

        :raises Fenced: when the lease is not held, or was not renewed in time.
        """
        if not self.held(time.monotonic()):
            raise Fenced(f"lease {self.namespace}/{self.name} is not held by {self.identity}")

    async def wait(self, *, held: bool) -> None:
        """Wait until we are the leader, or until we no longer are."""
        while self.held(time.monotonic()) is not held:  # noqa: ASYNC110 - a deadline has no event
            await asyncio.sleep(POLL)

    async def run(self) -> None:
        """Take part until cancelled; then give the lease back, so that another takes over at once.

        API errors are tried again with back-off; meanwhile the deadline passes.
        """
        failures = 0
        try:
            while True:
                failures = await self._step(failures)
                await asyncio.sleep(self._pause(failures))
        finally:
            await asyncio.shield(self._release())

    def _pause(self, failures: int) -> float:
        """Return seconds until the next try."""
        if failures:
            return backoff(failures, longest=RENEW)
        return RENEW if self.held(time.monotonic()) else LOOK

    async def _step(self, failures: int) -> int:
        was = self.held(time.monotonic())
        try:
            async with asyncio.timeout(TRY_SECONDS):
                await self._try()
            failures = 0
        except Conflict:
            log.info("another took the lease", lease=self.name)
            failures = 0
        except (ClusterError, TimeoutError) as error:
            failures += 1
            problem = str(error) or f"no answer within {TRY_SECONDS:g} s"
            log.warning("lease not renewed", lease=self.name, error=problem, failures=failures)
        now_held = self.held(time.monotonic())
        if was != now_held:
            log.info("leader" if now_held else "not leader", lease=self.name, me=self.identity)
        return failures

    async def _try(self) -> None:
        """Create, renew or take the lease, where that is ours to do."""
        started = time.monotonic()
        lease = await self._read()
        if not self._may_take(lease, started):
            self.deadline = 0.0
            return
        write = self.cluster.replace if lease else self.cluster.create
        await write(LEASE, self._mine(lease))
        # Counted from before the request: others count from when they saw its effect.
        self.deadline = started + DURATION - MARGIN

    async def _read(self) -> dict[str, Any] | None:
        try:
            return await self.cluster.get(LEASE, self.namespace, self.name)
        except NotFound:
            return None

    def _may_take(self, lease: dict[str, Any] | None, now: float) -> bool:
        """Whether the lease is ours, free, or was left unrenewed.

        One that somebody deleted is made anew by its holder; another waits as long as for a silent
        one, since the holder may still write.
        """
        if lease is None:
            ours, version, lasts = self.held(now), "", DURATION
        else:
            spec = lease.get("spec", {})
            ours = spec.get("holderIdentity", "") in ("", self.identity)
            version = lease["metadata"]["resourceVersion"]
            lasts = spec.get("leaseDurationSeconds", DURATION)
        if ours:
            return True
        if version != self._seen[0]:
            self._seen = (version, now)
        return now - self._seen[1] > float(lasts)

    def _mine(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        """Return the Lease as it is when we hold it."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        old = lease.get("spec", {}) if lease else {}
        ours = old.get("holderIdentity") == self.identity
        changes = int(old.get("leaseTransitions", 0)) + (0 if ours or not lease else 1)
        spec = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": DURATION,
            "acquireTime": old.get("acquireTime", now) if ours else now,
            "renewTime": now,
            "leaseTransitions": changes,
        }
        metadata: dict[str, Any] = {"name": self.name, "namespace": self.namespace}
        if lease:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
            kept = ("labels", "annotations")
            self._marks = {k: v for k, v in lease["metadata"].items() if k in kept}
        metadata |= self._marks
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": metadata,
            "spec": spec,
        }

    async def _release(self) -> None:
        """Give the lease back, if it is ours."""
        if not self.held(time.monotonic()):
            return
        self.deadline = 0.0
        try:
            lease = await self.cluster.get(LEASE, self.namespace, self.name)
            if lease.get("spec", {}).get("holderIdentity") == self.identity:
                free = self._mine(lease)
                free["spec"]["holderIdentity"] = ""
                await self.cluster.replace(LEASE, free)
        except ClusterError as error:
            log.warning("lease not given back", lease=self.name, error=str(error))
