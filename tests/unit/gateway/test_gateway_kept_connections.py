"""Connections to engines that are kept: when a request on one may be sent again."""

import asyncio
import contextlib
from typing import Any

import pytest
from gateway_world import BODY, ONE_SLOT, Upstream, World, read_request, until

from overspill.gateway.errors import ReplicaFailed, StreamBroken
from overspill.gateway.upstream import Pool, host_of

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture
def spec() -> dict[str, Any]:
    return {"engine": ONE_SLOT}


async def keep(pool: Pool, address: tuple[str, int]) -> None:
    """Send a request and take its whole answer: the connection is kept."""
    connection = await pool.send(address, b"/", b"{}", 5.0)
    while await connection.read(5.0):
        pass
    connection.close()


async def test_a_kept_connection_that_the_engine_closes_just_then_costs_nothing(
    gateway: World,
) -> None:
    connections = []

    async def serve_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
            if len(connections) == 1 and writer in served:
                break
            served.append(writer)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n" + b'{"choices":[]}')
        writer.close()

    served: list[asyncio.StreamWriter] = []
    async with await asyncio.start_server(serve_once, "127.0.0.1", 0) as server:
        gateway.replicas(Upstream(address=server.sockets[0].getsockname()))
        for _ in range(2):
            assert (await gateway.post("/v1/chat/completions", BODY))[0] == 200
    assert len(connections) == 2
    (replica,) = gateway.state.services["team-a/chat"].admission.replicas.values()
    assert replica.suspect_until == 0.0


async def test_a_connection_that_ended_after_its_answer_is_not_kept() -> None:
    async def answer_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)
        writer.close()

    pool = Pool(asyncio.get_running_loop())
    async with await asyncio.start_server(answer_and_close, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        connection = await pool.send(address, b"/", b"{}", 5.0)
        # A client that reads slowly keeps us from taking the answer until this has ended.
        await until(lambda: connection.transport is not None and connection.transport.is_closing())
        await asyncio.sleep(0)
        assert await connection.read(5.0) == b"{}"
        assert await connection.read(5.0) == b""
        connection.close()
        assert not pool.idle.get(address)
    pool.close()


async def test_a_request_that_kills_on_a_kept_connection_counts_as_sent() -> None:
    async def die_at_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(ANSWER)
        await read_request(reader)
        server.close()
        writer.close()

    pool = Pool(asyncio.get_running_loop())
    server = await asyncio.start_server(die_at_the_second, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()
    await keep(pool, address)
    with pytest.raises(ReplicaFailed) as info:
        await pool.send(address, b"/", b"{}", 5.0)
    assert info.value.sent
    pool.close()


async def test_a_request_that_a_kept_connection_ends_late_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The engine was at work on it: it would do the same work again."""
    monkeypatch.setattr("overspill.gateway.upstream.STALE_SECONDS", 0.05)
    connections = []

    async def work_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await read_request(reader)
        writer.write(ANSWER)
        await read_request(reader)
        await asyncio.sleep(0.2)
        writer.close()

    pool = Pool(asyncio.get_running_loop())
    async with await asyncio.start_server(work_and_close, "127.0.0.1", 0) as server:
        address = server.sockets[0].getsockname()
        await keep(pool, address)
        with pytest.raises(ReplicaFailed) as info:
            await pool.send(address, b"/", b"{}", 5.0)
    assert info.value.sent
    assert len(connections) == 1
    pool.close()


@pytest.mark.parametrize(
    ("address", "host"),
    [(("10.0.0.7", 8000), b"10.0.0.7:8000"), (("fd00::7", 8000), b"[fd00::7]:8000")],
)
def test_an_ipv6_address_stands_in_brackets(address: tuple[str, int], host: bytes) -> None:
    assert host_of(address) == host


FIELDS = b"".join(b"x-%d: %b\r\n" % (number, b"y" * 1_000) for number in range(2_000))
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + FIELDS + b"content-length: 2\r\n\r\n{}",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000 + ANSWER,
        CHUNKED + b"\r\n2;" + b"x" * 2_000_000 + b"\r\n{}\r\n0\r\n\r\n",
        CHUNKED + b"\r\n2\r\n{}\r\n0\r\n" + FIELDS + b"\r\n",
    ],
    ids=["head", "interim", "extension", "trailers"],
)
async def test_what_is_no_body_of_an_answer_takes_no_memory_without_end(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    pool = Pool(asyncio.get_running_loop())
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        with pytest.raises((ReplicaFailed, StreamBroken), match="too large"):
            await pool.page(server.sockets[0].getsockname(), b"/metrics", 2**20, 5.0)
    pool.close()
