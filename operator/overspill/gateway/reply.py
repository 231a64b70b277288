"""The answer to one client, over ASGI: unary, a stream of events, or an error.

A stream that has nothing to say for 10 s gets heartbeats (SSE comments), so that proxies
and clients keep it open. The first one commits status 200: what becomes known later goes
into comments, and an error into an event.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from overspill.api.names import HEADER_DESTINATION, HEADER_REASON, HEADER_REQUEST_ID
from overspill.api.sse import comment, error_event
from overspill.gateway.errors import ApiError, Headers
from overspill.gateway.server import ClientConnection
from overspill.providers.base import Api

Send = Callable[[dict[str, Any]], Awaitable[None]]

HEARTBEAT_SECONDS = 10.0
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n"
_NO_CACHE = (b"cache-control", b"no-cache")


class Reply:
    """What goes to the client.

    :param send: the ASGI callable.
    :param request_id: for the header that every answer carries.
    :param connection: the client's, which cancels the task when it ends.
    :param closing: the server stops: the connection ends with this answer.
    :param api: of the client, in whose form errors are told.
    """

    def __init__(
        self,
        send: Send,
        request_id: str,
        connection: ClientConnection | None = None,
        *,
        closing: bool = False,
        api: Api = Api.OPENAI,
    ) -> None:
        self._send = send
        self._connection, self._closing = connection, closing
        self.request_id, self.api = request_id, api
        self.committed = False  # status and headers are out
        self.finished = False
        self._base: Headers = [(HEADER_REQUEST_ID.encode(), request_id.encode())]
        if closing:
            self._base.append((b"connection", b"close"))
        self._timer: asyncio.TimerHandle | None = None
        self._beat: asyncio.Task[None] | None = None

    @property
    def client_left(self) -> bool:
        """Whether the client has closed its connection."""
        return self._connection is not None and self._connection.left

    def tell(self, headers: Headers) -> None:
        """Send these headers, too, whatever the answer will be."""
        self._base += headers

    async def unary(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer, which is JSON."""
        length = (b"content-length", b"%d" % len(body))
        await self._start(status, [_JSON, length, *headers])
        await self._body(body, last=True)

    async def success(self, body: bytes, headers: Headers) -> None:
        """Send a whole answer of a POST that succeeded: past ASGI, where nothing is in the way."""
        if self._connection is not None and not self._closing:
            head = b"".join(b"%b: %b\r\n" % header for header in (*self._base, *headers))
            start = _OK % (len(body), head)
            if self._connection.answer(start + body):
                self.committed = self.finished = True
                self._connection.task = None
                return
        await self.unary(200, body, headers)

    async def begin_stream(self, destination: str, reason: str) -> None:
        """Say where a stream comes from: in headers, or in a comment when they are out."""
        await self._silence()
        if self.committed:
            await self._body(comment(f"{HEADER_DESTINATION}={destination}"))
            if reason:
                await self._body(comment(f"{HEADER_REASON}={reason}"))
        else:
            headers = where(destination, reason)
            await self._start(200, [_EVENTS, _NO_CACHE, *headers])

    async def write(self, data: bytes) -> None:
        """Send a piece of a stream; waits while the client reads too slowly."""
        if data:
            await self._body(data)

    def pass_on(self, data: bytes) -> bool:
        """Send a piece of a stream that has begun at once; False when that cannot be."""
        return self._connection is not None and (not data or self._connection.pass_on(data))

    async def finish(self, data: bytes) -> None:
        """Send the last piece of a stream."""
        await self._body(data, last=True)

    async def error(self, error: ApiError, headers: Headers) -> None:
        """Send an error: as an event when a stream has begun, else with its status."""
        await self._silence()
        if self.finished:
            return
        body = error.body(self.api, self.request_id)
        if self.committed:
            name = "error" if self.api is Api.ANTHROPIC else ""
            await self._body(error_event(body, name), last=True)
            return
        extra = [*headers, *error.headers]
        if error.retry_after is not None:
            extra.append((b"retry-after", b"%d" % error.retry_after))
        await self.unary(error.status, body, extra)

    def keep_alive(self, loop: asyncio.AbstractEventLoop) -> None:
        """Send heartbeats until the stream begins."""
        self._timer = loop.call_later(HEARTBEAT_SECONDS, self._heartbeat, loop)

    def stop(self) -> None:
        """Send no heartbeats any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    def _heartbeat(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._beat is None or self._beat.done():  # a client that does not read gets no more
            self._beat = loop.create_task(self._send_heartbeat())
        self._timer = loop.call_later(HEARTBEAT_SECONDS, self._heartbeat, loop)

    async def _send_heartbeat(self) -> None:
        if not self.committed:
            await self._start(200, [_EVENTS, _NO_CACHE])
        await self._body(comment("waiting"))

    async def _silence(self) -> None:
        """End the heartbeats; one that is being sent is waited for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._beat is not None:
            beat, self._beat = self._beat, None
            await beat

    async def _start(self, status: int, headers: Headers) -> None:
        message = {"type": "http.response.start", "status": status}
        await self._send({**message, "headers": self._base + headers})
        self.committed = True  # not before: a heartbeat may be cancelled while it waits to be sent

    async def _body(self, body: bytes, *, last: bool = False) -> None:
        self.finished = last
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})
        if last and self._connection is not None:
            self._connection.task = None  # what is left to do is ours alone


def where(destination: str, reason: str) -> Headers:
    """Return the headers that say where a request ran, and why there."""
    headers = [(HEADER_DESTINATION.encode(), destination.encode())] if destination else []
    if reason:
        headers.append((HEADER_REASON.encode(), reason.encode()))
    return headers
