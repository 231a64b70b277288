"""Finds what the watches did not tell: lists what they follow, and compares.

A watch can lose an event, in a client, in a proxy, in a cache that lags, and nothing says so.
Each reconcile leaves behind which versions of a service's objects it saw. Here the same is
computed from lists, every 45 s, and a service of which the two differ is reconciled again: a
lost event costs a minute. A list that is stale itself costs a reconcile, which reads each object
anew, and no more. Each list stands for itself: one that cannot be read is told and tried again,
and the others are compared. Every 5 min all are reconciled, whatever the lists say.

Before the first reconcile the services are listed once: whether another has the same name by
right is no question of which of the two an event told first, or a restart would write it anew.

Claims, which nobody watches, are asked for by name: we have no right to list them.

Cost: eight lists, of which all but one carry metadata only, one page of them in memory; one call
for each claim that a service names. Without the lease nothing is read.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from overspill.api.names import LABEL_SERVICE
from overspill.cluster import Cluster, ClusterError, Kind, NotFound, backoff
from overspill.cluster.kinds import (
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    POD,
    PVC,
)
from overspill.controller.catalog import KINDS, Catalog, Entry, Key, entry_of
from overspill.controller.observe import CHILDREN
from overspill.controller.views import CHILD_SELECTOR, Views, fingerprint
from overspill.controller.worker import DirtyKeys
from overspill.runtimes import child_name

log = structlog.get_logger(__name__)

AUDIT_SECONDS = 45.0
RESYNC_SECONDS = 300.0
FIRST_SECONDS = 15.0  # that the first list may keep the reconciles waiting
RESYNC_SPREAD = 60.0  # seconds over which a resync is spread

Look = Callable[[Kind, str], Awaitable[None]]  # at one kind in one namespace


class Auditor:
    """Marks the services whose objects changed without a word."""

    def __init__(
        self,
        cluster: Cluster,
        catalog: Catalog,
        keys: DirtyKeys,
        views: Views,
        namespaces: tuple[str, ...],
        leading: Callable[[], Awaitable[None]],
    ) -> None:
        """Make one; :meth:`run` runs it.

        :param namespaces: that we watch; empty means all.
        :param leading: waits until we hold the lease.
        """
        self._cluster = cluster
        self._catalog = catalog
        self._keys = keys
        self._views = views
        self._namespaces = namespaces or ("",)
        self._leading = leading
        self._begun = asyncio.Event()
        self._named: dict[tuple[Kind, str], Mapping[Key, int]] = {}  # by kind and namespace
        self._resync_at = time.monotonic() + RESYNC_SECONDS
        # Services first: the other lists are compared for those that are known.
        self._looks: dict[Kind, Look] = {
            INFERENCE_SERVICE: self._services,
            INFERENCE_PROVIDER: self._listed,
            INFERENCE_RUNTIME: self._listed,
            PVC: self._claims,
            **dict.fromkeys((*CHILDREN.values(), POD), self._children),
        }

    async def run(self) -> None:
        """Run until cancelled."""
        await self._leading()
        await self._begin()
        failures = 0
        while True:
            steady = AUDIT_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311 - spread, no secret
            await asyncio.sleep(backoff(failures, longest=steady) if failures else steady)
            await self._leading()
            failures = 0 if await self.audit() else failures + 1

    async def begun(self) -> None:
        """Wait until the services were listed once, or could not be."""
        await self._begun.wait()

    async def _begin(self) -> None:
        try:
            async with asyncio.timeout(FIRST_SECONDS):
                for namespace in self._namespaces:
                    await self._tried(self._services, INFERENCE_SERVICE, namespace)
        except TimeoutError:
            log.warning("services not listed", problem=f"no answer within {FIRST_SECONDS:g} s")
        finally:
            self._begun.set()

    async def audit(self) -> bool:
        """List everything once and mark what differs; return whether all could be read."""
        self._resync()
        looks = [
            await self._tried(look, kind, namespace)
            for namespace in self._namespaces
            for kind, look in self._looks.items()
        ]
        return all(looks)

    async def _tried(self, look: Look, kind: Kind, namespace: str) -> bool:
        try:
            await look(kind, namespace)
        except ClusterError as error:
            log.warning("audit failed", kind=kind.kind, namespace=namespace, error=str(error))
            return False
        except Exception:
            # A bug with one kind must not hide what happens to the others.
            log.exception("audit failed", kind=kind.kind, namespace=namespace)
            return False
        return True

    async def _services(self, kind: Kind, namespace: str) -> None:
        self._catalog.begin_list()
        entries: dict[Key, Entry] = {}
        numbers: dict[Key, int] = {}
        async for raw in self._cluster.scan(kind, namespace, whole=True):
            key, entries[key] = entry_of(raw)
            numbers[key] = fingerprint(kind.kind, [raw])
        # With those whose end was missed: who knows them forgets them.
        gone_or_new = self._catalog.replace(entries, namespace)
        self._keys.mark(gone_or_new | self._views.differ(kind.kind, numbers))

    async def _children(self, kind: Kind, namespace: str) -> None:
        numbers = dict.fromkeys(self._catalog.within(namespace), 0)
        async for raw in self._cluster.scan(kind, namespace, labels=CHILD_SELECTOR):
            metadata = raw["metadata"]
            service = metadata["labels"][LABEL_SERVICE]
            key = Key.service(metadata["namespace"], service)
            if key in numbers and (kind is POD or metadata["name"] == child_name(service)):
                numbers[key] += fingerprint(kind.kind, [raw])
        self._keys.mark(self._views.differ(kind.kind, numbers))

    async def _listed(self, kind: Kind, namespace: str) -> None:
        """Look at objects that services name, each of whose changes matters."""
        now = {}
        async for raw in self._cluster.scan(kind, namespace):
            metadata = raw["metadata"]
            key = Key(kind.kind, metadata["namespace"], metadata["name"])
            now[key] = fingerprint(kind.kind, [raw])
        self._mark_users(kind, namespace, now)

    async def _claims(self, kind: Kind, namespace: str) -> None:
        """Look whether the claims that services name exist."""
        now = {}
        for key in self._catalog.named(kind, namespace):
            try:
                await self._cluster.get(kind, key.namespace, key.name)
                now[key] = 1
            except NotFound:
                now[key] = 0
        self._mark_users(kind, namespace, now)

    def _mark_users(self, kind: Kind, namespace: str, now: Mapping[Key, int]) -> None:
        """Mark who names what changed since the last audit, and itself where it has a status."""
        before = self._named.get((kind, namespace), {})
        for key in {key for key, _ in now.items() ^ before.items()}:
            own = {key} if key.kind in KINDS else set()
            self._keys.mark(own | self._catalog.users(key))
        self._named[kind, namespace] = now

    def _resync(self) -> None:
        now = time.monotonic()
        if now < self._resync_at:
            return
        self._resync_at = now + RESYNC_SECONDS
        for key in self._known():
            self._keys.mark([key], random.uniform(0, RESYNC_SPREAD))  # noqa: S311

    def _known(self) -> Iterable[Key]:
        """Return every key that has a reconcile."""
        yield from self._catalog.entries
        for (kind, _), keys in self._named.items():
            if kind is INFERENCE_PROVIDER:
                yield from keys
