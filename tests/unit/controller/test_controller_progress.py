"""Loaders are asked for their progress, and a service shows it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import world
from aiohttp import web

from overspill.api.names import ConditionType as T
from overspill.controller import capacity, conditions, progress, status
from overspill.controller.decide import decide_status
from overspill.controller.facts import Fault, Loading, Pod, loader_addresses
from overspill.controller.progress import Loaders

GB = 10**9
HALF = Loading(3_100_000_000, 16 * GB, 240.0)
ANSWERS: dict[str, Any] = {
    "good": '{"bytes": 5, "total": 10, "seconds": 1.5, "left": 2.5}',
    "early": '{"bytes": 0, "total": null, "seconds": 0.1, "left": null}',
    "negative": '{"bytes": -5, "total": 10}',
    "huge": '{"bytes": 1e400}',
    "words": "no JSON",
    "long": '{"bytes": 5, "x": "' + "x" * 10_000 + '"}',
}


async def pieces(request: web.Request) -> web.StreamResponse:
    """Send a good answer, the second half of it when the first has surely been read."""
    response = web.StreamResponse()
    await response.prepare(request)
    half = len(ANSWERS["good"]) // 2
    await response.write(ANSWERS["good"][:half].encode())
    await asyncio.sleep(0.05)
    await response.write(ANSWERS["good"][half:].encode())
    return response


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """A server whose first path segment says what it answers."""
    done = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        what = request.match_info["what"]
        if what == "silent":
            await done.wait()
        if what == "redirect":
            raise web.HTTPFound("/good/progress")
        if what == "pieces":
            return await pieces(request)
        if what not in ANSWERS:
            raise web.HTTPNotFound
        return web.Response(text=ANSWERS[what])

    app = web.Application()
    app.router.add_get("/{what}/progress", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield "127.0.0.1:{}".format(*runner.addresses[0][1:2])
    done.set()
    await runner.cleanup()


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("good", Loading(5, 10, 2.5)),
        *((name, Loading()) for name in ANSWERS if name != "good"),
        ("pieces", Loading(5, 10, 2.5)),
        ("none", Loading()),
        ("redirect", Loading()),
    ],
)
async def test_what_a_loader_says(address: str, what: str, expected: Loading) -> None:
    assert await Loaders().ask([f"{address}/{what}"]) == expected


async def test_the_one_that_is_furthest(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TIMEOUT", progress.aiohttp.ClientTimeout(total=0.3))
    asked = ["127.0.0.1:1", f"{address}/silent", f"{address}/good", f"{address}/early"]
    assert await Loaders().ask(asked) == Loading(5, 10, 2.5)
    assert await Loaders().ask([]) is None


def pod(state: str, ip: str = "10.0.0.7", name: str = "loader") -> dict[str, Any]:
    init = {"name": name, "state": {state: {}}}
    return {"metadata": {"name": "p"}, "status": {"podIP": ip, "initContainerStatuses": [init]}}


def test_where_loaders_are() -> None:
    pods = [
        pod("running"),
        pod("running", "fd00::7"),
        pod("running", ""),
        pod("waiting"),
        pod("terminated"),
        pod("running", name="istio-init"),
        {"metadata": {"name": "p"}},
    ]
    assert loader_addresses(pods) == ["10.0.0.7:8000", "[fd00::7]:8000"]


@pytest.mark.parametrize(
    ("loading", "words"),
    [
        (HALF, "3.1 of 16.0 GB (19 %), about 4 min left"),
        (Loading(98_000_000, 98_000_000, 0.0), "98.0 of 98.0 MB (100 %), less than a minute left"),
        (Loading(1500, None), "1.5 kB are loaded"),
        (Loading(0, 12), "0.0 of 0.0 kB (0 %)"),
    ],
)
def test_in_words(loading: Loading, words: str) -> None:
    assert conditions.describe(loading) == words


LOADER_ENDED = Pod("p", placed=True, fault=Fault("ModelSourceUnreachable", "gone", model=True))


@pytest.mark.parametrize(
    ("pods", "loading", "model", "ready"),
    [
        ((world.STARTING,), HALF, ("False", "Loading"), ("False", "Loading")),
        ((world.STARTING,), Loading(), ("Unknown", "Loading"), ("False", "Starting")),
        ((LOADER_ENDED,), HALF, ("False", "Loading"), ("False", "Loading")),
        ((LOADER_ENDED,), Loading(), ("False", "ModelSourceUnreachable"), None),
        ((world.READY, world.STARTING), HALF, ("True", "Loaded"), ("True", "Serving")),
    ],
)
def test_conditions_while_a_model_is_loaded(
    pods: tuple[Pod, ...], loading: Loading, model: tuple[str, str], ready: tuple[str, str] | None
) -> None:
    facts = world.facts(pods=pods, loading=loading)
    verdicts = conditions.judge(facts, capacity.judge(facts))
    assert (verdicts[T.MODEL_READY].status, verdicts[T.MODEL_READY].reason) == model
    if ready:
        assert (verdicts[T.READY].status, verdicts[T.READY].reason) == ready


def test_from_zero_a_model_on_its_way_is_no_fault() -> None:
    zero = world.service(scaling={"minReplicas": 0, "maxReplicas": 1})
    facts = world.facts(zero, pods=(world.STARTING,), loading=HALF)
    assert conditions.judge(facts, capacity.judge(facts))[T.READY].status == "True"


def test_progress_alone_is_written_every_half_minute() -> None:
    def written(loading: Loading | None, **how: Any) -> Any:
        facts = world.facts(pods=(world.STARTING,), loading=loading, **how)
        return decide_status(facts, capacity.judge(facts), world.SETTINGS, 1_800_000_000.0, 0.0)

    first, later = written(HALF), written(Loading(4 * GB, 16 * GB, 200.0))
    assert first.model.to_dict() == {"loadedBytes": 3_100_000_000, "totalBytes": 16 * GB}
    assert status.wait(first, later, since=10.0) == 20.0
    assert status.wait(first, written(None), since=10.0) == 0.0  # another reason: at once
    assert written(None).model is None
