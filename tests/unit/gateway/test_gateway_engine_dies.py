"""Engines that are processes of their own, killed before and after their first byte.

They are the paced engine of images/paced-engine, which stands in for real ones here.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from gateway_world import Upstream, World, service, until, world

PROGRAM = Path(__file__).parents[3] / "images/paced-engine/paced_engine.py"


@asynccontextmanager
async def paced(**options: float) -> AsyncIterator[tuple[Upstream, asyncio.subprocess.Process]]:
    """Run an engine; gives its address and its process."""
    args = [
        f"--{name}={value}" for name, value in {"host": "127.0.0.1", "port": 0, **options}.items()
    ]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), *args, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 10)
        yield Upstream(address=("127.0.0.1", int(line.split()[-1]))), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def gateway() -> AsyncIterator[World]:
    async with world() as w:
        w.state.put_service(service(engine={"batching": {"maxSequences": 4}}))
        yield w


def ask(prompt: str, stream: bool, tokens: int = 5) -> dict[str, Any]:
    messages = [{"role": "user", "content": prompt}]
    return {"model": "chat", "messages": messages, "max_tokens": tokens, "stream": stream}


@pytest.mark.parametrize("stream", [True, False])
async def test_killed_before_the_first_byte_another_one_answers(
    gateway: World, stream: bool
) -> None:
    async with paced(prefill=30) as (slow, process), paced(rate=1000) as (quick, _):
        gateway.replicas(slow, quick)
        request = asyncio.create_task(gateway.post("/v1/chat/completions", ask("hi", stream)))
        replicas = gateway.state.services["team-a/chat"].admission.replicas
        await until(lambda: replicas[slow.address].load == 1)
        process.kill()
        status, _, body = await request
        assert status == 200
        assert b"5 " in body
        status, _, _ = await gateway.post("/v1/chat/completions", ask("hi", stream))
        assert status == 200, "the dead one is passed over until its EndpointSlice says so"


async def test_killed_after_the_first_byte_the_stream_says_so(gateway: World) -> None:
    async with paced(rate=1000) as (one, _), paced(rate=1000) as (other, _):
        gateway.replicas(one, other)
        _, _, body = await gateway.post("/v1/chat/completions", ask("die after 3", True))
        events = body.decode().split("\n\n")
        assert '"content":"3 "' in events[-3].replace(": ", ":")
        assert orjson.loads(events[-2].removeprefix("data: "))["error"]["code"] == "upstream_broken"
        assert "[DONE]" not in body.decode()
        assert (await gateway.post("/v1/chat/completions", ask("hi", True)))[0] == 200


@pytest.mark.parametrize("after", [0, 3])
async def test_a_whole_answer_kills_two_engines_at_most(gateway: World, after: int) -> None:
    async with paced(rate=1000) as (a, p), paced(rate=1000) as (b, q), paced(rate=1000) as (c, r):
        gateway.replicas(a, b, c)
        body = ask(f"die after {after}", False)
        status, _, answer = await gateway.post("/v1/chat/completions", body)
        await asyncio.sleep(0)
        assert (status, orjson.loads(answer)["error"]["code"]) == (503, "upstream_failed")
        assert sum(x.returncode is None for x in (p, q, r)) >= 1
        assert (await gateway.post("/v1/chat/completions", ask("hi", False)))[0] == 200


@pytest.mark.parametrize(("stream", "after"), [(False, 0), (True, 0), (True, 3)])
async def test_however_often_a_request_that_kills_is_sent_two_engines_are_lost(
    gateway: World, stream: bool, after: int
) -> None:
    """A query of death: https://github.com/advisories/GHSA-vrq3-r879-7m65."""
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(paced(rate=1000)) for _ in range(4)]
        gateway.replicas(*(engine for engine, _ in engines))
        # What was under way at both dies with it, and may not be sent again either.
        kills = ask(f"die after {after}", stream)
        answers = [await gateway.post("/v1/chat/completions", kills) for _ in range(10)]
        renamed = kills | {"model": "team-a/chat"}
        answers.append(await gateway.post("/v1/chat/completions", renamed))
        assert (await gateway.post("/v1/chat/completions", ask("hi", stream)))[0] == 200
        await asyncio.wait_for(_ended(engines, 2), 5)
        assert sum(process.returncode is None for _, process in engines) == 2
    status, _, body = answers[-1]
    assert (status, orjson.loads(body)["error"]["code"]) == (503, "upstream_failed")
    assert b"while they worked on this same request" in body


async def _ended(engines: list[tuple[Upstream, asyncio.subprocess.Process]], number: int) -> None:
    """Wait until so many processes have ended."""
    ends = asyncio.as_completed([process.wait() for _, process in engines])
    for _ in range(number):
        await next(ends)


async def test_it_tells_in_its_own_words_how_busy_it_is(gateway: World) -> None:
    async with paced(sequences=1, rate=1000, prefill=30) as (engine, _):
        url = "http://{}:{}".format(*engine.address)
        async with aiohttp.ClientSession() as session:
            tasks = [
                asyncio.create_task(session.post(f"{url}/v1/completions", json={"prompt": "x"}))
                for _ in range(2)
            ]
            async with asyncio.timeout(5):
                page = ""
                while "paced_pending 1" not in page:
                    page = await (await session.get(f"{url}/metrics")).text()
            assert "paced_active 1" in page
            for task in tasks:
                task.cancel()
            async with asyncio.timeout(5):
                while "paced_active 0" not in page:
                    page = await (await session.get(f"{url}/metrics")).text()
