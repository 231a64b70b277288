"""How far a load is: counted by the downloads, told in logs and on `GET /progress`."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

REQUEST_SECONDS = 5.0  # longest that a client may take to ask
END_SECONDS = 0.1  # longest that the server takes to end


class Meter:
    """Bytes that are there, of how many, since when. Used by several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._bytes = 0
        self._total: int | None = None
        self._base: tuple[int, float] | None = None  # where the speed is counted from

    def expect(self, total: int | None) -> None:
        """Say how many bytes the model has; begins to count anew."""
        with self._lock:
            self._bytes, self._total, self._base = 0, total, None

    def found(self, count: int) -> None:
        """Count bytes that an earlier load left."""
        with self._lock:
            self._bytes += count
            if self._base:
                self._base = (self._base[0] + count, self._base[1])

    def add(self, count: int) -> None:
        """Count bytes that arrived; negative for those that were discarded."""
        with self._lock:
            if self._base is None:
                self._base = (self._bytes, self._clock())
            self._bytes += count

    def show(self, count: int, total: int | None) -> None:
        """Repeat what another loader says that we wait for."""
        with self._lock:
            if self._base is None or count < self._base[0]:
                self._base = (count, self._clock())
            self._bytes, self._total = count, total

    def count(self) -> tuple[int, int | None]:
        """Bytes and total."""
        with self._lock:
            return self._bytes, self._total

    def snapshot(self) -> dict[str, int | float | None]:
        """Bytes, total (None: unknown), seconds since the start, and seconds left (or None)."""
        with self._lock:
            now = self._clock()
            return {
                "bytes": self._bytes,
                "total": self._total,
                "seconds": round(now - self._began, 1),
                "left": self._left(now),
            }

    def _left(self, now: float) -> float | None:
        if self._total is None or self._base is None:
            return None
        arrived, seconds = self._bytes - self._base[0], now - self._base[1]
        if arrived <= 0 or seconds <= 0:
            return None
        return round(max(0, self._total - self._bytes) * seconds / arrived, 1)


@contextmanager
def serve(port: int, meter: Meter) -> Iterator[int]:
    """Answer `GET /progress` while the block runs; yields the port (0 asks for a free one)."""

    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_SECONDS

        def do_GET(self) -> None:
            if self.path != "/progress":
                self.send_error(404)
                return
            body = json.dumps(meter.snapshot()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: the operator asks every few seconds."""

    server = ThreadingHTTPServer(("0.0.0.0", port), Handler)  # noqa: S104 - a pod's only way
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": END_SECONDS})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
