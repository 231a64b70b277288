"""No address that a client writes is called by anybody (S1, S3): media, hosts, bases of an API.

https://nvd.nist.gov/vuln/detail/CVE-2026-24779, https://nvd.nist.gov/vuln/detail/CVE-2024-6587
"""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import orjson
import pytest
from gateway_world import BODY, SECRET, Upstream, World, service, spillover, world

from lab.lengths import length
from overspill.gateway.call import CHAT, ENDPOINTS, MESSAGES, parse
from overspill.gateway.errors import ApiError

METADATA = [
    "http://169.254.169.254/latest/meta-data/",
    "HTTP://169.254.169.254/",
    "https://169.254.169.254:443/",
    "//169.254.169.254/",
    "http:/\\169.254.169.254/",
    "http:169.254.169.254/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0xA9.0xFE.0xA9.0xFE/",
    "http://0251.0376.0251.0376/",
    "http://00000251.254.0xa9.254/",
    "http://169.16689662/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[fd00:ec2::254]/",
    "http://169\u3002254\u3002169\u3002254/",
    "http://\u2460\u2465\u2468.\u2461\u2464\u2463.\u2460\u2465\u2468.\u2461\u2464\u2463/",
    "http://user:data:@169.254.169.254/",
    "http://169.254.169.254.nip.io/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://rebinds.example/",  # 203.0.113.1 when it is checked, 169.254.169.254 when fetched
    "https://redirects.example/?to=http://169.254.169.254/",
    " data:,http://169.254.169.254/",
    "\tdata:image/png;base64,AAAA",
    "DATA:,",
    "file:///proc/self/environ",
    "gopher://169.254.169.254:80/_GET",
]


def places(url: str) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Yield bodies that have an address where an engine of some kind looks for media."""

    def said(*parts: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": list(parts)}]
        return {"model": "chat", "max_tokens": 5, "messages": messages}

    yield CHAT.path, said({"type": "image_url", "image_url": {"url": url}})
    yield CHAT.path, said({"type": "image_url", "image_url": url})
    yield CHAT.path, said({"type": "input_audio", "input_audio": {"data": url}})
    for kind in ("video_url", "audio_url", "input_image", "input_file", "file", "image"):
        yield CHAT.path, said({"type": kind, kind: {"url": url}})
        yield CHAT.path, said({"type": "text", "text": "x", kind: {"url": url}})
    fetched = {"type": "url", "url": url}
    yield MESSAGES.path, said({"type": "image", "source": fetched})
    yield MESSAGES.path, said({"type": "document", "source": fetched})


@pytest.mark.parametrize("url", METADATA)
def test_no_notation_of_an_inside_address_reaches_an_engine(url: str) -> None:
    for path, body in places(url):
        with pytest.raises(ApiError) as info:
            parse(ENDPOINTS[path], orjson.dumps(body))
        assert info.value.status == 400


def test_what_is_no_key_of_a_cache_by_a_clients_word() -> None:
    """vLLM keeps an image under the ``uuid`` that came with it, for whoever sends the same."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}, "uuid": "logo"}
    body = {"model": "chat", "messages": [{"role": "user", "content": [image]}]}
    with pytest.raises(ApiError, match="uuid"):
        parse(CHAT, orjson.dumps(body))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nobody_follows_a_redirect(status: int) -> None:
    """https://nvd.nist.gov/vuln/detail/CVE-2026-85180"""
    kinds = ["openai", "openai-compatible", "anthropic", "replicate"]
    async with world(hold=1.0) as w, Upstream().serving() as thief:
        away = {"Location": f"{thief.url}/chat/completions"}
        async with Upstream(status=status, headers=away).serving() as upstream:
            w.state.put_service(service(spillover=spillover(*kinds)))
            w.state.put_service(service("local"))
            w.replicas(upstream, name="local")
            for kind in kinds:
                w.provider(upstream, kind, type=kind)
            for model in ("local", "chat"):
                body = BODY | {"model": model, "max_tokens": 5}
                # 429 where it waited for another replica meanwhile.
                assert (await w.post("/v1/chat/completions", body))[0] in (429, 503)
        assert len(upstream.paths) >= 2, "the engine, and a provider or more"
    assert thief.paths == []


# Any JSON at all, and who is called meanwhile

connected: set[tuple[str, int]] = set()
resolved: set[str] = set()


def _seen(event: str, details: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(details[1], tuple):
        connected.add(details[1][:2])
    elif event == "socket.getaddrinfo" and isinstance(details[0], str):
        resolved.add(details[0])


KEYS = ["api_base", "base_url", "api_key", "host", "url", "endpoint", "proxy", "model", "content"]
KEYS += ["role", "type", "image_url", "tools", "function", "parameters", "metadata", "user"]
KEYS += ["response_format", "headers", "extra_body", "model_list", "messages"]
ADDRESSES = ["http://127.0.0.9:1/v1", "127.0.0.9:1", "http://canary.invalid/", *METADATA[:6]]
SIMPLE = [None, True, -1, 0.5, "", "chat", "user", "text", "{{ 7*7 }}", *ADDRESSES]
DEPTH = 6


def any_json(dice: random.Random, depth: int = 0) -> Any:
    """Return a value with the words that other gateways have taken for a host."""
    how = dice.random()
    if depth >= DEPTH or how < 0.4:
        return dice.choice(SIMPLE)
    size = range(dice.randrange(4))
    if how < 0.6:
        return [any_json(dice, depth + 1) for _ in size]
    return {dice.choice(KEYS): any_json(dice, depth + 1) for _ in size}


def with_noise(dice: random.Random) -> dict[str, Any]:
    """Return a chat in which something of any kind stands at some depth, or is added."""
    body: dict[str, Any] = {"model": "chat", "stream": dice.random() < 0.5}
    body["messages"] = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    place: Any = body
    while dice.random() < 0.6:
        members = place.values() if isinstance(place, dict) else place
        inner = [v for v in members if isinstance(v, dict | list) and v]
        if not inner:
            break
        place = dice.choice(inner)
    if isinstance(place, dict):
        place[dice.choice(KEYS)] = any_json(dice)
    else:
        place.insert(dice.randrange(len(place) + 1), any_json(dice))
    return body


@pytest.fixture
async def spilling() -> AsyncIterator[tuple[World, Upstream, Upstream]]:
    """A service without replicas, so that what passes goes to its cloud."""
    async with world() as w, Upstream().serving() as cloud, Upstream().serving() as engine:
        w.state.put_service(service(spillover=spillover()))
        w.state.put_service(service("local"))
        w.replicas(engine, name="local")
        w.provider(cloud)
        yield w, cloud, engine


async def test_whatever_is_sent_only_the_configured_hosts_are_called(
    spilling: tuple[World, Upstream, Upstream],
) -> None:
    w, cloud, engine = spilling
    dice, number = random.Random(1), length(200, 100_000)
    sys.addaudithook(_seen)
    connected.clear()
    resolved.clear()
    statuses: Counter[int] = Counter()
    clouds, engines = Counter[str](), Counter[str]()
    key = {"Authorization": f"Bearer {w.key}"}
    async with aiohttp.ClientSession(headers=key) as session:

        async def one() -> None:
            body = with_noise(dice)
            if dice.random() < 0.3:
                body["model"] = "local"
            data = orjson.dumps(body)
            async with session.post(f"{w.url}/v1/chat/completions", data=data) as answer:
                assert SECRET.encode() not in await answer.read()
            statuses[answer.status] += 1

        for _ in range(0, number, 20):
            await asyncio.gather(*(one() for _ in range(20)))
            for upstream, keys in ((cloud, clouds), (engine, engines)):
                keys.update(head.get("Authorization", "") for head in upstream.seen_headers)
                upstream.forget()
    ours = ("127.0.0.1", w.plane.public.port)
    assert connected <= {cloud.address, engine.address, ours}
    assert resolved <= {"127.0.0.1"}
    assert (clouds.keys(), engines.keys()) == ({f"Bearer {SECRET}"}, {""})
    assert statuses.keys() <= {200, 400, 404}
    assert min(clouds.total(), engines.total(), statuses[400]) >= number // 20, "all kinds came"
