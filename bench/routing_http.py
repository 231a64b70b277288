"""The replay of bench/routing.py through real programs over HTTP: ours, vllm-router, sglang-router.

The clock stays virtual, so nothing depends on the machine's speed: the replicas are servers in this
process that hold each answer until the clock has passed its end, and the clock goes on only when
the last request has come to a replica and those that have ended are answered. So every router sees
the requests in flight that it would see in earnest. Replicas do not change here.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from aiohttp import web

from overspill.gateway.balance import Address
from programs import KEY, Maker, free_port, ours, running, rust_router
from routing_replay import DECODE, REPLICAS, SEED, Request, Row, World, body_of, summary

CHAT = "/v1/chat/completions"
MAX_BODY = 2**26  # bytes
STEP_SECONDS = 60.0  # for one request to come to a replica, or an answer back
ANSWER = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "y"}}
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
# What routers ask a new replica: what it is, and whether it is well.
ABOUT = {"object": "list", "data": [{"id": "m", "object": "model"}], "model_path": "m"}


@dataclass
class Replicas:
    """Servers that say where a request came to, and answer it when they are told."""

    addresses: list[Address] = field(default_factory=list)
    arrivals: asyncio.Queue[tuple[Address, asyncio.Event]] = field(default_factory=asyncio.Queue)

    @asynccontextmanager
    async def serving(self, count: int) -> AsyncIterator["Replicas"]:
        """Listen on free ports."""
        runners = []
        for _ in range(count):
            app = web.Application(client_max_size=MAX_BODY)
            app.router.add_post(CHAT, self._chat)
            app.router.add_get("/{path:.*}", self._about)
            runners.append(web.AppRunner(app, access_log=None, shutdown_timeout=1.0))
            await runners[-1].setup()
            site = web.TCPSite(runners[-1], "127.0.0.1", free_port())
            await site.start()
            self.addresses.append(("127.0.0.1", int(site.name.rpartition(":")[2])))
        try:
            yield self
        finally:
            for runner in runners:
                await runner.cleanup()

    async def _chat(self, request: web.Request) -> web.Response:
        await request.read()
        answer = asyncio.Event()
        assert request.transport is not None  # noqa: S101
        self.arrivals.put_nowait((request.transport.get_extra_info("sockname")[:2], answer))
        await answer.wait()
        return web.json_response(ANSWER)

    async def _about(self, request: web.Request) -> web.Response:
        return web.json_response(ABOUT)


# The peers with the policy that they recommend.
PROGRAMS: dict[tuple[str, str], Maker] = {
    ("overspill", "prefix, over HTTP"): ours,
    ("vllm-router", "cache_aware"): partial(rust_router, "vllm-router", "cache_aware"),
    ("sglang-router", "cache_aware"): partial(rust_router, "sglang-router", "cache_aware"),
}


@dataclass
class Replay:
    """One run: the clock, what is in flight, and what went wrong."""

    replicas: Replicas
    urls: list[str]
    session: aiohttp.ClientSession
    world: World
    ends: list[tuple[float, int, asyncio.Event, asyncio.Task[int]]] = field(default_factory=list)
    errors: int = 0

    async def run(self, requests: Sequence[Request]) -> tuple[int, list[float]]:
        """Return the blocks that were cached, and the seconds to each first token."""
        chance, found, waits = random.Random(SEED), 0, []
        for number, request in enumerate(requests):
            await self._pass(request.at)
            sent = asyncio.create_task(self._send(chance.choice(self.urls), body_of(request.ids)))
            arrival = asyncio.create_task(self.replicas.arrivals.get())
            await asyncio.wait(
                {sent, arrival}, timeout=STEP_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            if not arrival.done():
                arrival.cancel()
                self.errors += 1
                continue
            address, answer = arrival.result()
            cached, first_token = self.world.present[address].take(request)
            end = first_token + DECODE * request.answer
            heapq.heappush(self.ends, (end, number, answer, sent))
            found += cached
            waits.append(first_token - request.at)
        await self._pass(float("inf"))
        return found, waits

    async def _pass(self, now: float) -> None:
        """Let the clock go on: what has ended is answered."""
        while self.ends and self.ends[0][0] <= now:
            _, _, answer, sent = heapq.heappop(self.ends)
            answer.set()
            async with asyncio.timeout(STEP_SECONDS):
                self.errors += await sent != 200

    async def _send(self, url: str, body: bytes) -> int:
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        async with self.session.post(url + CHAT, data=body, headers=headers) as answer:
            await answer.read()
            return answer.status


async def replay(
    requests: Sequence[Request],
    make: Maker,
    count: int,
    cache_blocks: int,
) -> Row:
    """Run one router in so many processes."""
    async with AsyncExitStack() as stack:
        replicas = await stack.enter_async_context(Replicas().serving(REPLICAS))
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=STEP_SECONDS)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout)
        )
        urls = []
        for _ in range(count):
            folder = Path(stack.enter_context(TemporaryDirectory()))
            program = make(replicas.addresses, folder)
            await stack.enter_async_context(running(program))
            urls.append(program.url)
        world = World([], cache_blocks)
        world.change(0.0, join=replicas.addresses)
        run = Replay(replicas, urls, session, world)
        found, waits = await run.run(requests)
        world.settle()
        return summary(requests, found, world, waits) | {"errors": run.errors}


def rows(requests: Sequence[Request], common: Row) -> Iterator[Row]:
    """Yield the rows of all programs for one size of cache and one number of gateways.

    :param common: what is the same in all of them.
    """
    logging.getLogger("aiohttp.server").disabled = True  # one router tries gRPC first
    for (router, policy), make in PROGRAMS.items():
        row = {"router": router, "policy": policy, "replicas_change": False} | common
        run = replay(requests, make, common["gateways"], common["cache_blocks"])
        yield row | asyncio.run(run)
