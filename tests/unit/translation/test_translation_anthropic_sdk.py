"""Anthropic's official SDK asks a real gateway: engines, OpenAI-like providers and Anthropic's."""

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import orjson
import pytest
from aiohttp import web
from anthropic_cloud import AnthropicCloud
from features import CALL, HI, MESSAGES, OWN_TOOL, USE
from gateway_world import USAGE, Upstream, World, service, spillover, world

PRICE = {"inputPerMTok": "5", "cachedInputPerMTok": "0.5", "outputPerMTok": "25"}
ASKED: dict[str, Any] = {"model": "chat", "max_tokens": 64, "messages": [HI]}


@pytest.fixture
async def sdk(gateway: World) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """A client with the gateway's key as x-api-key."""
    async with client(gateway) as made:
        yield made


def client(w: World, **more: Any) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(**{"api_key": w.key} | more, base_url=w.url, max_retries=0)


async def told(w: World, **asked: Any) -> tuple[anthropic.types.Message, Any]:
    """Return the same question's answer whole, and as the SDK adds up its stream."""
    async with client(w) as sdk:
        whole = await sdk.messages.create(**ASKED | asked)
        async with sdk.messages.stream(**ASKED | asked) as stream:
            return whole, await stream.get_final_message()


def same(message: anthropic.types.Message) -> dict[str, Any]:
    found = message.model_dump(exclude_none=True)
    return {k: found[k] for k in ("content", "stop_reason", "usage", "role", "model")}


async def test_an_own_engine_answers(gateway: World, engine: Upstream) -> None:
    whole, streamed = await told(gateway, system="be kind")
    assert whole.content[0].text == "Hello world"  # type: ignore[union-attr]
    assert (whole.stop_reason, whole.model) == ("end_turn", "chat")
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (5, 4)
    assert same(whole) == same(streamed)
    system = {"role": "system", "content": "be kind"}
    assert engine.paths == ["/v1/chat/completions"] * 2
    assert engine.bodies[0] == {"model": "chat", "max_tokens": 64, "messages": [system, HI]}
    assert engine.bodies[1]["stream_options"] == {"include_usage": True}
    page = await gateway.metrics()
    labels = 'service_name="chat",service_namespace="team-a"'
    assert f'overspill_tokens_total{{destination="local",kind="output",{labels}}} 8.0' in page


async def test_the_key_may_come_as_a_bearer_token_too(gateway: World) -> None:
    async with client(gateway, api_key=None, auth_token=gateway.key) as sdk:
        assert (await sdk.messages.create(**ASKED)).stop_reason == "end_turn"


async def test_where_it_ran_and_what_it_cost(gateway: World, sdk: anthropic.AsyncAnthropic) -> None:
    raw = await sdk.messages.with_raw_response.create(**ASKED)
    assert raw.headers["x-overspill-destination"] == "local"
    assert raw.headers["x-overspill-cost-usd"] == "0"
    _, _, data = await gateway.post("/v1/messages", ASKED | {"stream": True})
    end = b': x-overspill-cost-usd=0\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n'
    assert data.endswith(end)
    assert b"[DONE]" not in data


TOOL_CHUNKS: list[dict[str, Any]] = [
    {"delta": {"role": "assistant", "content": None}},
    {"delta": {"reasoning_content": "which"}},
    {"delta": {"reasoning_content": " city?"}},
    {"delta": {"content": "I look"}},
    {"delta": {"tool_calls": [{"index": 0, **CALL, "function": {"name": "weather"}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]}},
    {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}},
    {"delta": {"tool_calls": [{"index": 1, **CALL, "id": "call_2"}]}},
    {"delta": {}, "finish_reason": "tool_calls"},
]  # fmt: skip
TOOL_MESSAGE = {
    "role": "assistant", "content": "I look", "reasoning_content": "which city?",
    "tool_calls": [CALL, CALL | {"id": "call_2"}],
}  # fmt: skip


class ToolUser(Upstream):
    """An engine that thinks, speaks and calls two tools."""

    async def _handle(self, request: Any) -> Any:
        body = orjson.loads(await request.read())
        head = {"id": "x", "created": 1, "model": "chat"}
        if not body.get("stream"):
            choice = {"index": 0, "message": TOOL_MESSAGE, "finish_reason": "tool_calls"}
            whole = head | {"object": "chat.completion", "choices": [choice], "usage": USAGE}
            return web.json_response(whole)
        chunks = [head | {"choices": [{"index": 0, **chunk}]} for chunk in TOOL_CHUNKS]
        chunks.append(head | {"choices": [], "usage": USAGE})
        data = b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)
        return web.Response(body=data + b"data: [DONE]\n\n", content_type="text/event-stream")


async def test_thoughts_and_tools_of_an_engine(gateway: World) -> None:
    async with ToolUser().serving() as engine:
        gateway.replicas(engine)
        whole, streamed = await told(gateway, tools=[OWN_TOOL])
    assert same(whole) == same(streamed)
    thought, said, *uses = whole.model_dump(exclude_none=True)["content"]
    assert thought == {"type": "thinking", "thinking": "which city?", "signature": ""}
    assert said == {"type": "text", "text": "I look"}
    assert uses == [USE, USE | {"id": "call_2"}]
    assert whole.stop_reason == "tool_use"


async def test_an_openai_like_provider_answers(gateway: World) -> None:
    async with Upstream().serving() as cloud:
        gateway.replicas()
        gateway.state.put_service(service(spillover=spillover()))
        gateway.provider(cloud)
        whole, streamed = await told(gateway)
    assert same(whole) == same(streamed)
    assert whole.content[0].text == "Hello world"  # type: ignore[union-attr]
    assert [body["model"] for body in cloud.bodies] == ["big-1"] * 2


@pytest.mark.parametrize(
    ("usage", "least"),
    [
        (None, 0.00001),
        ({"prompt_tokens": 5}, 0.00001),  # half a usage is none: 5 at $1.75 per million are less
        ({"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 1006}, 0.014),  # thoughts
    ],
)
async def test_what_is_charged_is_not_less_than_what_was_used(
    gateway: World, usage: dict[str, int] | None, least: float
) -> None:
    async with Upstream(usage=usage).serving() as cloud:
        gateway.replicas()
        gateway.state.put_service(service(spillover=spillover()))
        gateway.provider(cloud)
        _, headers, _ = await gateway.post("/v1/messages", ASKED)
    assert float(headers["x-overspill-cost-usd"]) > least


@pytest.fixture
async def far(gateway: World) -> AsyncIterator[AnthropicCloud]:
    """Anthropic's API, to which everything spills."""
    async with AnthropicCloud().serving() as cloud:
        gateway.replicas()
        gateway.state.put_service(service(spillover=spillover("claude")))
        models = [{"name": "big-1", "price": PRICE}]
        gateway.provider(cloud, "claude", type="anthropic", models=models)  # type: ignore[arg-type]
        yield cloud


async def test_anthropics_own_api_gets_and_gives_what_came(
    gateway: World, far: AnthropicCloud
) -> None:
    far.content = [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "from afar"},
        USE,
    ]
    far.stop_reason = "tool_use"
    whole, streamed = await told(gateway, tools=[OWN_TOOL])
    assert whole.model_dump(exclude_none=True)["content"] == far.content
    assert same(whole) == same(streamed)
    assert far.bodies[0] == ASKED | {"model": "big-1", "tools": [OWN_TOOL]}
    _, headers, _ = await gateway.post("/v1/messages", ASKED)
    assert headers["x-overspill-destination"] == "team-a/claude"
    assert headers["x-overspill-cost-usd"] == "0.0001365"
    _, _, data = await gateway.post("/v1/messages", ASKED | {"stream": True})
    assert b": x-overspill-cost-usd=0.0001365\n\nevent: message_stop" in data


async def test_what_is_written_to_anthropics_cache_has_its_price(
    gateway: World, far: AnthropicCloud
) -> None:
    far.usage["cache_creation_input_tokens"] = 100
    _, headers, _ = await gateway.post("/v1/messages", ASKED)
    assert headers["x-overspill-cost-usd"] == "0.0007615"  # 100 at 1.25 times $5 per million more


async def test_everything_that_is_taken_arrives(gateway: World, far: AnthropicCloud) -> None:
    taken = [case.fields for case in MESSAGES if not isinstance(case.expected, str)]
    for fields in taken:
        status, _, body = await gateway.post("/v1/messages", fields)
        assert status == 200, (fields, body)
    assert far.bodies == [fields | {"model": "big-1"} for fields in taken]


ERRORS = [
    # what else is asked, of the client, what the SDK raises
    ({"model": "none"}, {}, anthropic.NotFoundError),
    ({"max_tokens": 0}, {}, anthropic.BadRequestError),
    ({}, {"api_key": "osk-wrong"}, anthropic.AuthenticationError),
]


@pytest.mark.parametrize(("asked", "of", "error"), ERRORS)
async def test_errors_have_anthropics_shape(
    gateway: World,
    asked: dict[str, Any],
    of: dict[str, str],
    error: type[anthropic.APIStatusError],
) -> None:
    async with client(gateway, **of) as sdk:
        with pytest.raises(error) as info:
            await sdk.messages.create(**ASKED | asked)
    body: Any = info.value.body
    assert (body["type"], len(body["request_id"])) == ("error", 32)
    assert body["error"].keys() == {"type", "message"}


async def test_a_stream_that_breaks_ends_with_anthropics_error(gateway: World) -> None:
    async with Upstream(break_after=2).serving() as engine:
        gateway.replicas(engine)
        _, _, data = await gateway.post("/v1/messages", ASKED | {"stream": True})
        async with client(gateway) as sdk:
            with pytest.raises(anthropic.APIStatusError):
                async with sdk.messages.stream(**ASKED) as stream:
                    await stream.get_final_message()
    name, last = data.split(b"\n\n")[-2].split(b"\n")
    assert name == b"event: error"
    assert orjson.loads(last.removeprefix(b"data: "))["error"]["type"] == "api_error"
    assert b"message_stop" not in data


async def test_a_stream_of_anthropic_that_breaks_is_charged(
    gateway: World, far: AnthropicCloud
) -> None:
    far.error_after = 4
    _, _, data = await gateway.post("/v1/messages", ASKED | {"stream": True})
    assert data.count(b"event: error") == 1
    page = await gateway.metrics()
    (cost,) = [x for x in page.splitlines() if "cost_dollars_total{" in x and "claude" in x]
    assert float(cost.split()[-1]) > 0


class Counter(Upstream):
    """An engine that counts tokens."""

    def _unary(self, request: Any, body: dict[str, Any]) -> Any:
        return web.json_response({"input_tokens": 42})


async def test_tokens_are_counted_by_the_engine(gateway: World) -> None:
    async with Counter().serving() as engine, client(gateway) as sdk:
        gateway.replicas(engine)
        asked: Any = {"model": "chat", "messages": [HI], "system": "a"}
        found = await sdk.messages.count_tokens(**asked)
    assert found.input_tokens == 42
    assert engine.paths == ["/v1/messages/count_tokens"]
    assert engine.bodies == [asked]


async def test_an_engine_that_does_not_count_says_so(
    gateway: World, engine: Upstream, sdk: anthropic.AsyncAnthropic
) -> None:
    engine.status = 404
    with pytest.raises(anthropic.APIStatusError) as info:
        await sdk.messages.count_tokens(model="chat", messages=[HI])  # type: ignore[list-item]
    assert info.value.status_code == 501
    assert "does not count tokens" in info.value.message


async def test_a_count_never_leaves(far: AnthropicCloud) -> None:
    async with world(hold=0.05) as w:
        w.state.put_service(service(spillover=spillover("claude")))
        models = [{"name": "big-1", "price": PRICE}]
        w.provider(far, "claude", type="anthropic", models=models)  # type: ignore[arg-type]
        asked = {"model": "chat", "messages": [HI]}
        status, _, body = await w.post("/v1/messages/count_tokens", asked)
    assert (status, orjson.loads(body)["error"]["type"]) == (503, "overloaded_error")
    assert far.bodies == []
