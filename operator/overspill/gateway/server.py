"""uvicorn as a data plane: bounded heads, and the end of a connection ends its request.

uvicorn tells an application that its client has left only when it waits for a message. A
task per request that does so would cost more than the request; so the connection itself
cancels the request's task. Our own shutdown closes no busy connection, so it cancels
nothing; when the drain time is over, uvicorn cancels the tasks, and ``left`` is False.

At every moment either a request is being answered, which bounds its own time, or one timer
runs: for the head, for the idle connection, or for what is left of one that ends.
"""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from overspill.gateway.errors import ApiError, bad_request

MAX_HEAD = 32_768  # bytes of request line and headers
HEAD_SECONDS = 15.0  # for a head that has begun, or never does
WRITE_SECONDS = 60.0  # for a client that does not read: its request may hold a slot
KEEP_ALIVE_SECONDS = 75  # for an idle connection; longer than the 60 s of common load balancers
LINGER_SECONDS = 1  # the same, for a connection whose answer ended while the server stops
HEAR_SECONDS = 2.0  # for a client that still sends a body to hear the answer that needs none of it
# Of one server. Each may hold a head of 32 KiB: 256 MiB in all, a quarter of the memory that the
# chart gives. An open stream takes 25 KB (docs/benchmarks.md).
MAX_CONNECTIONS = 8192
# Bytes that the kernel keeps for a client that reads slowly (it takes twice as many). By itself it
# keeps 4 MB, which count as the pod's: 250 such clients would fill a container of 1 GiB.
SEND_BUFFER = 65_536
SCOPE_KEY = "overspill.connection"
TOO_MANY = ApiError(
    503, "too_many_connections", "this gateway has too many connections; retry later", retry_after=1
)


class ClientConnection(HttpToolsProtocol):
    """One client's connection.

    ``task`` is the task of the request that is being answered, ``left`` says that its client
    has gone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task: asyncio.Task[Any] | None = None
        self.left = False
        self.answered: RequestResponseCycle | None = None  # the newest whose turn has come
        self._head_bytes = 0
        self._in_head = True  # between two messages, or in the head of the next
        self._head_begun = False
        self._message_ended = False
        self._keep_alive = True
        self._parted = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._last_timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time of the head."""
        super().connection_made(transport)  # type: ignore[arg-type]
        if (connection := transport.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._await_head()
        if len(self.connections) > MAX_CONNECTIONS:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that nobody waits for any more."""
        super().connection_lost(exc)
        if self.answered is not None:  # uvicorn tells only the newest, which may wait behind it
            self.answered.disconnected = True
        for timer in (self._head_timer, self._write_timer, self._last_timer):
            if timer is not None:
                timer.cancel()
        if self.task is not None:
            self.left = True
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse, and cut a head that is too large."""
        if self._parted:
            return
        self._message_ended = False
        super().data_received(data)
        if self._in_head and not self._message_ended:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD:
                self.send_400_response("The request's head is too large.")
            elif self.idle:
                self._await_head()

    def pause_writing(self) -> None:
        """The client reads too slowly: it has some time to catch up."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def on_message_begin(self) -> None:
        """Let the application find the connection."""
        super().on_message_begin()
        self._head_begun = True
        self.scope[SCOPE_KEY] = self  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """The head is here. An answer before the body is here ends the connection.

        Else a client could send for ever what nobody reads, and one that was told not to send its
        body (RFC 9110 §10.1.1) would have its next request taken for it.
        """
        super().on_headers_complete()
        self._in_head = self._head_begun = False
        self._stop_head_timer()
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False
        self.cycle.transport = Parting(self)  # type: ignore[assignment]

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer a request; those that came before it on this connection have been answered."""
        self.answered = cycle
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of a body as it came: read before the next comes, it is never copied."""
        cycle = self.cycle
        if cycle.body or cycle.response_complete:
            if isinstance(cycle.body, bytes):  # to which each piece would copy all of it
                cycle.body = bytearray(cycle.body)
            super().on_body(body)
            return
        cycle.body = body  # type: ignore[assignment]
        if len(body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        """What follows is the next head."""
        super().on_message_complete()
        self._in_head, self._head_bytes, self._message_ended = True, 0, True
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
            self.cycle.transport = Beginning(self.cycle, self.transport)  # type: ignore[assignment]

    def on_response_complete(self) -> None:
        """Wait for the rest of the next head, if it began to come during the answer."""
        super().on_response_complete()
        if self.idle:
            self.cycle.body = bytearray()  # what nobody has read of it
        if self.transport.is_closing():
            self._cut_after(WRITE_SECONDS)
        elif self._head_begun and self.idle:
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; in the midst of another answer there is no place for a word."""
        if not self.transport.is_closing():
            if self.idle:
                self.transport.write(_refusal(bad_request(msg, code="invalid_http")))
            self._end()

    def timeout_keep_alive_handler(self) -> None:
        """Nothing came for long."""
        self._end()

    def take_body(self) -> bytes | None:
        """Return the body of the request that is being answered, past ASGI; None if it still comes.

        One that is here needs no coroutine, no message and no timer.
        """
        cycle = self.answered
        if cycle is None or cycle.more_body or cycle.disconnected or cycle.response_complete:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        self.flow.resume_reading()
        return body

    def answer(self, data: bytes) -> bool:
        """Send a whole answer, head and body, past ASGI and without waiting.

        :return: False when the plain way is not open: another answer has begun, the client reads
            too slowly or has gone, its body is not here, or the connection ends with the answer.
        """
        cycle = self.answered
        if cycle is None or cycle.response_started or not cycle.keep_alive:
            return False
        if cycle.disconnected or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        self.transport.write(data)
        cycle.on_response()
        return True

    def pass_on(self, data: bytes) -> bool:
        """Send a piece of a stream that has begun, past ASGI and without waiting.

        :return: False when that cannot be, as the client reads too slowly or has gone.
        """
        cycle = self.answered
        if cycle is None or cycle.disconnected or self.flow.write_paused:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return True

    def part(self) -> None:
        """End an answered connection whose client still sends; what comes now is thrown away.

        Closed at once it would be reset, and a reset can take the answer with it (RFC 9112 §9.6).
        """
        if not self.transport.is_closing():
            self._parted = True
            self.transport.write_eof()
            self._cut_after(HEAR_SECONDS)

    def shutdown(self) -> None:
        """The server stops: an idle connection ends now, a busy one some time after its answer.

        The head of that answer may have gone out before the stop, so it did not say that the
        connection would end; a client that asks again at once is heard, and told so then.
        """
        if self.idle:
            super().shutdown()
        else:
            self.timeout_keep_alive = LINGER_SECONDS

    def _make_room(self) -> None:
        """One connection too many: one that waits for a head goes, else this one.

        Whoever opens many and sends nothing pushes out his own; an honest head is here at once.
        """
        others = (c for c in self.connections if isinstance(c, ClientConnection) and c is not self)
        spare = next((c for c in others if c.idle and not c.transport.is_closing()), None)
        if spare is not None:
            spare.transport.abort()
        else:
            self.transport.write(_refusal(TOO_MANY))
            self._end()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._end)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
            self._cut_after(WRITE_SECONDS)

    def _cut_after(self, seconds: float) -> None:
        """Give the client that time to take what it was sent: a close waits for it for ever."""
        if self._last_timer is None:
            self._last_timer = self.loop.call_later(seconds, self.transport.abort)


class Beginning:
    """The transport of an answer until its first body: the head waits for that, and both are sent.

    uvloop sends what is written at once, so that a head of its own costs a system call, and the
    client two reads. uvicorn writes for every message of an answer, even for an empty body.
    """

    def __init__(self, cycle: RequestResponseCycle, transport: asyncio.Transport) -> None:
        self._cycle, self._transport, self._head = cycle, transport, b""

    def write(self, data: bytes) -> None:
        """Keep the head; send it with what follows, and what follows that directly."""
        if not self._head:
            self._head = data
            return
        self._cycle.transport = self._transport
        self._transport.write(self._head + data)

    def is_closing(self) -> bool:
        """Whether the connection has ended, or will."""
        return self._transport.is_closing()

    def close(self) -> None:
        """End the connection; a head without a body still goes out."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()


class Parting:
    """The transport of an answer to a request whose body is not here yet."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        """Send to the client."""
        self._connection.transport.write(data)

    def is_closing(self) -> bool:
        """Whether the connection has ended, or will."""
        return self._connection.transport.is_closing()

    def close(self) -> None:
        """End the connection, once the client has heard the answer."""
        self._connection.part()


def _refusal(error: ApiError) -> bytes:
    """Return an answer that no application gives."""
    body = error.body()
    head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\nconnection: close\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    if error.retry_after is not None:
        head += f"retry-after: {error.retry_after}\r\n"
    return head.encode() + b"\r\n" + body


class Server(uvicorn.Server):
    """A server whose signals somebody else handles."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the process's signal handlers alone."""
        yield

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def make_server(app: Any, host: str, port: int, drain_seconds: float) -> Server:
    """Return a server that is not started yet.

    :param port: 0 for any.
    :param drain_seconds: that requests may take to end at a shutdown.
    """
    return Server(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            loop="none",
            http=ClientConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # anyone can cause its warnings: what came is no HTTP
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
    )


def allow_files() -> None:
    """Let the process open as many files as it may: a connection is one.

    A container may start with 1,024 (systemd's default, which containerd 2 leaves as it is).
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
