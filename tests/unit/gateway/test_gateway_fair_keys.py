"""Two keys at a real gateway: who waits, who goes first, who is told to come back."""

import asyncio
from dataclasses import dataclass

import orjson
import pytest
from gateway_world import ONE_SLOT, Upstream, World, chat, occupy, queued, service, until, world

from overspill.api.keys import key_secret, new_key

PATIENT = {"objective": {"queueWait": {"p95": "60s"}}}


@dataclass
class Keys:
    """The headers with which each client comes."""

    flood: str
    quiet: str


def two_keys(w: World, **quiet: int) -> Keys:
    made = {name: new_key() for name in ("flood", "quiet")}
    w.state.keys.replace(
        [
            key_secret("overspill-system", "flood", made["flood"][1], "team-a"),
            key_secret("overspill-system", "quiet", made["quiet"][1], "team-a", **quiet),
        ]
    )
    w.key = made["flood"][0]
    return Keys(*(f"Bearer {key}" for key, _ in made.values()))


async def test_a_flood_is_refused_itself_and_told_when_to_come_back(engine: Upstream) -> None:
    async with world(queue_bound=2) as w:
        w.state.put_service(service(engine=ONE_SLOT, scaling=PATIENT))
        w.replicas(engine)
        keys = two_keys(w)
        running = await occupy(w, engine)
        flood = [chat(w, Authorization=keys.flood) for _ in range(2)]
        await until(lambda: queued(w) == 2)
        quiet = chat(w, Authorization=keys.quiet)
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        assert [task.done() for task in flood].count(True) == 1
        status, headers, body = next(task.result() for task in flood if task.done())
        assert (status, orjson.loads(body)["error"]["code"]) == (429, "queue_full")
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert len(w.state.services["team-a/chat"].admission.promises) == 1
        engine.gate.set()
        assert (await quiet)[0] == 200
        assert [(await task)[0] for task in [running, *flood]].count(200) == 2


@pytest.mark.parametrize(("priority", "first"), [(1, "quiet"), (-1, "flood")])
async def test_a_higher_priority_goes_first(engine: Upstream, priority: int, first: str) -> None:
    async with world() as w:
        w.state.put_service(service(engine=ONE_SLOT, scaling=PATIENT))
        w.replicas(engine)
        keys = two_keys(w, priority=priority)
        running = await occupy(w, engine)
        waiting = {"flood": chat(w, Authorization=keys.flood)}
        await until(lambda: queued(w) == 1)
        waiting["quiet"] = chat(w, Authorization=keys.quiet)
        await until(lambda: queued(w) == 2)
        engine.arrived.clear()
        admission = w.state.services["team-a/chat"].admission
        order = [waiter.key.id for waiter in admission.waiting]
        assert order[0] == first
        engine.gate.set()
        assert [(await task)[0] for task in (running, *waiting.values())] == [200] * 3


async def test_a_request_that_leaves_the_queue_leaves_nothing_behind(engine: Upstream) -> None:
    async with world() as w:
        w.state.put_service(service(engine=ONE_SLOT, scaling=PATIENT))
        w.replicas(engine)
        running = await occupy(w, engine)
        waiting = [chat(w) for _ in range(3)]
        await until(lambda: queued(w) == 3)
        for task in waiting:
            task.cancel()
        await until(lambda: queued(w) == 0)
        engine.gate.set()
        assert (await running)[0] == 200
        admission = w.state.services["team-a/chat"].admission
        await until(lambda: admission.slots(0.0) == (1, 1))
        assert not admission.promises
