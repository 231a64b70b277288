"""An API server that says what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from overspill.cluster.client import Listing
from overspill.cluster.errors import Forbidden
from overspill.cluster.kinds import Kind
from overspill.cluster.watching import Event


class FakeCluster:
    """Gives scripted events; each collection's queue stays open."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[Event]] = {}
        self.selectors: dict[str, tuple[str, str]] = {}
        self.forbidden = False

    def send(self, kind: Kind, type_: str, *items: dict[str, Any]) -> None:
        event = Event("SYNC", items=list(items)) if type_ == "SYNC" else None
        self._queue(kind).put_nowait(event or Event(type_, items[0]))  # type: ignore[arg-type]

    def _queue(self, kind: Kind) -> asyncio.Queue[Event]:
        return self.queues.setdefault(kind.plural, asyncio.Queue())

    async def watch(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Event]:
        name = f"{kind.plural}{'/' + fields if fields else ''}"
        self.selectors[name] = (namespace, labels)
        queue = self._queue(kind) if not fields else self.queues.setdefault(fields, asyncio.Queue())
        while True:
            yield await queue.get()

    async def list(self, kind: Kind, namespace: str, *, fields: str) -> Listing:
        if self.forbidden:
            raise Forbidden("no")
        return Listing([], "1")
