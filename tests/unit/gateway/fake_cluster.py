"""An API server that says what a test tells it to."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from overspill.cluster.client import Listing
from overspill.cluster.errors import Forbidden
from overspill.cluster.kinds import Kind
from overspill.cluster.watching import Event

PEERS = "kubernetes.io/service-name=overspill-gateway-internal"


class FakeCluster:
    """Gives scripted events; each collection's queue stays open."""

    def __init__(self) -> None:
        self.queues: dict[str, asyncio.Queue[Event]] = {}
        self.selectors: dict[str, tuple[str, str]] = {}
        self.forbidden = False

    def send(self, kind: Kind, type_: str, *items: dict[str, Any]) -> None:
        event = Event("SYNC", items=list(items)) if type_ == "SYNC" else None
        queue = self.queues.setdefault(kind.plural, asyncio.Queue())
        queue.put_nowait(event or Event(type_, items[0]))  # type: ignore[arg-type]

    def peers(self, type_: str, *uids: str, name: str = "gateway-x") -> None:
        """An event of the gateways' own EndpointSlice."""
        endpoints = [{"addresses": ["10.0.0.9"], "targetRef": {"uid": uid}} for uid in uids]
        raw = {"metadata": {"name": name}, "endpoints": endpoints}
        event = Event("SYNC", items=[raw]) if type_ == "SYNC" else Event(type_, raw)  # type: ignore[arg-type]
        self.queues.setdefault(PEERS, asyncio.Queue()).put_nowait(event)

    async def watch(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncIterator[Event]:
        if labels != PEERS:
            self.selectors[f"{kind.plural}{'/' + fields if fields else ''}"] = (namespace, labels)
        alone = fields or (labels if labels == PEERS else "")
        queue = self.queues.setdefault(alone or kind.plural, asyncio.Queue())
        while True:
            yield await queue.get()

    async def list(self, kind: Kind, namespace: str, *, fields: str) -> Listing:
        if self.forbidden:
            raise Forbidden("no")
        return Listing([], "1")
