"""Why a request went where it went: what the internal port tells of it, and to whom."""

from typing import Any

import aiohttp
import orjson
import pytest
from gateway_world import (
    ONE_SLOT,
    TOKEN,
    Object,
    Upstream,
    World,
    chat,
    occupy,
    queued,
    service,
    spillover,
    until,
)

from overspill.gateway import decisions
from overspill.gateway.decisions import Decisions, Size
from overspill.gateway.spill import Local

SLOW = {"objective": {"queueWait": {"p95": "60s"}}}
FAST = {"objective": {"queueWait": {"p95": "100ms"}}}
HEADERS = {"x-overspill-token": TOKEN}


async def ask(w: World, request_id: str, **headers: str) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{w.internal_url}/why/{request_id}", headers=headers or HEADERS) as answer,
    ):
        body = await answer.read()
        return answer.status, orjson.loads(body) if answer.status == 200 else body


async def only_attempt(w: World, headers: dict[str, str]) -> Object:
    status, known = await ask(w, headers["x-overspill-request-id"])
    assert status == 200
    assert known["service"] == "team-a/chat"
    (attempt,) = known["attempts"]
    assert isinstance(attempt, dict)
    return attempt


async def test_a_free_slot(gateway: World) -> None:
    async with Upstream().serving() as cloud:
        gateway.provider(cloud)
        gateway.state.put_service(service(spillover=spillover()))
        _, headers, _ = await chat(gateway)
        attempt = await only_attempt(gateway, headers)
        assert (attempt["destination"], attempt["why"]) == ("local", "a slot was free when it came")
        local, elsewhere = attempt["choices"]
        assert (local["to"], local["cost_usd"]) == ("local", "0")
        assert elsewhere["to"] == "team-a/cloud"
        assert float(elsewhere["cost_usd"]) > 0


async def test_a_spilled_request_tells_the_number_that_decided(
    gateway: World, engine: Upstream
) -> None:
    async with Upstream().serving() as cloud:
        gateway.provider(cloud)
        gateway.state.put_service(service(engine=ONE_SLOT, scaling=FAST, spillover=spillover()))
        first = await occupy(gateway, engine)
        _, headers, _ = await chat(gateway)
        engine.gate.set()
        await first
    attempt = await only_attempt(gateway, headers)
    assert (attempt["decided"], attempt["destination"]) == ("Spill", "team-a/cloud")
    assert attempt["why"] == (
        "a slot was expected 1.00 s after it came; the objective is 0.10 s, and ObjectiveAtRisk "
        "is in spillover.when"
    )
    assert attempt["choices"][0]["wait_seconds"] == 1.0
    assert attempt["seen"]["mean_service"] == 1.0
    assert "hi" not in orjson.dumps(attempt).decode().split('"'), "nothing of what was asked"


async def test_a_request_that_waited(gateway: World, engine: Upstream) -> None:
    gateway.state.put_service(service(engine=ONE_SLOT, scaling=SLOW))
    first = await occupy(gateway, engine)
    second = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    engine.gate.set()
    await first
    attempt = await only_attempt(gateway, (await second)[1])
    assert attempt["decided"] == "Local"
    assert attempt["why"].startswith("it waited 0.")
    assert attempt["why"].endswith("s for a slot; the objective is 60.00 s")


async def test_a_refused_request_tells_why_it_did_not_leave(
    gateway: World, engine: Upstream
) -> None:
    gateway.state.put_service(service(engine=ONE_SLOT, scaling=FAST))
    gateway.state.services["team-a/chat"].admission.limit = 0
    first = await occupy(gateway, engine)
    status, headers, _ = await chat(gateway)
    engine.gate.set()
    await first
    assert status == 429
    attempt = await only_attempt(gateway, headers)
    assert (attempt["decided"], attempt["destination"]) == ("Refuse", "none")
    assert attempt["why"] == (
        "the queue had no place for it; the objective is 0.10 s; 0 requests wait for this model "
        "already; retry later; no provider could be used"
    )
    assert attempt["choices"] == [{"to": "local", "wait_seconds": None, "cost_usd": "0"}]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-overspill-token": "another"}, 401),
        ({"authorization": "Bearer another"}, 401),
        ({"accept": "*/*"}, 401),
        ({"authorization": f"Bearer {TOKEN}"}, 404),
        (HEADERS, 404),
    ],
    ids=["another", "another bearer", "none", "bearer", "token"],
)
async def test_only_the_operator_may_ask(
    gateway: World, headers: dict[str, str], status: int
) -> None:
    assert (await ask(gateway, "0" * 32, **headers))[0] == status


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "KEPT", 2)
    ring = Decisions()
    for name in ("a", "b", "b", "c"):
        ring.note(name, "team-a/chat", Size(10, 10), Local(0.0), None)
    assert [len(ring.of(name)) for name in ("a", "b", "c")] == [0, 1, 1]
