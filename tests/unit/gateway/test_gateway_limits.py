"""A provider at its limit is skipped, and everybody is told why; nothing waits without an end."""

import math
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from gateway_world import Upstream, World, chat, queued, service, spillover, until, world

from overspill.gateway.call import CHAT, EMBEDDINGS, parse
from overspill.gateway.choice import TIMER_SLACK
from overspill.gateway.decisions import why
from overspill.gateway.dispatch import GATHER
from overspill.gateway.provider import Hindrance
from overspill.gateway.share import Share
from overspill.gateway.size import MEDIA_TOKENS, expected_tokens

REACHED = (
    b"meanwhile no provider could be used: team-a/cloud: its limit of 1 requests per minute is "
    b"reached; there is room for this request in "
)


@pytest.fixture
async def gateway() -> AsyncIterator[World]:
    async with world(hold=0.3) as w:
        w.state.put_service(service(spillover=spillover()))
        yield w


@pytest.mark.parametrize("limits", [{"requestsPerMinute": 1}, {"tokensPerMinute": 40}], ids=str)
async def test_a_provider_at_its_limit_is_skipped(
    gateway: World, cloud: Upstream, limits: dict[str, int]
) -> None:
    async with Upstream().serving() as other:
        gateway.state.put_service(service(spillover=spillover("cloud", "other")))
        gateway.provider(cloud, limits=limits)
        gateway.provider(other, "other")
        answers = [await chat(gateway) for _ in range(2)]
    places = [headers["x-overspill-destination"] for _, headers, _ in answers]
    assert places == ["team-a/cloud", "team-a/other"]
    decisions = gateway.plane.gateway.dispatcher.chooser.decisions
    told = why(decisions, gateway.state, answers[1][1]["x-overspill-request-id"])
    assert told is not None
    ((what, limit),) = limits.items()
    name = "requests" if what == "requestsPerMinute" else "tokens"
    assert f"; not to team-a/cloud: its limit of {limit} {name} per " in told["attempts"][0]["why"]


async def test_at_the_last_providers_limit_the_error_says_so(
    gateway: World, cloud: Upstream
) -> None:
    gateway.provider(cloud, limits={"requestsPerMinute": 1})
    assert (await chat(gateway))[0] == 200
    status, _, body = await chat(gateway)
    assert status == 503
    assert REACHED in body
    gateway.provider(cloud, limits={"tokensPerMinute": 10})
    assert (
        b"the request counts as 38 tokens, more than its limit of 10 tokens per"
        in (await chat(gateway))[2]
    )


async def test_so_many_requests_at_a_time_as_this_gateways_part_of_the_limit(
    cloud: Upstream,
) -> None:
    async with world(hold=30.0) as w:
        w.state.put_service(service(spillover=spillover()))
        w.provider(cloud, limits={"concurrency": 4})
        w.state.set_share(Share(0, 2))
        cloud.gate.clear()
        tasks = [chat(w) for _ in range(5)]
        await until(lambda: len(cloud.bodies) == 2 and queued(w) == 3)
        tasks.pop(0).cancel()  # its place is another's
        await until(lambda: len(cloud.bodies) >= 3)
        cloud.gate.set()
        assert {status for status, _, _ in [await t for t in tasks]} <= {200}
        assert w.state.providers["team-a/cloud"].running == 0


async def test_a_request_counts_with_what_it_has_used_once_that_is_known(
    gateway: World, cloud: Upstream
) -> None:
    gateway.provider(cloud, limits={"tokensPerMinute": 600})
    bucket = gateway.state.providers["team-a/cloud"].throttle.tokens
    assert bucket is not None
    cloud.gate.clear()
    request = chat(gateway)
    await until(lambda: bool(cloud.bodies))
    assert bucket.level == 50 - 38, "31 of the prompt, 7 of max_tokens"
    cloud.gate.set()
    await request
    assert 50 - 38 < bucket.now(bucket.at) <= 50
    cloud.status = 500
    gateway.state.put_service(service(spillover=spillover(budget={"perDay": "0"})))
    before = bucket.level
    await chat(gateway)
    assert bucket.level >= before, "what was not sent does not count"


@pytest.mark.parametrize("hindered", [math.inf, 60.0])
@pytest.mark.parametrize("waited", [0.0, 0.2999, 0.3, 0.4])
async def test_whatever_hinders_a_provider_nobody_waits_longer_than_is_allowed(
    gateway: World, waited: float, hindered: float
) -> None:
    chooser = gateway.plane.gateway.dispatcher.chooser
    exchange: Any = SimpleNamespace(
        arrived=gateway.state.clock() - waited,
        service=gateway.state.services["team-a/chat"],
        seen=SimpleNamespace(hindered=[Hindrance("team-a/cloud", "busy", hindered)]),
    )
    assert 0 < chooser._until_next(exchange) <= max(0.0, 0.3 - waited) + TIMER_SLACK


async def test_those_who_wait_decide_once_however_many_permits_come_back(gateway: World) -> None:
    dispatcher, told = gateway.plane.gateway.dispatcher, list[float]()
    gateway.state.recheck_all = lambda: told.append(gateway.state.clock())  # type: ignore[method-assign]
    for rounds in (1, 2):
        for _ in range(100):
            dispatcher._tell_waiting()
        await until(lambda rounds=rounds: len(told) >= rounds)  # type: ignore[misc]
    assert len(told) == 2
    assert told[1] - told[0] >= GATHER


def test_an_image_is_not_counted_by_its_bytes() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 90_000}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 90_000, "format": "wav"}}
    content = [{"type": "text", "text": "?"}, image, sound]
    body = {"model": "m", "messages": [{"role": "user", "content": content}], "max_tokens": 10}
    assert 2_010 < expected_tokens(parse(CHAT, orjson.dumps(body))) < 2 * MEDIA_TOKENS + 200
    asked = {"model": "m", "input": "x" * 300}
    assert 100 < expected_tokens(parse(EMBEDDINGS, orjson.dumps(asked))) < 130
