"""One engine refuses what another answers: nobody is told so, and no cloud is paid for it."""

import asyncio

from gateway_world import ONE_SLOT, Upstream, World, chat, occupy, queued, service, until


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
