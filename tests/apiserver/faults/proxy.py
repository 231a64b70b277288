"""An API server that fails on command: a proxy in front of the real one.

An operator that is to suffer gets a kubeconfig that names the proxy; everybody else goes to the
API server itself. The proxy speaks plain HTTP on loopback and runs in a thread of its own, so
that a test may be a plain function. It counts what passes, and fails as `Faults` say.

Limits: one API server behind it, no upgrade of connections (exec, port-forward).
"""

import asyncio
import base64
import ssl
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import yaml
from aiohttp import web

Lines = AsyncIterator[bytes]
NOT_COPIED = {"host", "content-length", "transfer-encoding", "connection"}


@dataclass
class Call:
    """One request that came."""

    method: str
    path: str
    query: dict[str, str]
    at: float = field(default_factory=time.monotonic)
    status: int = 0  # what was answered; 0 while nothing was

    @property
    def is_watch(self) -> bool:
        return self.query.get("watch") == "true"

    @property
    def is_list(self) -> bool:
        return self.method == "GET" and not self.is_watch and "limit" in self.query

    @property
    def is_write(self) -> bool:
        """Whether it changes an object other than a lease."""
        return self.method != "GET" and "/leases/" not in self.path


@dataclass(frozen=True)
class Answer:
    """What the proxy says instead of the API server."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    after: bool = False  # say it when the API server has done what was asked


class Faults:
    """A healthy API server; what breaks it overrides some of these."""

    def answers(self, call: Call) -> Answer | None:
        """What to say instead; status 0: nothing, as long as these are the faults."""
        return None

    def silent(self, call: Call) -> bool:
        """Whether nothing more comes over this watch."""
        return False

    def held_back(self, call: Call) -> bool:
        """Whether this request stays on the wire for now."""
        return False

    def events(self, call: Call, lines: Lines) -> Lines:
        """The events of a watch, as they are to arrive."""
        return lines

    def listed(self, call: Call, body: bytes) -> bytes:
        """The answer to a list."""
        return body


class Proxy:
    """One proxy; use it as a context manager."""

    def __init__(self, kubeconfig: Path) -> None:
        """Forward to the server that a kubeconfig names; the token comes with each request."""
        [named] = yaml.safe_load(kubeconfig.read_text())["clusters"]
        self._server: str = named["cluster"]["server"]
        self._tls = _tls(named["cluster"])
        self._kubeconfig = kubeconfig
        self.calls: list[Call] = []
        self.faults = Faults()
        self.port = 0
        self._dead_before = 0.0
        self._sent: set[asyncio.Task[web.StreamResponse]] = set()
        self._opened: dict[str, float] = {}  # connections, by the client's port
        self._up, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def kubeconfig(self, path: Path) -> str:
        """Write a kubeconfig that leads here; return its path."""
        config = yaml.safe_load(self._kubeconfig.read_text())
        config["clusters"][0]["cluster"] = {"server": f"http://127.0.0.1:{self.port}"}
        path.write_text(yaml.safe_dump(config))
        path.chmod(0o600)
        return str(path)

    def black_hole(self) -> None:
        """Let every connection that is open now go silent for good, without a FIN."""
        self._dead_before = time.monotonic()

    def since(self, at: float) -> list[Call]:
        """Calls that came at or after a monotonic time."""
        return [call for call in self.calls if call.at >= at]

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(
            app, handler_cancellation=True, access_log=None, shutdown_timeout=0.5
        )
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, read_bufsize=2**20
        ) as self._session:
            await site.start()
            self.port = runner.addresses[0][1]
            self._up.set()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self._opened.setdefault(_client(request), time.monotonic())
        call = Call(request.method, request.path, dict(request.query))
        self.calls.append(call)
        answer = self.faults.answers(call)
        if self._is_dead(request) or (call.is_watch and self.faults.silent(call)):
            await _for_ever()
        if answer and not answer.after:
            return await self._say(call, answer)
        sent = asyncio.create_task(self._forward(request, call, answer, await request.read()))
        self._sent.add(sent)
        sent.add_done_callback(self._sent.discard)
        # A write arrives even when its sender has given up.
        return await (asyncio.shield(sent) if call.is_write else sent)

    async def _forward(
        self, request: web.Request, call: Call, answer: Answer | None, body: bytes
    ) -> web.StreamResponse:
        headers = {k: v for k, v in request.headers.items() if k.lower() not in NOT_COPIED}
        while self.faults.held_back(call):  # noqa: ASYNC110 - a test says when
            await asyncio.sleep(0.1)
        async with self._session.request(
            call.method, self._server + request.raw_path, headers=headers, data=body or None
        ) as upstream:
            if call.is_watch and upstream.status == 200:
                return await self._stream(request, call, upstream)
            content = await upstream.read()
            if answer:
                return await self._say(call, answer)
            call.status = upstream.status
            if self._is_dead(request):
                await _for_ever()
            if call.is_list and upstream.status == 200:
                content = self.faults.listed(call, content)
            return web.Response(status=upstream.status, headers=_copied(upstream), body=content)

    async def _say(self, call: Call, answer: Answer) -> web.Response:
        call.status = answer.status or await self._silence()
        body = {"kind": "Status", "status": "Failure", "code": call.status, "message": "injected"}
        return web.json_response(body, status=call.status, headers=answer.headers)

    async def _silence(self) -> int:
        """Wait for other faults; return what is said to who waits even then."""
        faults = self.faults
        while self.faults is faults:  # noqa: ASYNC110 - a test says when
            await asyncio.sleep(0.1)
        return 504

    async def _stream(
        self, request: web.Request, call: Call, upstream: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        call.status = upstream.status
        response = web.StreamResponse(headers=_copied(upstream))
        await response.prepare(request)
        with suppress(ConnectionError):
            async for line in self.faults.events(call, _lines(upstream)):
                if self._is_dead(request) or self.faults.silent(call):
                    await _for_ever()
                await response.write(line)
            # The API server ends a watch after its time; a black hole swallows that too.
            if self._is_dead(request) or self.faults.silent(call):
                await _for_ever()
        return response

    def _is_dead(self, request: web.Request) -> bool:
        return self._opened[_client(request)] < self._dead_before


def _client(request: web.Request) -> str:
    return str(request.get_extra_info("peername"))


async def _lines(upstream: aiohttp.ClientResponse) -> Lines:
    while line := await upstream.content.readline(max_line_length=16 * 1024 * 1024):
        yield line


async def _for_ever() -> None:
    """Until the client gives up: its leaving cancels us."""
    await asyncio.Event().wait()


def _copied(upstream: aiohttp.ClientResponse) -> dict[str, str]:
    return {k: v for k, v in upstream.headers.items() if k.lower() not in NOT_COPIED}


def _tls(cluster: dict[str, str]) -> ssl.SSLContext:
    data = cluster.get("certificate-authority-data")
    text = base64.b64decode(data).decode() if data else None
    return ssl.create_default_context(cafile=cluster.get("certificate-authority"), cadata=text)
