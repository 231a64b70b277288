"""An engine that computes nothing: tokens of an OpenAI-compatible answer at a given pace.

It stands in for real engines where a test needs more of them, or longer answers, than the machine
can compute; what it stands in for is everything but the model: it batches up to ``--sequences``
requests, queues the rest, streams, names its metrics in its own words and can be made to die. The
n-th token of an answer is the number n, so that a reader can tell that none is missing or came
twice. It does not drain by itself: SIGTERM ends it at once.

The last message may tell it to fail, after so many tokens (0: before the answer):
``die after N``: the process ends as if killed; ``grow after N``: it takes memory until the kernel
ends it; ``hang after N``: it says nothing more.
"""

import argparse
import asyncio
import json
import os
import re
import signal
from dataclasses import dataclass
from typing import Any

MAX_BODY = 16 * 2**20
_FAULT = re.compile(r"(die|grow|hang) after (\d+)")


@dataclass(frozen=True)
class Fault:
    """What a prompt asks for."""

    kind: str = ""
    after: int = -1


@dataclass
class Engine:
    """The engine. ``rate``: tokens per second of one answer; ``prefill``: seconds before them."""

    name: str
    rate: float
    prefill: float
    slots: asyncio.Semaphore
    running: int = 0
    waiting: int = 0
    answered: int = 0
    prompt_tokens: int = 0  # of what it has begun
    tokens: int = 0  # made so far, of answers that broke off too

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split(" ", 2)
        found = re.search(r"(?im)^content-length:\s*(\d+)", head)
        body = await reader.readexactly(min(int(found[1]), MAX_BODY)) if found else b""
        if method == "GET":
            return await self._get(path, writer)
        work = asyncio.create_task(self._answer(path, json.loads(body), writer))
        left = asyncio.create_task(reader.read(1))  # a client that leaves; none asks meanwhile
        await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
        if left.done() and not work.done():
            work.cancel()
        left.cancel()
        await asyncio.wait({work, left})
        return False

    async def _get(self, path: str, writer: asyncio.StreamWriter) -> bool:
        models = {"object": "list", "data": [{"id": self.name, "object": "model"}]}
        pages = {"/health": "ok\n", "/metrics": self._metrics(), "/v1/models": json.dumps(models)}
        text = pages.get(path)
        await _send(writer, 200 if text else 404, (text or "not found\n").encode())
        return True

    def _metrics(self) -> str:
        return (
            f"# TYPE paced_active gauge\npaced_active {self.running}\n"
            f"# TYPE paced_pending gauge\npaced_pending {self.waiting}\n"
            f"# TYPE paced_answers_total counter\npaced_answers_total {self.answered}\n"
            "# TYPE paced_prompt_tokens_total counter\n"
            f"paced_prompt_tokens_total {self.prompt_tokens}\n"
            f"# TYPE paced_tokens_total counter\npaced_tokens_total {self.tokens}\n"
        )

    async def _answer(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.waiting += 1
        try:
            await self.slots.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            await self._compute(path, body, writer)
            self.answered += 1
        finally:
            self.running -= 1
            self.slots.release()

    async def _compute(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        prompt = json.dumps(body.get("messages") or body.get("prompt"))
        fault = _fault(prompt)
        count = body.get("max_completion_tokens") or body.get("max_tokens") or 16
        usage = {"prompt_tokens": len(prompt) // 4 + 1, "completion_tokens": count}
        usage["total_tokens"] = sum(usage.values())
        chat = path.endswith("/chat/completions")
        self.prompt_tokens += usage["prompt_tokens"]
        await asyncio.sleep(self.prefill)
        await _fail(fault, 0)
        if body.get("stream"):
            asked = (body.get("stream_options") or {}).get("include_usage")
            await self._stream(writer, chat, count, fault, usage if asked else None)
            return
        for number in range(1, count + 1):
            await asyncio.sleep(1 / self.rate)
            self.tokens += 1
            await _fail(fault, number)
        text = "".join(f"{n} " for n in range(1, count + 1))
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        answer = self._head(chat, "") | {"choices": [_choice(choice, "length")], "usage": usage}
        await _send(writer, 200, json.dumps(answer).encode(), "application/json", close=True)

    async def _stream(
        self,
        writer: asyncio.StreamWriter,
        chat: bool,
        count: int,
        fault: Fault,
        usage: dict[str, int] | None,
    ) -> None:
        close = b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        writer.write(_head(200, "text/event-stream") + close)
        head = self._head(chat, ".chunk" if chat else "")
        loop = asyncio.get_running_loop()
        start = loop.time()
        for number in range(1, count + 1):
            await asyncio.sleep(start + number / self.rate - loop.time())
            self.tokens += 1
            text = f"{number} "
            part: dict[str, Any] = {"delta": {"content": text}} if chat else {"text": text}
            await _event(writer, head | {"choices": [_choice(part)]})
            await _fail(fault, number)
        part = {"delta": {}} if chat else {"text": ""}
        await _event(writer, head | {"choices": [_choice(part, "length")]})
        if usage:
            await _event(writer, head | {"choices": [], "usage": usage})
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    def _head(self, chat: bool, suffix: str) -> dict[str, Any]:
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "paced", "object": kind + suffix, "created": 0, "model": self.name}


def _fault(prompt: str) -> Fault:
    found = _FAULT.search(prompt)
    return Fault(found[1], int(found[2])) if found else Fault()


async def _fail(fault: Fault, number: int) -> None:
    """Do what the prompt asked for, once that many tokens are out."""
    if fault.after != number:
        return
    if fault.kind == "die":
        os._exit(137)
    if fault.kind == "hang":
        await asyncio.Event().wait()
    hoard = []
    while True:
        hoard.append(os.urandom(2**22))
        await asyncio.sleep(0)


def _choice(part: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": 0, "finish_reason": finish, **part}


async def _event(writer: asyncio.StreamWriter, event: dict[str, Any]) -> None:
    writer.write(_chunk(b"data: " + json.dumps(event).encode() + b"\n\n"))
    await writer.drain()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _head(status: int, kind: str) -> bytes:
    return f"HTTP/1.1 {status} OK\r\ncontent-type: {kind}\r\n".encode()


async def _send(
    writer: asyncio.StreamWriter,
    status: int,
    body: bytes,
    kind: str = "text/plain; version=0.0.4",
    *,
    close: bool = False,
) -> None:
    end = b"connection: close\r\n" if close else b""
    writer.write(_head(status, kind) + b"content-length: %d\r\n" % len(body) + end + b"\r\n" + body)
    await writer.drain()


async def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--name", default="paced")
    parser.add_argument("--sequences", type=int, default=8, help="computed at the same time")
    parser.add_argument("--rate", type=float, default=20.0, help="tokens per second of an answer")
    parser.add_argument("--prefill", type=float, default=0.05, help="seconds before the first")
    parser.add_argument("--boot", type=float, default=0.0, help="seconds before it listens")
    options = parser.parse_args()
    await asyncio.sleep(options.boot)
    engine = Engine(
        options.name, options.rate, options.prefill, asyncio.Semaphore(options.sequences)
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    server = await asyncio.start_server(engine.serve, options.host, options.port)
    print(f"listening on {server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
