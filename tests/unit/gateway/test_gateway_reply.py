"""The answer to a client that does not read, while heartbeats are due."""

import asyncio
from typing import Any

import orjson
import pytest

from overspill.gateway.errors import ApiError
from overspill.gateway.reply import Reply


async def test_a_heartbeat_that_cannot_be_sent_delays_none_and_spoils_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("overspill.gateway.reply.HEARTBEAT_SECONDS", 0.001)
    begun, sent = [], []
    several, reads = asyncio.Event(), asyncio.Event()

    async def send(message: dict[str, Any]) -> None:
        begun.append(message)
        await reads.wait()
        sent.append(message)

    loop = asyncio.get_running_loop()
    reply = Reply(send, "id")
    reply.keep_alive(loop)
    loop.call_later(0.05, several.set)
    await several.wait()
    assert len(begun) == 1
    reply.stop()
    reads.set()
    await reply.error(ApiError(503, "shutting_down", "stopped"), [])
    start, body = sent
    assert (start["type"], start["status"]) == ("http.response.start", 503)
    assert orjson.loads(body["body"])["error"]["code"] == "shutting_down"
