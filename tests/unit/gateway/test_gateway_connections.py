"""No connection stays for ever, whatever its client sends or leaves out; on both ports."""

import asyncio
import contextlib
from collections.abc import Callable

import orjson
import pytest
from gateway_world import BODY, Upstream, World, until

from overspill.gateway.server import Server

Pair = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PORTS: list[Callable[[World], Server]] = [lambda w: w.plane.public, lambda w: w.plane.internal]
both_ports = pytest.mark.parametrize("port", PORTS, ids=["public", "internal"])


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("overspill.gateway.server.HEAR_SECONDS", 0.5)


async def connect(server: Server) -> Pair:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, which comes soon or never."""
    return await asyncio.wait_for(reader.read(), 5)


def request(w: World, body: bytes, *, length: int = 0, more: str = "") -> bytes:
    head = f"authorization: Bearer {w.key}\r\ncontent-length: {length or len(body)}\r\n{more}\r\n"
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head.encode() + body


def stream(w: World) -> bytes:
    return request(w, orjson.dumps(BODY | {"stream": True}))


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


# an answer before the body


@both_ports
@pytest.mark.parametrize("sent", [b"", b"x"], ids=["nothing", "a byte"])
async def test_an_answer_before_the_body_is_here_ends_the_connection(
    gateway: World, port: Callable[[World], Server], sent: bytes
) -> None:
    reader, writer = await connect(port(gateway))
    writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n" + sent)
    answer = await all_of(reader)
    assert status(answer) in (401, 404)
    assert b"\r\nconnection: close\r\n" in answer
    await until(lambda: not port(gateway).server_state.connections)
    writer.close()


@both_ports
async def test_a_byte_after_the_answer_does_not_keep_the_connection(
    gateway: World, port: Callable[[World], Server]
) -> None:
    """The client does not look at the answer, and has much time."""
    _, writer = await connect(port(gateway))
    writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 200\r\n\r\n")
    await until(lambda: all(c.idle for c in port(gateway).server_state.connections))
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while port(gateway).server_state.connections:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.1)
    writer.transport.abort()


@both_ports
async def test_a_body_without_end_ends_soon_and_takes_no_memory(
    gateway: World, port: Callable[[World], Server]
) -> None:
    reader, writer = await connect(port(gateway))
    writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while port(gateway).server_state.connections:
                writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
                await writer.drain()
                held = [
                    len(c.cycle.body) for c in port(gateway).server_state.connections if c.cycle
                ]
                assert sum(held) <= 65_536 + 4096
                await asyncio.sleep(0.05)
    assert status(await all_of(reader)) in (401, 404)
    writer.transport.abort()


@both_ports
async def test_a_body_that_nobody_read_is_not_kept_with_the_idle_connection(
    gateway: World, port: Callable[[World], Server]
) -> None:
    reader, writer = await connect(port(gateway))
    head = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 50000\r\n\r\n"
    writer.write(head + b"x" * 50_000)  # one read
    await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    await until(lambda: all(c.idle for c in port(gateway).server_state.connections))
    assert [len(c.cycle.body) for c in port(gateway).server_state.connections] in ([], [0])
    writer.close()


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b"POST /v1/none", 404),
        (b"PUT /v1/chat/completions", 405),
        (b"POST /v1/chat/completions", 400),  # the header below
    ],
)
async def test_a_client_that_waits_before_its_body_is_told_to_connect_anew(
    gateway: World, line: bytes, wanted: int
) -> None:
    """What it sends next is no body, so it must not be read as one, nor as a request."""
    reader, writer = await connect(gateway.plane.public)
    head = f" HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\ncontent-length: 20\r\n"
    head += "x-overspill-data-policy: what\r\nexpect: 100-continue\r\n\r\n"
    writer.write(line + head.encode())
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    assert status(answer) == wanted
    assert b"connection: close" in answer
    writer.write(stream(gateway))
    rest = await all_of(reader)
    assert orjson.loads(rest)["error"]
    assert b"HTTP/1.1" not in rest
    assert b"data:" not in rest
    writer.close()


async def test_a_client_hears_its_401_while_it_sends_a_large_body(
    gateway: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is closed with bytes unread is reset, and the answer may be lost."""
    monkeypatch.setattr("overspill.gateway.server.HEAR_SECONDS", 20.0)  # 4 MB take a while
    reader, writer = await connect(gateway.plane.public)
    size = 4 * 1024 * 1024
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % size
    )
    await until(lambda: all(c.idle for c in gateway.plane.public.server_state.connections))
    writer.write(b"x" * size)
    await writer.drain()
    assert status(await all_of(reader)) == 401
    writer.close()


@both_ports
async def test_a_whole_request_keeps_its_connection(
    gateway: World, port: Callable[[World], Server]
) -> None:
    reader, writer = await connect(port(gateway))
    for _ in range(3):
        writer.write(b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nxx")
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b"connection: close" not in answer
        await reader.readexactly(int(answer.split(b"content-length: ")[1].split(b"\r\n")[0]))
    writer.write(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b"connection: close" in await all_of(reader)
    writer.close()


async def test_a_body_that_comes_later_than_its_head_keeps_its_connection(gateway: World) -> None:
    reader, writer = await connect(gateway.plane.public)
    whole = stream(gateway)
    writer.write(whole[:-10])
    await until(lambda: bool(gateway.plane.public.server_state.tasks))
    writer.write(whole[-10:])
    answer = await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
    assert (status(answer), b"connection: close" in answer) == (200, False)
    writer.close()


async def test_pieces_of_a_body_that_come_at_once_are_added_in_place(gateway: World) -> None:
    _, writer = await connect(gateway.plane.public)
    writer.write(request(gateway, b"", length=4))
    await until(lambda: bool(gateway.plane.public.server_state.tasks))
    (connection,) = gateway.plane.public.server_state.connections
    connection.on_body(b"ab")
    connection.on_body(b"c")
    body = connection.cycle.body
    connection.on_body(b"d")
    assert connection.cycle.body is body
    assert body == b"abcd"
    writer.close()


# heads


@pytest.mark.parametrize("more", [b"\r\n", b"GET /v1/models HT"], ids=["a line end", "a head"])
async def test_what_comes_during_an_answer_does_not_cut_it(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch, more: bytes
) -> None:
    """RFC 9112 §2.2 and §9.3.2: an empty line before a request, or its start."""
    engine.gate.clear()
    engine.before_gate = 1
    reader, writer = await connect(gateway.plane.public)
    writer.write(stream(gateway))
    await asyncio.wait_for(engine.arrived.wait(), 5)
    monkeypatch.setattr("overspill.gateway.server.HEAD_SECONDS", 0.1)
    (connection,) = gateway.plane.public.server_state.connections
    writer.write(more)
    await until(lambda: connection._head_bytes > 0)
    await asyncio.sleep(0.3)  # longer than the time of a head
    engine.gate.set()
    assert b"[DONE]" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
    assert engine.left == 0
    if more != b"\r\n":
        assert await all_of(reader) == b"", "now the head has no more time than any"
    writer.close()


async def test_a_head_that_began_during_an_answer_is_answered_after_it(
    gateway: World, engine: Upstream
) -> None:
    engine.gate.clear()
    reader, writer = await connect(gateway.plane.public)
    writer.write(stream(gateway) + stream(gateway)[:40])
    await asyncio.wait_for(engine.arrived.wait(), 5)
    engine.gate.set()
    await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
    writer.write(stream(gateway)[40:])
    assert b"[DONE]" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
    writer.close()


@both_ports
@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # TLS
        b"GET / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000,
    ],
    ids=["tls", "header", "path", "large"],
)
async def test_what_is_no_http_is_refused_in_the_shape_of_the_api(
    gateway: World, port: Callable[[World], Server], sent: bytes
) -> None:
    reader, writer = await connect(port(gateway))
    writer.write(sent)
    head, body = (await all_of(reader)).split(b"\r\n\r\n")
    assert status(head) == 400
    assert b"content-type: application/json" in head
    assert orjson.loads(body)["error"]["code"] == "invalid_http"
    writer.close()


async def test_what_is_no_http_during_an_answer_gets_no_answer_into_it(
    gateway: World, engine: Upstream
) -> None:
    engine.gate.clear()
    engine.before_gate = 1
    reader, writer = await connect(gateway.plane.public)
    writer.write(stream(gateway))
    await asyncio.wait_for(engine.arrived.wait(), 5)
    writer.write(b"\x00\x00\r\n\r\n")
    assert b"HTTP/1.1 400" not in await all_of(reader)
    await asyncio.wait_for(engine.left_event.wait(), 5)
    writer.close()


async def test_who_leaves_with_a_second_request_behind_the_first_leaves_no_trace(
    gateway: World, engine: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    engine.gate.clear()
    engine.before_gate = 1
    reader, writer = await connect(gateway.plane.public)
    writer.write(stream(gateway) * 2)
    await asyncio.wait_for(reader.readuntil(b"Hel"), 5)
    (connection,) = gateway.plane.public.server_state.connections
    writer.transport.abort()
    await until(lambda: not gateway.plane.public.server_state.tasks)
    assert not connection.pass_on(b"what an engine sends just then")
    await asyncio.wait_for(engine.left_event.wait(), 5)
    assert not caplog.records


# how many


@both_ports
async def test_who_opens_many_connections_pushes_out_his_own(
    gateway: World, port: Callable[[World], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.server.MAX_CONNECTIONS", 20)
    server = port(gateway)
    many = [await connect(server) for _ in range(60)]
    await until(lambda: len(server.server_state.connections) <= 20)
    reader, writer = await connect(server)
    writer.write(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
    assert status(await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)) in (401, 404)
    assert len(server.server_state.connections) <= 20
    for _, other in [*many, (reader, writer)]:
        other.transport.abort()


async def test_a_connection_beyond_those_that_are_answered_is_told_so(
    gateway: World, engine: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.server.MAX_CONNECTIONS", 2)
    engine.gate.clear()
    busy = [await connect(gateway.plane.public) for _ in range(2)]
    for _, writer in busy:
        writer.write(stream(gateway))
    await until(lambda: gateway.state.services["team-a/chat"].in_flight == 2)
    reader, writer = await connect(gateway.plane.public)
    head, body = (await all_of(reader)).split(b"\r\n\r\n")
    assert (status(head), orjson.loads(body)["error"]["code"]) == (503, "too_many_connections")
    assert b"retry-after: 1" in head
    engine.gate.set()
    for reader, _ in busy:
        assert b"[DONE]" in await asyncio.wait_for(reader.readuntil(b"0\r\n\r\n"), 5)
    for _, other in [*busy, (reader, writer)]:
        other.close()
