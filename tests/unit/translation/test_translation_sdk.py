"""The official SDK asks a real gateway, which spills to a server that plays Anthropic's API."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import orjson
import pytest
from anthropic_cloud import AnthropicCloud
from features import CHATS, HI, MODEL, TOOL
from gateway_world import Upstream, World, queued, service, spillover, until, world

PRICE = {"inputPerMTok": "5", "cachedInputPerMTok": "0.5", "outputPerMTok": "25"}
COST = "0.0001365"  # 7 at $5, 3 at $0.5 and 4 at $25 per million


@pytest.fixture
async def cloud() -> AsyncIterator[AnthropicCloud]:
    async with AnthropicCloud().serving() as serving:
        yield serving


def spilling_to(w: World, cloud: AnthropicCloud, *more: str, **spec: Any) -> None:
    """Let every request of the service spill; it has no replica."""
    w.state.put_service(service(spillover=spillover("claude", *more), **spec))
    named = [{"name": "big-1", "price": PRICE}]
    w.provider(cloud, "claude", type="anthropic", models=named)  # type: ignore[arg-type]


@pytest.fixture
async def gateway(cloud: AnthropicCloud) -> AsyncIterator[World]:
    async with world() as w:
        spilling_to(w, cloud)
        yield w


async def test_an_answer_of_anthropic_for_openais_client(
    gateway: World, cloud: AnthropicCloud
) -> None:
    raw = await gateway.sdk().chat.completions.with_raw_response.create(
        model="chat",
        messages=[{"role": "system", "content": "be kind"}, HI],  # type: ignore[list-item]
        max_tokens=50,
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == "from afar"
    assert answer.usage.total_tokens == 14
    assert raw.headers["x-overspill-destination"] == "team-a/claude"
    assert raw.headers["x-overspill-cost-usd"] == COST
    assert cloud.bodies[0]["model"] == "big-1"
    assert cloud.paths == ["/v1/messages"]
    sent = {name.lower(): value for name, value in cloud.seen_headers[0].items()}
    assert sent["x-api-key"] == "cloud-secret"
    assert sent["anthropic-version"] == "2023-06-01"
    assert "authorization" not in sent
    assert gateway.key not in str(sent)


async def test_a_stream_of_anthropic_for_openais_client(gateway: World) -> None:
    async with gateway.sdk().chat.completions.stream(
        model="chat", messages=[HI], stream_options={"include_usage": True}
    ) as stream:
        async for _ in stream:
            pass
        final = await stream.get_final_completion()
    assert final.choices[0].message.content == "from afar"
    assert final.choices[0].finish_reason == "stop"
    assert final.usage.prompt_tokens_details.cached_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_of_anthropic_for_openais_client(
    gateway: World, cloud: AnthropicCloud, stream: bool
) -> None:
    given = {"city": "Oslo", "days": [1, 2]}
    cloud.content = [{"type": "tool_use", "id": "toolu_1", "name": "weather", "input": given}]
    cloud.stop_reason = "tool_use"
    asked: Any = {"model": "chat", "messages": [HI], "tools": [TOOL]}
    if stream:
        async with gateway.sdk().chat.completions.stream(**asked) as events:
            answer: Any = await events.get_final_completion()
    else:
        answer = await gateway.sdk().chat.completions.create(**asked)
    (call,) = answer.choices[0].message.tool_calls
    assert (call.id, call.function.name) == ("toolu_1", "weather")
    assert orjson.loads(call.function.arguments) == given
    assert answer.choices[0].finish_reason == "tool_calls"


async def test_the_cost_of_a_stream_is_told_at_its_end(gateway: World) -> None:
    body = {"model": "chat", "messages": [HI], "stream": True}
    _, _, data = await gateway.post("/v1/chat/completions", body)
    assert data.endswith(f": x-overspill-cost-usd={COST}\n\ndata: [DONE]\n\n".encode())
    assert b'"usage"' not in data, "nobody asked for it"


ALL = [(case.feature, case.fields) for case in CHATS if isinstance(case.expected, dict)]


async def test_everything_that_can_be_said_is_taken(gateway: World, cloud: AnthropicCloud) -> None:
    for feature, fields in ALL:
        status, _, body = await gateway.post("/v1/chat/completions", fields)
        assert status == 200, (feature, body)
    assert len(cloud.bodies) == len(ALL)


async def test_what_a_replica_could_answer_later_is_no_bad_request(cloud: AnthropicCloud) -> None:
    async with world(hold=0.05) as w:
        spilling_to(w, cloud)
        with pytest.raises(openai.InternalServerError) as info:
            await w.sdk().chat.completions.create(model="chat", messages=[HI], n=2)  # type: ignore[list-item]
    assert (info.value.status_code, info.value.code) == (503, "no_replica_ready")
    assert info.value.response.headers["Retry-After"] == "60"
    assert "n: this provider's API has no such field" in info.value.message
    assert cloud.bodies == []


async def test_what_no_target_can_say_is_a_400_that_names_the_field(cloud: AnthropicCloud) -> None:
    fault = {"type": "ModelReady", "status": "False", "reason": "ClaimNotFound", "message": "vol"}
    async with world() as w:
        spilling_to(w, cloud, status={"conditions": [fault]})
        with pytest.raises(openai.BadRequestError) as info:
            await w.sdk().chat.completions.create(model="chat", messages=[HI], n=2)  # type: ignore[list-item]
    assert (info.value.param, info.value.code) == ("n", "unsupported_parameter")
    assert "n: this provider's API has no such field" in info.value.message
    assert cloud.bodies == []


async def test_a_target_that_cannot_say_it_is_skipped(
    gateway: World, cloud: AnthropicCloud
) -> None:
    async with Upstream().serving() as other:
        spilling_to(gateway, cloud, "cloud")
        gateway.provider(other)
        raw = await gateway.sdk().chat.completions.with_raw_response.create(
            model="chat",
            messages=[HI],
            n=2,  # type: ignore[list-item]
        )
    assert raw.headers["x-overspill-destination"] == "team-a/cloud"
    assert cloud.bodies == []


async def test_what_a_provider_cannot_say_waits_for_a_replica(
    gateway: World, cloud: AnthropicCloud
) -> None:
    body = {"model": "chat", "messages": [HI], "seed": 7}
    async with Upstream().serving() as engine:
        request = asyncio.create_task(gateway.post("/v1/chat/completions", body))
        await until(lambda: queued(gateway) == 1)
        gateway.replicas(engine)
        _, headers, _ = await request
    assert headers["x-overspill-destination"] == "local"
    assert cloud.bodies == []


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [(400, "invalid_request_error", 400), (529, "overloaded_error", 503)],
)
async def test_errors_of_anthropic(
    cloud: AnthropicCloud, status: int, kind: str, told: int
) -> None:
    cloud.status, cloud.error = status, kind
    async with world(hold=0.05) as w:
        spilling_to(w, cloud)
        got, _, body = await w.post("/v1/chat/completions", {"model": "chat", "messages": [HI]})
    assert got == told
    assert (orjson.loads(body)["error"]["message"] == "no") == (told == 400)


async def test_an_error_before_the_first_content_goes_to_the_next(
    gateway: World, cloud: AnthropicCloud
) -> None:
    """RELIABILITY row 11."""
    cloud.error_after = 2
    async with Upstream().serving() as other:
        spilling_to(gateway, cloud, "cloud")
        gateway.provider(other)
        body = {"model": "chat", "messages": [HI], "stream": True}
        _, headers, data = await gateway.post("/v1/chat/completions", body)
    assert headers["x-overspill-destination"] == "team-a/cloud"
    assert b"Hel" in data
    assert b"verload" not in data


async def test_an_error_after_the_first_content_ends_the_stream(
    gateway: World, cloud: AnthropicCloud
) -> None:
    cloud.error_after = 4
    body = {"model": "chat", "messages": [HI], "stream": True}
    status, _, data = await gateway.post("/v1/chat/completions", body)
    assert status == 200
    last = orjson.loads(data.split(b"\n\n")[-2].removeprefix(b"data: "))
    assert last["error"]["code"] == "upstream_broken"
    assert data.count(b'"error"') == 1
    assert b"[DONE]" not in data


async def test_the_models_name_is_the_providers(gateway: World, cloud: AnthropicCloud) -> None:
    answer = await gateway.sdk().chat.completions.create(model="chat", messages=[HI])  # type: ignore[list-item]
    assert answer.model == "big-1" != MODEL
