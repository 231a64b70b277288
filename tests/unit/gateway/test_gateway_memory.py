"""The memory of requests is bounded for the whole process, whoever sends them."""

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from gateway_world import (
    BODY,
    ONE_SLOT,
    Upstream,
    World,
    occupy,
    queued,
    service,
    spillover,
    until,
    world,
)
from hypothesis import given
from hypothesis import strategies as st

from lab.lengths import length
from overspill.api import metrics as names
from overspill.gateway import memory
from overspill.gateway.errors import ApiError
from overspill.gateway.memory import PART, Memory, Share, weigh

MIB = 1024 * 1024
LARGE = BODY | {"messages": [{"role": "user", "content": "x" * MIB}]}


@pytest.fixture
async def gateway(engine: Upstream) -> AsyncIterator[World]:
    """Room for 10 MiB of requests: for each of ours a text and what is written of it."""
    async with world(memory=PART * 10 * MIB) as w:
        w.state.put_service(service(engine=ONE_SLOT))
        w.replicas(engine)
        yield w


def held(w: World) -> int:
    return w.plane.gateway.memory.held


async def test_waiting_requests_hold_no_more_than_the_budget(
    gateway: World, engine: Upstream
) -> None:
    first = await occupy(gateway, engine)
    waiting = [asyncio.create_task(gateway.post("/v1/chat/completions", LARGE)) for _ in range(20)]
    await until(lambda: sum(task.done() for task in waiting) + queued(gateway) == 20)
    assert queued(gateway) == 4
    assert 8 * MIB < held(gateway) <= 10 * MIB
    (line,) = (
        x for x in (await gateway.metrics()).splitlines() if x.startswith(names.REQUEST_MEMORY)
    )
    assert float(line.split()[1]) == held(gateway)
    small = asyncio.create_task(gateway.post("/v1/chat/completions", BODY))
    await until(lambda: queued(gateway) == 5)
    engine.gate.set()
    answers = [await task for task in waiting]
    assert {(await first)[0], (await small)[0]} == {200}
    assert sorted(status for status, _, _ in answers) == [200] * 4 + [503] * 16
    for status, headers, body in answers:
        if status == 503:
            assert orjson.loads(body)["error"]["code"] == "gateway_full"
            assert headers["Retry-After"] == "1"
    await until(lambda: held(gateway) == 0)
    assert (await gateway.post("/v1/chat/completions", LARGE))[0] == 200


async def test_while_an_engine_works_a_request_takes_no_more_than_it_holds(
    gateway: World, engine: Upstream
) -> None:
    """The client's bytes are gone, and soon what went to the engine."""

    def taken(*files: str) -> int:
        found = tracemalloc.take_snapshot().statistics("filename")
        return sum(f.size for f in found if Path(f.traceback[0].filename).name in files)

    engine.gate.clear()
    tracemalloc.start()
    try:
        asking = asyncio.create_task(gateway.post("/v1/chat/completions", LARGE))
        await asyncio.wait_for(engine.arrived.wait(), 5)
        await until(lambda: taken("app.py", "httptools_impl.py", "upstream.py") < MIB)
        assert taken("call.py", "bodies.py") <= held(gateway)
    finally:
        tracemalloc.stop()
    engine.gate.set()
    assert (await asking)[0] == 200


async def test_schemas_that_nobody_sent_before_leave_nothing_behind(
    engine: Upstream, cloud: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache of compiled schemas without a bound was CVE-2025-29770; ours has none."""
    monkeypatch.setattr("overspill.gateway.decisions.KEPT", 10)  # rings that would fill meanwhile
    monkeypatch.setattr("overspill.gateway.state.WAITS_KEPT", 10)
    number = length(300, 50_000)
    async with world() as w, aiohttp.ClientSession() as session:
        w.state.put_service(service(spillover=spillover()))
        w.provider(cloud)
        key = {"Authorization": f"Bearer {w.key}"}

        async def send(first: int) -> int:
            for n in range(first, first + number):
                w.replicas(*[engine] * (n % 2))  # to the engine, and to the cloud
                schema = {"type": "object", "properties": {f"p{n}": {"enum": [f"e{n}"]}}}
                form = {"type": "json_schema", "json_schema": {"name": f"n{n}", "schema": schema}}
                body = BODY | {"response_format": form, "max_tokens": 5}
                url = f"{w.url}/v1/chat/completions"
                async with session.post(url, json=body, headers=key) as answer:
                    await answer.read()
                engine.forget()
                cloud.forget()
            gc.collect()
            return sys.getallocatedblocks()

        warm = await send(0)
        # Timers that were cancelled stay for a while: some hundred blocks, however many requests.
        assert await send(number) - warm < 1_000 + number / 20


@pytest.mark.parametrize("announced", [True, False])
async def test_bodies_that_are_being_read_count(gateway: World, announced: bool) -> None:
    """Announced ones before a byte is here, others by what has come."""
    head = f"authorization: Bearer {gateway.key}\r\n"
    head += (
        f"content-length: {4 * MIB}\r\n\r\n" if announced else "transfer-encoding: chunked\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head.encode())
    if not announced:
        writer.write(b"%x\r\n" % (4 * MIB) + b"x" * (4 * MIB))
    await until(lambda: held(gateway) == 8 * MIB)
    status, headers, body = await gateway.post("/v1/chat/completions", LARGE)
    assert (status, headers["Connection"]) == (503, "close"), "what it still sends is not read"
    assert orjson.loads(body)["error"]["code"] == "gateway_full"
    writer.transport.abort()
    await until(lambda: held(gateway) == 0)


async def test_a_body_that_comes_in_pieces_is_refused_when_there_is_no_room_left(
    gateway: World,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield b"x" * MIB

    with Share(gateway.plane.gateway.memory) as others:
        others.hold(8 * MIB)
        async with aiohttp.ClientSession() as session:
            answer = await session.post(
                f"{gateway.url}/v1/chat/completions",
                data=pieces(),
                headers={"Authorization": f"Bearer {gateway.key}"},
            )
            assert answer.status == 503
        await until(lambda: held(gateway) == 8 * MIB)


async def test_what_takes_more_than_all_memory_is_too_large_and_not_asked_again(
    gateway: World, engine: Upstream
) -> None:
    """A small body of many numbers."""
    body = {"model": "chat", "input": [[7] * 20] * 16_000}
    status, headers, answer = await gateway.post("/v1/embeddings", body)
    assert (status, orjson.loads(answer)["error"]["code"]) == (413, "request_too_large")
    assert "Retry-After" not in headers
    assert held(gateway) == 0
    assert engine.bodies == []


async def test_a_body_of_too_many_values_is_refused(
    gateway: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MAX_VALUES", 1000)
    many = {"model": "chat", "input": [[7] * 500] * 2}
    status, _, answer = await gateway.post("/v1/embeddings", many)
    assert (status, orjson.loads(answer)["error"]["code"]) == (400, "too_many_values")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(st.dictionaries(st.text(), VALUES))
def test_every_value_is_weighed_once(fields: dict[str, Any]) -> None:
    def size(value: Any) -> int:
        inner: list[Any] = []
        if isinstance(value, dict):
            inner = [*value, *value.values()]
        elif isinstance(value, list):
            inner = value
        return sys.getsizeof(value) + sum(map(size, inner))

    assert weigh(fields) == size(fields)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 150) | st.none())))
def test_no_order_of_requests_passes_the_limit_or_leaves_a_rest(
    steps: list[tuple[int, int | None]],
) -> None:
    """Each step: one of four requests holds another number of bytes, or ends."""
    budget = Memory(100)
    shares, holds = [Share(budget) for _ in range(4)], [0] * 4
    for which, number in steps:
        if number is None:
            with shares[which]:
                pass
            holds[which] = 0
            continue
        if sum(holds) - holds[which] + number <= 100:
            shares[which].hold(number)
            holds[which] = number
        else:
            with pytest.raises(ApiError) as info:
                shares[which].hold(number)
            assert info.value.status == (413 if number > 100 else 503)
        assert budget.held == sum(holds) <= 100
    for share in shares:
        with share:
            pass
    assert budget.held == 0
