"""The client of OpenAI-like APIs, against a server on loopback that plays one."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import openai
import orjson
import pytest
from aiohttp import web

import overspill.providers.anthropic
import overspill.providers.openai
from overspill.api.provider import ProviderType
from overspill.providers.base import (
    Account,
    AnswerBroken,
    ProviderUnusable,
    Request,
    RequestRefused,
)
from overspill.providers.client import ProviderClient
from overspill.providers.http import Http
from overspill.providers.openai import body_for, unsupported

CHAT = "/chat/completions"
FIELDS = {"messages": [{"role": "user", "content": "hi"}], "model": "chat"}
SECRET = "sk-canary-7f3a"


def account(url: str = "http://127.0.0.1:1/v1", **changes: Any) -> Account:
    values: dict[str, Any] = {"connect": 1.0, "first_byte": 1.0, "idle": 0.2}
    return Account("p/a", ProviderType.OPENAI_COMPATIBLE, url, SECRET, **(values | changes))


@asynccontextmanager
async def served(
    handle: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[ProviderClient, Account]]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    client = ProviderClient(Http())
    try:
        yield client, account(f"http://127.0.0.1:{port}/v1")
    finally:
        await client.close()
        await runner.cleanup()


def answering(status: int, body: Any = None, **headers: str) -> Any:
    async def handle(request: web.Request) -> web.Response:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        return web.Response(status=status, body=data, headers=headers)

    return handle


async def test_what_is_sent_and_what_comes_back() -> None:
    seen: list[tuple[str, dict[str, str], Any]] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append((request.path, dict(request.headers), orjson.loads(await request.read())))
        return web.json_response({"choices": []})

    async with served(handle) as (client, where):
        answer = await client.send(where, Request(CHAT, FIELDS), "big-1", 1.0)
        assert not answer.streams
        assert await answer.read(1.0) == b'{"choices": []}'
        assert await answer.read(1.0) == b""
        answer.close()
    path, headers, body = seen[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert headers["User-Agent"] == "overspill"
    assert body == {"messages": FIELDS["messages"], "model": "big-1"}


async def test_azures_deployments_are_asked_as_its_own_sdk_asks_them() -> None:
    seen: list[tuple[str, str | None, bool]] = []

    async def handle(request: web.Request) -> web.Response:
        key = request.headers.get("api-key")
        seen.append((request.raw_path, key, "Authorization" in request.headers))
        return web.json_response({"choices": []})

    async with served(handle) as (client, where):
        root = where.url.removesuffix("/v1")
        azure = account(f"{root}/openai", azure_api_version="2024-10-21")
        answer = await client.send(azure, Request(CHAT, FIELDS), "gpt 5/eu", 1.0)
        answer.close()
        async with openai.AsyncAzureOpenAI(
            azure_endpoint=root, api_version="2024-10-21", api_key=SECRET, max_retries=0
        ) as sdk:
            await sdk.chat.completions.create(model="gpt 5/eu", messages=FIELDS["messages"])
    ours, theirs = seen
    assert ours == theirs
    assert ours[1:] == (SECRET, False)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_is_followed(status: int) -> None:
    paths = []

    async def handle(request: web.Request) -> web.Response:
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/stolen"})

    async with served(handle) as (client, where):
        with pytest.raises(ProviderUnusable, match=str(status)):
            await client.send(where, Request(CHAT, FIELDS), "m", 1.0)
    assert paths == ["/v1/chat/completions"]


FAILURES = [
    # status, Retry-After, cooldown in seconds
    (429, "7", 7.0),
    (429, "1e9", 60.0),
    (429, "-5", 1.0),
    (429, "nan", 1.0),
    (429, "inf", 60.0),
    (429, "Wed, 21 Oct 2015 07:28:00 GMT", 1.0),
    (429, "Fri, 31 Dec 9999 23:59:59 GMT", 60.0),
    (429, "Fri, 31 Dec 99999 23:59:59 GMT", 1.0),
    (503, "", 1.0),
    (529, "2", 2.0),
    (404, "", 1.0),
    (401, "", 10.0),
    (403, "", 10.0),
]


@pytest.mark.parametrize(
    ("status", "may_bill"),
    [(429, False), (500, False), (501, False), (503, False), (529, False), (404, False),
     (502, True), (504, True), (524, True)],
)  # fmt: skip
async def test_what_a_proxy_answers_may_be_billed(status: int, may_bill: bool) -> None:
    async with served(answering(status, {})) as (client, where):
        with pytest.raises(ProviderUnusable) as info:
            await client.send(where, Request(CHAT, FIELDS), "m", 1.0)
    assert info.value.may_bill is may_bill


@pytest.mark.parametrize(("status", "retry_after", "cooldown"), FAILURES)
async def test_an_unusable_provider_rests(status: int, retry_after: str, cooldown: float) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {SECRET}"}}
    handle = answering(status, body, **{"Retry-After": retry_after})
    async with served(handle) as (client, where):
        with pytest.raises(ProviderUnusable) as info:
            await client.send(where, Request(CHAT, FIELDS), "m", 1.0)
    assert info.value.cooldown == cooldown
    assert SECRET not in str(info.value)


@pytest.mark.parametrize(
    ("status", "body", "passed_on", "message"),
    [
        (400, {"error": {"message": "too long"}}, 400, "too long"),
        (422, {"error": "no"}, 400, "no"),
        (413, {"error": {"message": "x" * 9999}}, 413, "x" * 500),
        (400, b"<html>", 400, "the provider refused the request without a reason"),
        (400, [], 400, "the provider refused the request without a reason"),
    ],
)
async def test_a_fault_of_the_request_is_told(
    status: int, body: Any, passed_on: int, message: str
) -> None:
    async with served(answering(status, body)) as (client, where):
        with pytest.raises(RequestRefused) as info:
            await client.send(where, Request(CHAT, FIELDS), "m", 1.0)
    assert (info.value.status, str(info.value)) == (passed_on, message)


async def test_nobody_there() -> None:
    client = ProviderClient(Http())
    with pytest.raises(ProviderUnusable, match="no connection"):
        await client.send(account(), Request(CHAT, FIELDS), "m", 1.0)
    await client.close()


async def test_an_untrusted_certificate_is_no_connection() -> None:
    async with served(answering(200, {})) as (client, where):
        https = account(where.url.replace("http:", "https:"))
        with pytest.raises(ProviderUnusable, match="no connection"):
            await client.send(https, Request(CHAT, FIELDS), "m", 1.0)


async def test_a_provider_that_says_nothing_is_given_up() -> None:
    async def handle(request: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with served(handle) as (client, where):
        quick = account(where.url, connect=0.1)
        with pytest.raises(ProviderUnusable, match="no answer in time"):
            await client.send(quick, Request(CHAT, FIELDS), "m", 0.1)


async def test_a_silent_stream_is_given_up() -> None:
    async def handle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: x\n\n")
        await request.content.iter_any().__anext__()
        await asyncio.sleep(5)
        return response

    async with served(handle) as (client, where):
        answer = await client.send(where, Request(CHAT, FIELDS | {"stream": True}), "m", 1.0)
        assert answer.streams
        assert await answer.read(1.0) == b"data: x\n\n"
        with pytest.raises(AnswerBroken, match="silent"):
            await answer.read(0.1)
        answer.close()


BODIES = [
    # path, fields, what goes out (without the model)
    (CHAT, {"messages": [], "top_k": 5, "min_p": 0.1, "ignore_eos": True}, {"messages": []}),
    (CHAT, {"messages": [], "base_url": "http://evil", "api_base": "x"}, {"messages": []}),
    (CHAT, {"messages": [], "metadata": {}, "store": True}, {"messages": []}),
    (CHAT, {"messages": [], "seed": None}, {"messages": []}),
    (CHAT, {"messages": [], "max_tokens": 5}, {"messages": [], "max_tokens": 5}),
    (
        CHAT,
        {"messages": [], "stream": True, "stream_options": {"include_usage": False}},
        {"messages": [], "stream": True, "stream_options": {"include_usage": True}},
    ),
    (CHAT, {"messages": [], "functions": [{"name": "f"}]},
     {"messages": [], "functions": [{"name": "f"}]}),
    ("/completions", {"prompt": "x", "top_k": 1}, {"prompt": "x"}),
    ("/embeddings", {"input": "x", "dimensions": 3}, {"input": "x", "dimensions": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("path", "fields", "sent"), BODIES)
def test_only_listed_fields_go_out(path: str, fields: dict[str, Any], sent: dict[str, Any]) -> None:
    request = Request(path, fields | {"model": "chat"})
    body = body_for(ProviderType.OPENAI_COMPATIBLE, request, "big-1")
    assert body == sent | {"model": "big-1"}


def test_openai_itself_gets_the_limit_under_its_new_name() -> None:
    body = body_for(ProviderType.OPENAI, Request(CHAT, FIELDS | {"max_tokens": 5}), "m")
    assert body == FIELDS | {"model": "m", "max_completion_tokens": 5}


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_openai_itself_does_not_get_the_reasoning_of_engines(name: str) -> None:
    turn = {"role": "assistant", "content": "yes?"}
    request = Request(CHAT, {"messages": [turn | {name: "a greeting"}], "model": "chat"})
    assert body_for(ProviderType.OPENAI, request, "m")["messages"] == [turn]


class Body(dict[str, Any]):
    """A body that can be watched."""


@pytest.mark.parametrize(
    ("kind", "module"),
    [(ProviderType.OPENAI, overspill.providers.openai),
     (ProviderType.ANTHROPIC, overspill.providers.anthropic)],
)  # fmt: skip
async def test_a_parsed_body_is_gone_before_the_provider_answers(
    kind: ProviderType, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes several times as much memory as its bytes, and an answer can take minutes."""
    bodies: list[weakref.ref[Body]] = []
    alive: list[bool] = []
    translate = module.body_for

    def watched(*asked: Any) -> Body:
        body = Body(translate(*asked))
        bodies.append(weakref.ref(body))
        return body

    async def handle(request: web.Request) -> web.Response:
        alive.extend(body() is not None for body in bodies)
        return web.json_response({})

    monkeypatch.setattr(module, "body_for", watched)
    async with served(handle) as (client, where):
        answer = await client.send(replace(where, type=kind), Request(CHAT, FIELDS), "m", 1.0)
        answer.close()
    assert alive == [False]


UNSUPPORTED = [
    # fields, the one that the API does not have
    ({"top_k": 5}, "top_k"),
    ({"min_p": 0.1}, "min_p"),
    ({"ignore_eos": True}, "ignore_eos"),
    ({"top_k": -1, "min_p": 0, "repetition_penalty": 1.0, "min_tokens": 0}, None),
    ({"metadata": {"a": "b"}, "store": True, "prompt_cache_key": "x"}, None),
    ({"seed": 7, "logit_bias": {"1": 2}, "functions": [{"name": "f"}], "n": 3}, None),
]


@pytest.mark.parametrize(("fields", "field"), UNSUPPORTED)
def test_what_the_api_has_no_field_for_is_known(fields: dict[str, Any], field: str | None) -> None:
    found = unsupported(Request(CHAT, FIELDS | fields))
    assert (found and found.field) == field
