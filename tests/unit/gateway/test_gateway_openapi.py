"""The published OpenAPI document against a running gateway, both ways.

``OVERSPILL_EXAMPLES`` is the number of requests of each kind; `make fuzz-parsers` makes many.
"""

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from gateway_world import Upstream, World, service, spillover, world
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    positive_data_acceptance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/reference/openapi.yaml"
EXAMPLES = int(os.environ.get("OVERSPILL_EXAMPLES", "2"))
FORM = [content_type_conformance, response_headers_conformance]
FORM += [response_schema_conformance, status_code_conformance]
BOTH_WAYS = [*FORM, not_a_server_error, negative_data_rejection, positive_data_acceptance]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages"]
PATHS += ["/v1/messages/count_tokens"]
SECRET = "cloud-secret"  # of the provider
SPILL = ["/v1/chat/completions", "/v1/messages"]


@dataclass
class Served:
    """A gateway on a loop of its own: schemathesis does not wait for one."""

    world: World
    upstreams: list[Upstream]
    connected: set[Any]  # addresses that anybody here has connected to

    @property
    def known(self) -> set[tuple[str, int]]:
        ours = {("127.0.0.1", self.world.plane.public.port)}
        return ours | {upstream.address for upstream in self.upstreams}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack, connected = AsyncExitStack(), set()

    def seen(event: str, details: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(details[1], tuple):
            connected.add(details[1][:2])

    async def start() -> Served:
        engine, cloud = [await stack.enter_async_context(Upstream().serving()) for _ in range(2)]
        w = await stack.enter_async_context(world(hold=0.05))
        w.state.put_service(service("chat"))
        w.state.put_service(service("spills", spillover=spillover()))
        w.replicas(engine)
        w.provider(cloud)
        return Served(w, [engine, cloud], connected)

    try:
        made = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
        sys.addaudithook(seen)
        yield made
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def asked(served: Served, path: str, model: str, mode: GenerationMode, checks: list[Any]) -> None:
    """Send generated requests for a model, and hold the answers against the document."""
    document = yaml.safe_load(DOCUMENT.read_text())
    for post in (methods["post"] for methods in document["paths"].values() if "post" in methods):
        body = post["requestBody"]["content"]["application/json"]["schema"]
        body["properties"]["model"] = {"const": model}
    operation = schemathesis.openapi.from_dict(document)[path]["POST"]
    session = requests.Session()

    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=EXAMPLES < 100,
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE:
            case.body = _whole(case.body)
        answer = case.call_and_validate(
            base_url=served.world.url,
            session=session,
            headers={"Authorization": f"Bearer {served.world.key}"},
            checks=checks,
        )
        assert answer.status_code != 500
        assert SECRET not in answer.text

    holds()
    session.close()


def _whole(value: Any) -> Any:
    """Write each whole number as one; to the document 1.0 is an integer, and to us it is none."""
    if isinstance(value, dict):
        return {name: _whole(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("path", PATHS)
def test_what_the_document_allows_is_answered_and_nothing_else(
    served: Served, path: str, mode: GenerationMode
) -> None:
    asked(served, path, "chat", mode, BOTH_WAYS)


def test_another_method_and_a_full_queue_are_answered_as_the_document_says(
    served: Served,
) -> None:
    document = yaml.safe_load(DOCUMENT.read_text())
    operations = schemathesis.openapi.from_dict(document)
    key = {"Authorization": f"Bearer {served.world.key}"}
    body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    admission = served.world.state.services["team-a/chat"].admission
    limit, replicas = admission.limit, admission.replicas
    for path, methods in document["paths"].items():
        (allowed,) = (name.upper() for name in methods)
        other = {"GET": "POST", "POST": "GET"}[allowed]
        answer = requests.request(other, served.world.url + path, headers=key, timeout=20)
        assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
        operations[path][allowed].validate_response(answer)
        if path in ("/v1/chat/completions", "/v1/messages"):
            admission.limit, admission.replicas = 0, {}
            answer = requests.post(served.world.url + path, json=body, headers=key, timeout=20)
            admission.limit, admission.replicas = limit, replicas
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
            operations[path][allowed].validate_response(answer)


@pytest.mark.parametrize("path", SPILL)
def test_what_spills_reaches_nobody_but_the_configured_hosts(served: Served, path: str) -> None:
    """Also not what a field would like: https://nvd.nist.gov/vuln/detail/CVE-2024-6587."""
    asked(served, path, "spills", GenerationMode.POSITIVE, FORM)
    assert served.connected <= served.known
