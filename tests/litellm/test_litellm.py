"""Clients of both APIs through a real gateway to LiteLLM's proxy, an OpenAI-compatible provider."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import orjson
import pytest
from aiohttp import web
from gateway_world import USAGE, Upstream, World, service, world

from conftest import SAID, Proxy

HI = [{"role": "user", "content": "Say hello."}]
ASKED: dict[str, Any] = {"model": "chat", "max_tokens": 50, "messages": HI}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
PRICE = {"inputPerMTok": "1", "outputPerMTok": "10"}
TOOLS: Any = [
    {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
]


class Caller(Upstream):
    """A server that calls the first tool that it is told of."""

    def _unary(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        message = {"role": "assistant", "content": None, "tool_calls": _call(body)}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        return web.json_response(head | {"choices": [choice], "usage": self.usage})

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.Response:
        (call,) = _call(body)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None}]
        begun = call | {"index": 0, "function": call["function"] | {"arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        for part in ('{"city":', '"Oslo"}'):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
        head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        chunks = [head | {"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        end = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
        chunks += [head | {"choices": [end]}, head | {"choices": [], "usage": self.usage}]
        data = b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks)
        return web.Response(body=data + b"data: [DONE]\n\n", content_type="text/event-stream")


def _call(body: dict[str, Any]) -> list[dict[str, Any]]:
    function = {"name": body["tools"][0]["function"]["name"], "arguments": '{"city":"Oslo"}'}
    return [{"id": "call_1", "type": "function", "function": function}]


def spill(w: World, proxy: Proxy, model: str) -> None:
    """Let everything go to a model of the proxy."""
    w.state.put_service(service(spillover={"providers": [{"name": "cloud", "model": model}]}))
    models = [{"name": model, "price": PRICE}]
    w.provider(SimpleNamespace(url=proxy.url), models=models)  # type: ignore[arg-type]


@pytest.fixture
async def gateway(proxy: Proxy) -> AsyncIterator[World]:
    async with world(hold=0.2) as w:
        spill(w, proxy, "canned")
        yield w


@pytest.fixture
async def behind(proxy: Proxy, gateway: World) -> AsyncIterator[Caller]:
    """What the proxy asks; the gateway spills to that model."""
    spill(gateway, proxy, "behind")
    async with Caller(address=proxy.behind).serving() as caller:
        yield caller


async def test_openais_client(gateway: World) -> None:
    raw = await gateway.sdk().chat.completions.with_raw_response.create(**ASKED)
    whole = raw.parse()
    assert whole.choices[0].message.content == SAID
    used = whole.usage
    assert float(raw.headers["x-overspill-cost-usd"]) == pytest.approx(
        (used.prompt_tokens + 10 * used.completion_tokens) / 1e6
    )
    chunks = [c async for c in await gateway.sdk().chat.completions.create(**ASKED, **STREAM)]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == SAID
    assert chunks[-1].usage.completion_tokens > 0
    assert "stop" in [c.choices[0].finish_reason for c in chunks if c.choices]


async def test_anthropics_client(gateway: World) -> None:
    async with anthropic.AsyncAnthropic(api_key=gateway.key, base_url=gateway.url) as sdk:
        whole = await sdk.messages.create(**ASKED)
        async with sdk.messages.stream(**ASKED) as stream:
            last = await stream.get_final_message()
    for answer in (whole, last):
        assert answer.content[0].text == SAID  # type: ignore[union-attr]
        assert (answer.stop_reason, answer.usage.output_tokens > 0) == ("end_turn", True)


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_go_through_and_calls_come_back(
    gateway: World, behind: Caller, stream: bool
) -> None:
    completions = gateway.sdk().chat.completions
    if stream:
        async with completions.stream(
            **ASKED, tools=TOOLS, stream_options={"include_usage": True}
        ) as events:
            answer = await events.get_final_completion()
    else:
        answer = await completions.create(**ASKED, tools=TOOLS)  # type: ignore[assignment]
    (call,) = answer.choices[0].message.tool_calls or ()
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Oslo"}')
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.usage.total_tokens == USAGE["total_tokens"]
    assert behind.bodies[0]["tools"] == TOOLS
    assert gateway.key not in str(behind.seen_headers)


async def test_what_the_proxy_refuses_is_told(gateway: World, behind: Caller) -> None:
    behind.status = 400
    with pytest.raises(openai.BadRequestError) as info:
        await gateway.sdk().chat.completions.create(**ASKED)
    assert info.value.code == "provider_refused"
