"""What no event tells: the state of providers at the gateways, and traffic."""

import asyncio

from overspill.api.status import TrafficStatus
from overspill.autoscaler.loop import Autoscaler
from overspill.controller import status
from overspill.controller.catalog import Catalog, Key
from overspill.controller.worker import DirtyKeys

PROVIDERS_SECONDS = 2.0
TRAFFIC_SECONDS = 30.0


class Nudger:
    """Marks keys whose surroundings changed."""

    def __init__(
        self,
        autoscaler: Autoscaler,
        catalog: Catalog,
        keys: DirtyKeys,
    ) -> None:
        """Make one; :meth:`run` runs it."""
        self._autoscaler = autoscaler
        self._catalog = catalog
        self._keys = keys
        self._reports: dict[str, tuple[bool, str]] = {}
        self._traffic: dict[Key, TrafficStatus | None] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_providers())
            group.create_task(self._watch_traffic())

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
