"""The loop with a Prometheus that lies over HTTP: each fault is shown, held through, and healed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from aiohttp import web
from demand_server import DemandServer, until
from test_loop import KEY, Rig

from overspill.api import metrics
from overspill.autoscaler.loop import Settings
from overspill.prometheus.client import PrometheusClient
from overspill.prometheus.queries import COSTS, MIX, SIGNALS

LABELS = {"service_namespace": "team-a", "service_name": "chat"}
# A round is a dozen queries over HTTP, and three intervals later its answers are too old.
PACE = Settings(interval=0.3, up_window=0.3, down_window=0.6)
BUSY = {KEY: {"arrivals": 9, "in_flight": 8, "queued": 0, "held": 0}}  # two replicas' slots


class Liar:
    """Prometheus' query API with one value for everything, or a fault."""

    def __init__(self) -> None:
        self.mode, self.value = "truth", "0"

    async def answer(self, request: web.Request) -> web.Response:
        if self.mode == "slow":
            await asyncio.sleep(30)
        if self.mode == "broken":
            return web.Response(status=503)
        if self.mode == "page":
            return web.Response(text="<html>login</html>")
        query = (await request.post() or request.query)["query"]
        known = {q: n for n, q in (SIGNALS | COSTS | MIX).items()}
        truth = {"gateways": "1", "in_flight": "8", "arrivals_rate": "1", "residence": "8"}
        value = truth.get(known[query], "0") if self.mode == "truth" else self.value
        series = [] if self.mode == "empty" else [{"metric": LABELS, "value": [0, value]}]
        data = {"resultType": "vector", "result": series * (2 if self.mode == "double" else 1)}
        return web.Response(text=json.dumps({"status": "success", "data": data}))


@pytest.fixture
async def liar() -> AsyncIterator[tuple[Liar, str]]:
    made = Liar()
    app = web.Application()
    app.router.add_route("*", "/api/v1/query", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield made, "http://{}:{}".format(*runner.addresses[0])
    await runner.cleanup()


FAULTS = [
    # mode, value, reason shown ("" where nobody can see the lie)
    ("slow", "", "PrometheusUnavailable"),
    ("broken", "", "PrometheusUnavailable"),
    ("page", "", "PrometheusUnavailable"),
    ("empty", "", "NoMetrics"),
    ("same", "NaN", "NoMetrics"),
    ("same", "+Inf", "NoMetrics"),
    ("same", "-5", "NoMetrics"),
    ("same", "1e300", "NoMetrics"),
    ("same", "0", ""),  # a counter reset, or a gateway that it lost
    ("double", "16", ""),
]


@pytest.mark.parametrize(("mode", "value", "reason"), FAULTS)
async def test_a_lie_is_shown_takes_nothing_away_and_is_forgotten(
    liar: tuple[Liar, str], tmp_path, monkeypatch, mode: str, value: str, reason: str
) -> None:
    monkeypatch.setattr("overspill.autoscaler.gateways.RESCAN", 0.02)
    monkeypatch.setattr("overspill.autoscaler.gateways.SILENCE", 60.0)  # it reports when we say so
    monkeypatch.setattr("test_loop.FAST", PACE)
    server, url = liar
    async with DemandServer() as gateway:
        with closing(PrometheusClient(url, timeout=1.0)) as client:
            rig = Rig(tmp_path, gateway, 3, client, minReplicas=0)
            task = asyncio.create_task(rig.scaler.run())
            await asyncio.sleep(0)
            rig.cluster.tell()
            try:
                await gateway.say(BUSY)
                await until(lambda: rig.scaler.health(KEY).reason == "Active")
                server.mode, server.value = mode, value
                if reason:
                    await until(lambda: rig.scaler.health(KEY).reason == reason)
                for _ in range(6):  # passes: the readings grow old, and the window goes by
                    await gateway.say(BUSY)
                    used = rig.metric(metrics.GPU_SECONDS)  # counted by each pass
                    await until(lambda used=used: rig.metric(metrics.GPU_SECONDS) != used)
                assert 2 <= rig.cluster.count <= 4
                server.mode = "truth"
                await until(lambda: rig.scaler.health(KEY).reason == "Active")
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
