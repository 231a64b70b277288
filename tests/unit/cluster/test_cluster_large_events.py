"""A large object in a watch is an event like any other: it must not end the watch."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import yaml
from aiohttp import web

from overspill.cluster import Cluster
from overspill.cluster.kinds import CONFIG_MAP


def config_map(size: int, version: str) -> dict[str, Any]:
    metadata = {"name": "big", "namespace": "n", "resourceVersion": version}
    return {"metadata": metadata, "data": {"x": "y" * size}}


async def api_server(request: web.Request) -> web.StreamResponse:
    if not request.query.get("watch"):
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
    response = web.StreamResponse()
    await response.prepare(request)
    event = {"type": "ADDED", "object": config_map(1_500_000, "2")}
    await response.write(orjson.dumps(event) + b"\n")
    await asyncio.sleep(0.2)
    return response


async def test_an_event_of_a_megabyte_arrives(tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_get("/{path:.*}", api_server)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server = f"http://127.0.0.1:{runner.addresses[0][1]}"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    async with Cluster.connect(kubeconfig=str(kubeconfig)) as cluster:
        events = cluster.watch(CONFIG_MAP, "n")
        first = await asyncio.wait_for(anext(events), 5)
        second = await asyncio.wait_for(anext(events), 5)
    await runner.cleanup()
    assert first.type == "SYNC"
    assert (second.type, len(second.obj["data"]["x"])) == ("ADDED", 1_500_000)
