"""Engines and clouds that answer at a given pace, go wrong when told to, and keep a book of it.

The book is what the oracle judges by: it knows of each request what every upstream did with it, and
of each upstream whether it could have answered. All of it happens in one event loop, so that the
order in the book is the order of the events.
"""

import asyncio
import math
import random
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

PACE, PREFILL = 0.2, 0.05  # seconds for a token, and before the first
SLOWER = 3  # times, of an engine that is slow
LONG_PACE = 1.0  # seconds for a token of an answer whose client will leave
PROMPT_NANO, TOKEN_NANO = 1_750, 14_000  # nano-dollars for a token of prompt and of the answer
# Statuses of errors for which nothing is billed; 502 comes from a proxy, behind which is an answer.
FREE_STATUS = {"401": 401, "429": 429, "500": 500, "503": 503, "529": 529}
STATUS = FREE_STATUS | {"502": 502}
BREAKS = {"cut", "error event", "silent"}  # of an answer that had begun, or is about to


@dataclass(eq=False)
class Attempt:
    """What an upstream did with a request.

    :param gateway: that asked, where the upstream knows.
    :param content: something of the answer went out.
    :param whole: all of it did.
    :param billed: nano-dollars.
    """

    upstream: "Upstream"
    gateway: int
    began: float
    ended: float = math.inf
    content: bool = False
    whole: bool = False
    free: bool = False
    billed: int = 0


@dataclass(eq=False)
class Fault:
    """What is wrong with an upstream until it is over."""

    kind: str
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Book:
    """Attempts by the number of the request."""

    def __init__(self) -> None:
        self.attempts: dict[int, list[Attempt]] = defaultdict(list)

    def of(self, number: int) -> list[Attempt]:
        """What was tried for a request, the oldest first."""
        return self.attempts.get(number, [])


class Upstream:
    """Plays an engine, or a cloud.

    :param keys: of which each belongs to a gateway; none are asked for where there are none.
    :param bills: whether its answers cost something.
    """

    def __init__(
        self, name: str, book: Book, seed: str, keys: list[str] | None = None, *, bills: bool
    ) -> None:
        self.name, self.keys, self.bills = name, keys or [], bills
        self.rng, self.book = random.Random(seed + name), book
        self.fault = Fault("")
        self.well_since = self.listed_since = -math.inf  # infinite while it is not
        self._bad: dict[int, float] = defaultdict(lambda: -math.inf)  # last failure, by gateway
        self._good: dict[int, float] = defaultdict(lambda: -math.inf)  # first answer after it
        self.address = ("127.0.0.1", 0)

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}/v1"

    async def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        app = web.Application()
        app.router.add_post("/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, handler_cancellation=True, shutdown_timeout=0.01, access_log=None
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self.address, reuse_address=True)
        await site.start()
        self.address = site._server.sockets[0].getsockname()[:2]

    async def stop(self) -> None:
        """Be gone at once, with all connections."""
        for protocol in self._runner.server.connections:
            if protocol.transport is not None:
                protocol.transport.abort()
        await self._runner.cleanup()

    # faults

    async def goes_wrong(self, kind: str) -> None:
        """Begin a fault: "down", "hang", "slow", one of BREAKS, or a status."""
        self.fault = Fault(kind)
        if kind != "slow":
            self.well_since = math.inf
        if kind == "down":
            await self.stop()

    async def recovers(self) -> None:
        """End it; what hangs is cut, as when its process is killed."""
        if self.fault.kind == "down":
            await self.start()
        self.fault.over.set()
        self.fault = Fault("")
        self.well_since = asyncio.get_running_loop().time()

    def open_since(self, gateway: int) -> float:
        """Return since when it would have answered a request, infinite when it would not.

        Of a cloud that failed a gateway takes note: until it has answered one request, which
        probes, it gets no others. For an engine requests wait.
        """
        if not self.keys:
            return max(self.well_since, self.listed_since)
        good = self._good[gateway]
        known = math.inf if good < self._bad[gateway] else good
        return max(self.well_since, known)

    def _told(self, attempt: Attempt) -> None:
        """Note what a gateway makes of an attempt; one that began before a failure is old news."""
        gateway, now = attempt.gateway, asyncio.get_running_loop().time()
        if not attempt.content:
            self._bad[gateway] = now
        elif attempt.began > self._bad[gateway] > self._good[gateway]:
            self._good[gateway] = now

    # answers

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        body = orjson.loads(await request.read())
        prompt = body["messages"][0]["content"]
        secret = request.headers.get("Authorization", "").removeprefix("Bearer ")
        gateway = self.keys.index(secret) if self.keys else 0
        attempt = Attempt(self, gateway, loop.time())
        self.book.attempts[int(re.search(r"request (\d+)", prompt)[1])].append(attempt)
        pace = LONG_PACE if "slowly" in prompt else PACE
        answer = _Answer(request, body, attempt, len(prompt) // 4 + 1, pace)
        try:
            return await self._answer(answer, self.fault)
        finally:
            attempt.ended = loop.time()
            if not attempt.content:
                self._told(attempt)

    async def _answer(self, answer: "_Answer", fault: Fault) -> web.StreamResponse:
        if fault.kind in STATUS:
            answer.attempt.free = fault.kind in FREE_STATUS
            headers = {"Retry-After": "1"} if fault.kind == "429" else {}
            return web.Response(status=STATUS[fault.kind], text="no", headers=headers)
        count = answer.body["max_tokens"]
        if fault.kind == "hang":  # it computes all, and says nothing
            answer.made(count)
            await fault.over.wait()
            return answer.cut()
        breaks = self.rng.randrange(count) if fault.kind in BREAKS else count
        if fault.kind == "slow":
            answer.pace *= SLOWER
        await asyncio.sleep(PREFILL)
        if not answer.body.get("stream"):
            return await self._unary(answer, fault, breaks)
        return await self._stream(answer, fault, breaks)

    async def _unary(self, answer: "_Answer", fault: Fault, breaks: int) -> web.StreamResponse:
        count = answer.body["max_tokens"]
        await asyncio.sleep(breaks * answer.pace)
        if breaks == count:
            self._begins(answer, count)
            answer.attempt.whole = True
            return web.json_response(answer.unary(count))
        answer.made(breaks)
        if fault.kind == "silent":
            await fault.over.wait()
        return answer.cut()

    async def _stream(self, answer: "_Answer", fault: Fault, breaks: int) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(answer.request)
        for number in range(answer.body["max_tokens"]):
            await asyncio.sleep(answer.pace)
            if number == breaks:
                return await self._breaks(answer, fault, response)
            self._begins(answer, number + 1)
            await response.write(answer.event({"delta": {"content": f"{number + 1} "}}))
        await response.write(answer.end())
        answer.attempt.whole = True
        return response

    async def _breaks(
        self, answer: "_Answer", fault: Fault, response: web.StreamResponse
    ) -> web.StreamResponse:
        if fault.kind == "error event":
            await response.write(b'data: {"error":{"message":"overloaded"}}\n\n')
            return response
        if fault.kind == "silent":
            await fault.over.wait()
        answer.cut()
        return response

    def _begins(self, answer: "_Answer", made: int) -> None:
        answer.made(made)
        if not answer.attempt.content:
            answer.attempt.content = True
            self._told(answer.attempt)


@dataclass(eq=False)
class _Answer:
    """An answer in the words of OpenAI's API."""

    request: web.Request
    body: dict[str, Any]
    attempt: Attempt
    read: int  # tokens of the prompt
    pace: float

    def made(self, tokens: int) -> None:
        """Bill so many tokens."""
        if self.attempt.upstream.bills:
            self.attempt.billed = self.read * PROMPT_NANO + tokens * TOKEN_NANO

    def cut(self) -> web.Response:
        """End the connection."""
        if self.request.transport is not None:
            self.request.transport.abort()
        return web.Response()

    def usage(self, tokens: int) -> dict[str, int]:
        counts = {"prompt_tokens": self.read, "completion_tokens": tokens}
        return counts | {"total_tokens": self.read + tokens}

    def unary(self, tokens: int) -> dict[str, Any]:
        text = "".join(f"{n + 1} " for n in range(tokens))
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "length", "message": message}
        return self._head("") | {"choices": [choice], "usage": self.usage(tokens)}

    def event(self, part: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "finish_reason": finish, **part}
        return b"data: " + orjson.dumps(self._head(".chunk") | {"choices": [choice]}) + b"\n\n"

    def end(self) -> bytes:
        """The last events, in one piece: who has read one has read all."""
        last = self._head(".chunk") | {"choices": [], "usage": self.usage(self.body["max_tokens"])}
        usage = b"data: " + orjson.dumps(last) + b"\n\n"
        return self.event({"delta": {}}, "length") + usage + b"data: [DONE]\n\n"

    def _head(self, suffix: str) -> dict[str, Any]:
        kind = f"chat.completion{suffix}"
        return {"id": "soak", "object": kind, "created": 0, "model": self.body["model"]}
