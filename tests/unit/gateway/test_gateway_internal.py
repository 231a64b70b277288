"""The internal port: demand for the operator alone, metrics from zero, readiness."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson
import pytest
from gateway_world import BODY, TOKEN, Upstream, World, service, spillover, until, world

from overspill.gateway.internal import (
    MAX_REMEMBERED,
    MAX_REVIEWS,
    MAX_WAITING,
    REFUSED_SECONDS,
    NotReviewed,
    TokenCheck,
    TooManyReviews,
)


async def demand(w: World, token: str = TOKEN) -> tuple[int, AsyncIterator[dict[str, Any]]]:
    """Open the stream; it is closed with the world."""
    session = aiohttp.ClientSession()
    headers = {"Authorization": f"Bearer {token}"}
    answer = await session.get(f"{w.internal_url}/demand", headers=headers)

    async def lines() -> AsyncIterator[dict[str, Any]]:
        async with session:
            async for line in answer.content:
                yield orjson.loads(line)

    return answer.status, lines()


async def test_a_held_request_is_reported_at_once_and_served_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("overspill.gateway.demand.REPORT_SECONDS", 3600)
    async with world(instance="pod-1") as w, Upstream().serving() as engine:
        w.state.put_service(service(scaling={"minReplicas": 0}))
        status, lines = await demand(w)
        assert status == 200
        first = await anext(lines)
        assert first == {"instance": "pod-1", "seq": 1, "services": {}, "providers": {}}
        request = asyncio.create_task(w.post("/v1/chat/completions", BODY))
        second = await asyncio.wait_for(anext(lines), 30)
        assert second["services"] == {
            "team-a/chat": {
                "arrivals": 1,
                "queued": 1,
                "held": 1,
                "in_flight": 0,
                "spilled_in_flight": 0,
                "wait_p95": None,
            }
        }
        w.replicas(engine)
        assert (await request)[0] == 200
        w.plane.demand.wake()
        third = await asyncio.wait_for(anext(lines), 30)
        chat = third["services"]["team-a/chat"]
        assert (chat["arrivals"], chat["queued"], chat["held"]) == (1, 0, 0)
        assert chat["wait_p95"] > 0
        await lines.aclose()  # type: ignore[attr-defined]


async def test_a_request_that_spilled_for_a_cold_start_wakes_the_service_too() -> None:
    async with world() as w, Upstream().serving() as cloud:
        cloud.gate.clear()
        w.state.put_service(service(scaling={"minReplicas": 0}, spillover=spillover()))
        w.provider(cloud)
        request = asyncio.create_task(w.post("/v1/chat/completions", BODY))
        await asyncio.wait_for(cloud.arrived.wait(), 5)
        _, lines = await demand(w)
        report = await anext(lines)
        chat = report["services"]["team-a/chat"]
        assert (chat["held"], chat["spilled_in_flight"]) == (1, 1)
        assert report["providers"] == {
            "team-a/cloud": {"ready": True, "reason": "Ready", "message": "", "unknown_models": []}
        }
        cloud.gate.set()
        await request
        await lines.aclose()  # type: ignore[attr-defined]


async def test_only_the_operator_may_read_demand() -> None:
    async with world() as w:
        for token in ("", "other", "x" * 10_000, "ü"):
            status, lines = await demand(w, token)
            assert status in (400, 401)
            await lines.aclose()  # type: ignore[attr-defined]
        assert w.plane.demand._listeners == set()


async def test_demand_is_closed_while_tokens_cannot_be_reviewed() -> None:
    async def away(token: str) -> str:
        raise NotReviewed("no API server")

    async with world(review=away) as w:
        status, lines = await demand(w)
        assert status == 503
        await lines.aclose()  # type: ignore[attr-defined]


async def test_a_token_is_reviewed_once_a_minute() -> None:
    reviewed, now = [], 0.0

    async def review(token: str) -> str:
        reviewed.append(token)
        return "operator" if token == "good" else "somebody"

    check = TokenCheck(review, "operator", lambda: now)
    assert [await check.allows(b"Bearer good") for _ in range(3)] == [True] * 3
    assert len(reviewed) == 1
    now = 61.0
    assert await check.allows(b"Bearer good")
    assert len(reviewed) == 2
    assert not await check.allows(b"Bearer bad")
    assert not await check.allows(b"Basic good")
    assert not await check.allows(b"")


async def test_a_token_that_was_refused_is_not_reviewed_again_soon() -> None:
    reviewed, now = [], 0.0

    async def review(token: str) -> str:
        reviewed.append(token)
        return "somebody"

    check = TokenCheck(review, "operator", lambda: now)
    assert [await check.allows(b"Bearer bad") for _ in range(5)] == [False] * 5
    assert len(reviewed) == 1
    now = REFUSED_SECONDS + 1
    assert not await check.allows(b"Bearer bad")
    assert len(reviewed) == 2
    for number in range(1000):
        await check.allows(b"Bearer %d" % number)
    assert len(check._bad_until) == MAX_REMEMBERED


async def test_unknown_tokens_do_not_flood_the_api_server() -> None:
    at_once = [0, 0]
    gate = asyncio.Event()

    async def review(token: str) -> str:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await gate.wait()
        at_once[0] -= 1
        return "operator" if token == "good" else ""

    check = TokenCheck(review, "operator", lambda: 0.0)
    flood = [asyncio.create_task(check.allows(b"Bearer %d" % n)) for n in range(MAX_WAITING - 1)]
    operator = asyncio.create_task(check.allows(b"Bearer good"))
    late = asyncio.create_task(check.allows(b"Bearer late"))
    await until(late.done)
    assert isinstance(late.exception(), TooManyReviews)
    flood[5].cancel()
    gate.set()
    assert await operator
    assert at_once == [0, MAX_REVIEWS]
    assert not await check.allows(b"Bearer late"), "there is room again"


async def test_demand_says_503_while_too_many_wait_for_their_review(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("overspill.gateway.internal.MAX_WAITING", 0)
    async with world() as w:
        status, lines = await demand(w)
        assert status == 503
        await lines.aclose()  # type: ignore[attr-defined]


async def test_a_reader_that_leaves_is_forgotten() -> None:
    async with world() as w:
        _, lines = await demand(w)
        await anext(lines)
        assert len(w.plane.demand._listeners) == 1
        await lines.aclose()  # type: ignore[attr-defined]
        await until(lambda: not w.plane.demand._listeners)


async def test_demand_is_told_until_the_last_request_has_ended() -> None:
    async with world() as w, Upstream().serving() as engine:
        w.state.put_service(service())
        w.replicas(engine)
        engine.gate.clear()
        _, lines = await demand(w)
        request = asyncio.create_task(w.post("/v1/chat/completions", BODY))
        await asyncio.wait_for(engine.arrived.wait(), 5)
        w.stop.set()
        while (await anext(lines))["services"].get("team-a/chat", {}).get("in_flight") != 1:
            pass
        engine.gate.set()
        assert (await request)[0] == 200
        async for _ in lines:
            pass  # to a proper end
        await asyncio.wait_for(w.task, 5)


async def test_series_exist_with_zero_before_the_first_request() -> None:
    async with world() as w, Upstream().serving() as cloud:
        w.state.put_service(service(spillover=spillover()))
        w.provider(cloud)
        page = await w.metrics()
    labels = 'service_name="chat",service_namespace="team-a"'
    for line in (
        f'overspill_cost_dollars_total{{destination="team-a/cloud",{labels}}} 0.0',
        f'overspill_cost_dollars_total{{destination="local",{labels}}} 0.0',
        f'overspill_requests_total{{code="200",destination="local",reason="",{labels}}} 0.0',
        'overspill_requests_total{code="200",destination="team-a/cloud",reason="ClusterFull",'
        f"{labels}}} 0.0",
        f"overspill_arrivals_total{{{labels}}} 0.0",
        f"overspill_queued_requests{{{labels}}} 0.0",
        f"overspill_gateway_ready_replicas{{{labels}}} 0.0",
    ):
        assert line in page


async def test_series_of_a_removed_service_go() -> None:
    async with world() as w, Upstream().serving() as engine:
        w.state.put_service(service())
        w.replicas(engine)
        await w.post("/v1/chat/completions", BODY)
        assert 'service_name="chat"' in await w.metrics()
        w.state.remove_service("team-a/chat")
        await w.metrics()
        assert 'service_name="chat"' not in await w.metrics()


async def test_probes_and_nothing_else() -> None:
    async with world() as w, aiohttp.ClientSession() as session:
        for path, status in [("/healthz", 200), ("/readyz", 200), ("/", 404), ("/v1/models", 404)]:
            async with session.get(w.internal_url + path) as answer:
                assert answer.status == status
        async with session.post(f"{w.internal_url}/metrics") as answer:
            assert answer.status == 404
