"""Load as clients make it: a closed loop of chat requests, each kept as one line.

A thread with its own event loop sends, so that a story can look at the cluster meanwhile.
Requests go to an address of this machine (a NodePort or a forwarded port on 127.0.0.1).
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp

REQUEST_TIMEOUT = 180  # seconds; longer than the gateway holds a request


@dataclass
class Sent:
    """One request and how it ended.

    ``t`` is in seconds since the epoch, ``status`` 0 when no answer came at all, ``destination``
    ``local`` or the provider's name. ``complete`` means a 2xx that ran to its regular end.
    """

    t: float
    stage: str
    status: int = 0
    complete: bool = False
    destination: str = ""
    reason: str = ""
    ttft_ms: float | None = None
    tokens: int = 0  # by the engine's own count
    pieces: int = 0  # of a stream, with text in them
    seconds: float = 0.0
    error: str = ""
    retry_after: int = 0  # seconds, of a 429

    @property
    def failed(self) -> bool:
        """Anything but a complete 2xx."""
        return not (self.complete and 200 <= self.status < 300)


@dataclass
class Client:
    """An OpenAI client of the gateway: base URL up to ``/v1``, key, model."""

    url: str
    key: str
    model: str
    max_tokens: int = 24
    stream: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    def body(self, prompt: str) -> dict[str, Any]:
        """The chat request for a prompt."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": self.max_tokens,
            "stream": self.stream,
        }
        if self.stream:
            body["stream_options"] = {"include_usage": True}
        return body

    async def send(self, session: aiohttp.ClientSession, stage: str, prompt: str) -> Sent:
        """Send one chat request and read its answer to the end; never raises."""
        sent, start = Sent(t=time.time(), stage=stage), time.monotonic()
        headers = {"Authorization": f"Bearer {self.key}", **self.headers}
        try:
            async with session.post(
                f"{self.url}/chat/completions", json=self.body(prompt), headers=headers
            ) as answer:
                sent.status = answer.status
                note_destination(sent, dict(answer.headers))
                if self.stream and answer.status == 200:
                    await read_stream(self.lines(answer), sent, start)
                else:
                    await read_unary(answer, sent, start)
        except (aiohttp.ClientError, OSError, ValueError, LookupError, TypeError) as error:
            # No answer, or one that is none: broken JSON, no choices, no usage.
            sent.complete, sent.error = False, f"{type(error).__name__}: {error}"
        sent.seconds = round(time.monotonic() - start, 3)
        return sent

    def lines(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """The lines of a stream, as fast as they come."""
        return aiter(answer.content)


def note_destination(sent: Sent, headers: dict[str, str]) -> None:
    """Take destination and reason from the gateway's headers (or comments of the same names)."""
    lower = {k.lower(): v for k, v in headers.items()}
    if destination := lower.get("x-overspill-destination"):
        sent.destination = destination.rsplit("/", 1)[-1]
    sent.reason = lower.get("x-overspill-reason", sent.reason)
    sent.retry_after = int(lower.get("retry-after", 0))


async def read_unary(answer: aiohttp.ClientResponse, sent: Sent, start: float) -> None:
    """Read a JSON answer."""
    text = await answer.text()
    if answer.status != 200:
        sent.error = text[:300]
        return
    body = json.loads(text)
    sent.ttft_ms = (time.monotonic() - start) * 1000
    sent.tokens = body["usage"]["completion_tokens"]
    sent.complete = body["choices"][0]["finish_reason"] is not None


async def read_stream(lines: AsyncIterator[bytes], sent: Sent, start: float) -> None:
    """Read server-sent events to ``[DONE]``; a comment may carry what headers could not."""
    finished = False
    async for raw in lines:
        line = raw.decode().strip()
        if line.startswith(": x-overspill-"):
            name, _, value = line[2:].partition("=")
            note_destination(sent, {name: value})
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            sent.complete = finished and not sent.error
            return
        finished = read_event(json.loads(line[6:]), sent, start) or finished
    sent.error = sent.error or "the stream ended without [DONE]"


def read_event(event: dict[str, Any], sent: Sent, start: float) -> bool:
    """Count one chunk; return whether it says why the answer ended."""
    if "error" in event:
        sent.error = str(event["error"])[:300]
    if usage := event.get("usage"):
        sent.tokens = usage["completion_tokens"]
    choices = event.get("choices") or [{}]
    if choices[0].get("delta", {}).get("content"):
        sent.pieces += 1
        if sent.ttft_ms is None:
            sent.ttft_ms = round((time.monotonic() - start) * 1000, 1)
    return choices[0].get("finish_reason") is not None


class Load:
    """A closed loop: ``concurrency`` clients, each sending again when it is answered."""

    def __init__(self, client: Client, stage: str = "", pause: float = 0.0) -> None:
        self.client, self.stage, self.pause = client, stage, pause
        self.sent: list[Sent] = []
        self._stop = threading.Event()
        self._number = 0

    async def _one_client(self, session: aiohttp.ClientSession) -> None:
        errors = 0
        while not self._stop.is_set():
            self._number += 1
            prompt = f"Question {self._number}: what is the capital of France?"
            sent = await self.client.send(session, self.stage, prompt)
            self.sent.append(sent)
            errors = errors + 1 if sent.failed else 0
            await asyncio.sleep(max(self.pause, min(errors, 5) * 0.2))

    async def _run(self, concurrency: int) -> None:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            await asyncio.gather(*(self._one_client(session) for _ in range(concurrency)))

    @contextmanager
    def running(self, concurrency: int) -> Iterator["Load"]:
        """Send until the block ends, then wait for the answers still under way."""
        thread = threading.Thread(target=lambda: asyncio.run(self._run(concurrency)), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(REQUEST_TIMEOUT + 10)

    def since(self, t: float) -> list[Sent]:
        """Requests that were sent at or after ``t`` (seconds since the epoch)."""
        return [s for s in list(self.sent) if s.t >= t]


def send_at(client: Client, moments: Sequence[float]) -> list[Sent]:
    """Send a request at each moment, whatever becomes of the others; return how they ended.

    :param moments: seconds from now, the first one first.
    """

    async def all_of_them() -> list[Sent]:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        connector = aiohttp.TCPConnector(limit=0)
        begun = time.monotonic()
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            async with asyncio.TaskGroup() as group:
                tasks = []
                for number, moment in enumerate(moments):
                    await asyncio.sleep(begun + moment - time.monotonic())
                    prompt = f"Question {number}: what is the capital of France?"
                    tasks.append(group.create_task(client.send(session, "", prompt)))
            return [task.result() for task in tasks]

    return asyncio.run(all_of_them())


def send_one(client: Client, prompt: str = "What is the capital of France?") -> Sent:
    """Send a single request and return how it ended."""

    async def one() -> Sent:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return await client.send(session, "", prompt)

    return asyncio.run(one())


def failures(sent: list[Sent]) -> list[dict[str, Any]]:
    """The failed requests as plain values, for an assertion's message."""
    return [asdict(s) for s in sent if s.failed]


def p95(values: list[float]) -> float | None:
    """The 95th percentile (nearest rank), None of nothing."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * 95 // 100) - 1)] if ordered else None
