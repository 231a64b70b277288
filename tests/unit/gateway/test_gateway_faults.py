"""Replicas die, clients leave, the gateway stops: nothing is lost that could be kept."""

import asyncio
import contextlib
import random
import socket
from typing import Any

import orjson
import pytest
from gateway_world import (
    BODY,
    ONE_SLOT,
    Upstream,
    World,
    read_request,
    service,
    spillover,
    until,
    world,
)

from overspill.gateway.admission import PRIOR_SERVICE_SECONDS


@pytest.fixture
def spec() -> dict[str, Any]:
    return {"engine": ONE_SLOT}


def load(w: World) -> int:
    return w.state.services["team-a/chat"].in_flight


def closed_port() -> tuple[str, int]:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        address: tuple[str, int] = s.getsockname()
        return address


# replicas


async def test_a_dead_replica_is_passed_over(gateway: World, engine: Upstream) -> None:
    gateway.replicas(Upstream(address=closed_port()), engine)
    for _ in range(3):
        assert (await gateway.post("/v1/chat/completions", BODY))[0] == 200
    assert len(engine.bodies) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("trouble", [{"break_after": 0}, {"status": 500}, {"status": 503}])
async def test_a_failure_before_the_first_byte_is_retried_on_another_replica(
    gateway: World, engine: Upstream, trouble: dict[str, int], stream: bool
) -> None:
    async with Upstream(**trouble).serving() as first:  # type: ignore[arg-type]
        gateway.replicas(first, engine)
        status, _, body = await gateway.post("/v1/chat/completions", BODY | {"stream": stream})
        assert (status, len(first.bodies), len(engine.bodies)) == (200, 1, 1)
        assert b"Hel" in body
    assert load(gateway) == 0


async def test_a_request_that_kills_is_not_tried_on_every_replica(gateway: World) -> None:
    async with (
        Upstream(break_after=0).serving() as a,
        Upstream(break_after=0).serving() as b,
        Upstream(break_after=0).serving() as c,
    ):
        gateway.replicas(a, b, c)
        status, headers, body = await gateway.post("/v1/chat/completions", BODY)
        assert len(a.bodies) + len(b.bodies) + len(c.bodies) == 2
    assert (status, orjson.loads(body)["error"]["code"]) == (503, "upstream_failed")
    assert headers["Retry-After"] == "1"


async def test_an_engine_that_refuses_what_another_answers_rests(
    gateway: World, engine: Upstream
) -> None:
    async with Upstream(status=500).serving() as broken:
        gateway.replicas(broken, engine)
        for _ in range(3):
            assert (await gateway.post("/v1/chat/completions", BODY))[0] == 200
        assert (len(broken.bodies), len(engine.bodies)) == (1, 3)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_an_engine_refuses_costs_no_replica_and_no_cloud(
    gateway: World, stream: bool
) -> None:
    """The first error is of llama.cpp, to an image for a model without eyes."""
    error = {"code": 500, "message": "image input is not supported", "type": "server_error"}
    async with (
        Upstream(status=500, error={"error": error}).serving() as a,
        Upstream(status=500, error={"error": error}).serving() as b,
        Upstream().serving() as cloud,
    ):
        gateway.state.put_service(service(spillover=spillover()))
        gateway.provider(cloud)
        gateway.replicas(a, b)
        status, headers, body = await gateway.post(
            "/v1/chat/completions", BODY | {"stream": stream}
        )
        assert (len(a.bodies), len(b.bodies), cloud.bodies) == (1, 1, [])
        a.status = b.status = 200
        assert (await gateway.post("/v1/chat/completions", BODY))[1][
            "x-overspill-destination"
        ] == "local"
    assert (status, headers["x-overspill-destination"]) == (500, "local")
    assert orjson.loads(body)["error"]["message"] == "image input is not supported"
    assert load(gateway) == 0


async def test_the_only_engine_is_not_asked_twice_for_what_it_refused(
    gateway: World, engine: Upstream
) -> None:
    engine.status = 500
    assert (await gateway.post("/v1/chat/completions", BODY))[0] == 500
    assert len(engine.bodies) == 1


async def test_what_an_engine_cannot_do_is_told_at_once(gateway: World, engine: Upstream) -> None:
    """llama.cpp answers so to embeddings when it was not started for them."""
    engine.status, engine.error = 501, {"error": {"message": "start it with --embeddings"}}
    async with Upstream().serving() as other:
        gateway.replicas(engine, other)
        answers = [
            await gateway.post("/v1/embeddings", {"model": "chat", "input": "x"}) for _ in range(2)
        ]
    assert [status for status, _, _ in answers] == [501, 200]


async def test_after_two_failures_it_may_spill_as_replicas_unavailable(gateway: World) -> None:
    async with Upstream(break_after=0).serving() as bad, Upstream().serving() as cloud:
        gateway.state.put_service(service(spillover=spillover()))
        gateway.provider(cloud)
        gateway.replicas(bad)
        status, headers, _ = await gateway.post("/v1/chat/completions", BODY)
    assert (status, headers["x-overspill-reason"]) == (200, "ReplicasUnavailable")


async def test_a_broken_stream_ends_with_an_error_and_never_with_done(
    gateway: World, engine: Upstream
) -> None:
    engine.break_after = 2
    async with Upstream().serving() as other:
        gateway.replicas(engine, other)
        status, _, body = await gateway.post("/v1/chat/completions", BODY | {"stream": True})
        assert other.bodies == [], "not after the first byte"
    assert status == 200
    events = body.split(b"\n\n")
    assert orjson.loads(events[-2].removeprefix(b"data: "))["error"]["type"] == "server_error"
    assert b"[DONE]" not in body
    assert load(gateway) == 0


async def test_a_whole_answer_that_breaks_off_is_a_502_and_not_asked_for_again(
    gateway: World, engine: Upstream
) -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
        writer.write(b'content-length: 1000\r\n\r\n{"choices":')
        await writer.drain()
        writer.transport.abort()

    async with await asyncio.start_server(half, "127.0.0.1", 0) as server:
        gateway.replicas(Upstream(address=server.sockets[0].getsockname()), engine)
        status, _, body = await gateway.post("/v1/chat/completions", BODY)
    assert (status, orjson.loads(body)["error"]["code"]) == (502, "upstream_broken")
    assert engine.bodies == []
    assert load(gateway) == 0


async def test_a_stream_without_done_is_broken_too(gateway: World, engine: Upstream) -> None:
    engine.done = False
    _, _, body = await gateway.post("/v1/chat/completions", BODY | {"stream": True})
    assert b"before its last event" in body.split(b"\n\n")[-2]
    assert not body.endswith(b"data: [DONE]\n\n")


async def test_a_silent_engine_is_given_up(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.dispatch.IDLE", 0.2)
    engine.gate.clear()
    engine.before_gate = 2
    status, _, body = await gateway.post("/v1/chat/completions", BODY | {"stream": True})
    assert status == 200
    assert b"silent" in body
    await asyncio.wait_for(engine.left_event.wait(), 5)


@pytest.mark.parametrize(
    ("stream", "limit"), [(True, "STREAM_FIRST_BYTE"), (False, "UNARY_FIRST_BYTE")]
)
async def test_an_engine_that_is_silent_before_its_first_byte_is_passed_over(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch, stream: bool, limit: str
) -> None:
    monkeypatch.setattr(f"overspill.gateway.dispatch.{limit}", 0.2)
    async with Upstream().serving() as silent:
        silent.gate.clear()
        gateway.replicas(silent, engine)
        status, _, _ = await gateway.post("/v1/chat/completions", BODY | {"stream": stream})
        assert (status, len(silent.bodies), len(engine.bodies)) == (200, 1, 1)
        await asyncio.wait_for(silent.left_event.wait(), 5)
    assert load(gateway) == 0


async def test_a_stream_that_never_says_anything_is_given_up(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes before the first content is kept, so that another replica can be tried."""
    monkeypatch.setattr("overspill.gateway.relay.MAX_BEFORE_CONTENT", 10_000)
    kept = asyncio.Event()

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(1000):
                writer.write(b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n' * 10)
                await writer.drain()
                await asyncio.sleep(0)
            kept.set()
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0) as server:
        gateway.replicas(Upstream(address=server.sockets[0].getsockname()), engine)
        status, _, body = await gateway.post("/v1/chat/completions", BODY | {"stream": True})
    assert (status, body.endswith(b"data: [DONE]\n\n")) == (200, True)
    assert len(engine.bodies) == 1
    assert not kept.is_set()


async def test_an_engine_that_never_ends_its_body_keeps_no_slot(
    gateway: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.relay.TAIL_SECONDS", 0.2)
    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
        writer.write(b'data: {"choices":[{"text":"a"}]}\n\ndata: [DONE]\n\n')
        while not reader.at_eof():
            writer.write(b": still here\n\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.05)
        gone.set()
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        gateway.replicas(Upstream(address=server.sockets[0].getsockname()))
        status, _, body = await gateway.post("/v1/chat/completions", BODY | {"stream": True})
        assert (status, body[-14:]) == (200, b"data: [DONE]\n\n")
        await asyncio.wait_for(gone.wait(), 5)
        await until(lambda: load(gateway) == 0)


# clients


async def test_a_client_that_leaves_its_second_request_while_the_first_ends_is_noticed(
    gateway: World,
) -> None:
    """The client has its [DONE] and asks again before the engine has ended its body."""
    tail, second, left = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        if second.is_set() or tail.is_set():
            raise AssertionError("asked too often")
        if not started:
            started.append(writer)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            writer.write(b'data: {"choices":[{"text":"a"}]}\n\ndata: [DONE]\n\n')
            await tail.wait()
        else:
            second.set()
            await reader.read()
            left.set()
        writer.close()

    started: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(engine, "127.0.0.1", 0) as server:
        gateway.state.put_service(service())
        gateway.replicas(Upstream(address=server.sockets[0].getsockname()))
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
        writer.write(chat_request(gateway, stream=True))
        await reader.readuntil(b"0\r\n\r\n")
        writer.write(chat_request(gateway, stream=False))
        await asyncio.wait_for(second.wait(), 5)
        tail.set()
        await until(lambda: load(gateway) == 1)  # the first has ended
        writer.transport.abort()
        await asyncio.wait_for(left.wait(), 5)
        await until(lambda: load(gateway) == 0)


def chat_request(w: World, *, stream: bool) -> bytes:
    body = orjson.dumps(BODY | {"stream": stream})
    head = f"authorization: Bearer {w.key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head + body


@pytest.mark.parametrize("body", [BODY, BODY | {"stream": True}])
async def test_a_client_that_leaves_cancels_the_engine_and_frees_the_slot(
    gateway: World, engine: Upstream, body: dict[str, Any]
) -> None:
    engine.gate.clear()
    engine.before_gate = 1 if body.get("stream") else 0
    request = asyncio.create_task(gateway.post("/v1/chat/completions", body))
    await asyncio.wait_for(engine.arrived.wait(), 5)
    assert load(gateway) == 1
    request.cancel()
    await asyncio.wait_for(engine.left_event.wait(), 5)
    await until(lambda: load(gateway) == 0)
    admission = gateway.state.services["team-a/chat"].admission
    assert admission.mean_service_seconds != PRIOR_SERVICE_SECONDS, "it has used its slot"
    page = await gateway.metrics()
    assert 'overspill_requests_total{code="499",destination="local"' in page


async def test_a_client_that_leaves_the_queue_leaves_no_trace(
    gateway: World, engine: Upstream
) -> None:
    engine.gate.clear()
    first = asyncio.create_task(gateway.post("/v1/chat/completions", BODY))
    await asyncio.wait_for(engine.arrived.wait(), 5)
    second = asyncio.create_task(gateway.post("/v1/chat/completions", BODY))
    waiting = gateway.state.services["team-a/chat"].admission.waiting
    await until(lambda: len(waiting) == 1)
    second.cancel()
    await until(lambda: len(waiting) == 0)
    engine.gate.set()
    assert (await first)[0] == 200
    await until(lambda: load(gateway) == 0)
    assert len(engine.bodies) == 1


async def test_a_slot_granted_to_a_client_that_leaves_just_then_comes_back(
    gateway: World, engine: Upstream
) -> None:
    engine.gate.clear()
    first = asyncio.create_task(gateway.post("/v1/chat/completions", BODY))
    await asyncio.wait_for(engine.arrived.wait(), 5)
    connections = gateway.plane.public.server_state.connections
    before = set(connections)
    second = asyncio.create_task(gateway.post("/v1/chat/completions", BODY))
    chat = gateway.state.services["team-a/chat"]
    await until(lambda: len(chat.admission.waiting) == 1)
    (leaving,) = set(connections) - before
    async with Upstream().serving() as other:
        gateway.replicas(engine, other)  # grants
        assert chat.in_flight == 2
        leaving.connection_lost(None)  # and the client is gone before its task runs
        await until(lambda: chat.in_flight == 1)
        assert other.bodies == []
    second.cancel()
    engine.gate.set()
    assert (await first)[0] == 200


async def test_a_client_that_leaves_a_spilled_stream_is_charged(gateway: World) -> None:
    async with Upstream(before_gate=1).serving() as cloud:
        cloud.gate.clear()
        gateway.state.put_service(service(spillover=spillover()))
        gateway.replicas()
        gateway.provider(cloud)
        request = asyncio.create_task(gateway.post("/v1/chat/completions", BODY | {"stream": True}))
        await asyncio.wait_for(cloud.arrived.wait(), 5)
        request.cancel()
        await asyncio.wait_for(cloud.left_event.wait(), 5)
        page = await gateway.metrics()
    lines = [x for x in page.splitlines() if x.startswith("overspill_cost_dollars_total")]
    assert any('destination="team-a/cloud"' in x and float(x.split()[-1]) > 0 for x in lines)


async def test_a_slow_reader_pauses_the_engine(gateway: World, engine: Upstream) -> None:
    engine.words = ["x" * 100_000] * 400
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
    body = orjson.dumps(BODY | {"stream": True})
    head = f"authorization: Bearer {gateway.key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head + body)
    await reader.readuntil(b"\r\n\r\n")
    (connection,) = gateway.plane.gateway.dispatcher.pool.busy
    await until(lambda: connection.paused)
    assert connection.size < 1_000_000
    writer.transport.abort()
    await until(lambda: load(gateway) == 0)


async def test_a_head_without_end_is_cut(gateway: World) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nx: " + b"y" * 100_000)
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


# the gateway itself


async def test_a_slow_head_is_cut_and_a_long_answer_is_not(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.gate.clear()
    engine.before_gate = 1
    request = asyncio.create_task(gateway.post("/v1/chat/completions", BODY | {"stream": True}))
    await asyncio.wait_for(engine.arrived.wait(), 20)
    (answering,) = gateway.plane.public.server_state.connections
    assert answering._head_timer is None
    monkeypatch.setattr("overspill.gateway.server.HEAD_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
    writer.write(b"GET /v1/mod")
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()
    engine.gate.set()
    assert (await request)[2].endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("sent", [b"", b"{"])
async def test_a_slow_body_is_a_408(
    gateway: World, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr("overspill.gateway.app.BODY_SECONDS", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
    head = f"authorization: Bearer {gateway.key}\r\ncontent-length: 100\r\n\r\n".encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head + sent)
    assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_a_client_that_does_not_read_loses_its_slot(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.server.WRITE_SECONDS", 0.1)
    engine.words = ["x" * 100_000] * 400
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
    body = orjson.dumps(BODY | {"stream": True})
    head = f"authorization: Bearer {gateway.key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head + body)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.wait_for(engine.left_event.wait(), 5)
    await until(lambda: load(gateway) == 0)
    writer.transport.abort()


async def test_a_fault_of_our_own_has_the_shape_of_the_api(
    gateway: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.dispatch.engine_body", None)
    status, _, body = await gateway.post("/v1/chat/completions", BODY)
    assert (status, orjson.loads(body)["error"]["code"]) == (500, "internal_error")
    assert load(gateway) == 0


async def test_in_any_turmoil_every_slot_comes_back_and_every_answer_is_whole(
    engine: Upstream,
) -> None:
    """Replicas that come and go, break and fail, under clients that leave at any moment."""
    dice = random.Random(7)
    async with (
        world(queue_bound=20, hold=5.0) as w,
        Upstream(break_after=2).serving() as breaking,
        Upstream(status=500).serving() as failing,
    ):
        w.state.put_service(service(engine={"batching": {"maxSequences": 2}}))
        w.replicas(engine, breaking, failing)
        tasks = []
        for number in range(150):
            body = BODY | {"stream": dice.random() < 0.5}
            tasks.append(asyncio.create_task(w.post("/v1/chat/completions", body)))
            await asyncio.sleep(dice.random() * 0.004)
            if dice.random() < 0.2:
                dice.choice(tasks).cancel()
            if number % 20 == 10:
                w.replicas(*dice.sample([engine, breaking, failing], 2))
        w.replicas(engine)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        answers = [r for r in results if not isinstance(r, BaseException)]
        assert len(answers) > 50
        for status, headers, body in answers:
            assert status in (200, 429, 500, 502, 503)
            if headers["Content-Type"].startswith("text/event-stream"):
                assert body.endswith(b"data: [DONE]\n\n") or b'"error":' in body.split(b"\n\n")[-2]
            else:
                orjson.loads(body)
        chat = w.state.services["team-a/chat"]
        await until(lambda: chat.in_flight == 0 and not chat.admission.waiting)
        assert w.plane.gateway.dispatcher.pool.busy == set()
