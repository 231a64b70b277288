"""The operator's part of the ledger, around a ConfigMap that can fail in every way."""

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from overspill.api.budget import Window
from overspill.autoscaler.gateways import Gateways
from overspill.cluster import ClusterError, Conflict, Kind, NotFound
from overspill.controller.treasurer import Treasurer
from overspill.ledger.messages import Grants, Line, Statement, Want
from overspill.ledger.treasury import RECORD, Treasury

Object = dict[str, Any]
NAME = "overspill-ledger"
SERVICE = "service/team-a/chat"
DOLLAR = 10**9


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, on a busy machine, too."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - any condition at all
            await asyncio.sleep(0.005)


class Store:
    """One ConfigMap, as an API server keeps it."""

    def __init__(self) -> None:
        metadata = {"name": NAME, "namespace": "overspill-system", "resourceVersion": "1"}
        self.live: Object | None = {"metadata": metadata, "data": {}}
        self.fault: ClusterError | None = None  # of writes
        self.writes = 0

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        if self.live is None:
            raise NotFound(name)
        return copy.deepcopy(self.live)

    async def replace(self, kind: Kind, obj: Object, *, manager: str = "") -> Object:
        if self.fault is not None:
            raise self.fault
        version = obj["metadata"]["resourceVersion"]
        if self.live is None or version != self.live["metadata"]["resourceVersion"]:
            raise Conflict("the object has been modified")
        self.writes += 1
        self.live = copy.deepcopy(obj)
        self.live["metadata"]["resourceVersion"] = str(int(version) + 1)
        return copy.deepcopy(self.live)

    def put(self, record: str) -> None:
        """Change the record behind the operator's back."""
        metadata = {"name": NAME, "namespace": "overspill-system", "resourceVersion": "100"}
        self.live = {"metadata": metadata, "data": {RECORD: record}}

    @property
    def record(self) -> str:
        return str((self.live or {}).get("data", {}).get(RECORD, ""))

    @property
    def treasury(self) -> Treasury:
        """What another operator would read."""
        return Treasury.read(self.record)

    def charged(self, account: str = SERVICE, window: Window = Window.DAY) -> int:
        return self.treasury.pot(account, window, time.time()).charged


class Mailbox:
    """A gateway that only takes grants."""

    def __init__(self) -> None:
        self.got: list[Grants] = []
        self.address = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Mailbox"]:
        app = web.Application()
        app.router.add_post("/ledger", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.address = "{}:{}".format(*runner.addresses[0])
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.got.append(Grants.model_validate_json(await request.read()))
        return web.Response()


def treasurer_of(store: Store, **more: Any) -> Treasurer:
    cluster: Any = store
    return Treasurer(cluster, "overspill-system", NAME, None, **more)


@asynccontextmanager
async def running(*parts: Any) -> AsyncIterator[None]:
    """Run ``run()`` of each until the end."""
    tasks = [asyncio.create_task(part.run()) for part in parts]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def operator(store: Store, addresses: Iterable[str], token: Path) -> AsyncIterator[Treasurer]:
    """Listen to real gateways, and answer them."""
    treasurer = treasurer_of(store)
    treasurer._token_file = token
    gateways = Gateways(
        lambda: addresses, token, clock=time.monotonic, on_held=lambda key: None,
        on_statement=treasurer.hear,
    )  # fmt: skip
    async with running(treasurer, gateways):
        yield treasurer


def wanting(waiting: int, limit: int = DOLLAR, holder: str = "g1", *lines: Line) -> Statement:
    """Return a statement of a gateway in which a request waits."""
    want = Want(limits={Window.DAY: limit}, waiting=waiting, least=waiting)
    return Statement(holder=holder, lines=list(lines), wants={SERVICE: want})
