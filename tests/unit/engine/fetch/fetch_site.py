"""A real web server for the loader's tests: files with ranges, redirects, faults, a hub's API."""

import hashlib
import json
import os
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

from overspill.engine.fetch import store
from overspill.engine.fetch.options import Options

Prepare = Callable[..., Options]  # the fixture `prepare`
COMMIT = "c0ffee" * 6 + "c0ff"
WEIGHTS = os.urandom(300_000)


@dataclass
class Served:
    """One file; `cut` closes the connection after so many bytes of an answer, each once."""

    data: bytes
    etag: str = ""
    ranges: bool = True
    announced: bool = True  # a Content-Length
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: list[int] = field(default_factory=list)
    pace: threading.Semaphore | None = None  # one release lets one block of 64 KiB through


@dataclass
class Page:
    """A fixed answer."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    """A request that came."""

    method: str
    path: str
    headers: Mapping[str, str]


def carried(asked: list[Asked]) -> list[str]:
    """The credentials of requests."""
    return [a.headers.get("Authorization", "") for a in asked]


def loaded(cache: Path) -> dict[str, bytes]:
    """The files of the model that is shown."""
    folder = cache / "key"
    found = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return {str(n): p.read_bytes() for n, p in found.items() if n.name != store.MANIFEST}


class Site:
    """What it serves may be changed while it runs."""

    def __init__(self) -> None:
        self.answers: dict[str, Served | Page | list[Page]] = {}
        self.asked: list[Asked] = []
        self.port = 0
        self.scheme = "http"

    def url(self, path: str = "", host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def hub(self, repository: str, files: Mapping[str, bytes], revision: str = "main") -> None:
        """Serve files as a hub does: large ones (1 KiB and more) with a SHA-256, others git's."""
        siblings = []
        for name, data in files.items():
            blob = f"blob {len(data)}\0".encode() + data
            git = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
            entry = {"rfilename": name, "size": len(data), "blobId": git}
            if len(data) >= 1024:
                entry["lfs"] = {
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 130,
                }
            siblings.append(entry)
            path = quote(name.encode(errors="surrogatepass"))
            self.answers[f"/{repository}/resolve/{COMMIT}/{path}"] = Served(data)
        body = json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode()
        self.answers[f"/api/models/{repository}/revision/{revision}?blobs=true"] = Page(body=body)


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site on a free port of the loopback."""
    site = Site()

    class Handler(_Handler):
        pass

    Handler.site = site
    server = _Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        site.scheme = "https"
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is what many of these tests are about."""


class _Handler(BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self) -> None:
        self.site.asked.append(Asked(self.command, self.path, dict(self.headers)))
        self.close_connection = True
        answer = self.site.answers.get(self.path, Page(404))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Page):
            self._send(answer.status, answer.headers, answer.body, len(answer.body))
        else:
            self._file(answer)

    def _file(self, file: Served) -> None:
        headers = dict(file.headers) | ({"ETag": file.etag} if file.etag else {})
        status, data = 200, file.data
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range", file.etag)
        if wanted and file.ranges and condition == file.etag:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            end = min(int(last) + 1, len(data)) if last else len(data)
            headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
            status, data = 206, data[int(first) : end]
        length = len(data) if file.announced else None
        cut = file.cut.pop(0) if file.cut and len(data) > 1 else None
        self._send(status, headers, data[:cut], length, file.pace)

    def _send(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        length: int | None,
        pace: threading.Semaphore | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")  # or a client sends its next request into the end
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(body), 1 << 16):
            if pace and len(body) > 1:
                pace.acquire()
            self.wfile.write(body[start : start + (1 << 16)])
