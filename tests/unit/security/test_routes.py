"""What our HTTP servers answer at all: a golden list, found by asking the running servers.

Every text of the package that could be a route is asked for with every method, and so are the
paths by which other gateways and engines were taken over (S7). What is not in
``routes.golden.yaml`` is answered with 404, 405 or 501. What is answered without a credential has
its reason there.
"""

import ast
import asyncio
import random
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from gateway_world import MESSAGES, TOKEN, Upstream, World, service, world
from prometheus_client import CollectorRegistry

from lab.lengths import length
from overspill.controller import endpoints
from overspill.engine.fetch import progress
from overspill.engine.fetch.progress import Meter
from overspill.engine.load import Gauges
from overspill.engine.sidecar import Sidecar
from overspill.gateway.call import ENDPOINTS

ROOT = Path(__file__).resolve().parents[3]
GOLDEN = yaml.safe_load(Path(__file__).with_name("routes.golden.yaml").read_text())
ENCODINGS = 1000
AT_ONCE = 4  # the loader keeps five waiting

Inventory = dict[str, dict[str, int]]

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Of LiteLLM, vLLM, llama.cpp, Ray, Go and Java servers: what must not exist here.
ELSEWHERE = Path(__file__).with_name("routes_elsewhere.txt").read_text().split()
BODY = b'{"model":"chat","messages":[{"role":"user","content":"hi"}]}'


def own_paths() -> set[str]:
    """Return every text of the package that could be a route."""
    found = set()
    for path in ROOT.glob("operator/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
                if re.fullmatch(r"/[!-~]*", text):
                    found.add(text)
    return found


def requests() -> list[tuple[str, str]]:
    """Return each path with each method; what only others have, with two."""
    own = own_paths()
    asked = [(path, method) for path in own for method in METHODS]
    return asked + [(p, m) for p in ELSEWHERE if p not in own for m in ("GET", "POST")]


async def ask(
    port: int, method: str, target: bytes, *headers: str, host: bytes = b"x"
) -> tuple[int, bytes]:
    """Send one request as it stands; return status and head (status 0: no answer)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [b"%b %b HTTP/1.1" % (method.encode(), target), b"host: " + host, b"connection: close"]
    lines += [header.encode() for header in headers]
    lines += [b"content-length: %d" % len(BODY), b"content-type: application/json", b"", BODY]
    try:
        writer.write(b"\r\n".join(lines))
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(b" ", 2)[1]), head.lower()
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, b""
    finally:
        writer.transport.abort()


async def inventory(port: int, *headers: str) -> Inventory:
    """Return path → method → status, of all that is answered at all."""
    found: Inventory = {}
    asked = requests()
    for start in range(0, len(asked), AT_ONCE):
        part = asked[start : start + AT_ONCE]
        answers = [ask(port, method, path.encode(), *headers) for path, method in part]
        for (path, method), (status, head) in zip(
            part, await asyncio.gather(*answers), strict=True
        ):
            assert b"access-control-" not in head, path  # no page of another origin may read it
            if status not in (404, 405, 501):
                found.setdefault(path, {})[method] = status
    return found


@asynccontextmanager
async def operator() -> AsyncIterator[int]:
    """The operator's server; its port."""

    async def targets() -> list[dict[str, str]]:
        return []

    runner = await endpoints.serve(
        0, CollectorRegistry(), fault=lambda: "", ready=lambda: True, targets=targets
    )
    try:
        yield next(address[1] for address in runner.addresses if len(address) == 2)  # IPv4
    finally:
        await runner.cleanup()


async def listens(port: int) -> bool:
    """Whether something answers there."""
    with suppress(ConnectionRefusedError):
        return (await ask(port, "GET", b"/health"))[0] == 200
    return False


@asynccontextmanager
async def drain() -> AsyncIterator[int]:
    """The drain sidecar of an engine that is gone; its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    sidecar = Sidecar(Gauges("http://127.0.0.1:1/metrics", "running", None), delay=0, seconds=0)
    serving = asyncio.create_task(sidecar.serve(port))
    async with asyncio.timeout(10):
        while not await listens(port):  # noqa: ASYNC110 - it does not say when
            await asyncio.sleep(0.01)
    try:
        yield port
    finally:
        serving.cancel()


@asynccontextmanager
async def loader() -> AsyncIterator[int]:
    """The loader's page of its progress; its port."""
    with progress.serve(0, Meter()) as port:
        yield port


@pytest.fixture
async def served() -> AsyncIterator[tuple[World, Upstream]]:
    """A gateway with one service on one engine."""
    async with Upstream().serving() as engine, world() as w:
        w.state.put_service(service())
        w.replicas(engine)
        yield w, engine


# What makes an HTTP server, and the modules in which it may stand: each is asked below.
MAKES_A_SERVER = re.compile(
    r"\b(start_server|create_server|start_unix_server|TCPSite|UnixSite|SockSite|run_app|"
    r"uvicorn\.(Server|run)|\w*HTTPServer|\w*TCPServer|make_server|start_http_server)\b"
)
SERVERS = {
    "controller/endpoints.py",
    "engine/fetch/progress.py",
    "engine/sidecar.py",
    "gateway/plane.py",  # starts both of server.py
    "gateway/server.py",
}


def test_there_is_no_other_server() -> None:
    package = ROOT / "operator/overspill"
    found = {p for p in package.glob("**/*.py") if MAKES_A_SERVER.search(p.read_text())}
    assert {str(p.relative_to(package)) for p in found} == SERVERS


async def test_the_routes_are_the_golden_ones(served: tuple[World, Upstream]) -> None:
    w, _ = served
    key, token = f"authorization: Bearer {w.key}", f"authorization: Bearer {TOKEN}"
    found = {
        "gateway, with a key": await inventory(w.plane.public.port, key),
        "gateway, internal port": await inventory(w.plane.internal.port, token),
    }
    for name, server in OTHERS.items():
        async with server() as port:
            found[name] = await inventory(port)
    assert found == GOLDEN["routes"]


OTHERS = {"operator": operator, "drain sidecar": drain, "loader": loader}


async def test_what_is_open_to_anyone_says_why(served: tuple[World, Upstream]) -> None:
    w, _ = served
    internal = await inventory(w.plane.internal.port)
    found = {
        "gateway, internal port": {p for p, by in internal.items() if set(by.values()) != {401}}
    }
    found |= {name: set(GOLDEN["routes"][name]) for name in OTHERS}  # asked without one
    assert found == {name: set(paths) for name, paths in GOLDEN["open"].items()}
    for paths in GOLDEN["open"].values():
        assert all(paths.values())


async def test_without_a_key_every_path_looks_the_same(served: tuple[World, Upstream]) -> None:
    w, engine = served
    for path in sorted(own_paths() | set(ELSEWHERE)):
        status, head = await ask(w.plane.public.port, "POST", path.encode())
        assert (status, b"www-authenticate" in head) == (401, True), path
    assert engine.bodies == []


async def test_demand_and_money_are_for_the_operator_alone(served: tuple[World, Upstream]) -> None:
    w, _ = served
    for header in ("x: y", "authorization: Bearer other", f"authorization: Bearer {w.key}"):
        assert (await ask(w.plane.internal.port, "GET", b"/demand", header))[0] == 401
        assert (await ask(w.plane.internal.port, "POST", b"/ledger", header))[0] == 401


HOSTS = [b"", b"127.0.0.1:8081", b"localhost", b"internal", b"[::1]", b"x:0", b"x:99999", b"a@x"]
HOSTS += [b"x\r\nhost: internal", b"x, internal", b"x/v1/models", b"x?/healthz", b"x#", b"\xff"]
HOSTS += [b"x\t", b"%00", b"x" * 300, b"http://x/healthz", b"..", b"x\r\nx-forwarded-host: y"]


def spelled(dice: random.Random, route: bytes) -> bytes:
    """Return a route as some server somewhere reads it too."""
    text = route.decode()
    how = dice.randrange(6)
    if how == 1:
        text = "".join(f"%{ord(c):02x}" if dice.random() < 0.3 else c for c in text)
    elif how == 2:
        text = "".join(c.upper() if dice.random() < 0.3 else c for c in text)
    elif how == 3:
        text = text.replace("/", dice.choice(["//", "/./", "/x/../", "\\", "/;/", "/%2e/"]))
    elif how == 4:
        text = dice.choice(["http://x", "http://127.0.0.1:8081", "//x", "/healthz/..", "*"]) + text
    elif how == 5:
        text = dice.choice(["/healthz?", "/metrics#", "/readyz;", "/livez%3f"]) + text
    return (text + dice.choice(SUFFIXES)).encode()


async def test_without_a_key_no_spelling_of_host_or_path_opens_a_route(
    served: tuple[World, Upstream],
) -> None:
    """Who decides looks at the path that is dispatched: CVE-2026-49468, CVE-2026-48710."""
    w, engine = served
    dice, models = random.Random(4), b"/v1/models"
    for route in (*ENDPOINTS, models):
        for _ in range(0, length(20, 1_000), AT_ONCE):
            targets = [spelled(dice, route) for _ in range(AT_ONCE)]
            method = dice.choice(["GET", "POST"])
            answers = await asyncio.gather(
                *(ask(w.plane.public.port, method, t, host=dice.choice(HOSTS)) for t in targets)
            )
            for target, (status, head) in zip(targets, answers, strict=True):
                assert status in (400, 401, 404), (target, status)
                assert status != 401 or b"www-authenticate" in head
    assert engine.paths == []


TARGETS = ["tokenize", "metrics", "slots/0?action=save", "props", "lora-adapters", "health"]
TARGETS += ["v1/load_lora_adapter", "collective_rpc", "v1/models", "reset_prefix_cache"]
PREFIXES = ["/", "//", "/v1/../", "/v1/chat/completions/../../", "/v1/chat/completions/../../../"]
PREFIXES += ["/v1/%2e%2e/", "/v1/.%2e/", "/v1//../", "/v1/./../", "/v1/..;/", "/v1/..%00/", "\\"]
PREFIXES += [
    "/v1/chat/completions/",
    "/v1/chat/completions;/",
    "/v1/chat/completions%2f..%2f",
    "/./",
]
PREFIXES += [
    "/v1/chat/completions%3f/",
    "http://127.0.0.1/",
    "http://127.0.0.1:8000/v1/../",
    "/%2f",
]
PREFIXES += ["/v1\\..\\", "/v1/%c0%ae%c0%ae/", "/v1/%252e%252e/", "/v1/chat/completions%0d%0a/", ""]
SUFFIXES = [
    "",
    "/",
    "?",
    "?x=/v1/chat/completions",
    "#",
    "%00",
    "%20",
    ";",
    "/.",
    "/..",
    "%0a",
    "//",
]


def encodings(count: int, seed: int = 14) -> list[bytes]:
    """Return request targets that some server somewhere reads as an engine's other paths."""
    rng = random.Random(seed)
    found: set[bytes] = set()
    while len(found) < count:
        text = rng.choice(TARGETS)
        how = rng.randrange(5)
        if how == 1:
            text = "".join(f"%{ord(c):02x}" if rng.random() < 0.4 else c for c in text)
        elif how == 2:
            text = quote(quote(text, safe=""), safe="")
        elif how == 3:
            text = "".join(c.upper() if rng.random() < 0.5 else c for c in text)
        elif how == 4:
            text = "".join(c + rng.choice(["", "", "%00", "\t", "/./", "\u200b"]) for c in text)
        found.add((rng.choice(PREFIXES) + text + rng.choice(SUFFIXES)).encode())
    return sorted(found)


async def test_engines_are_asked_for_nothing_but_the_api(served: tuple[World, Upstream]) -> None:
    """https://nvd.nist.gov/vuln/detail/CVE-2026-114052: /tokenize reached through a gateway."""
    w, engine = served
    port, key = w.plane.public.port, f"authorization: Bearer {w.key}"
    targets = encodings(ENCODINGS)
    for start in range(0, ENCODINGS, AT_ONCE):
        part = targets[start : start + AT_ONCE]
        answers = await asyncio.gather(*(ask(port, "POST", target, key) for target in part))
        for target, (status, _) in zip(part, answers, strict=True):
            # /v1/models is ours, also with a query or a host of the client's; it takes no POST.
            ours = target.partition(b"?")[0].partition(b"#")[0].endswith(b"/v1/models")
            assert status in {400, 404} | ({405} if ours else set()), target
    assert engine.paths == []


async def test_what_reaches_an_engine_is_made_by_us(served: tuple[World, Upstream]) -> None:
    w, engine = served
    evil = ["x-forwarded-host: evil", "cookie: a=b", "x-api-key: other", "te: trailers"]
    key = f"authorization: Bearer {w.key}"
    for target in (b"/v1/chat/completions?a=/../tokenize", b"http://evil/v1/chat/completions"):
        assert (await ask(w.plane.public.port, "POST", target, key, *evil))[0] == 200
    assert set(engine.paths) == {"/v1/chat/completions"} <= {p.decode() for p in ENDPOINTS}
    for headers in engine.seen_headers:
        sent = {name.lower(): value for name, value in headers.items()}
        assert sent.keys() == {"host", "content-type", "content-length"}
        assert sent["host"].startswith("127.0.0.1:")
    assert [b["messages"] for b in engine.bodies] == [MESSAGES] * 2
