"""What an engine or a provider refuses: others are asked, in turn, and no cloud in vain."""

import asyncio

import pytest
from gateway_world import (
    ONE_SLOT,
    Upstream,
    World,
    chat,
    occupy,
    queued,
    service,
    spillover,
    until,
    world,
)


async def test_one_that_refuses_everything_does_not_draw_the_load(
    gateway: World, engine: Upstream
) -> None:
    gateway.state.put_service(service(engine=ONE_SLOT))
    first = await occupy(gateway, engine)
    async with Upstream(status=500).serving() as sick:
        gateway.replicas(sick, engine)
        requests = [chat(gateway) for _ in range(39)]
        await until(lambda: queued(gateway) == 39 and bool(sick.bodies))
        engine.gate.set()
        assert {status for status, _, _ in await asyncio.gather(first, *requests)} == {200}


@pytest.mark.parametrize("goes_away", [False, True])
async def test_what_an_engine_refused_waits_for_another_and_is_never_paid_for(
    gateway: World, engine: Upstream, goes_away: bool
) -> None:
    fast = {"objective": {"queueWait": {"p95": "1ms"}}}
    gateway.state.put_service(service(engine=ONE_SLOT, scaling=fast, spillover=spillover()))
    first = await occupy(gateway, engine)
    async with Upstream(status=500).serving() as sick, Upstream().serving() as cloud:
        gateway.replicas(sick, engine)
        gateway.provider(cloud)
        second = chat(gateway)
        await until(lambda: queued(gateway) == 1 and bool(sick.bodies))
        if goes_away:
            gateway.replicas(sick)
            assert (await second)[0] == 500, "nobody else can say whether it was the request"
        engine.gate.set()
        assert [(await r)[0] for r in (first, second)] == [200, 500 if goes_away else 200]
        assert cloud.bodies == []


async def test_a_provider_that_fails_does_not_overfill_the_queue(engine: Upstream) -> None:
    async with world(queue_bound=2) as w, Upstream(break_after=0).serving() as cloud:
        fast = {"objective": {"queueWait": {"p95": "10ms"}}}
        w.state.put_service(service(engine=ONE_SLOT, scaling=fast, spillover=spillover()))
        w.replicas(engine)
        first = await occupy(w, engine)
        w.provider(cloud)
        cloud.gate.clear()
        spilled = [chat(w) for _ in range(6)]
        await until(lambda: len(cloud.bodies) == 6)
        cloud.gate.set()
        await until(lambda: sum(task.done() for task in spilled) == 4)
        assert queued(w) == 2
        engine.gate.set()
        answers = await asyncio.gather(first, *spilled)
    assert sorted(status for status, _, _ in answers) == [200] * 3 + [429] * 4
