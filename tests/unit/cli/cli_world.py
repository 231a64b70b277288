"""A small API server on loopback, with a gateway behind its service proxy, and the real command."""

import asyncio
import base64
import io
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from aiohttp import web

from overspill.api.keys import digest
from overspill.cli.main import run
from overspill.cluster import kinds
from overspill.cluster.kinds import Kind

Object = dict[str, Any]
PROXY = "/api/v1/namespaces/overspill-system/services/overspill-gateway:http/proxy"


@dataclass
class World:
    """Objects by path, what was deleted, and what the gateway was asked."""

    objects: dict[str, Object] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    asked: list[Object] = field(default_factory=list)
    answer: list[bytes] = field(default_factory=list)  # of the gateway, as a stream
    answer_headers: dict[str, str] = field(default_factory=dict)
    forbidden: set[str] = field(default_factory=set)  # path prefixes
    port: int = 0
    refusals: int = 0  # times that the gateway does not know a key yet
    why: dict[str, Object] = field(default_factory=dict)  # by pod: what it remembers

    def put(self, kind: Kind, name: str, namespace: str = "", **fields: Any) -> None:
        """Store an object."""
        metadata = {"name": name, "uid": f"uid-{name}"} | fields.pop("metadata", {})
        if namespace:
            metadata["namespace"] = namespace
        obj = {"kind": kind.kind, "metadata": metadata} | fields
        self.objects[kind.path(namespace, name)] = obj

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer as an API server does."""
        path = request.path
        if any(path.startswith(prefix) for prefix in self.forbidden):
            return _status(403, f"{path} is forbidden")
        if path == "/version":
            return web.json_response({"major": "1", "minor": "37"})
        if path.startswith(PROXY):
            return await self._gateway(request)
        if path.endswith("/token"):
            return web.json_response({"status": {"token": f"of {path}"}}, status=201)
        if ":9090/proxy/why/" in path:
            return self._why(request)
        if request.method == "POST":
            return await self._create(request)
        if request.method == "DELETE":
            return self._delete(path)
        if request.method == "PUT":
            self.objects[path] = await request.json()
        if path in self.objects:
            return web.json_response(self.objects[path])
        return self._list(request)

    def _why(self, request: web.Request) -> web.Response:
        pod, request_id = request.path.split("/")[6].partition(":")[0], request.path.split("/")[-1]
        if not request.headers.get("x-overspill-token", "").endswith("/overspill-operator/token"):
            return web.Response(status=401)
        known = self.why.get(pod, {}).get(request_id)
        return web.json_response(known) if known else web.Response(status=404)

    async def _create(self, request: web.Request) -> web.Response:
        obj = await request.json()
        path = f"{request.path}/{obj['metadata']['name']}"
        if path in self.objects:
            return _status(409, "already exists")
        obj["metadata"]["uid"] = "uid-new"
        self.objects[path] = obj
        return web.json_response(obj, status=201)

    def _delete(self, path: str) -> web.Response:
        if self.objects.pop(path, None) is None:
            return _status(404, "not found")
        self.deleted.append(path)
        return web.json_response({})

    def _list(self, request: web.Request) -> web.Response:
        plural = request.path.rsplit("/", 1)[-1]
        if plural not in _PLURALS:
            return _status(404, "not found")
        namespace = request.path if "/namespaces/" in request.path else ""
        items = [
            obj
            for path, obj in self.objects.items()
            if path.split("/")[-2] == plural
            and path.startswith(namespace)
            and _selected(obj, request.query.get("labelSelector", ""))
            and _named(obj, request.query.get("fieldSelector", ""))
        ]
        return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        known = {_decoded(o, "sha256") for path, o in self.objects.items() if "/secrets/" in path}
        self.asked.append({"key": request.headers.get("x-api-key"), "body": await request.json()})
        self.refusals -= 1
        if digest(request.headers.get("x-api-key", "")) not in known or self.refusals >= 0:
            return web.json_response({"error": {"message": "unknown key"}}, status=401)
        answer = web.StreamResponse(headers=self.answer_headers)
        await answer.prepare(request)
        for chunk in self.answer:
            await answer.write(chunk)
        return answer


_PLURALS = {kind.plural for kind in vars(kinds).values() if isinstance(kind, Kind)}


def _decoded(secret: Object, name: str) -> str:
    return base64.b64decode(secret["data"][name]).decode()


def _selected(obj: Object, selector: str) -> bool:
    labels = obj["metadata"].get("labels", {})
    for term in filter(None, selector.split(",")):
        name, _, value = term.replace("!=", "=!").partition("=")
        if value.startswith("!"):
            if labels.get(name) == value[1:]:
                return False
        elif labels.get(name) != value:
            return False
    return True


def _named(obj: Object, selector: str) -> bool:
    return not selector or selector == f"metadata.name={obj['metadata']['name']}"


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "message": message}, status=code)


class Served(Protocol):
    """Something that answers requests."""

    port: int

    async def handle(self, request: web.Request) -> web.StreamResponse: ...


S = TypeVar("S", bound=Served)


@contextmanager
def serving(world: S) -> Iterator[S]:
    """Serve the world on a port of loopback, in a thread of its own."""
    loop, ready = asyncio.new_event_loop(), threading.Event()

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", world.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        world.port = runner.addresses[0][1]
        ready.set()
        return runner

    runner: list[web.AppRunner] = []

    def run() -> None:
        asyncio.set_event_loop(loop)
        runner.append(loop.run_until_complete(start()))
        loop.run_forever()
        loop.run_until_complete(runner[0].cleanup())

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10)
    try:
        yield world
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)


def kubeconfig(folder: Path, port: int) -> Path:
    """Write a kubeconfig for the world."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
                "users": [{"name": "x", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "current-context": "x",
            }
        )
    )
    return path


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True


@dataclass
class Command:
    """Runs `overspill` as its entry point does, in this process."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *args: str, stdin: str = "", typed: str = "", **env: str) -> Done:
        """Run it and return what it printed; ``typed`` on a terminal, ``stdin`` from a pipe."""
        with self.monkeypatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["overspill", *args])
            patch.setattr(sys, "stdin", Terminal(typed) if typed else io.StringIO(stdin))
            patch.setattr(sys.stderr, "isatty", lambda: bool(typed))
            try:
                run()
                status = 0
            except SystemExit as ended:
                status = int(ended.code or 0)
        printed = self.capsys.readouterr()
        return Done(status, printed.out, printed.err)
