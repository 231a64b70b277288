"""Plays Anthropic's Messages API, written from its published description.

https://platform.claude.com/docs/en/api/messages
https://platform.claude.com/docs/en/build-with-claude/streaming
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import published
from aiohttp import web
from pydantic import ValidationError

Fields = dict[str, Any]
USAGE: Fields = {
    "input_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 3,
    "output_tokens": 4,
}  # fmt: skip


@dataclass
class AnthropicCloud:
    """Answers every sound request with ``content``."""

    content: list[Fields] = field(default_factory=lambda: [{"type": "text", "text": "from afar"}])
    stop_reason: str = "end_turn"
    stop_sequence: str | None = None
    usage: Fields = field(default_factory=lambda: dict(USAGE))
    status: int = 200
    error: str = "overloaded_error"
    error_after: int | None = None  # events, then an error event
    bodies: list[Fields] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    address: tuple[str, int] = ("127.0.0.1", 0)

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}/v1"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["AnthropicCloud"]:
        app = web.Application()
        app.router.add_post("/v1/messages", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, *self.address).start()
        self.address = runner.addresses[0][:2]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.seen_headers.append(dict(request.headers))
        self.paths.append(request.raw_path)
        body = orjson.loads(await request.read())
        self.bodies.append(body)
        if request.headers.get("anthropic-version") != "2023-06-01":
            return _error(400, "invalid_request_error", "anthropic-version: header is required")
        try:
            published.check(body)
        except (ValidationError, ValueError) as error:
            return _error(400, "invalid_request_error", str(error))
        if self.status != 200:
            return _error(self.status, self.error, "no")
        if body.get("stream"):
            return await self._stream(request, body)
        return web.json_response(self._message(body))

    def _message(self, body: Fields) -> Fields:
        return {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": self.content, "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence, "usage": self.usage,
        }  # fmt: skip

    async def _stream(self, request: web.Request, body: Fields) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for number, event in enumerate(self.events(body)):
            if number == self.error_after:
                error = {"type": self.error, "message": "Overloaded"}
                await response.write(_sse({"type": "error", "error": error}))
                break
            await response.write(_sse(event))
            await asyncio.sleep(0)  # pieces of their own
        return response

    def events(self, body: Fields) -> list[Fields]:
        """Return the events of a stream, in the documented order."""
        start = self._message(body) | {"content": [], "stop_reason": None, "stop_sequence": None}
        start["usage"] = self.usage | {"output_tokens": 1}
        events: list[Fields] = [{"type": "message_start", "message": start}, {"type": "ping"}]
        for index, block in enumerate(self.content):
            events += _block_events(index, block)
        delta = {"stop_reason": self.stop_reason, "stop_sequence": self.stop_sequence}
        usage = {"output_tokens": self.usage["output_tokens"]}
        events.append({"type": "message_delta", "delta": delta, "usage": usage})
        return [*events, {"type": "message_stop"}]


def _block_events(index: int, block: Fields) -> list[Fields]:
    empty, deltas = _deltas(block)
    return [
        {"type": "content_block_start", "index": index, "content_block": block | empty},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def _deltas(block: Fields) -> tuple[Fields, list[Fields]]:
    """Return what a block begins without, and the pieces that bring it."""
    if block["type"] == "text":
        return {"text": ""}, [{"type": "text_delta", "text": part} for part in _cut(block["text"])]
    if block["type"] == "thinking":
        thought = [{"type": "thinking_delta", "thinking": p} for p in _cut(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"thinking": "", "signature": ""}, [*thought, signed]
    pieces = _cut(orjson.dumps(block["input"]).decode())
    return {"input": {}}, [
        {"type": "input_json_delta", "partial_json": part} for part in ("", *pieces)
    ]


def _cut(text: str) -> list[str]:
    middle = len(text) // 2
    return [text[:middle], text[middle:]]


def _sse(event: Fields) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))


def _error(status: int, kind: str, message: str) -> web.Response:
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    return web.json_response(error, status=status)
