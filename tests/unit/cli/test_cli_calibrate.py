"""`overspill calibrate` against an endpoint over HTTP: what it asks, finds, writes and refuses."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cli_world import Command, serving

KEY = "sk-not-to-be-seen"


@dataclass
class Endpoint:
    """Answers at once, in as many pieces as tokens; counts who is served at a time."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    status: int = 200
    events: list[str] | None = None  # instead of the tokens
    counts: bool = True  # its tokens
    busiest: int = 0
    running: int = 0
    port: int = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.path == "/v1/completions"
        body = await request.json()
        self.bodies.append(body)
        self.keys.add(request.headers.get("Authorization", ""))
        if self.status != 200:
            error = {"error": {"message": "told by the endpoint"}}
            return web.json_response(error, status=self.status, headers={"Location": "/other"})
        self.running += 1
        self.busiest = max(self.busiest, self.running)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for event in self.events or self._events(body):
            await response.write(f"data: {event}\n\n".encode())
            await asyncio.sleep(0)
        self.running -= 1
        return response

    def _events(self, body: dict[str, Any]) -> Iterator[str]:
        for _ in range(body["max_tokens"]):
            yield json.dumps({"choices": [{"text": "a"}]})
        usage = {
            "prompt_tokens": len(body["prompt"].split()),
            "completion_tokens": body["max_tokens"],
            "prompt_tokens_details": None,
        }
        yield json.dumps({"choices": [], "usage": usage if self.counts else None})
        yield "[DONE]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(Endpoint()) as running:
        yield running


def calibrated(endpoint: Endpoint) -> tuple[str, ...]:
    return ("calibrate", endpoint.url, "--model", "m", "--requests", "24")


def test_a_bounded_load_that_no_cache_knows_and_a_file_that_simulate_reads(
    overspill: Command, endpoint: Endpoint, tmp_path: Path
) -> None:
    key, file, load = (tmp_path / name for name in ("key", "engine.yaml", "load.csv"))
    key.write_text(f"{KEY}\n")
    options = ("--key-file", str(key), "--write", str(file), "--concurrency", "3", "-o", "json")
    done = overspill(*calibrated(endpoint), *options)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    assert endpoint.keys == {f"Bearer {KEY}"}
    assert len(endpoint.bodies) == 1 + 24
    assert endpoint.busiest <= 3
    assert len({body["prompt"].split()[0] for body in endpoint.bodies}) == 25
    assert [line[:10] for line in done.stderr.splitlines()[1:4]] == [
        "1 at a tim", "2 at a tim", "3 at a tim"
    ]  # fmt: skip
    found = json.loads(done.stdout)
    assert found.keys() == {"alpha", "beta", "gamma", "errors", "residuals", "source"}
    assert "24 requests, up to 3 at a time" in found["source"]

    load.write_text("time,input_tokens,output_tokens\n" + "".join(f"{n},9,9\n" for n in range(90)))
    simulate = ("simulate", str(load), "--level", "discrete", "--policy", "hpa", "-o", "html")
    assert found["source"] in overspill(*simulate, "--engine", str(file)).stdout


def test_what_is_found_as_a_table(overspill: Command, endpoint: Endpoint) -> None:
    done = overspill(*calibrated(endpoint))
    assert "alpha" in done.stdout
    assert "±" in done.stdout
    assert "The model misses the time to the first token by" in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": 401}, "the endpoint answers 401: told by the endpoint; give --key-file"),
        ({"status": 404}, "is --model served there"),
        ({"status": 429}, "lower --concurrency"),
        ({"status": 307}, "answers 307: told by the endpoint; is the URL that of"),
        ({"counts": False}, "does not count its tokens"),
        ({"events": ['{"choices":[{}],"usage":{"prompt_tokens":9,"completion_tokens":8}}']},
         "came in one piece"),
        ({"events": ['{"error":{"message":"out of memory"}}']}, "broke off: out of memory"),
    ],
)  # fmt: skip
def test_a_failed_request_is_told_with_the_remedy(
    overspill: Command, endpoint: Endpoint, changes: dict[str, Any], message: str
) -> None:
    for name, value in changes.items():
        setattr(endpoint, name, value)
    done = overspill(*calibrated(endpoint))
    assert done.returncode == 1
    assert message in done.stderr
    assert len(endpoint.bodies) == 1, "no load on an endpoint that does not work"


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("127.0.0.1:8000", (), "is no URL: give one such as http://127.0.0.1:8000"),
        ("http://127.0.0.1:x", (), "is no URL: Port could not be cast"),
        (f"http://u:{KEY}@127.0.0.1", (), "a key is --key-file"),
        ("http://127.0.0.1:9", ("--key-file", "none"), "--key-file none: No such file"),
        ("http://127.0.0.1:9", ("--key-file", "/dev/null"), "must hold one key"),
        ("http://127.0.0.1:9", ("--write", "/none/x"), "/none is no folder"),
        ("http://127.0.0.1:9", (), "is the engine up?"),
    ],
)
def test_wrong_use_is_told(
    overspill: Command, url: str, options: tuple[str, ...], message: str
) -> None:
    done = overspill("calibrate", url, "--model", "m", *options)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert KEY not in done.stderr
