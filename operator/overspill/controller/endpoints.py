"""The operator's own HTTP endpoints: /metrics, /targets, /healthz, /readyz."""

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from overspill.cluster import ClusterError


async def serve(
    port: int,
    registry: CollectorRegistry,
    *,
    fault: Callable[[], str],
    ready: Callable[[], bool],
    targets: Callable[[], Awaitable[list[dict[str, Any]]]],
) -> web.AppRunner:
    """Start the server; ``cleanup`` of the result stops it.

    :param fault: what has stalled, "" when nothing has; a fault makes the kubelet restart us.
    :param ready: whether the watches have begun.
    :param targets: what Prometheus should scrape; raises ClusterError.
    """

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(_: web.Request) -> web.Response:
        found = fault()
        return web.Response(text=found or "ok", status=500 if found else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(status=200 if ready() else 503)

    async def list_targets(_: web.Request) -> web.Response:
        try:
            return web.json_response(await targets())
        except ClusterError as error:
            return web.Response(text=str(error), status=503)

    app = web.Application()
    app.add_routes(
        [
            web.get("/metrics", metrics),
            web.get("/targets", list_targets),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
