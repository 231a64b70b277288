"""A gateway's /demand on a loopback port: sends the lines that a test gives it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

TOKEN = "t0ken"


async def until(condition: Callable[[], object]) -> None:
    """Wait for something that happens on the event loop; fails after half a minute."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it may be anything, not only an event
            await asyncio.sleep(0.005)


class DemandServer:
    """``async with DemandServer() as gateway``; ``gateway.say(...)`` sends a report."""

    def __init__(self, instance: str = "gw-1") -> None:
        self.instance = instance
        self.connections = 0
        self.refuse = False
        self.address = ""
        self._streams: list[web.StreamResponse] = []
        self._connected = asyncio.Event()

    async def __aenter__(self) -> "DemandServer":
        app = web.Application()
        app.router.add_get("/demand", self._demand)
        self._runner = web.AppRunner(app, shutdown_timeout=0.01)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = "{}:{}".format(*self._runner.addresses[0])
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _demand(self, request: web.Request) -> web.StreamResponse:
        self.connections += 1
        if self.refuse or request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        stream = web.StreamResponse()
        await stream.prepare(request)
        self._streams.append(stream)
        self._connected.set()
        await asyncio.Event().wait()
        return stream

    async def say(self, services: dict[str, Any], providers: dict[str, Any] | None = None) -> None:
        """Send one report on every stream."""
        report = {"instance": self.instance, "seq": 1, "services": services}
        await self.send(json.dumps(report | {"providers": providers or {}}).encode() + b"\n")

    async def send(self, raw: bytes) -> None:
        """Send raw bytes on every stream, once there is one."""
        async with asyncio.timeout(30):
            await self._connected.wait()
        for stream in self._streams:
            await stream.write(raw)

    async def hang_up(self) -> None:
        """Break every stream."""
        self._connected.clear()
        for stream in self._streams:
            if stream._req is not None and stream._req.transport is not None:
                stream._req.transport.close()
        self._streams.clear()
