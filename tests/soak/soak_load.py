"""Clients: they come at random moments, some read slowly, some leave; each end is judged."""

import asyncio
import math
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import orjson
from soak_gateways import NAMESPACE, NARROW, SERVICE, SLOTS, Gateway
from soak_upstreams import PACE, PREFILL, PROMPT_NANO, TOKEN_NANO, Attempt, Book, Upstream

from lab.load import Client, Sent

LOAD = 0.7  # of what the engines can do
TOKENS = range(4, 13)  # of an answer
LEAVING_TOKENS = 40  # slowly made: nobody leaves at its very end
BEAT, LATE = 0.1, 1.0  # seconds between two looks at the clock, and of lateness that is a stall
RECOVERY = 60.0  # seconds until what has waited behind a stall is gone
AT_ONCE = 400  # requests under way; what would come beyond is not sent, and counted
PATIENCE = 120.0  # seconds of a client
MAX_REPLICAS = 2  # that may have read a request before it is refused
BROKEN = "upstream_broken"  # the code of the error that ends an answer
UNGRANTED = "no money was granted within"
OVERHEAD = 64  # tokens that the ledger reckons a provider's own template may add


@dataclass
class Request:
    """One request of the load.

    :param kind: "stream", "whole", "slow", "private", "leaves".
    :param arrived: when it was sent, by the event loop's clock.
    """

    number: int
    gateway: Gateway
    kind: str
    tokens: int
    arrived: float
    size: int = 0  # bytes of its body, without spaces

    @property
    def worst(self) -> int:
        """Nano-dollars that it may cost at most, as the ledger's rule is written down."""
        return (self.size + OVERHEAD) * PROMPT_NANO + self.tokens * TOKEN_NANO


class Pulse:
    """Whether this machine keeps up: a loop that is late is no load of 70 % any more.

    What waits behind a stall is not judged, and a cloud whose answer came too late for its gateway
    is charged the worst case, whatever its book says; so there the ledger may say more.
    """

    def __init__(self) -> None:
        self.late_at, self.latest = -math.inf, 0.0

    async def run(self) -> None:
        """Look at the clock, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT
            await asyncio.sleep(BEAT)
            late = loop.time() - due
            self.latest = max(self.latest, late)
            if late > LATE:
                self.late_at = loop.time()

    def steady_since(self, arrived: float) -> bool:
        """Whether all that could delay a request happened in step."""
        return arrived - self.late_at > RECOVERY


@dataclass
class Judge:
    """Whether each request ended as it should, and what the ledgers must say.

    :param owed: nano-dollars that each gateway's ledger must have, by account.
    :param billed: nano-dollars that the clouds counted, and of them for whole answers.
    """

    book: Book
    engines: list[Upstream]
    clouds: list[Upstream]
    pulse: Pulse = field(default_factory=Pulse)
    ends: Counter[str] = field(default_factory=Counter)
    excused: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    owed: Counter[tuple[int, str]] = field(default_factory=Counter)
    billed: int = 0
    billed_whole: int = 0

    def left(self, request: Request) -> None:
        """Take a request whose client left."""
        self.ends["left"] += 1
        self._account(request)

    def ended(self, request: Request, sent: Sent) -> None:
        """Take a request and what its client saw."""
        attempts = self.book.of(request.number)
        where = "cloud" if sent.destination in {cloud.name for cloud in self.clouds} else "here"
        self.ends["failed" if sent.failed else f"answered {where}"] += 1
        if sent.failed:
            self._failed(request, sent, attempts)
        elif sent.tokens != request.tokens or (sent.pieces or sent.tokens) != request.tokens:
            self._defect(request, sent, "tokens are missing, or came twice")
        self._account(request)

    def _failed(self, request: Request, sent: Sent, attempts: list[Attempt]) -> None:
        last = attempts[-1] if attempts else None
        if last is not None and last.whole:
            self._defect(request, sent, "the answer was there")
        elif last is not None and last.content:
            if BROKEN not in sent.error:
                self._defect(request, sent, "it ended early, and nobody said so")
            self.excused["broken after the first byte"] += 1
        elif way := self._another_way(request, attempts, UNGRANTED in sent.error):
            self._defect(request, sent, f"{way} would have answered")
        else:
            self.excused[f"nobody could answer ({sent.status})"] += 1

    def _another_way(self, request: Request, attempts: list[Attempt], unpaid: bool) -> str:
        """Return who could have answered from its last failure, or its arrival, to its end.

        :param unpaid: the ledger, a busy process, took longer than a request waits for money.
        """
        now = asyncio.get_running_loop().time()
        since = max([request.arrived, *(min(a.ended, now) for a in attempts)])
        failed = {attempt.upstream for attempt in attempts}
        if sum(engine in failed for engine in self.engines) < MAX_REPLICAS:
            for engine in self.engines:
                if engine not in failed and engine.open_since(0) <= since:
                    return engine.name
        if unpaid or request.kind == "private" or request.gateway.money_since > since:
            return ""
        number = request.gateway.number
        able = (c for c in self.clouds if c not in failed and c.open_since(number) <= since)
        return next((cloud.name for cloud in able if cloud.name != NARROW), "")

    def _account(self, request: Request) -> None:
        """Note what its attempts at clouds cost.

        A whole answer costs what it used, a refusal nothing, and all else the worst case: nobody
        can know what the provider counts.
        """
        for attempt in self.book.attempts.pop(request.number, ()):
            if not attempt.upstream.bills:
                continue
            self.billed += attempt.billed
            self.billed_whole += attempt.billed * attempt.whole
            cost = attempt.billed if attempt.whole else 0 if attempt.free else request.worst
            if attempt.billed > cost:
                self.defects.append(f"{request}: billed {attempt.billed}, charged {cost}")
            name = attempt.upstream.name
            for account in (SERVICE, f"provider/{NAMESPACE}/{name}"):
                self.owed[request.gateway.number, account] += cost

    def _defect(self, request: Request, sent: Sent, what: str) -> None:
        if not self.pulse.steady_since(request.arrived):
            self.excused["the machine stalled"] += 1
            return
        tried = [
            (a.upstream.name, f"{a.began:.2f}", f"{a.ended:.2f}", a.content, a.whole)
            for a in self.book.of(request.number)
        ]
        self.defects.append(f"{what}: {request.kind} {request.number} at {request.arrived:.2f}, "
                            f"tried {tried}, seen {sent}")  # fmt: skip


class Load:
    """An open loop: requests come by a Poisson process, whatever becomes of those before."""

    def __init__(self, gateways: list[Gateway], judge: Judge, seed: str) -> None:
        self.gateways, self.judge, self.rng = gateways, judge, random.Random(seed)
        self.number = self.unsent = 0
        self._running: set[asyncio.Task[None]] = set()

    @property
    def rate(self) -> float:
        """Requests per second: so much of the engines' slots, by the mean time in one of them."""
        slots = SLOTS * len(self.gateways) * len(self.judge.engines)
        mean = PREFILL + PACE * sum(TOKENS) / len(TOKENS)
        return LOAD * slots / mean

    async def run(self, seconds: float) -> None:
        """Send for so long, then wait for the answers under way."""
        loop = asyncio.get_running_loop()
        due, end = loop.time(), loop.time() + seconds
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while (due := due + self.rng.expovariate(self.rate)) < end:
                await asyncio.sleep(due - loop.time())
                if len(self._running) >= AT_ONCE:
                    self.unsent += 1
                    continue
                task = asyncio.create_task(self._one(session))
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            await asyncio.gather(*self._running)

    async def _one(self, session: aiohttp.ClientSession) -> None:
        self.number += 1
        kinds, weights = ("stream", "whole", "slow", "private", "leaves"), (62, 20, 5, 8, 5)
        [kind] = self.rng.choices(kinds, weights)
        gateway = self.rng.choice(self.gateways)
        tokens = LEAVING_TOKENS if kind == "leaves" else self.rng.choice(TOKENS)
        now = asyncio.get_running_loop().time()
        request = Request(self.number, gateway, kind, tokens, now)
        private = {"x-overspill-data-policy": "never"} if kind == "private" else {}
        client = _Slow if kind == "slow" else Client
        url = f"http://127.0.0.1:{gateway.port}/v1"
        asks = client(url, gateway.key, "chat", tokens, kind != "whole", private)
        prompt = f"request {self.number}" + (" slowly" if kind == "leaves" else "")
        request.size = len(orjson.dumps(asks.body(prompt)))
        sending = asyncio.create_task(asks.send(session, kind, prompt))
        if kind == "leaves" and await self._leaves(request, sending):
            self.judge.left(request)
        else:
            self.judge.ended(request, await sending)

    async def _leaves(self, request: Request, sending: asyncio.Task[Sent]) -> bool:
        """Leave in the middle of the answer; False when the request ended before that."""
        while not sending.done():
            attempts = self.judge.book.of(request.number)
            if attempts and attempts[-1].content:
                await asyncio.sleep(self.rng.uniform(0.0, 1.0))
                break
            await asyncio.wait([sending], timeout=0.05)
        if sending.done():
            return False
        sending.cancel()
        await asyncio.wait([sending])
        return sending.cancelled()


class _Slow(Client):
    """A client that reads a line of the answer every 0.1 s."""

    def lines(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        return _slowly(answer)


async def _slowly(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for line in answer.content:
        await asyncio.sleep(0.1)
        yield line
