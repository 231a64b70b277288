"""Budgets between a real gateway, the operator's part of the ledger, and a server for the cloud."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from gateway_world import (
    BODY,
    MESSAGES,
    ONE_SLOT,
    TOKEN,
    Upstream,
    World,
    chat,
    occupy,
    service,
    spillover,
    world,
)
from ledger_world import SERVICE, Store, operator, until

from overspill.api.budget import Window
from overspill.api.keys import key_secret, new_key
from overspill.cluster import Unavailable
from overspill.controller import treasurer as treasurers
from overspill.controller.treasurer import Treasurer
from overspill.gateway import funds

COST = 64_750  # nano-dollars of an answer: 5 tokens at $1.75 and 4 at $14 per million


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(treasurers, "SPACING", 0.0)
    monkeypatch.setattr(treasurers, "URGENT_SPACING", 0.0)
    monkeypatch.setattr(funds, "GRANT_SECONDS", 30.0)  # the machine may be busy


@pytest.fixture
async def cloud() -> AsyncIterator[Upstream]:
    async with Upstream().serving() as upstream:
        yield upstream


@pytest.fixture
async def engine() -> AsyncIterator[Upstream]:
    async with Upstream().serving() as upstream:
        yield upstream


@pytest.fixture
async def gateway(cloud: Upstream) -> AsyncIterator[World]:
    """A gateway whose only service has no replica and spills at once."""
    async with world(hold=0.2) as w:
        w.state.put_service(service(spillover=spillover(budget={"perDay": "1"})))
        w.provider(cloud)
        yield w


@pytest.fixture
async def ledger() -> Store:
    return Store()


@pytest.fixture
async def treasurer(gateway: World, ledger: Store, tmp_path: Path) -> AsyncIterator[Treasurer]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    address = gateway.internal_url.removeprefix("http://")
    async with operator(ledger, [address], token) as made:
        yield made


def budget(w: World, **windows: str) -> None:
    w.state.put_service(service(spillover=spillover(budget=windows)))


def spent(treasurer: Treasurer, account: str = SERVICE) -> int:
    stand = treasurer.stand(account, {Window.DAY: 10**9}, time.time())
    assert stand is not None
    return stand.spent[Window.DAY]


async def known(treasurer: Treasurer, nano: int, account: str = SERVICE) -> None:
    """Wait until the operator knows what was spent."""
    await until(lambda: spent(treasurer, account) == nano)


async def test_a_request_is_sent_when_its_worst_case_is_granted_and_charged_what_it_cost(
    gateway: World, cloud: Upstream, ledger: Store, treasurer: Treasurer
) -> None:
    status, headers, _ = await chat(gateway)
    assert (status, headers["x-overspill-cost-usd"]) == (200, "0.00006475")
    await known(treasurer, COST)
    assert ledger.charged() >= COST
    assert (await chat(gateway, stream=True))[0] == 200
    await known(treasurer, 2 * COST)


async def test_when_the_budget_is_spent_nothing_is_sent_and_the_client_is_told_why(
    gateway: World, cloud: Upstream, treasurer: Treasurer
) -> None:
    budget(gateway, perDay="0.0003")  # the worst case is 0.0003 and a bit
    status, _, body = await chat(gateway)
    assert status == 503
    message = orjson.loads(body)["error"]["message"]
    assert "team-a/cloud: the budget of service/team-a/chat for this day has no room" in message
    assert cloud.bodies == []
    stand = treasurer.stand(SERVICE, {Window.DAY: 300_000}, time.time())
    assert stand is not None
    assert stand.full is None, "a smaller request would fit"
    page = await gateway.metrics()
    assert 'reason="BudgetSpent"' in page
    assert 'requests_total{code="503",destination="none"' in page, "it was not sent anywhere"


async def test_local_answers_go_on_and_one_that_would_spill_waits_its_turn(
    gateway: World, engine: Upstream, cloud: Upstream, treasurer: Treasurer
) -> None:
    fast = {"objective": {"queueWait": {"p95": "10ms"}}}
    gateway.state.put_service(
        service(engine=ONE_SLOT, scaling=fast, spillover=spillover(budget={"perDay": "0"}))
    )
    gateway.plane.gateway.dispatcher.chooser.hold_limit = 30.0
    gateway.replicas(engine)
    first = await occupy(gateway, engine)
    second = chat(gateway)
    await until(lambda: treasurer.stand(SERVICE, {Window.DAY: 0}, time.time()).full)
    engine.gate.set()
    assert [(await t)[0] for t in (first, second)] == [200, 200]
    assert cloud.bodies == []


async def test_without_an_operator_nothing_with_a_budget_is_sent(
    gateway: World, cloud: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(funds, "GRANT_SECONDS", 0.05)
    status, _, body = await chat(gateway)
    assert status == 503
    assert b"no money was granted" in body
    gateway.state.put_service(service(spillover=spillover()))
    assert (await chat(gateway))[0] == 200, "without a budget nobody is asked"
    assert len(cloud.bodies) == 1


async def test_a_ledger_that_cannot_be_written_sends_nothing_until_it_can(
    gateway: World,
    cloud: Upstream,
    ledger: Store,
    treasurer: Treasurer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await chat(gateway)
    await known(treasurer, COST)
    budget(gateway, perDay="1", perHour="1")  # of this hour it has no grant yet
    ledger.fault = Unavailable("etcdserver: mvcc: database space exceeded")
    with monkeypatch.context() as patch:
        patch.setattr(funds, "GRANT_SECONDS", 0.3)
        assert (await chat(gateway))[0] == 503
    assert len(cloud.bodies) == 1
    await until(lambda: treasurer.problem)
    assert "database space exceeded" in treasurer.problem
    ledger.fault = None
    await until(lambda: not treasurer.problem)
    assert (await chat(gateway))[0] == 200
    await known(treasurer, 2 * COST)


@pytest.mark.parametrize(
    ("fault", "charged"),
    [
        ({"status": 400}, 0),
        ({"status": 500}, 0),
        ({"status": 429}, 0),
        ({"usage": None}, -1),  # the worst case: nobody knows what it was
        ({"break_after": 0}, -1),
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}, -1),
        ({"usage": {"prompt_tokens": 7}}, -1),
        ({"status": 502}, -1),  # of a proxy: what is behind it may have answered
        ({"usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}, 15_750_000),
    ],
)
async def test_what_is_not_proven_to_be_less_is_charged_as_the_worst_case(
    gateway: World, cloud: Upstream, treasurer: Treasurer, fault: dict[str, Any], charged: int
) -> None:
    for name, value in fault.items():
        setattr(cloud, name, value)
    await chat(gateway)
    sent = orjson.dumps({"model": "chat", "messages": MESSAGES, "max_tokens": 7, "stream": False})
    worst = (len(sent) + 64) * 1750 + 7 * 14_000
    expected = worst if charged < 0 else charged
    await known(treasurer, expected)
    page = await gateway.metrics()
    (line,) = [
        x
        for x in page.splitlines()
        if x.startswith("overspill_cost_dollars_total{") and "team-a/cloud" in x
    ]
    assert float(line.split()[-1]) == pytest.approx(expected / 1e9), "metrics and ledger agree"


async def test_a_stream_that_breaks_off_is_charged_as_the_worst_case(
    gateway: World, cloud: Upstream, treasurer: Treasurer
) -> None:
    cloud.break_after = 2
    await chat(gateway, stream=True)
    await until(lambda: spent(treasurer) > COST)


@pytest.mark.parametrize("words", [0, 2])
async def test_an_error_after_a_200_is_charged_and_another_answers_only_before_the_first_word(
    gateway: World, cloud: Upstream, treasurer: Treasurer, words: int
) -> None:
    """RELIABILITY row 11."""
    cloud.error_after = words
    async with Upstream().serving() as second:
        both = spillover("cloud", "second", budget={"perDay": "1"})
        gateway.state.put_service(service(spillover=both))
        gateway.provider(second, "second")
        status, _, body = await chat(gateway, stream=True)
        await until(lambda: spent(treasurer) > 7 * 14_000 + COST * (words == 0))
    assert (status, len(second.bodies)) == (200, 1 if words == 0 else 0)
    assert body.count(b'"content":"Hel"') == 1, "no word twice"
    assert (b"overloaded" in body, body.count(b'"error"')) == (False, words // 2)
    assert body.endswith(b"data: [DONE]\n\n") == (words == 0)


async def test_a_client_that_leaves_has_spent_the_worst_case(
    gateway: World, cloud: Upstream, treasurer: Treasurer
) -> None:
    cloud.gate.clear()
    request = chat(gateway, stream=True)
    await asyncio.wait_for(cloud.arrived.wait(), 60)
    request.cancel()
    await asyncio.wait_for(cloud.left_event.wait(), 60)
    await until(lambda: spent(treasurer) > COST)


async def test_a_gateway_that_stops_gives_back_what_it_has_left(
    gateway: World, cloud: Upstream, ledger: Store, treasurer: Treasurer
) -> None:
    await chat(gateway)
    assert ledger.charged() == 5_000_000, "a 200th of the budget"
    gateway.stop.set()
    await until(lambda: ledger.charged() == COST)
    await asyncio.wait_for(gateway.task, 60)


async def test_provider_service_and_key_are_all_charged(
    gateway: World, cloud: Upstream, treasurer: Treasurer
) -> None:
    plaintext, digest = new_key()
    keys = [key_secret("overspill-system", "key-ci", digest, "team-a", budget_per_day="0.5")]
    gateway.state.keys.replace(keys)
    gateway.key = plaintext
    gateway.provider(cloud, budget={"perDay": "2", "perMonth": "3"})
    assert (await chat(gateway))[0] == 200
    for account in (SERVICE, "provider/team-a/cloud", "key/key-ci"):
        await known(treasurer, COST, account)


async def test_a_request_without_a_limit_gets_one_where_a_budget_needs_it(
    gateway: World, cloud: Upstream, treasurer: Treasurer
) -> None:
    assert (await gateway.post("/v1/chat/completions", BODY))[0] == 200
    assert cloud.bodies[0]["max_tokens"] == 4_096
    assert (await gateway.post("/v1/completions", {"model": "chat", "prompt": "hi"}))[0] == 200
    assert cloud.bodies[1]["max_tokens"] == 16


async def test_embeddings_are_charged_what_was_read(
    gateway: World, cloud: Upstream, treasurer: Treasurer
) -> None:
    cloud.usage = {"prompt_tokens": 5, "total_tokens": 5}
    assert (await gateway.post("/v1/embeddings", {"model": "chat", "input": "hi"}))[0] == 200
    await known(treasurer, 5 * 1750)


async def test_a_request_waits_for_money_once_however_many_providers_there_are(
    gateway: World, cloud: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(funds, "GRANT_SECONDS", 0.05)
    waits: list[float] = []
    reserve = funds.Funds.reserve

    async def seen(self: funds.Funds, provider: str, accounts: Any, worst: int, waited: float):  # type: ignore[no-untyped-def]
        waits.append(waited)
        return await reserve(self, provider, accounts, worst, waited)

    monkeypatch.setattr(funds.Funds, "reserve", seen)
    names = ("cloud", "second", "third")
    gateway.state.put_service(service(spillover=spillover(*names, budget={"perDay": "1"})))
    for name in names:
        gateway.provider(cloud, name)
    assert (await chat(gateway))[0] == 503, "there is no operator"
    assert len(waits) == 3
    assert waits[0] == 0 < 0.04 < waits[1] <= waits[2]


async def test_who_has_waited_long_enough_waits_no_more() -> None:
    money = funds.Funds(time.monotonic, lambda: None)
    async with asyncio.timeout(10):
        with pytest.raises(funds.NoFunds):
            await money.reserve("team-a/cloud", {SERVICE: {Window.DAY: 1}}, 1, waited=30.0)


async def test_what_cannot_be_told_of_money_does_not_end_the_stream(gateway: World) -> None:
    demand = gateway.plane.demand
    demand._funds._purse.want({"key/" + "k" * 400: {Window.DAY: 1}}, 1)
    assert "ledger" not in orjson.loads(demand.report())


async def test_only_the_operator_may_grant(gateway: World) -> None:
    async with aiohttp.ClientSession() as session:
        for token, body, status in (("x", b"{}", 401), (TOKEN, b"{}", 400), (TOKEN, b"", 400)):
            headers = {"Authorization": f"Bearer {token}"}
            async with session.post(
                f"{gateway.internal_url}/ledger", data=body, headers=headers
            ) as answer:
                assert answer.status == status
