"""The cluster layer against a server on loopback: errors, lists, watches, tokens."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from overspill.cluster import (
    Cluster,
    ClusterError,
    Conflict,
    Event,
    Expired,
    Fenced,
    Forbidden,
    Invalid,
    NotConfigured,
    NotFound,
    Terminating,
    Unavailable,
    backoff,
    client,
    watching,
)
from overspill.cluster.errors import from_status
from overspill.cluster.kinds import DEPLOYMENT, NODE, POD, Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Server:
    """An API server whose answers a test scripts."""

    def __init__(self, folder: Path) -> None:
        self.requests: list[web.Request] = []
        self.bodies: list[Any] = []
        self.handler: Handler
        self.kubeconfig = folder / "kubeconfig"

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.json() if request.can_read_body else None)
        return await self.handler(request)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
            "clusters": [{"name": "k", "cluster": {"server": f"http://{host}:{port}"}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(config))

    async def stop(self) -> None:
        await self._runner.cleanup()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def cluster(server: Server) -> AsyncIterator[Cluster]:
    async with Cluster.connect(kubeconfig=str(server.kubeconfig)) as connected:
        yield connected


def answer(status: int, body: Any, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return handler


@pytest.mark.parametrize(
    ("status", "message", "expected", "retry"),
    [
        (400, "bad", Invalid, False),
        (401, "who", Forbidden, False),
        (403, "no", Forbidden, False),
        (403, "x in namespace y because it is being terminated", Terminating, False),
        (404, "none", NotFound, False),
        (409, "changed", Conflict, True),
        (410, "old", Expired, True),
        (422, "spec.x: wrong", Invalid, False),
        (429, "slow down", Unavailable, True),
        (500, "oops", Unavailable, True),
        (500, "failed to create typed patch object (x): .spec.y: field not", Invalid, False),
        (503, "away", Unavailable, True),
    ],
)
async def test_a_status_becomes_an_error_that_knows_whether_to_retry(
    server: Server, cluster: Cluster, status: int, message: str, expected: type, retry: bool
) -> None:
    server.handler = answer(status, {"kind": "Status", "message": message}, **{"Retry-After": "7"})
    with pytest.raises(ClusterError) as caught:
        await cluster.get(POD, "ns", "p")
    assert (type(caught.value), caught.value.retry, str(caught.value)) == (expected, retry, message)
    assert caught.value.retry_after == 7


def test_what_a_proxied_service_answers_is_no_status() -> None:
    assert str(from_status(503, b"[" * 100_000)) == "HTTP 503: " + "[" * 200


async def test_no_answer_in_time_is_unavailable(server: Server, cluster: Cluster) -> None:
    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    server.handler = silent
    with pytest.raises(Unavailable, match="no answer in time"):
        await cluster.raw("GET", "/x", seconds=0.05)


async def test_a_closed_port_is_unavailable(server: Server, cluster: Cluster) -> None:
    await server.stop()
    with pytest.raises(Unavailable):
        await cluster.get(POD, "ns", "p")


async def test_an_answer_that_is_no_json_is_unavailable(server: Server, cluster: Cluster) -> None:
    async def html(_: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>")

    server.handler = html
    with pytest.raises(Unavailable, match="not JSON"):
        await cluster.get(POD, "ns", "p")


async def test_without_a_kubeconfig_the_remedy_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match="KUBECONFIG"):
        async with Cluster.connect(kubeconfig=str(tmp_path / "none")):
            pass


async def test_a_netrc_does_not_get_in_the_way_of_our_token(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server.handler = answer(200, {"kind": "Pod"})
    async with Cluster.connect(kubeconfig=str(server.kubeconfig)) as cluster:
        await cluster.get(POD, "ns", "a")
    assert server.requests[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize(("exempt", "through"), [("", True), ("api.example", False)])
async def test_a_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, exempt: str, *, through: bool
) -> None:
    config = yaml.safe_load(server.kubeconfig.read_text())
    proxy = config["clusters"][0]["cluster"]["server"]
    config["clusters"][0]["cluster"]["server"] = "http://api.example"
    server.kubeconfig.write_text(yaml.safe_dump(config))
    for name, value in (("http_proxy", proxy), ("no_proxy", exempt)):
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(client, "CALL_SECONDS", 2.0)
    server.handler = answer(200, {"kind": "Pod"})
    async with Cluster.connect(kubeconfig=str(server.kubeconfig)) as cluster:
        if through:
            await cluster.get(POD, "ns", "a")
        else:
            with pytest.raises(Unavailable):
                await cluster.get(POD, "ns", "a")
    assert [r.host for r in server.requests] == (["api.example"] if through else [])


async def test_in_a_pod_the_api_server_is_never_behind_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("token", "ca.crt"):
        (tmp_path / name).write_text("x")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    loader = "kubernetes.aio.config.incluster_config"
    monkeypatch.setattr(f"{loader}.SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(f"{loader}.SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr(client, "_TOKEN_FILE", tmp_path / "token")
    configuration = await client._configuration(None, None)
    assert configuration.host == "https://10.96.0.1:443"
    assert configuration.proxy is None


async def test_apply_sends_what_server_side_apply_needs(server: Server, cluster: Cluster) -> None:
    server.handler = answer(200, {})
    obj = {"metadata": {"name": "d", "namespace": "ns", "resourceVersion": "3"}}
    await cluster.apply(DEPLOYMENT, obj, manager="me", subresource="scale")
    [request] = server.requests
    assert request.method == "PATCH"
    assert request.path == "/apis/apps/v1/namespaces/ns/deployments/d/scale"
    assert dict(request.query) == {"fieldManager": "me", "force": "true"}
    assert request.headers["Content-Type"] == "application/apply-patch+yaml"
    assert request.headers["Authorization"] == "Bearer secret"
    assert server.bodies == [obj]


async def test_a_guard_refuses_writes_and_lets_reads_through(
    server: Server, cluster: Cluster
) -> None:
    def guard(verb: str, kind: Kind) -> None:
        raise Fenced(f"{verb} {kind.kind}")

    server.handler = answer(200, {})
    guarded = cluster.guarded(guard)
    obj = {"metadata": {"name": "p", "namespace": "ns"}}
    for write in (
        lambda: guarded.apply(POD, obj, manager="m"),
        lambda: guarded.create(POD, obj),
        lambda: guarded.replace(POD, obj),
        lambda: guarded.delete(POD, "ns", "p"),
    ):
        with pytest.raises(Fenced):
            await write()
    assert server.requests == []
    await guarded.get(POD, "ns", "p")


async def test_a_list_comes_page_by_page(server: Server, cluster: Cluster) -> None:
    async def pages(request: web.Request) -> web.StreamResponse:
        second = "continue" in request.query
        metadata = {"resourceVersion": "9", "continue": "" if second else "more"}
        return web.json_response({"metadata": metadata, "items": [{"n": int(second)}]})

    server.handler = pages
    listing = await cluster.list(POD, labels="a=b")
    assert [item["n"] for item in listing.items] == [0, 1]
    assert listing.resource_version == "9"
    assert {r.query["labelSelector"] for r in server.requests} == {"a=b"}
    assert [item["n"] async for item in cluster.scan(POD)] == [0, 1]
    assert "as=PartialObjectMetadataList" in server.requests[-1].headers["Accept"]
    assert [item["n"] async for item in cluster.scan(POD, whole=True)] == [0, 1]
    assert server.requests[-1].headers["Accept"] == "application/json"


@pytest.mark.parametrize(
    ("status", "user"),
    [
        ({"authenticated": True, "user": {"username": "u"}, "audiences": ["a"]}, "u"),
        ({"authenticated": True, "user": {"username": "u"}, "audiences": ["other"]}, ""),
        ({"authenticated": True, "user": {"username": "u"}}, ""),
        ({"authenticated": False}, ""),
        ({}, ""),
    ],
)
async def test_a_token_counts_only_for_its_audience(
    server: Server, cluster: Cluster, status: Any, user: str
) -> None:
    server.handler = answer(201, {"status": status})
    assert await cluster.review_token("t", "a") == user


@pytest.mark.parametrize(
    ("kind", "args", "path"),
    [
        (POD, ("", "", ""), "/api/v1/pods"),
        (POD, ("ns", "p", "status"), "/api/v1/namespaces/ns/pods/p/status"),
        (NODE, ("ignored", "n", ""), "/api/v1/nodes/n"),
        (DEPLOYMENT, ("ns", "", ""), "/apis/apps/v1/namespaces/ns/deployments"),
    ],
)
def test_paths(kind: Kind, args: tuple[str, str, str], path: str) -> None:
    assert kind.path(*args) == path


def test_backoff_grows_to_its_limit_and_never_beyond() -> None:
    waits = [backoff(n, first=1, longest=60) for n in range(1, 40)]
    assert all(0.5 <= w <= 60 for w in waits)
    assert min(waits[10:]) >= 30


class Script:
    """A collection: each list and each watch takes the next step."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.queries: list[dict[str, str]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.queries.append(dict(request.query))
        watching = "watch" in request.query
        step = self.steps.pop(0) if self.steps else ("hang" if watching else None)
        if not watching:
            version, names = step if step else ("99", [])
            items = [pod(name, version) for name in names]
            return web.json_response({"metadata": {"resourceVersion": version}, "items": items})
        return await self._watch(request, step)

    async def _watch(self, request: web.Request, step: Any) -> web.StreamResponse:
        if isinstance(step, int):
            return web.json_response({"message": "no"}, status=step)
        response = web.StreamResponse()
        await response.prepare(request)
        for event in step if isinstance(step, list) else []:
            raw = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            await response.write(raw)
        if step == "hang":
            await asyncio.sleep(30)
        return response


def pod(name: str, version: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": version}}


def change(type_: str, name: str, version: str) -> dict[str, Any]:
    return {"type": type_, "object": pod(name, version)}


async def collect(cluster: Cluster, count: int) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    stream: AsyncIterator[Event] = cluster.watch(POD)
    async with asyncio.timeout(20):
        async for event in stream:
            objects = event.items if event.type == "SYNC" else [event.obj]
            found.append((event.type, [o["metadata"]["name"] for o in objects]))
            if len(found) == count:
                return found
    raise AssertionError


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overspill.cluster.watching.backoff", lambda *_, **__: 0.0)


async def test_metadata_is_followed_without_lists_and_from_the_start_when_events_were_lost(
    server: Server, cluster: Cluster
) -> None:
    lost = {"type": "ERROR", "object": {"code": 410, "message": "too old"}}
    there = [change("ADDED", "a", "9"), change("ADDED", "b", "2"), change("BOOKMARK", "", "12")]
    script = Script(there, [change("DELETED", "a", "13"), lost], [change("ADDED", "b", "2")])
    server.handler = script
    found = []
    async with asyncio.timeout(20):
        async for event in cluster.follow(POD, "ns", labels="ours=true"):
            found.append((event.type, event.obj["metadata"]["name"]))
            if len(found) == 4:
                break
    assert found == [("ADDED", "a"), ("ADDED", "b"), ("DELETED", "a"), ("ADDED", "b")]
    assert [q.get("resourceVersion") for q in script.queries] == [None, "12", None]
    assert {(q["watch"], q["labelSelector"]) for q in script.queries} == {("true", "ours=true")}
    asked = {request.headers["Accept"] for request in server.requests}
    assert asked == {"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}


@pytest.mark.parametrize(
    ("steps", "expected", "versions"),
    [
        (  # an ended stream goes on from where it was, a bookmark counts
            [
                ("1", ["a"]),
                [change("ADDED", "b", "2"), change("BOOKMARK", "", "5")],
                [change("DELETED", "a", "6")],
            ],
            [("SYNC", ["a"]), ("ADDED", ["b"]), ("DELETED", ["a"])],
            ["1", "5"],
        ),
        (  # 410 inside the stream: list again
            [
                ("1", ["a"]),
                [{"type": "ERROR", "object": {"code": 410, "message": "too old"}}],
                ("7", ["c"]),
            ],
            [("SYNC", ["a"]), ("SYNC", ["c"])],
            ["1"],
        ),
        (  # 410 as the answer: the same
            [("1", ["a"]), 410, ("7", ["c"])],
            [("SYNC", ["a"]), ("SYNC", ["c"])],
            ["1"],
        ),
        (  # a broken line: go on from the last whole event
            [
                ("1", []),
                [change("ADDED", "b", "2"), b'{"type": "ADD'],
                [change("ADDED", "c", "3")],
            ],
            [("SYNC", []), ("ADDED", ["b"]), ("ADDED", ["c"])],
            ["1", "2"],
        ),
        (  # a silent stream is cut; its successor may swallow events too, so list again
            [("1", []), "hang", ("2", ["b"]), "hang", ("3", ["c"])],
            [("SYNC", []), ("SYNC", ["b"]), ("SYNC", ["c"])],
            ["1", "2"],
        ),
        (  # three failures in a row: list again
            [("1", ["a"]), 500, 500, 500, ("8", ["d"])],
            [("SYNC", ["a"]), ("SYNC", ["d"])],
            ["1", "1", "1"],
        ),
    ],
)
async def test_a_watch_heals(
    server: Server,
    cluster: Cluster,
    steps: Any,
    expected: Any,
    versions: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "hang" in steps:
        monkeypatch.setattr(client, "WATCH_SECONDS", 0.5)
        monkeypatch.setattr(watching, "STEADY_SECONDS", 0.2)
    script = Script(*steps)
    server.handler = script
    assert await collect(cluster, len(expected)) == expected
    watched = [q["resourceVersion"] for q in script.queries if "watch" in q]
    assert watched[: len(versions)] == versions
    assert all(int(q["timeoutSeconds"]) <= 60 for q in script.queries if "watch" in q)
