"""A server that fails on command: as a provider, or in Prometheus' place.

What it does stands in the file /tmp/mode, which a story writes: a status to answer every request
with, ``hang``, or for Prometheus' query API ``empty``, ``double NUMBER`` or a value (``NaN``).
"""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

MODE = Path("/tmp/mode")
SERVICE = Path("/tmp/service")


class Handler(BaseHTTPRequestHandler):
    """Answers by the mode."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A query, or a probe."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = MODE.read_text().strip() if MODE.exists() else "200"
        if mode == "hang":
            time.sleep(3600)
        if urlsplit(self.path).path == "/api/v1/query":
            self._send(200, {"status": "success", "data": _vector(mode)})
        else:
            self._send(int(mode), {"error": {"message": "on command", "type": "faulty"}})

    do_POST = do_GET  # noqa: N815 - the base class's name

    def _send(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _vector(mode: str) -> dict[str, object]:
    namespace, name = SERVICE.read_text().split("/")
    labels = {"service_namespace": namespace, "service_name": name}
    copies, _, value = mode.rpartition(" ")
    series = [] if mode == "empty" else [{"metric": labels, "value": [time.time(), value]}]
    return {"resultType": "vector", "result": series * (2 if copies else 1)}


ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
