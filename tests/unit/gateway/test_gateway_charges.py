"""What is counted and charged for an answer, wherever it came from and however it ended."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from gateway_world import (
    MESSAGES,
    ONE_SLOT,
    Upstream,
    World,
    chat,
    occupy,
    service,
    spillover,
    world,
)

from overspill.ledger.prices import BYTES_PER_TOKEN

FAST = {"objective": {"queueWait": {"p95": "100ms"}}}
COST = "overspill_cost_dollars_total{"


@pytest.fixture
async def gateway() -> AsyncIterator[World]:
    async with world() as w:
        yield w


async def charged(w: World) -> float:
    """Return the dollars that the cloud was charged."""
    page = await w.metrics()
    (line,) = [x for x in page.splitlines() if x.startswith(COST) and "team-a/cloud" in x]
    return float(line.split()[-1])


async def test_an_answer_without_usage_is_charged_by_an_estimate(
    gateway: World, cloud: Upstream
) -> None:
    cloud.usage = None
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud)
    _, headers, _ = await chat(gateway)
    assert float(headers["x-overspill-cost-usd"]) > 0


async def test_usage_is_found_however_the_provider_writes_json(
    gateway: World, cloud: Upstream
) -> None:
    cloud.spaced, cloud.before_gate = True, 1
    cloud.gate.clear()
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud)
    stream = await gateway.sdk().chat.completions.create(
        model="chat", messages=MESSAGES, stream=True
    )
    cloud.gate.set()  # after the first content, events are no longer parsed one and all
    assert [chunk.usage async for chunk in stream] == [None] * 6
    assert await charged(gateway) == 0.00006475  # 5 at $1.75 and 4 at $14 per million


async def test_the_first_token_of_a_spilled_answer_comes_after_its_wait(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    cloud.extra = {"timings": {"prompt_ms": 1.0, "predicted_per_token_ms": 1.0}}
    gateway.state.put_service(service(engine=ONE_SLOT, scaling=FAST, spillover=spillover()))
    gateway.provider(cloud)
    gateway.replicas(engine)
    gateway.state.services["team-a/chat"].admission.mean_service_seconds = 0.01
    first = await occupy(gateway, engine)
    assert (await chat(gateway))[1]["x-overspill-destination"] == "team-a/cloud"
    page = await gateway.metrics()
    (line,) = [
        x
        for x in page.splitlines()
        if x.startswith("overspill_time_to_first_token_seconds_sum") and "team-a/cloud" in x
    ]
    assert float(line.split()[-1]) >= 0.09
    engine.gate.set()
    await first


async def test_a_wait_is_counted_once_whatever_was_tried(gateway: World, engine: Upstream) -> None:
    async with Upstream(status=500).serving() as failing:
        gateway.state.put_service(service())
        gateway.replicas(failing, engine)
        assert (await chat(gateway))[0] == 200
    assert len(failing.bodies) == 1
    page = await gateway.metrics()
    (line,) = [x for x in page.splitlines() if x.startswith("overspill_queue_wait_seconds_count")]
    assert float(line.split()[-1]) == 1


async def test_a_long_answer_without_usage_is_not_charged_as_one_token(
    gateway: World, cloud: Upstream
) -> None:
    cloud.usage, cloud.words = None, ["word"] * 3000
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud)
    assert (await chat(gateway))[0] == 200
    assert await charged(gateway) >= 12_000 / BYTES_PER_TOKEN * 14e-6


async def test_a_client_that_leaves_before_the_answer_is_charged_for_what_was_asked(
    gateway: World, cloud: Upstream
) -> None:
    cloud.gate.clear()
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud)
    request = chat(gateway)
    await asyncio.wait_for(cloud.arrived.wait(), 5)
    request.cancel()
    await asyncio.wait_for(cloud.left_event.wait(), 5)
    assert await charged(gateway) > 0
