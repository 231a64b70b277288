"""A real gateway on loopback between real clients and servers that play engine and cloud."""

import asyncio
import base64
import io
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import openai
import orjson
from aiohttp import web
from canaries import found_in, written
from yarl import URL

from overspill.api.keys import key_secret, new_key
from overspill.gateway.plane import Plane, assemble
from overspill.gateway.settings import Settings
from overspill.gateway.state import State

Object = dict[str, Any]
TOKEN = secrets.token_hex(16)  # the operator's
SECRET = "cloud-secret"  # of each provider
MESSAGES = [{"role": "user", "content": "hi"}]
BODY = {"model": "chat", "messages": MESSAGES}
ONE_SLOT = {"batching": {"maxSequences": 1}}
WORDS = ["Hel", "lo", " wor", "ld"]
USAGE = {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


@dataclass
class Upstream:
    """Plays an engine, or a cloud API; its behaviour is set by attributes.

    ``gate`` closed: a stream stops after ``before_gate`` words (unary: before its answer).
    """

    status: int = 200
    error: Object = field(default_factory=lambda: {"error": {"message": "no", "type": "bad"}})
    headers: dict[str, str] = field(default_factory=dict)
    words: list[str] = field(default_factory=lambda: list(WORDS))
    usage: Object | None = field(default_factory=lambda: dict(USAGE))
    break_after: int | None = None  # words, then the connection is cut
    error_after: int | None = None  # words, then an error event
    done: bool = True  # a stream ends with [DONE]
    spaced: bool = False  # JSON as Python's own encoder writes it
    extra: Object = field(default_factory=dict)  # more fields of a unary answer
    before_gate: int = 0
    bodies: list[Object] = field(default_factory=list)
    seen_headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)  # as they came, queries too
    left: int = 0  # clients that left before the end
    gauges: str | None = None  # its /metrics page
    address: tuple[str, int] = ("127.0.0.1", 0)

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.left_event = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}/v1"

    def forget(self) -> None:
        """Keep nothing of what it was asked."""
        self.bodies.clear()
        self.seen_headers.clear()
        self.paths.clear()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Upstream"]:
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, *self.address)
        await site.start()
        self.address = site._server.sockets[0].getsockname()[:2]
        try:
            yield self
        finally:
            self.gate.set()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/metrics":
            return web.Response(text=self.gauges, status=200 if self.gauges else 404)
        self.seen_headers.append(dict(request.headers))
        self.paths.append(request.raw_path)
        body = orjson.loads(await request.read())
        self.bodies.append(body)
        self.arrived.set()
        if self.status != 200:
            return web.json_response(self.error, status=self.status, headers=self.headers)
        try:
            if body.get("stream"):
                return await self._stream(request, body)
            await self.gate.wait()
            return self._unary(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            self.left_event.set()
            raise

    def _unary(self, request: web.Request, body: Object) -> web.Response:
        if self.break_after is not None:
            request.transport.abort()
        if request.path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
            return web.json_response({"object": "list", "data": data, "usage": self.usage})
        text = "".join(self.words)
        choice = {"index": 0, "finish_reason": "stop", "text": text}
        choice["message"] = {"role": "assistant", "content": text}
        answer = {"id": "x", "object": "chat.completion", "created": 1, "model": body["model"]}
        answer |= {"choices": [choice], "usage": self.usage}
        return web.json_response(answer | self.extra)

    async def _stream(self, request: web.Request, body: Object) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(_event({"delta": {"role": "assistant", "content": None}}, body))
        for number, word in enumerate(self.words):
            if number == self.before_gate:
                await self.gate.wait()
            if number == self.break_after:
                request.transport.abort()
                return response
            if number == self.error_after:
                await response.write(b'data: {"error":{"message":"overloaded"}}\n\n')
                return response
            await response.write(_event({"delta": {"content": word}, "text": word}, body))
        await response.write(_event({"delta": {}, "finish_reason": "stop"}, body))
        if self.usage and (body.get("stream_options") or {}).get("include_usage"):
            await response.write(_event(None, body, usage=self.usage, spaced=self.spaced))
        if self.done:
            await response.write(b"data: [DONE]\n\n")
        return response


def _event(choice: Object | None, body: Object, **more: Any) -> bytes:
    choices = [] if choice is None else [{"index": 0, "finish_reason": None, **choice}]
    spaced = more.pop("spaced", False)
    chunk = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    chunk |= {"choices": choices} | more
    text = json.dumps(chunk).encode() if spaced else orjson.dumps(chunk)
    return b"data: " + text + b"\n\n"


def service(name: str = "chat", namespace: str = "team-a", **spec: Any) -> Object:
    """Return an InferenceService; ``status=`` goes into its status."""
    status = spec.pop("status", {})
    created = spec.pop("created", "2026-11-01T00:00:00Z")
    return {
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": created},
        "spec": {"model": {"uri": "oci://registry/model"}, **spec},
        "status": status,
    }


def provider(
    upstream: Upstream, name: str = "cloud", namespace: str = "team-a", **spec: Any
) -> Object:
    price = {"inputPerMTok": "1.75", "outputPerMTok": "14"}
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "type": "openai-compatible",
            "baseURL": upstream.url,
            "insecure": True,
            "secretRef": {"name": "cloud-key"},
            "models": [{"name": "big-1", "price": price}],
            **spec,
        },
    }


def runtime(name: str = "own", **spec: Any) -> Object:
    return {
        "metadata": {"name": name, "namespace": "team-a"},
        "spec": {"image": "own/engine:1", **spec},
    }


def spillover(*names: str, **more: Any) -> Object:
    return {"providers": [{"name": n, "model": "big-1"} for n in names or ("cloud",)], **more}


def endpoint_slice(
    *addresses: tuple[str, int], name: str = "chat", namespace: str = "team-a", ready: bool = True
) -> Object:
    """Return the slice of a service's ready replicas; all on one port per slice."""
    return {
        "metadata": {
            "name": f"{name}-engine-{addresses[0][1] if addresses else 0}",
            "namespace": namespace,
            "labels": {"overspill.dev/service": name},
        },
        "ports": [{"name": "http", "port": addresses[0][1] if addresses else 8000}],
        "endpoints": [
            {
                "addresses": [host],
                "conditions": {"ready": ready},
                "targetRef": {"uid": f"{host}:{port}"},
            }
            for host, port in addresses
        ],
    }


@dataclass
class World:
    """A gateway, its state, and a key of team-a.

    :param seen: all that was logged, and that clients were told.
    """

    plane: Plane
    state: State
    key: str
    task: asyncio.Task[None]
    stop: asyncio.Event
    seen: io.BytesIO
    clients: list[openai.AsyncOpenAI] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.plane.public.port}"

    @property
    def internal_url(self) -> str:
        return f"http://127.0.0.1:{self.plane.internal.port}"

    def sdk(self, key: str | None = None, **headers: str) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(
            api_key=key or self.key,
            base_url=f"{self.url}/v1",
            max_retries=0,
            default_headers=headers,
        )
        self.clients.append(client)
        return client

    def replicas(self, *upstreams: Upstream, name: str = "chat", ready: bool = True) -> None:
        """Say that these are the replicas of a service (one slice each)."""
        self.state.replace_slices(
            [endpoint_slice(u.address, name=name, ready=ready) for u in upstreams]
        )

    def provider(self, upstream: Upstream, name: str = "cloud", **spec: Any) -> None:
        self.state.put_provider(provider(upstream, name, **spec))
        self.state.set_secret(f"team-a/{name}", SECRET, "Ready")

    async def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], bytes]:
        data = body if isinstance(body, bytes) else orjson.dumps(body)
        sent = {"Authorization": f"Bearer {self.key}", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.post(URL(self.url + path, encoded=True), data=data, headers=sent) as answer,
        ):
            told = await answer.read()
            self.seen.write(repr(answer.raw_headers).encode() + told)
            return answer.status, dict(answer.headers), told

    async def leaks(self) -> list[bytes]:
        """Return the pieces of secrets in what was logged, told and measured until now."""
        page = await self.plane.metrics.render()
        return found_in(self.seen.getvalue() + page, [self.key, TOKEN, SECRET])

    async def metrics(self) -> str:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.internal_url}/metrics") as answer,
        ):
            return await answer.text()


@asynccontextmanager
async def world(
    review: Callable[[str], Any] | None = None, drain: float = 5.0, **settings: Any
) -> AsyncIterator[World]:
    """Run a gateway with one key of tenant team-a; no piece of a secret may be seen of it."""
    with written() as seen:
        async with _running(seen, review or _only_operator, drain, settings) as made:
            yield made
        assert await made.leaks() == []


@asynccontextmanager
async def _running(
    seen: io.BytesIO, review: Callable[[str], Any], drain: float, settings: Object
) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    chosen = Settings("overspill-system", port=0, internal_port=0, drain=drain, **settings)
    state = State(loop.time, chosen.queue_bound)
    plaintext, digest = new_key()
    state.keys.replace([key_secret("overspill-system", "ci", digest, "team-a")])
    async with assemble(chosen, state, review, lambda: True, host="127.0.0.1") as plane:
        stop = asyncio.Event()
        task = asyncio.create_task(plane.serve(stop, lame_duck=0.0))
        await until(lambda: plane.public.started and plane.internal.started)
        made = World(plane, state, plaintext, task, stop, seen)
        try:
            yield made
        finally:
            for client in made.clients:
                await client.close()
            await _end(plane, task)


async def _only_operator(token: str) -> str:
    user = "system:serviceaccount:overspill-system:overspill-operator"
    return user if token == TOKEN else ""


async def _end(plane: Plane, task: asyncio.Task[None]) -> None:
    """End at once; how a gateway stops in earnest has tests of its own."""
    task.cancel()
    await asyncio.wait([task])
    for server in (plane.public, plane.internal):
        for connection in list(server.server_state.connections):
            connection.transport.abort()
        for listener in server.servers:
            listener.close()
        if server.server_state.tasks:
            await asyncio.wait(server.server_state.tasks, timeout=2)


def chat(w: World, stream: bool = False, **headers: str) -> asyncio.Task[Any]:
    """Send a request in the background; its result is (status, headers, body)."""
    body = {"model": "chat", "messages": MESSAGES, "max_tokens": 7, "stream": stream}
    return asyncio.create_task(w.post("/v1/chat/completions", body, **headers))


async def occupy(w: World, engine: Upstream) -> asyncio.Task[Any]:
    """Fill the only slot of the only replica until the engine's gate opens."""
    engine.gate.clear()
    task = chat(w)
    await asyncio.wait_for(engine.arrived.wait(), 5)
    return task


def queued(w: World) -> int:
    return len(w.state.services["team-a/chat"].admission.waiting)


async def read_request(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, and fail when it does not come."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition at all
            await asyncio.sleep(0.005)


def encoded(**values: str) -> dict[str, str]:
    """Return the data of a Secret."""
    return {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}
