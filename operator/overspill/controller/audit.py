"""Finds what the watches did not tell: lists what they follow, and compares.

A watch can lose an event, in a client, in a proxy, in a cache that lags, and nothing says so.
Each reconcile leaves behind which versions of a service's objects it saw. Here the same is
computed from lists, every 45 s, and a service of which the two differ is reconciled again: a
lost event costs a minute. A list that is stale itself costs a reconcile, which reads each object
anew, and no more. Every 5 min all are reconciled, whatever the lists say.

Cost: eight lists, of which all but one carry metadata only; one page of them in memory.
"""

import asyncio
import random
import time

import structlog

from overspill.api.names import LABEL_SERVICE
from overspill.cluster import Cluster, ClusterError, backoff
from overspill.cluster.kinds import INFERENCE_PROVIDER, INFERENCE_SERVICE, POD
from overspill.controller.catalog import Catalog, Entry, Key, entry_of
from overspill.controller.observe import CHILDREN
from overspill.controller.views import CHILD_SELECTOR, Views, fingerprint
from overspill.controller.worker import DirtyKeys
from overspill.runtimes import child_name

log = structlog.get_logger(__name__)

AUDIT_SECONDS = 45.0
RESYNC_SECONDS = 300.0
RESYNC_SPREAD = 60.0  # seconds over which a resync is spread


class Auditor:
    """Marks the services whose objects changed without a word."""

    def __init__(
        self,
        cluster: Cluster,
        catalog: Catalog,
        keys: DirtyKeys,
        views: Views,
        namespaces: tuple[str, ...],
    ) -> None:
        """Make one; :meth:`run` runs it.

        :param namespaces: that we watch; empty means all.
        """
        self._cluster = cluster
        self._catalog = catalog
        self._keys = keys
        self._views = views
        self._namespaces = namespaces or ("",)
        self._providers: dict[Key, int] = {}
        self._resync_at = time.monotonic() + RESYNC_SECONDS

    async def run(self) -> None:
        """Run until cancelled."""
        failures = 0
        while True:
            steady = AUDIT_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 - spread, no secret
            await asyncio.sleep(backoff(failures, longest=steady) if failures else steady)
            try:
                await self.audit()
                failures = 0
            except ClusterError as error:
                failures += 1
                log.warning("audit failed", error=str(error), failures=failures)

    async def audit(self) -> None:
        """List everything once and mark what differs.

        :raises ClusterError: when a list could not be read.
        """
        self._catalog.begin_list()
        entries: dict[Key, Entry] = {}
        numbers: dict[Key, int] = {}
        providers: dict[Key, int] = {}
        for namespace in self._namespaces:
            async for raw in self._cluster.scan(INFERENCE_PROVIDER, namespace):
                named = raw["metadata"]
                key = Key.provider(named["namespace"], named["name"])
                providers[key] = fingerprint([raw])
            async for raw in self._cluster.scan(INFERENCE_SERVICE, namespace, whole=True):
                key, entries[key] = entry_of(raw)
                numbers[key] = fingerprint([raw])
            await self._add_children(namespace, numbers)
        # With those whose end was missed: who knows them forgets them.
        self._keys.mark(self._catalog.replace(entries) | self._views.differ(numbers))
        self._mark_providers(providers)
        self._resync(providers)

    async def _add_children(self, namespace: str, numbers: dict[Key, int]) -> None:
        for kind in (*CHILDREN.values(), POD):
            async for raw in self._cluster.scan(kind, namespace, labels=CHILD_SELECTOR):
                metadata = raw["metadata"]
                service = metadata["labels"][LABEL_SERVICE]
                key = Key.service(metadata["namespace"], service)
                if key in numbers and (kind is POD or metadata["name"] == child_name(service)):
                    numbers[key] += fingerprint([raw])

    def _mark_providers(self, providers: dict[Key, int]) -> None:
        """Mark providers that changed since the last audit, and who uses them."""
        for key in {key for key, _ in providers.items() ^ self._providers.items()}:
            self._keys.mark({key} | self._catalog.users(key))
        self._providers = providers

    def _resync(self, providers: dict[Key, int]) -> None:
        now = time.monotonic()
        if now < self._resync_at:
            return
        self._resync_at = now + RESYNC_SECONDS
        for key in [*self._catalog.entries, *providers]:
            self._keys.mark([key], random.uniform(0, RESYNC_SPREAD))  # noqa: S311
