"""Requests wait, spill, or are refused: real servers play the replicas and the cloud."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from gateway_world import (
    BODY,
    MESSAGES,
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

FAST = {"objective": {"queueWait": {"p95": "100ms"}}}
PATIENT = {"objective": {"queueWait": {"p95": "1h"}}}
COST = "overspill_cost_dollars_total{"
FULL = {"capacity": {"full": True, "reason": "Unschedulable"}, "replicas": 2}


@pytest.fixture
async def cloud() -> AsyncIterator[Upstream]:
    async with Upstream(words=["from", " the", " cloud"]).serving() as upstream:
        yield upstream


@pytest.fixture
async def gateway() -> AsyncIterator[World]:
    async with world(queue_bound=2, hold=30.0) as w:
        yield w


# waiting


async def test_a_request_waits_for_a_slot_and_is_served_in_turn(
    gateway: World, engine: Upstream
) -> None:
    gateway.state.put_service(service(engine=ONE_SLOT, scaling=PATIENT))
    gateway.replicas(engine)
    first = await occupy(gateway, engine)
    second = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    assert len(engine.bodies) == 1
    engine.gate.set()
    assert [(await t)[0] for t in (first, second)] == [200, 200]


async def test_from_zero_a_request_is_held_until_a_replica_is_ready(
    gateway: World, engine: Upstream
) -> None:
    gateway.state.put_service(service(scaling={"minReplicas": 0}))
    held = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    gateway.replicas(engine, ready=False)
    assert queued(gateway) == 1
    gateway.replicas(engine)
    assert (await held)[0] == 200


async def test_what_somebody_has_set_to_zero_holds_nobody_until_it_is_raised(
    gateway: World, engine: Upstream
) -> None:
    by_hand = {"mode": "Manual", "minReplicas": 0}
    gateway.state.put_service(service(scaling=by_hand))
    held = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    gateway.state.put_service(service(scaling={**by_hand, "replicas": 0}))
    for refused in (held, chat(gateway)):
        status, headers, body = await refused
        error = orjson.loads(body)["error"]
        assert (status, headers["Retry-After"], error["code"]) == (503, "30", "scaled_to_zero")
    gateway.state.put_service(service(scaling=by_hand))
    held = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    gateway.replicas(engine)
    assert (await held)[0] == 200


async def test_a_full_queue_is_a_429_with_retry_after(gateway: World, engine: Upstream) -> None:
    gateway.state.put_service(service(engine=ONE_SLOT, scaling=PATIENT))
    gateway.replicas(engine)
    tasks = [await occupy(gateway, engine), chat(gateway), chat(gateway)]
    await until(lambda: queued(gateway) == 2)
    with pytest.raises(openai.RateLimitError) as info:
        await gateway.sdk().chat.completions.create(model="chat", messages=MESSAGES)
    assert info.value.code == "queue_full"
    assert 1 <= int(info.value.response.headers["retry-after"]) <= 60
    engine.gate.set()
    assert [(await t)[0] for t in tasks] == [200, 200, 200]


async def test_the_wait_for_a_first_replica_ends_with_a_503() -> None:
    async with world(hold=0.2) as w:
        w.state.put_service(service(scaling={"minReplicas": 0}))
        status, headers, body = await chat(w)
    assert status == 503
    assert headers["Retry-After"] == "60"
    assert orjson.loads(body)["error"]["code"] == "no_replica_ready"


async def test_a_model_that_cannot_be_loaded_ends_the_wait_unless_a_replica_is_ready(
    gateway: World, engine: Upstream
) -> None:
    fault = {"type": "ModelReady", "status": "False", "reason": "ClaimNotFound", "message": "vol"}
    gateway.state.put_service(service())
    held = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    gateway.state.put_service(service(status={"conditions": [fault]}))
    for refused in (held, chat(gateway)):
        status, headers, body = await refused
        error = orjson.loads(body)["error"]
        assert (status, headers["Retry-After"], error["code"]) == (503, "30", "model_not_ready")
        assert "ClaimNotFound" in error["message"]
        assert "vol" not in error["message"]
    gateway.replicas(engine)
    assert (await chat(gateway))[0] == 200


async def test_the_wait_for_a_slot_ends_with_a_429(engine: Upstream) -> None:
    async with world(hold=0.3) as w:
        w.state.put_service(service(engine=ONE_SLOT, scaling=PATIENT))
        w.state.services["team-a/chat"].admission.mean_service_seconds = 0.01
        w.replicas(engine)
        first = await occupy(w, engine)
        status, _, body = await chat(w)
        assert (status, orjson.loads(body)["error"]["code"]) == (429, "overloaded")
        engine.gate.set()
        assert (await first)[0] == 200


async def test_a_removed_service_lets_its_queue_go(gateway: World) -> None:
    gateway.state.put_service(service(scaling={"minReplicas": 0}))
    held = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    gateway.state.remove_service("team-a/chat")
    assert (await held)[0] == 404


async def test_a_waiting_stream_gets_heartbeats_and_then_its_answer(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.reply.HEARTBEAT_SECONDS", 0.05)
    gateway.state.put_service(service(scaling={"minReplicas": 0}))
    beats = b": waiting\n\n" * 2
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {gateway.key}"}) as session,
        session.post(f"{gateway.url}/v1/chat/completions", json=BODY | {"stream": True}) as answer,
    ):
        assert await answer.content.readexactly(len(beats)) == beats
        gateway.replicas(engine)
        events = (await answer.content.read()).split(b"\n\n")
    assert answer.status == 200
    assert "x-overspill-destination" not in answer.headers
    assert b": x-overspill-destination=local" in events
    assert events[-2] == b"data: [DONE]"


async def test_an_error_after_a_heartbeat_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overspill.gateway.reply.HEARTBEAT_SECONDS", 0.05)
    async with world(hold=0.2) as w:
        w.state.put_service(service(scaling={"minReplicas": 0}))
        status, _, body = await chat(w, stream=True)
    assert status == 200
    last = body.split(b"\n\n")[-2]
    assert orjson.loads(last.removeprefix(b"data: "))["error"]["code"] == "no_replica_ready"
    assert b"[DONE]" not in body


# spilling


async def test_cluster_full_spills_what_would_wait_too_long(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    gateway.state.put_service(
        service(engine=ONE_SLOT, scaling=FAST, spillover=spillover(), status=FULL)
    )
    gateway.provider(cloud)
    gateway.replicas(engine)
    first = await occupy(gateway, engine)
    status, headers, body = await chat(gateway)
    assert status == 200
    assert headers["x-overspill-destination"] == "team-a/cloud"
    assert headers["x-overspill-reason"] == "ClusterFull"
    # 5 input tokens at $1.75 and 4 output tokens at $14 per million
    assert headers["x-overspill-cost-usd"] == "0.00006475"
    assert orjson.loads(body)["choices"][0]["message"]["content"] == "from the cloud"
    assert cloud.bodies == [
        {"model": "big-1", "messages": MESSAGES, "max_tokens": 7, "stream": False}
    ]
    assert cloud.seen_headers[0]["Authorization"] == "Bearer cloud-secret"
    engine.gate.set()
    status, headers, _ = await first
    assert (status, headers["x-overspill-destination"]) == (200, "local")
    page = await gateway.metrics()
    labels = 'service_name="chat",service_namespace="team-a"'
    assert f'overspill_cost_dollars_total{{destination="team-a/cloud",{labels}}} 6.475e-05' in page
    assert (
        'overspill_requests_total{code="200",destination="team-a/cloud",reason="ClusterFull",'
        f"{labels}}} 1.0" in page
    )


async def test_everything_else_stays_local_when_full(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    gateway.state.put_service(service(spillover=spillover(), status=FULL))
    gateway.provider(cloud)
    gateway.replicas(engine)
    for _ in range(3):
        assert (await chat(gateway))[1]["x-overspill-destination"] == "local"
    assert cloud.bodies == []


async def test_a_spilled_stream_tells_its_cost_and_hides_the_usage_chunk(
    gateway: World, cloud: Upstream
) -> None:
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud)
    status, headers, body = await chat(gateway, stream=True)
    assert (status, headers["x-overspill-reason"]) == (200, "ColdStart")
    events = body.split(b"\n\n")
    assert events[-3:] == [b": x-overspill-cost-usd=0.00006475", b"data: [DONE]", b""]
    assert b'"usage"' not in body
    assert cloud.bodies[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(
    ("strategy", "chosen"), [("Ordered", "team-a/cloud"), ("Cheapest", "team-a/cheap")]
)
async def test_the_strategy_chooses_the_provider(
    gateway: World, cloud: Upstream, strategy: str, chosen: str
) -> None:
    gateway.state.put_service(service(spillover=spillover("cloud", "cheap", strategy=strategy)))
    gateway.provider(cloud)
    price = {"inputPerMTok": "0.10", "outputPerMTok": "0.40"}
    gateway.provider(cloud, "cheap", models=[{"name": "big-1", "price": price}])
    status, headers, _ = await chat(gateway)
    assert (status, headers["x-overspill-destination"]) == (200, chosen)


async def test_a_queued_request_spills_when_the_cluster_becomes_full(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    only_full = spillover(when=["ClusterFull"])
    spec: dict[str, Any] = {"engine": ONE_SLOT, "scaling": FAST, "spillover": only_full}
    gateway.state.put_service(service(**spec))
    gateway.provider(cloud)
    gateway.replicas(engine)
    first = await occupy(gateway, engine)
    second = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    gateway.state.put_service(service(**spec, status=FULL))
    assert (await second)[1]["x-overspill-reason"] == "ClusterFull"
    engine.gate.set()
    await first


async def test_a_queued_request_spills_once_it_has_waited_for_the_objective(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    gateway.state.put_service(service(engine=ONE_SLOT, scaling=FAST, spillover=spillover()))
    gateway.state.services["team-a/chat"].admission.mean_service_seconds = 0.01
    gateway.provider(cloud)
    gateway.replicas(engine)
    first = await occupy(gateway, engine)
    status, headers, _ = await chat(gateway)
    assert (status, headers["x-overspill-reason"]) == (200, "ObjectiveAtRisk")
    engine.gate.set()
    await first


NEVER = [
    ({"dataPolicy": "Never"}, {}),
    ({}, {"x-overspill-data-policy": "never"}),
    ({}, {"x-overspill-data-policy": "NEVER"}),
    ({"dataPolicy": "Never"}, {"x-overspill-data-policy": "allowed"}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("policy", "headers"), NEVER)
async def test_nothing_leaves_when_the_policy_says_never(
    gateway: World,
    engine: Upstream,
    cloud: Upstream,
    policy: dict[str, str],
    headers: dict[str, str],
    stream: bool,
) -> None:
    gateway.state.put_service(
        service(engine=ONE_SLOT, scaling=FAST, spillover=spillover(**policy), status=FULL)
    )
    gateway.provider(cloud)
    tasks = [chat(gateway, stream, **headers) for _ in range(4)]  # none ready, then one slot
    await until(lambda: queued(gateway) == 2)
    gateway.replicas(engine)
    answers = [await t for t in tasks]
    assert sorted(a[0] for a in answers) == [200, 200, 429, 429]
    assert all("Retry-After" in a[1] for a in answers if a[0] == 429)
    assert {a[1].get("x-overspill-destination") for a in answers} <= {"local", None}
    assert cloud.bodies == []


async def test_nothing_leaves_when_the_replica_fails_either(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    engine.status = 502
    gateway.state.put_service(service(spillover=spillover(dataPolicy="Never"), status=FULL))
    gateway.provider(cloud)
    gateway.replicas(engine)
    assert (await chat(gateway))[0] == 503
    assert cloud.bodies == []


async def test_the_next_provider_answers_when_the_first_cannot(
    gateway: World, cloud: Upstream
) -> None:
    async with Upstream(status=529, headers={"Retry-After": "1e9"}).serving() as first:
        gateway.state.put_service(service(spillover=spillover("first", "cloud")))
        gateway.provider(first, "first")
        gateway.provider(cloud)
        for _ in range(3):
            assert (await chat(gateway))[1]["x-overspill-destination"] == "team-a/cloud"
        assert len(first.bodies) == 1, "it is left alone while it cools down"


@pytest.mark.parametrize("trouble", [{"break_after": 0}, {"error_after": 0}])
async def test_a_stream_that_fails_before_its_first_content_goes_elsewhere(
    gateway: World, cloud: Upstream, trouble: dict[str, int]
) -> None:
    async with Upstream(**trouble).serving() as first:  # type: ignore[arg-type]
        gateway.state.put_service(service(spillover=spillover("first", "cloud")))
        gateway.provider(first, "first")
        gateway.provider(cloud)
        _, headers, body = await chat(gateway, stream=True)
    assert headers["x-overspill-destination"] == "team-a/cloud"
    assert b"from" in body
    assert body.count(b'"role":"assistant"') == 1


@pytest.mark.parametrize("trouble", [{"break_after": 2}, {"error_after": 2}])
async def test_a_spilled_stream_that_breaks_later_ends_with_an_error_and_is_charged(
    gateway: World, trouble: dict[str, int]
) -> None:
    async with Upstream(**trouble).serving() as cloud:  # type: ignore[arg-type]
        gateway.state.put_service(service(spillover=spillover()))
        gateway.provider(cloud)
        status, _, body = await chat(gateway, stream=True)
        page = await gateway.metrics()
    assert status == 200
    last = orjson.loads(body.split(b"\n\n")[-2].removeprefix(b"data: "))
    assert last["error"]["code"] == "upstream_broken"
    assert b"[DONE]" not in body
    (cost,) = [x for x in page.splitlines() if x.startswith(COST) and "team-a/cloud" in x]
    assert float(cost.split()[-1]) > 0


async def test_when_all_providers_fail_the_request_goes_back_to_the_queue(
    gateway: World, engine: Upstream
) -> None:
    async with Upstream(status=500).serving() as cloud:
        gateway.state.put_service(service(spillover=spillover()))
        gateway.provider(cloud)
        request = chat(gateway)
        await until(lambda: queued(gateway) == 1)
        gateway.replicas(engine)
        status, headers, _ = await request
    assert (status, headers["x-overspill-destination"]) == (200, "local")
    assert "x-overspill-reason" not in headers


async def test_what_one_provider_refuses_another_or_a_replica_may_answer(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    async with Upstream(status=400).serving() as first:
        gateway.state.put_service(
            service(engine=ONE_SLOT, scaling=FAST, spillover=spillover("first", "cloud"))
        )
        gateway.provider(first, "first")
        gateway.provider(cloud)
        assert (await chat(gateway))[1]["x-overspill-destination"] == "team-a/cloud"
        cloud.status = 400
        gateway.replicas(engine)
        occupied = await occupy(gateway, engine)
        refused = chat(gateway)
        await until(lambda: len(cloud.bodies) == 2)
        engine.gate.set()
        assert (await refused)[1]["x-overspill-destination"] == "local"
        await occupied


async def test_a_refusal_is_told_when_nobody_else_can_answer(gateway: World) -> None:
    async with Upstream(status=400).serving() as only:
        gateway.state.put_service(service(spillover=spillover()))
        gateway.provider(only)
        status, _, body = await chat(gateway)
    error = orjson.loads(body)["error"]
    assert (status, error["code"], error["message"]) == (400, "provider_refused", "no")


@pytest.mark.parametrize(
    "spec",
    [
        {"models": [{"name": "big-1"}]},  # no price
        {"models": [{"name": "other", "price": {"inputPerMTok": "1", "outputPerMTok": "1"}}]},
        {"allowedNamespaces": ["team-b"]},
    ],
)
async def test_an_unusable_provider_gets_nothing(
    gateway: World, engine: Upstream, cloud: Upstream, spec: dict[str, Any]
) -> None:
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud, **spec)
    request = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    gateway.replicas(engine)
    assert (await request)[1]["x-overspill-destination"] == "local"
    assert cloud.bodies == []


async def test_a_provider_without_its_key_gets_nothing_until_the_key_is_there(
    gateway: World, cloud: Upstream
) -> None:
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud)
    gateway.state.set_secret("team-a/cloud", "", "SecretNotFound", "create Secret cloud-key")
    request = chat(gateway)
    await until(lambda: queued(gateway) == 1)
    unfit = gateway.state.providers["team-a/cloud"].unfit_for("team-a", "big-1")
    assert unfit == "SecretNotFound, see its conditions", "clients hear it, too"
    gateway.state.set_secret("team-a/cloud", "new", "Ready")
    assert (await request)[1]["x-overspill-destination"] == "team-a/cloud"
    assert cloud.seen_headers[0]["Authorization"] == "Bearer new"


async def test_a_held_request_goes_to_a_provider_that_has_rested(
    gateway: World, cloud: Upstream
) -> None:
    gateway.state.put_service(service(scaling=PATIENT, spillover=spillover()))
    gateway.provider(cloud)
    gateway.state.providers["team-a/cloud"].breaker.until = gateway.state.clock() + 0.2
    _, headers, _ = await asyncio.wait_for(chat(gateway), 5)
    assert headers["x-overspill-destination"] == "team-a/cloud"


async def test_a_short_rest_does_not_end_a_long_one(
    gateway: World, engine: Upstream, cloud: Upstream
) -> None:
    cloud.break_after = 0
    cloud.gate.clear()
    gateway.state.put_service(service(spillover=spillover()))
    gateway.provider(cloud)
    request = chat(gateway)
    await asyncio.wait_for(cloud.arrived.wait(), 5)
    known = gateway.state.providers["team-a/cloud"].breaker
    known.until = until_then = gateway.state.clock() + 60.0  # another request's 429
    cloud.gate.set()
    await until(lambda: queued(gateway) == 1)
    assert known.until == until_then
    gateway.replicas(engine)
    assert (await request)[0] == 200
