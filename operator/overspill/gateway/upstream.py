"""A slim keep-alive HTTP/1.1 client towards engine pods, on httptools over asyncio.

It speaks plain HTTP to addresses that came from EndpointSlices, sends bodies whole, and
hands over pieces of the answer as they arrive. Not for strangers: no TLS, redirects,
proxies, cookies or compression.

* Back-pressure: a reader that is slow pauses the socket at 64 KiB.
* Timeouts: connect by the event loop; first byte and idle by one sweep twice a second
  over the busy connections, so that a request costs no timer.
* A request on a kept connection that the engine closes just then is sent again once on a
  new one, if no byte of an answer had come. Whether the engine had read it is not known: it may
  compute it twice. One that closes later was at work, and nothing is repeated.
"""

import asyncio
import socket
from collections.abc import Callable

import httptools

from overspill.gateway.balance import Address
from overspill.gateway.errors import ReplicaFailed, StreamBroken

CONNECT_SECONDS = 2.0
STALE_SECONDS = 1.0  # in which the end of a kept connection is seen, after something was sent on it
KEEP_IDLE_SECONDS = 4.0  # below the 5 s after which llama.cpp's server closes a connection
SWEEP_SECONDS = 0.5
HIGH_WATER = 65_536  # bytes waiting for the reader before the socket is paused
# Bytes that the kernel keeps of an answer (it takes twice as many). By itself it keeps up to 6 MB
# for a client that reads slowly; one read takes no more than this, so that a pause comes in time.
RECEIVE_BUFFER = 32_768
MAX_BESIDE = 2**20  # bytes that come without any of a body: heads, trailers, extensions of chunks


class UpstreamConnection(asyncio.Protocol):
    """One connection, and the answer that it is receiving."""

    def __init__(self, pool: "Pool", address: Address) -> None:
        self.pool, self.address = pool, address
        self.transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.reused = False
        self._reset()

    def _reset(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.chunks: list[bytes] = []
        self.size = self.beside = 0
        self.head_complete = self.complete = self.paused = self.keep_alive = False
        self.deadline = float("inf")
        self.failure: str | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.take: Callable[[bytes], bool] | None = None
        self.patience = 0.0

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport."""
        self.transport = transport  # type: ignore[assignment]
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    def data_received(self, data: bytes) -> None:
        """Parse what came; an answer that is no HTTP, or that is all head, ends the connection."""
        self.beside += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.fail("the engine's answer is not HTTP")
        if self.beside > MAX_BESIDE:
            self.fail("the head of the engine's answer is too large")
        if self.take is not None and self.chunks:
            self._hand_over(self.take)
        if self.take is None or self.complete:
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the reader; a complete answer can still be read, but this is of no more use."""
        self.pool.forget(self)
        self.failure = self.failure or ENDED
        self._wake()

    # httptools callbacks

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The status is known."""
        self.status = self.parser.get_status_code()
        self.head_complete = self.status >= 200
        self.keep_alive = self.parser.should_keep_alive()

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body, pausing the socket when the reader is slow."""
        self.chunks.append(data)
        self.size += len(data)
        self.beside = 0
        if self.size > HIGH_WATER and not self.paused and self.transport is not None:
            self.paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        """The answer is complete (an interim 1xx is not one)."""
        self.complete = self.head_complete

    # reading

    @property
    def streams(self) -> bool:
        """Whether the body is a stream of events."""
        return self.headers.get(b"content-type", b"").startswith(b"text/event-stream")

    @property
    def lost(self) -> bool:
        """Whether the engine has ended the connection before its answer was complete."""
        return self.failure == ENDED and not self.complete

    async def head(self, seconds: float) -> None:
        """Wait for status and headers.

        :param seconds: to wait at most.
        :raises ReplicaFailed: when none come; ``sent`` is True.
        """
        while not self.head_complete:
            await self._wait(seconds)
            if self.failure is not None and not self.head_complete:
                raise ReplicaFailed(self.failure, sent=True, lost=self.lost)

    async def read(self, seconds: float) -> bytes:
        """Return the next piece of the body, ``b""`` at its end.

        :param seconds: without a byte.
        :raises StreamBroken: when the connection ends, or is silent, before the end.
        """
        while not self.chunks:
            if self.complete:
                return b""
            if self.failure is not None:
                raise StreamBroken(self.failure)
            await self._wait(seconds)
        return self._taken()

    async def pour(self, take: Callable[[bytes], bool], seconds: float) -> None:
        """Hand pieces of the body over the moment they come, which wakes no task (8 µs a piece).

        Returns when ``take`` says so, at the end of the body, or when the connection fails; what
        was not handed over is still there for ``read``.

        :param take: returns whether it wants more.
        :param seconds: without a byte.
        """
        self.take, self.patience = take, seconds
        try:
            while self.take is not None and not (self.chunks or self.complete or self.failure):
                await self._wait(seconds)
        finally:
            self.take = None

    def _hand_over(self, take: Callable[[bytes], bool]) -> None:
        self.deadline = self.pool.loop.time() + self.patience
        if not take(self._taken()):
            self.take = None

    def _taken(self) -> bytes:
        """Return what has come, and let more come."""
        data = self.chunks[0] if len(self.chunks) == 1 else b"".join(self.chunks)
        self.chunks.clear()
        self.size = 0
        if self.paused and self.transport is not None:
            self.paused = False
            self.transport.resume_reading()
        return data

    def close(self) -> None:
        """Give the connection back, or cut it when its answer is not complete.

        Cutting is how an engine learns that nobody wants the rest.
        """
        if self.complete and self.failure is None and self.keep_alive:
            self.pool.keep(self)
        else:
            self.fail("closed")

    def fail(self, why: str) -> None:
        """End the connection at once."""
        self.failure = self.failure or why
        if self.transport is not None:
            self.transport.abort()
        self.pool.forget(self)
        self._wake()

    async def _wait(self, seconds: float) -> None:
        loop = self.pool.loop
        self.deadline = loop.time() + seconds
        self.waiter = loop.create_future()
        try:
            await self.waiter
        finally:
            self.waiter = None
            self.deadline = float("inf")

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Pool:
    """Connections to every engine pod; belongs to one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.idle: dict[Address, list[UpstreamConnection]] = {}
        self.busy: set[UpstreamConnection] = set()
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep)

    async def send(
        self, address: Address, path: bytes, body: bytes, first_byte: float
    ) -> UpstreamConnection:
        """POST a JSON body and return the connection once the head of the answer is there.

        :param first_byte: seconds from the sent request to status and headers.
        :raises ReplicaFailed: when the pod cannot be reached or does not answer.
        """
        request = b"POST %b HTTP/1.1\r\nhost: %b\r\n" % (path, host_of(address))
        request += b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        return await self._request(address, request, body, first_byte)

    async def page(self, address: Address, path: bytes, most: int, seconds: float) -> bytes:
        """GET a page, ``b""`` where there is none.

        :param most: bytes of it that are read.
        :param seconds: between any two of them.
        :raises ReplicaFailed: when the pod cannot be reached or does not answer.
        :raises StreamBroken: when the page ends too early.
        """
        request = b"GET %b HTTP/1.1\r\nhost: %b\r\n\r\n" % (path, host_of(address))
        connection = await self._request(address, request, b"", seconds)
        found = b""
        try:
            while (piece := await connection.read(seconds)) and len(found) < most:
                found += piece
        finally:
            connection.close()
        return found if connection.status == 200 else b""

    async def _request(
        self, address: Address, head: bytes, body: bytes, first_byte: float
    ) -> UpstreamConnection:
        connection = self._reuse(address) or await self._connect(address)
        while True:
            began = self.loop.time()
            try:
                await self._exchange(connection, head + body, first_byte)
                return connection
            except ReplicaFailed as failure:
                late = self.loop.time() - began > STALE_SECONDS
                if late or not connection.reused or connection.failure == TIMED_OUT:
                    raise
                sent, lost = failure.sent, failure.lost
            try:
                connection = await self._connect(address)
            except ReplicaFailed as failure:
                # Perhaps the request is what killed it: it must not count as never sent.
                raise ReplicaFailed(str(failure), sent=sent, lost=lost) from None

    async def _exchange(self, connection: UpstreamConnection, data: bytes, seconds: float) -> None:
        self.busy.add(connection)
        try:
            if connection.transport is None or connection.failure is not None:
                raise ReplicaFailed(connection.failure or "not connected", sent=False)
            connection.transport.write(data)
            del data  # a copy of the body, which may be large, and the engine takes its time
            await connection.head(seconds)
        except BaseException:
            connection.fail("cancelled")
            raise

    def _reuse(self, address: Address) -> UpstreamConnection | None:
        kept = self.idle.get(address)
        while kept:
            connection = kept.pop()
            if connection.failure is None and connection.transport is not None:
                connection._reset()
                connection.reused = True
                return connection
        return None

    async def _connect(self, address: Address) -> UpstreamConnection:
        make: Callable[[], UpstreamConnection] = lambda: UpstreamConnection(self, address)  # noqa: E731
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await self.loop.create_connection(make, *address)
        except TimeoutError:
            raise ReplicaFailed(
                f"no connection within {CONNECT_SECONDS:.0f} s", sent=False
            ) from None
        except OSError as error:
            raise ReplicaFailed(error.strerror or "connection failed", sent=False) from error
        return connection

    def keep(self, connection: UpstreamConnection) -> None:
        """Take back a connection whose answer is complete."""
        self.busy.discard(connection)
        connection.idle_since = self.loop.time()
        self.idle.setdefault(connection.address, []).append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """Drop a connection that has ended."""
        self.busy.discard(connection)
        kept = self.idle.get(connection.address)
        if kept and connection in kept:
            kept.remove(connection)

    def close(self) -> None:
        """End all connections."""
        self._timer.cancel()
        for connection in [*self.busy, *(c for kept in self.idle.values() for c in kept)]:
            connection.fail("the gateway stops")

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [c for c in self.busy if c.deadline <= now]:
            connection.fail(TIMED_OUT)
        for kept in self.idle.values():
            for connection in [c for c in kept if now - c.idle_since > KEEP_IDLE_SECONDS]:
                connection.fail("idle")
        self.idle = {address: kept for address, kept in self.idle.items() if kept}
        self._timer = self.loop.call_later(SWEEP_SECONDS, self._sweep)


def host_of(address: Address) -> bytes:
    """Return the Host header; an IPv6 address stands in brackets (RFC 3986 §3.2.2)."""
    host, port = address
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


ENDED = "the engine closed the connection"
TIMED_OUT = "the engine was silent for too long"
