"""What the kubelet is told: a part that has stalled makes the probe fail, and is named."""

import asyncio
from types import SimpleNamespace

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from overspill.autoscaler.meter import Meter
from overspill.controller import endpoints, main
from overspill.controller.catalog import Key
from overspill.controller.main import Operator
from overspill.controller.metrics import Metrics
from overspill.controller.settings import Settings
from overspill.controller.worker import DirtyKeys, Worker

OK = (200, "ok")


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Operator:
    """The operator's parts, none of which runs yet."""
    monkeypatch.setattr(main, "REGISTRY", CollectorRegistry())
    monkeypatch.setattr("overspill.autoscaler.loop.Meter", lambda: Meter(CollectorRegistry()))
    cluster = SimpleNamespace(guarded=lambda guard: None)
    return main.build(Settings("overspill-system", "engine:1", "gpu:1"), cluster, (1, 37))  # type: ignore[arg-type]


async def healthz(operator: Operator) -> tuple[int, str]:
    """Ask as the kubelet does."""
    runner = await endpoints.serve(
        0,
        CollectorRegistry(),
        fault=operator.fault,
        ready=lambda: True,
        targets=operator.targets,
    )
    port = next(address[1] for address in runner.addresses if len(address) == 2)  # IPv4
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{port}/healthz") as answer,
        ):
            return answer.status, await answer.text()
    finally:
        await runner.cleanup()


async def test_a_reconcile_that_hangs(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = asyncio.Event()

    async def hang(_: Key) -> None:
        hanging.set()
        await asyncio.Event().wait()

    async def leading() -> None:
        return None

    keys = DirtyKeys()
    keys.mark([Key.service("team-a", "chat")])
    operator.worker = Worker(keys, hang, leading, Metrics(CollectorRegistry()))
    working = asyncio.create_task(operator.worker.run())
    await asyncio.wait_for(hanging.wait(), 20)
    assert await healthz(operator) == OK, "it may take a while"
    monkeypatch.setattr(main, "STALL_SECONDS", 0.0)
    assert await healthz(operator) == (500, "a reconcile hangs")
    working.cancel()
    await asyncio.wait([working])
    assert await healthz(operator) == OK


async def test_a_loop_of_the_autoscaler_that_hangs(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "STALL_SECONDS", 0.0)
    assert await healthz(operator) == OK, "who does not lead has no loop"
    operator.leader.deadline = float("inf")
    assert await healthz(operator) == (500, "the autoscaler's loop hangs")
    monkeypatch.setattr(main, "STALL_SECONDS", 60.0)
    assert await healthz(operator) == OK
