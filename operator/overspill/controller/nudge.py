"""What no event tells: the state of providers at the gateways, traffic, and what events missed."""

import asyncio
import random

import structlog

from overspill.api.status import TrafficStatus
from overspill.autoscaler.loop import Autoscaler
from overspill.cluster import Cluster, ClusterError, backoff
from overspill.cluster.kinds import INFERENCE_PROVIDER, INFERENCE_SERVICE
from overspill.controller import status
from overspill.controller.catalog import Catalog, Key
from overspill.controller.worker import DirtyKeys

log = structlog.get_logger(__name__)

PROVIDERS_SECONDS = 2.0
TRAFFIC_SECONDS = 30.0
RESYNC_SECONDS = 300.0
RESYNC_SPREAD = 60.0  # seconds over which a resync is spread


class Nudger:
    """Marks keys whose surroundings changed."""

    def __init__(
        self,
        cluster: Cluster,
        autoscaler: Autoscaler,
        catalog: Catalog,
        keys: DirtyKeys,
        namespaces: tuple[str, ...],
    ) -> None:
        """Make one; :meth:`run` runs it.

        :param namespaces: that we watch; empty means all.
        """
        self._cluster = cluster
        self._autoscaler = autoscaler
        self._catalog = catalog
        self._keys = keys
        self._namespaces = namespaces or ("",)
        self._reports: dict[str, tuple[bool, str]] = {}
        self._traffic: dict[Key, TrafficStatus | None] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_providers())
            group.create_task(self._watch_traffic())
            group.create_task(self._resync())

    async def _watch_providers(self) -> None:
        while True:
            now = {k: (r.ready, r.reason) for k, r in self._autoscaler.providers().items()}
            for path in {k for k, _ in now.items() ^ self._reports.items()}:
                key = Key.provider(*path.split("/"))
                self._keys.mark({key} | self._catalog.users(key))
            self._reports = now
            await asyncio.sleep(PROVIDERS_SECONDS)

    async def _watch_traffic(self) -> None:
        while True:
            now = {
                key: status.rounded(self._autoscaler.traffic(key.path))
                for key in self._catalog.entries
            }
            self._keys.mark(key for key in now if now[key] != self._traffic.get(key))
            self._traffic = now
            await asyncio.sleep(TRAFFIC_SECONDS)

    async def _resync(self) -> None:
        failures = 0
        while True:
            await asyncio.sleep(
                backoff(failures) if failures else RESYNC_SECONDS * random.uniform(0.9, 1.1)  # noqa: S311
            )
            try:
                await self._list()
                failures = 0
            except ClusterError as error:
                failures += 1
                log.warning("resync failed", error=str(error), failures=failures)

    async def _list(self) -> None:
        services, providers = [], []
        self._catalog.begin_list()
        for namespace in self._namespaces:
            services += (await self._cluster.list(INFERENCE_SERVICE, namespace)).items
            providers += (await self._cluster.list(INFERENCE_PROVIDER, namespace)).items
        gone = self._catalog.replace(services)  # their end was missed; who knows them forgets them
        found = [Key.provider(p["metadata"]["namespace"], p["metadata"]["name"]) for p in providers]
        for key in [*self._catalog.entries, *gone, *found]:
            self._keys.mark([key], random.uniform(0, RESYNC_SPREAD))  # noqa: S311
