"""Providers behind a CONNECT proxy, with TLS to the end."""

import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from connect_proxy import HOST, ConnectProxy, certificate, tls_server

from overspill.api.provider import ProviderType
from overspill.providers.base import Account, ProviderUnusable, Request
from overspill.providers.client import ProviderClient
from overspill.providers.http import Http
from overspill.providers.proxy import Proxy

SECRET = "sk-canary-7f3a"
PASSWORD = "p@ss-canary"
CHAT = Request("/chat/completions", {"messages": [], "model": "chat"})


def account(url: str) -> Account:
    kind = ProviderType.OPENAI
    return Account("p/a", kind, url, SECRET, connect=2.0, first_byte=2.0, idle=1.0)


@asynccontextmanager
async def cloud(
    folder: Path, user: str = "", no_proxy: str = "", **proxy: Any
) -> AsyncIterator[tuple[ProviderClient, ConnectProxy, list[web.Request]]]:
    seen: list[web.Request] = []

    async def handle(request: web.Request) -> web.Response:
        seen.append(request)
        return web.json_response({"choices": []})

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    cert, key = certificate(folder)
    trust = ssl.create_default_context(cafile=str(cert))
    async with (
        tls_server(app, cert, key) as port,
        ConnectProxy(port, **proxy).serving() as connect,
    ):
        env = {"HTTPS_PROXY": f"http://{user}127.0.0.1:{connect.port}", "NO_PROXY": no_proxy}
        client = ProviderClient(Http(Proxy.from_env(env), trust))
        try:
            yield client, connect, seen
        finally:
            await client.close()


async def test_a_provider_is_reached_through_the_proxy_with_tls_to_the_end(tmp_path: Path) -> None:
    async with cloud(tmp_path) as (client, proxy, seen):
        answer = await client.send(account(f"https://{HOST}/v1"), CHAT, "m", 2.0)
        assert await answer.read(1.0) == b'{"choices": []}'
        answer.close()
    assert seen[0].headers["Authorization"] == f"Bearer {SECRET}"
    [head] = proxy.heads
    assert head.startswith(f"CONNECT {HOST}:443 HTTP/1.1\r\n")
    assert SECRET not in head
    assert "Proxy-Authorization" not in head


async def test_the_proxy_gets_its_password_and_the_provider_does_not(tmp_path: Path) -> None:
    async with cloud(tmp_path, user="me:p%40ss-canary@") as (client, proxy, seen):
        answer = await client.send(account(f"https://{HOST}/v1"), CHAT, "m", 2.0)
        answer.close()
    login = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    assert f"Proxy-Authorization: Basic {login}\r\n" in proxy.heads[0]
    assert "Proxy-Authorization" not in seen[0].headers


async def test_a_proxy_that_refuses_is_named_without_its_password(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with cloud(tmp_path, user="me:p%40ss-canary@", status=407) as (client, _, seen):
        with pytest.raises(ProviderUnusable, match=r"the proxy refused \(407\)") as info:
            await client.send(account(f"https://{HOST}/v1"), CHAT, "m", 2.0)
    assert seen == []
    told = f"{info.value!r} {info.value.__cause__!r}" + "".join(capfd.readouterr())
    assert "canary" not in told


@pytest.mark.parametrize(
    ("no_proxy", "scheme"), [(HOST, "https"), ("cloud.test", "https"), ("*", "https"), ("", "http")]
)
async def test_what_is_exempt_and_plain_http_go_straight(
    tmp_path: Path, no_proxy: str, scheme: str
) -> None:
    async with cloud(tmp_path, no_proxy=no_proxy) as (client, proxy, _):
        with pytest.raises(ProviderUnusable):  # nobody knows the name
            await client.send(account(f"{scheme}://{HOST}/v1"), CHAT, "m", 2.0)
    assert proxy.heads == []


async def test_an_untrusted_certificate_behind_the_proxy_is_no_connection(tmp_path: Path) -> None:
    async with cloud(tmp_path) as (trusting, proxy, seen):
        await trusting.close()
        client = ProviderClient(Http(Proxy(f"http://127.0.0.1:{proxy.port}")))
        with pytest.raises(ProviderUnusable, match="no connection"):
            await client.send(account(f"https://{HOST}/v1"), CHAT, "m", 2.0)
        await client.close()
    assert seen == []


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        ({}, None),
        ({"HTTPS_PROXY": " "}, None),
        ({"HTTP_PROXY": "http://p:1"}, None),
        ({"HTTPS_PROXY": "http://p:3128/"}, Proxy("http://p:3128")),
        ({"HTTPS_PROXY": "http://[::1]:3128"}, Proxy("http://[::1]:3128")),
        ({"https_proxy": "http://small", "HTTPS_PROXY": "http://big"}, Proxy("http://small")),
        (
            {"HTTPS_PROXY": "https://me:a%3Ab@p", "no_proxy": "x, .y"},
            Proxy("https://p", "me", "a:b", "x, .y"),
        ),
    ],
)
def test_the_environment_is_read_as_others_do(env: dict[str, str], expected: Proxy | None) -> None:
    assert Proxy.from_env(env) == expected


@pytest.mark.parametrize(
    "text", ["proxy:3128", "socks5://me:canary@p:1", "http://", "http://me:canary@p:99999"]
)
def test_a_proxy_that_cannot_be_used_is_told_without_its_password(text: str) -> None:
    with pytest.raises(ValueError, match="http://host:port") as info:
        Proxy.from_env({"HTTPS_PROXY": text})
    assert "canary" not in str(info.value)
    assert "canary" not in repr(info.value.__cause__)


def test_a_password_is_not_shown() -> None:
    assert "canary" not in repr(Proxy.from_env({"HTTPS_PROXY": "http://me:canary@p"}))
