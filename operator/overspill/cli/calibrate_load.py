"""A short load on an OpenAI-compatible endpoint, and when the tokens of its answers came.

Prompts are common words after a random one, so that no prefix cache knows them. Answers are asked
for at their full length (``ignore_eos``, an extension of vLLM, SGLang and llama.cpp); where an
endpoint does not know it, what it says it answered counts.
"""

import asyncio
import math
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from overspill.api.sse import EventSplitter, EventTooLarge, data_of, parse
from overspill.cli.errors import CommandError
from overspill.cli.reply import error_message
from overspill.simulator.calibration import Measured
from overspill.simulator.traces import Request

CONNECT_SECONDS = 10.0
MAX_ERROR = 65_536  # bytes of an error that are read
# Each is one token in the vocabularies of common models.
WORDS = ("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world")
SHORTEST = 16  # words of a prompt
SPREAD = 8  # times that the longest prompt and answer exceed the shortest

_ADVICE: Mapping[int, str] = {
    400: "lower --prompt or --answer if that is too long for the model",
    401: "give --key-file with a key of this endpoint",
    403: "give --key-file with a key that covers the model",
    404: "is --model served there, and is the URL that of an OpenAI-compatible API?",
    429: "lower --concurrency, or use an endpoint without rate limits",
    503: "lower --concurrency, or wait until the engine is ready",
}


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and for what.

    :param url: of the API, with its version: ``http://127.0.0.1:8000/v1``.
    :param timeout: seconds for one answer.
    """

    url: str
    model: str
    timeout: float
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Plan:
    """How much to ask.

    :param concurrency: most requests at a time.
    :param prompt: longest prompt in words, which are about as many tokens.
    :param answer: longest answer in tokens.
    :param seconds: after which no request begins.
    :param requests: most requests altogether.
    """

    concurrency: int
    prompt: int
    answer: int
    seconds: float
    requests: int

    def levels(self) -> list[int]:
        """Return how many requests are under way in each part: 1, 2, 4, … to the most."""
        doublings = math.ceil(math.log2(self.concurrency))
        return [2**power for power in range(doublings)] + [self.concurrency]

    def lengths(self) -> Iterator[tuple[int, int]]:
        """Yield words of prompts and tokens of answers, the same in every run."""
        generator = random.Random(0)  # noqa: S311 (no secret)
        while True:
            yield (
                _between(generator, min(SHORTEST, self.prompt), self.prompt),
                _between(generator, max(2, self.answer // SPREAD), self.answer),
            )


def _between(generator: random.Random, low: int, high: int) -> int:
    """Return a length of which short ones are as likely as long ones, by factors."""
    return round(math.exp(generator.uniform(math.log(low), math.log(high))))


def prompt_of(words: int) -> str:
    """Return a prompt that no engine has in its cache."""
    return " ".join([secrets.token_hex(4), *random.choices(WORDS, k=words)])  # noqa: S311


class Client:
    """Asks one endpoint."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Ask through a session that the caller closes.

        :param clock: seconds, by which answers are measured.
        """
        self._session, self._endpoint, self._clock = session, endpoint, clock
        self._headers = {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}

    async def ask(self, prompt: str, tokens: int) -> Measured:
        """Read one answer as it comes.

        :param tokens: of the answer.
        :raises CommandError: there was none, or one that cannot be measured.
        """
        body = {
            "model": self._endpoint.model,
            "prompt": prompt,
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        url = f"{self._endpoint.url}/completions"
        stream, begin = _Stream(self._clock), self._clock()
        try:
            async with (
                asyncio.timeout(self._endpoint.timeout),
                self._session.post(
                    url, json=body, headers=self._headers, allow_redirects=False
                ) as response,
            ):
                if response.status != 200:
                    raise await _refused(response)
                async for chunk in response.content.iter_any():
                    stream.feed(chunk)
        except TimeoutError:
            raise CommandError(
                f"no whole answer within {self._endpoint.timeout:g} s: "
                "lower --concurrency or --prompt, or give more --timeout"
            ) from None
        except (aiohttp.ClientError, EventTooLarge) as error:
            text = str(error) or type(error).__name__
            raise CommandError(f"{url}: {text}; is the engine up?") from None
        return stream.measured(begin)


class _Stream:
    """What an answer's events say, and when they came."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._splitter = clock, EventSplitter()
        self._usage: dict[str, Any] = {}
        self._times: list[float] = []  # of events with tokens

    def feed(self, chunk: bytes) -> None:
        for event in self._splitter.feed(chunk):
            data = parse(data_of(event))
            if "error" in data:
                raise CommandError(f"an answer broke off: {error_message(data_of(event).decode())}")
            self._usage = data.get("usage") or self._usage
            if data.get("choices"):
                self._times.append(self._clock())

    def measured(self, begin: float) -> Measured:
        prompt, answer = self._count("prompt_tokens"), self._count("completion_tokens")
        if not prompt or not answer:
            raise CommandError(
                "the answer's stream does not count its tokens: the endpoint must know "
                "stream_options.include_usage"
            )
        if len(self._times) < min(2, answer):
            raise CommandError("the answer came in one piece: the endpoint must stream tokens")
        details = self._usage.get("prompt_tokens_details")
        cached = (details if isinstance(details, dict) else {}).get("cached_tokens")
        request = Request(begin, prompt, answer, cached if isinstance(cached, int) else 0)
        return Measured(request, self._times[0], self._times[-1])

    def _count(self, name: str) -> int:
        count = self._usage.get(name)
        return count if isinstance(count, int) else 0


async def _refused(response: aiohttp.ClientResponse) -> CommandError:
    status = response.status
    raw = await response.content.read(MAX_ERROR)
    text = error_message(raw.decode(errors="replace")) or response.reason or ""
    advice = _ADVICE.get(status, "is the URL that of an OpenAI-compatible API?")
    return CommandError(f"the endpoint answers {status}: {text}; {advice}")


def session() -> aiohttp.ClientSession:
    """Return a client with a new connection for each request; the caller closes it.

    A connection that the server is about to close would fail a request now and then.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
    )


async def measure(
    endpoint: Endpoint,
    plan: Plan,
    tell: Callable[[int, list[Measured]], None],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Measured]:
    """Put the load on, in parts of ever more requests at a time.

    :param tell: what to do with a part's requests when it is over; the first argument says how
        many were under way.
    :param clock: seconds, by which answers are measured.
    :raises CommandError: a request was not answered; nothing is known of such a batch.
    """
    found: list[Measured] = []
    levels, lengths = plan.levels(), plan.lengths()
    async with session() as connections:
        client = Client(connections, endpoint, clock)
        await client.ask(prompt_of(SHORTEST), 8)  # cold, and the first to say what is wrong
        begin = time.perf_counter()
        for number, level in enumerate(levels, 1):
            until = begin + plan.seconds * number / len(levels)
            part = _Part(client, lengths, until, plan.requests // len(levels))
            await part.run(level)
            tell(level, part.done)
            found += part.done
    return found


class _Part:
    """Requests of which a fixed number is under way."""

    def __init__(
        self, client: Client, lengths: Iterator[tuple[int, int]], until: float, left: int
    ) -> None:
        self._client, self._lengths = client, lengths
        self._until, self._left = until, left
        self.done: list[Measured] = []

    async def run(self, workers: int) -> None:
        """Ask until the time or the requests are over, and wait for what is under way."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(self._work())
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _work(self) -> None:
        while self._left > 0 and time.perf_counter() < self._until:
            self._left -= 1
            words, tokens = next(self._lengths)
            self.done.append(await self._client.ask(prompt_of(words), tokens))
