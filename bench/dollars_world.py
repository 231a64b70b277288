"""What bench/dollars.py puts around the real gateway: a trace, replicas that boot, and a cloud.

Both sides are servers of the OpenAI API in this process, on its virtual clock (bench/virtual.py),
and both stream. A replica takes the time of the simulator's engine
(``overspill/simulator/engine.py``) and has a prefix cache of its own, which is empty at first; what
has no room in its batch or its KV cache waits in it. It is billed from its order, through its boot,
until its last answer has ended after it was given back. The cloud has no queue, and remembers every
block of a prompt that it was ever sent.
"""

import asyncio
import itertools
import json
import math
import random
from collections import deque
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson
from aiohttp import web

from overspill.api import metrics
from overspill.api.names import DEFAULT_METRICS_PATH
from overspill.simulator import traces
from overspill.simulator.discrete import Provider
from overspill.simulator.engine import Engine, Job, Replica
from overspill.simulator.traces import BLOCK
from routing_replay import Cache

CHAT = "/v1/chat/completions"
HOST = "127.0.0.1"
PORT = 18_111  # always the same: where a prompt's home is depends on the replicas' addresses
MAX_BODY = 2**26  # bytes
TRACE_STEP = 3.0  # seconds to which the trace's times are rounded
CACHE = 4_000  # blocks of a replica's prefix cache, as in bench/routing.py
BLOCK_BYTES = 2048  # of text, for a block of tokens
MARK = "#"  # before a request's number, at its end
NOTICE = 3.0  # seconds in which the gateway surely hears that a replica is given back
PIECE = 10.0  # seconds between two signs of life of a long answer
TOKENS = 16  # of an answer in one event
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
END = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Item:
    """One request of the trace, and the blocks of its prompt."""

    number: int
    request: traces.Request
    ids: tuple[int, ...]

    def body(self, model: str) -> bytes:
        """Return it as a client sends it."""
        text = "".join(f"{block:<{BLOCK_BYTES}}" for block in self.ids)
        return orjson.dumps(
            {
                "model": model,
                "messages": [{"role": "user", "content": f"{text}{MARK}{self.number}"}],
                "max_tokens": max(1, self.request.output_tokens),
                "stream": True,
            }
        )


def load(path: Path, seed: int) -> list[Item]:
    """Read a trace; arrivals are spread evenly within its rounded times."""
    chance = random.Random(seed)
    found = []
    for request, line in zip(traces.read(path).requests, path.open(), strict=True):
        at = request.time // TRACE_STEP * TRACE_STEP + chance.uniform(0, TRACE_STEP)
        found.append((replace(request, time=at), tuple(json.loads(line)["hash_ids"])))
    found.sort(key=lambda entry: entry[0].time)
    return [Item(number, *entry) for number, entry in enumerate(found)]


class Server:
    """A stand-in: a server that finds out which request it was sent."""

    def __init__(self, items: Sequence[Item], host: str, port: int) -> None:
        self.items, self.host, self.port = items, host, port
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post(CHAT, self._chat)
        app.router.add_get(DEFAULT_METRICS_PATH, self.page)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self) -> None:
        """Listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port).start()

    async def stop(self) -> None:
        """End."""
        await self._runner.cleanup()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        number = int(body["messages"][0]["content"].rpartition(MARK)[2])
        return await self.answer(request, self.items[number])

    async def page(self, request: web.Request) -> web.Response:
        """Return the metrics; a cloud shows none."""
        raise web.HTTPNotFound

    async def answer(self, request: web.Request, item: Item) -> web.StreamResponse:
        """Answer one request."""
        raise NotImplementedError


async def stream(
    request: web.Request, item: Item, cached: int, first: float, ended: Awaitable[None]
) -> web.StreamResponse:
    """Stream an answer: its first token, a sign of life now and then, the rest at its end.

    :param cached: tokens of the prompt that are told to have been cached.
    :param first: when the first token is there, in the loop's seconds.
    """
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    loop, end = asyncio.get_running_loop(), asyncio.ensure_future(ended)
    await asyncio.sleep(first - loop.time())
    await response.write(WORD)
    left = math.ceil((item.request.output_tokens - 1) / TOKENS)
    while not (await asyncio.wait([end], timeout=PIECE))[0] and left > 1:
        await response.write(WORD)
        left -= 1
    await end
    await response.write(WORD * max(0, left) + usage(item, cached) + END)
    return response


def usage(item: Item, cached: int) -> bytes:
    """Return the last chunk of a stream, as OpenAI sends it."""
    prompt, made = item.request.input_tokens, max(1, item.request.output_tokens)
    counts = {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return b"data: %b\n\n" % orjson.dumps({"choices": [], "usage": counts})


@dataclass(frozen=True)
class Tariff:
    """Nano-dollars per million tokens: read, read from a cache, made."""

    prompt: int
    cached: int
    made: int


class Cloud(Server):
    """A provider with a price list, which writes its own invoice.

    :param seed: of its latencies; a request has the same at every policy.
    """

    def __init__(self, items: Sequence[Item], tariff: Tariff, seed: int) -> None:
        super().__init__(items, HOST, PORT)
        self._tariff, self._seed = tariff, seed
        self._pace = Provider(0.0, 0.0)
        self._seen: set[int] = set()
        self.invoice = 0  # nano-dollars

    async def answer(self, request: web.Request, item: Item) -> web.StreamResponse:
        """Answer at once, whatever else goes on, and bill it."""
        tokens, pace = item.request, self._pace
        known = sum(1 for _ in itertools.takewhile(self._seen.__contains__, item.ids))
        cached = min(known * BLOCK, tokens.input_tokens - 1)
        self._seen.update(item.ids)
        made = max(1, tokens.output_tokens)
        self.invoice += self._bill(tokens.input_tokens - cached, cached, made)
        chance = random.Random(f"{self._seed}/{item.number}")
        wait = pace.ttft * math.exp(pace.spread * chance.gauss(0.0, 1.0))
        first = asyncio.get_running_loop().time() + wait
        ended = asyncio.sleep(wait + pace.itl * (made - 1))
        return await stream(request, item, cached, first, ended)

    def _bill(self, prompt: int, cached: int, made: int) -> int:
        """Return nano-dollars, rounded up for each request."""
        tariff = self._tariff
        total = prompt * tariff.prompt + cached * tariff.cached + made * tariff.made
        return math.ceil(total / 1_000_000)


class Own(Server):
    """One replica of the service, with the simulator's times.

    :param number: tells replicas apart.
    """

    def __init__(self, items: Sequence[Item], engine: Engine, number: int) -> None:
        super().__init__(items, f"127.77.0.{number + 1}", PORT)
        self._loop = asyncio.get_running_loop()
        self.number = number
        self.batch = Replica(engine, self._loop.time())
        self.ready = False
        self.waiting: deque[tuple[Job, asyncio.Future[None]]] = deque()
        self._model, self._cache = engine.model, Cache(CACHE)
        self._ends: dict[Job, asyncio.Future[None]] = {}
        self.idle = asyncio.Event()
        self.idle.set()

    async def page(self, request: web.Request) -> web.Response:
        """Say how much it has to do, as vLLM does."""
        gauges = {metrics.VLLM_RUNNING: self.batch.running, metrics.VLLM_WAITING: len(self.waiting)}
        return web.Response(text="".join(f"{name} {value}\n" for name, value in gauges.items()))

    async def answer(self, request: web.Request, item: Item) -> web.StreamResponse:
        """Answer when there is room, as fast as the batch goes."""
        model = self._model
        cached = min(self._cache.use(item.ids) * BLOCK, item.request.input_tokens - 1)
        tokens = replace(item.request, cached_tokens=cached)
        job = Job(tokens, (model.weight(tokens), model.token(tokens), model.prompt(tokens)))
        began, ended = self._loop.create_future(), self._loop.create_future()
        self._ends[job] = ended
        self.waiting.append((job, began))
        self.idle.clear()
        self._let_in()
        await began
        return await stream(request, item, cached, job.first, ended)

    def _let_in(self) -> None:
        """Take in what has room, in the order in which it came."""
        while self.waiting:
            job, began = self.waiting[0]
            if not self.batch.has_room(job.request.input_tokens + job.request.output_tokens):
                return
            self.waiting.popleft()
            self._foresee(self.batch.join(self._loop.time(), job))
            began.set_result(None)

    def _foresee(self, end: float) -> None:
        """Expect the end of the batch's first request, unless the batch changes before."""
        version = self.batch.version
        self._loop.call_at(end, self._finish, version)

    def _finish(self, version: int) -> None:
        if version != self.batch.version:
            return
        job, following = self.batch.finish(self._loop.time())
        self._ends.pop(job).set_result(None)
        if following is not None:
            self._foresee(following)
        self._let_in()
        if not self._ends:
            self.idle.set()


@dataclass
class Cluster:
    """Replicas that come and go, as the gateway learns of them, and what they cost.

    :param folder: of the gateway's objects.
    :param service: ``namespace/name``.
    :param boot: seconds.
    :param end: of what is billed, in the loop's seconds.
    """

    items: Sequence[Item]
    engine: Engine
    folder: Path
    service: str
    boot: float
    end: float
    replicas: list[Own] = field(default_factory=list)  # wanted
    starts: int = 0
    _billed: float = 0.0  # replica-seconds of those that are gone
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _leaving: dict[Own, asyncio.Task[None]] = field(default_factory=dict)
    _booting: dict[Own, asyncio.Task[None]] = field(default_factory=dict)

    @property
    def ready(self) -> list[Own]:
        """Those that serve."""
        return [r for r in self.replicas if r.ready]

    @property
    def seconds(self) -> float:
        """Replica-seconds to pay, until now."""
        return self._billed + sum(map(self._since_order, [*self.replicas, *self._leaving]))

    async def begin(self, count: int) -> None:
        """Have so many that are ready, whose boot nobody pays."""
        for _ in range(count):
            replica = await self._new()
            replica.ready = True
        self._publish()

    async def scale(self, count: int) -> None:
        """Order replicas, or give some back: of too many those that boot first, then the idlest."""
        for _ in range(count - len(self.replicas)):
            replica = await self._new()
            self.starts += 1
            self._booting[replica] = asyncio.create_task(self._boot(replica))
        for _ in range(len(self.replicas) - count):
            replica = min(self.replicas, key=lambda r: (r.ready, r.batch.running))
            self.replicas.remove(replica)
            self._leaving[replica] = asyncio.create_task(self._leave(replica))
        self._publish()

    async def close(self) -> None:
        """End all."""
        for task in [*self._booting.values(), *self._leaving.values()]:
            task.cancel()
        for replica in [*self.replicas, *self._leaving]:
            await replica.stop()

    async def _new(self) -> Own:
        replica = Own(self.items, self.engine, next(self._numbers))
        await replica.start()
        self.replicas.append(replica)
        return replica

    async def _boot(self, replica: Own) -> None:
        await asyncio.sleep(self.boot)
        replica.ready = True
        del self._booting[replica]
        self._publish()

    async def _leave(self, replica: Own) -> None:
        """Wait until the gateway has heard of it and the last answer has ended; then bill."""
        if booting := self._booting.pop(replica, None):
            booting.cancel()
        await asyncio.sleep(NOTICE)
        await replica.idle.wait()
        await replica.stop()
        self._billed += self._since_order(replica)
        del self._leaving[replica]

    def _since_order(self, replica: Own) -> float:
        now = min(asyncio.get_running_loop().time(), self.end)
        return max(0.0, now - replica.batch.ordered)

    def _publish(self) -> None:
        """Write the EndpointSlices."""
        namespace, _, name = self.service.partition("/")
        slices = [
            {
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{name}-{replica.number}",
                    "namespace": namespace,
                    "labels": {"kubernetes.io/service-name": name},
                },
                "ports": [{"name": "http", "port": replica.port}],
                "endpoints": [
                    {
                        "addresses": [replica.host],
                        "conditions": {"ready": replica.ready},
                        "targetRef": {"uid": f"{name}-{replica.number}"},
                    }
                ],
            }
            for replica in self.replicas
        ]
        text = "\n---\n".join(map(json.dumps, slices))
        (self.folder / "replicas.yaml").write_text(text)
