"""uvicorn as a data plane: bounded heads, and the end of a connection ends its request.

uvicorn tells an application that its client has left only when it waits for a message. A
task per request that does so would cost more than the request; so the connection itself
cancels the request's task. Our own shutdown closes no busy connection, so it cancels
nothing; when the drain time is over, uvicorn cancels the tasks, and ``left`` is False.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD = 65_536  # bytes of request line and headers
HEAD_SECONDS = 15.0  # for a head that has begun, or never does
WRITE_SECONDS = 60.0  # for a client that does not read: its request may hold a slot
KEEP_ALIVE_SECONDS = 75  # for an idle connection; longer than the 60 s of common load balancers
LINGER_SECONDS = 1  # the same, for a connection whose answer ended while the server stops
SCOPE_KEY = "overspill.connection"


class ClientConnection(HttpToolsProtocol):
    """One client's connection.

    ``task`` is the task of the request that is being answered, ``left`` says that its client
    has gone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.task: asyncio.Task[Any] | None = None
        self.left = False
        self._head_bytes = 0
        self._in_head = True
        self._message_ended = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to count the time of the head."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the request that nobody waits for any more."""
        super().connection_lost(exc)
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        if self.task is not None:
            self.left = True
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse, and cut a head that is too large."""
        self._message_ended = False
        super().data_received(data)
        if self._in_head and not self._message_ended:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD and not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")
            elif self._head_timer is None:
                self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

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
        self.scope[SCOPE_KEY] = self  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """The head is here."""
        super().on_headers_complete()
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_message_complete(self) -> None:
        """What follows is the next head."""
        super().on_message_complete()
        self._in_head, self._head_bytes, self._message_ended = True, 0, True

    def shutdown(self) -> None:
        """The server stops: an idle connection ends now, a busy one some time after its answer.

        The head of that answer may have gone out before the stop, so it did not say that the
        connection would end; a client that asks again at once is heard, and told so then.
        """
        if self.cycle is None or self.cycle.response_complete:
            super().shutdown()
        else:
            self.timeout_keep_alive = LINGER_SECONDS

    def _too_slow(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


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
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
        )
    )
