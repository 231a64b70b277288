"""Clients of both APIs through a real gateway to the real llama.cpp: as an engine of one's own,
and in the place of a cloud, by its own OpenAI and Anthropic endpoints."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anthropic
import openai
import pytest
from gateway_world import World, service, spillover, world

from conftest import Served

HI = [{"role": "user", "content": "Say hello to Ann."}]
SAMPLING: dict[str, Any] = {"extra_body": {"temperature": 0}}  # the same answer, always 8 tokens
ASKED: dict[str, Any] = {"model": "chat", "max_tokens": 8, "messages": HI, **SAMPLING}
TYPES = ["anthropic", "openai-compatible"]


@pytest.fixture
def engine(launch: Callable[..., Served]) -> Served:
    return launch(CONTEXT_LENGTH=512, MAX_SEQUENCES=1, SERVED_NAME="chat").wait()


@asynccontextmanager
async def before(engine: Served) -> AsyncIterator[World]:
    """A gateway with one service, whose only replica is the engine."""
    host, port = engine.url.removeprefix("http://").split(":")
    async with world() as w:
        w.state.put_service(service())
        w.replicas(SimpleNamespace(address=(host, int(port))))  # type: ignore[arg-type]
        yield w


@pytest.fixture
async def gateway(engine: Served) -> AsyncIterator[World]:
    async with before(engine) as w:
        yield w


def spill(w: World, engine: Served, kind: str) -> None:
    """Let everything go to the engine as to a provider of that type."""
    w.replicas()
    w.state.put_service(service(spillover=spillover()))
    w.provider(SimpleNamespace(url=f"{engine.url}/v1"), type=kind)  # type: ignore[arg-type]


def client(w: World) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(api_key=w.key, base_url=w.url, max_retries=0)


def prompt_tokens(usage: anthropic.types.Usage) -> int:
    return usage.input_tokens + (usage.cache_read_input_tokens or 0)


async def test_anthropics_client_and_an_own_engine(gateway: World) -> None:
    async with client(gateway) as sdk:
        count = await sdk.messages.count_tokens(model="chat", messages=HI)  # type: ignore[arg-type]
        whole = await sdk.messages.create(**ASKED)
        async with sdk.messages.stream(**ASKED) as stream:
            streamed = await stream.get_final_message()
    assert whole.content[0].type == "text"
    assert whole.content[0].text
    assert [block.model_dump() for block in streamed.content] == [
        block.model_dump() for block in whole.content
    ]
    assert whole.stop_reason == streamed.stop_reason == "max_tokens"
    assert prompt_tokens(whole.usage) == prompt_tokens(streamed.usage) == count.input_tokens
    assert whole.usage.output_tokens == 8


async def test_openais_client_and_an_own_engine_that_embeds_too(
    launch: Callable[..., Served],
) -> None:
    embeds = '["embedding=true", "pooling_type=mean"]'  # as images/README.md has it
    engine = launch(CONTEXT_LENGTH=256, MAX_SEQUENCES=1, SERVED_NAME="chat", ENGINE_ARGS=embeds)
    async with before(engine.wait()) as w:
        sdk = w.sdk()
        told: dict[str, Any] = {"model": "chat", "prompt": "Ann says:", "max_tokens": 8}
        text = await sdk.completions.create(**told, **SAMPLING)
        vectors = await sdk.embeddings.create(model="chat", input=["Hello.", "Hello.", "Rain?"])
        answer = await sdk.chat.completions.create(**ASKED)
    assert text.choices[0].text
    assert text.usage.completion_tokens == answer.usage.completion_tokens == 8
    one, same, other = (v.embedding for v in vectors.data)
    assert len(one) == len(other) > 100
    assert one == pytest.approx(same, abs=1e-4)
    assert one != pytest.approx(other, abs=1e-2)


async def test_an_engine_that_embeds_nothing_says_so(gateway: World) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        await gateway.sdk().embeddings.create(model="chat", input="Hello.")
    assert refused.value.status_code == 501
    assert "embedding" in refused.value.message
    assert (await gateway.sdk().chat.completions.create(**ASKED)).usage.completion_tokens == 8


@pytest.mark.parametrize("kind", TYPES)
async def test_anthropics_client_and_a_provider(gateway: World, engine: Served, kind: str) -> None:
    async with client(gateway) as sdk:
        count = await sdk.messages.count_tokens(model="chat", messages=HI)  # type: ignore[arg-type]
        spill(gateway, engine, kind)
        whole = await sdk.messages.create(**ASKED)
        async with sdk.messages.stream(**ASKED) as stream:
            streamed = await stream.get_final_message()
    for answer in (whole, streamed):
        assert answer.content[0].type == "text"
        assert prompt_tokens(answer.usage) == count.input_tokens
        assert answer.usage.output_tokens == 8
        assert answer.stop_reason == "max_tokens"


@pytest.mark.parametrize("kind", TYPES)
async def test_openais_client_and_a_provider(gateway: World, engine: Served, kind: str) -> None:
    spill(gateway, engine, kind)
    sdk = gateway.sdk()
    whole = await sdk.chat.completions.create(**ASKED)
    stream = await sdk.chat.completions.create(
        **ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "length"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 8
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
