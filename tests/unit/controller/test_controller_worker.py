"""Keys are worked on once at a time, coalesced, later when they failed, and only with the lease."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from prometheus_client import CollectorRegistry

from overspill.cluster import Conflict, Fenced, Unavailable
from overspill.controller import worker as module
from overspill.controller.catalog import Key
from overspill.controller.metrics import Metrics
from overspill.controller.worker import DirtyKeys, Worker

A, B = Key.service("ns", "a"), Key.service("ns", "b")
LIMIT = 5.0  # seconds; a hang fails, nothing here takes that long


async def always() -> None:
    return None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class Harness:
    """A running worker whose reconciles are counted."""

    def __init__(self, reconcile: Callable[[Key], Awaitable[float | None]]) -> None:
        self.keys = DirtyKeys()
        self.registry = CollectorRegistry()
        self.done: list[Key] = []
        self.reconcile = reconcile
        metrics = Metrics(self.registry)
        self.worker = Worker(self.keys, self._count, always, metrics)

    async def _count(self, key: Key) -> float | None:
        self.done.append(key)
        await asyncio.sleep(0)  # as a call to the API server would
        return await self.reconcile(key)

    async def __aenter__(self) -> "Harness":
        self.task = asyncio.create_task(self.worker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def nothing(_: Key) -> None:
    return None


async def test_marks_before_the_work_are_one() -> None:
    harness = Harness(nothing)
    harness.keys.mark([A, B, A])
    harness.keys.mark([A])
    async with harness:
        await until(lambda: not len(harness.keys))
        await asyncio.sleep(0.01)
    assert sorted(harness.done) == [A, B]


async def test_a_mark_during_the_work_means_once_more_and_never_two_at_a_time() -> None:
    release, running = asyncio.Event(), []

    async def slow(key: Key) -> None:
        running.append(key)
        assert running.count(key) == 1
        await release.wait()
        running.remove(key)

    async with Harness(slow) as harness:
        harness.keys.mark([A])
        await until(lambda: running == [A])
        for _ in range(3):
            harness.keys.mark([A])
        harness.keys.mark([B])
        await until(lambda: B in running)  # another key does not wait
        release.set()
        await until(lambda: harness.done.count(A) == 2)
        await asyncio.sleep(0.01)
    assert harness.done.count(A) == 2


@pytest.mark.parametrize("error", [Conflict("x"), Fenced("x"), Unavailable("x"), ValueError("x")])
async def test_a_failure_is_tried_again(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "backoff", lambda *_, **__: 0.0)
    monkeypatch.setattr(module, "CONFLICT_SECONDS", 0.0)
    monkeypatch.setattr(module.random, "uniform", lambda *_: 0.0)
    failures = [error, error]

    async def flaky(_: Key) -> None:
        if failures:
            raise failures.pop()

    async with Harness(flaky) as harness:
        harness.keys.mark([A])
        await until(lambda: len(harness.done) == 3)


async def test_conflicts_in_a_row_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes as often as we do: that must not go on at five tries a second."""
    waits: list[float] = []
    monkeypatch.setattr(module, "backoff", lambda failures, **_: 100.0 * failures)
    worker, conflicts = Harness(nothing).worker, 6

    async def contested(_: Key) -> None:
        if len(waits) < conflicts:
            raise Conflict("changed")

    monkeypatch.setattr(worker, "_reconcile", contested)
    for _ in range(conflicts):
        waits.append(await worker._attempt(A) or 0.0)
    assert waits == [*[module.CONFLICT_SECONDS] * 3, 100.0, 200.0, 300.0]
    assert await worker._attempt(A) is None
    waits.clear()
    assert await worker._attempt(A) == module.CONFLICT_SECONDS  # from the beginning


async def test_a_reconcile_can_ask_to_be_called_again() -> None:
    async def again(_: Key) -> float | None:
        return 0.0

    async with Harness(again) as harness:
        harness.keys.mark([A])
        await until(lambda: len(harness.done) > 2)


async def test_an_earlier_mark_wins_over_a_later_one() -> None:
    async with Harness(nothing) as harness:
        harness.keys.mark([A], delay=3600)
        harness.keys.mark([A])
        harness.keys.mark([A], delay=3600)
        await until(lambda: harness.done == [A])


async def test_overtaken_marks_do_not_pile_up() -> None:
    async with Harness(nothing) as harness:
        harness.keys.mark([B], delay=60)
        for count in range(1, 300):  # a service looked at again in an hour, and events before
            harness.keys.mark([A], delay=3600)
            harness.keys.mark([A])
            await until(lambda count=count: harness.done.count(A) == count)  # type: ignore[misc]
        assert len(harness.keys._heap) <= module.SPARE + 2
        assert B in {key for _, key in harness.keys._heap}  # a sweep loses nothing


async def test_nothing_is_done_without_the_lease() -> None:
    lease = asyncio.Event()
    harness = Harness(nothing)

    async def leading() -> None:
        await lease.wait()

    harness.worker._leading = leading
    async with harness:
        harness.keys.mark([A])
        await asyncio.sleep(0.01)
        assert harness.done == []
        lease.set()
        await until(lambda: harness.done == [A])


async def test_a_reconcile_that_hangs_is_cut_and_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RECONCILE_SECONDS", 0.05)

    async def hang(_: Key) -> None:
        await asyncio.Event().wait()

    async with Harness(hang) as harness:
        harness.keys.mark([A])
        await until(lambda: harness.worker.stalled(asyncio.get_running_loop().time(), 0.0))
        labels = {"kind": "InferenceService", "result": "error"}
        value = harness.registry.get_sample_value
        await until(lambda: value("overspill_reconciles_total", labels) == 1)


@pytest.mark.parametrize("ticks", range(6))
async def test_a_stop_is_heard_whenever_it_comes(ticks: int) -> None:
    """While keys are marked, too: the workers of an operator that ends must not go on."""
    keys = module.DirtyKeys()
    keys.mark([B], delay=3600)
    waiting = asyncio.create_task(keys.take())
    await asyncio.sleep(0.01)
    keys.mark([A], delay=3600)
    for _ in range(ticks):
        await asyncio.sleep(0)
    waiting.cancel()
    done, _ = await asyncio.wait([waiting], timeout=LIMIT)
    assert done, "it goes on"
    assert waiting.cancelled()
