"""The pods' one way out: what it lets through, what it refuses, and that `down` ends it."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import relay
from localcluster import layout, outside, processes


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1024):
        writer.write(data)
    writer.close()


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[int, str]]:
    """A relay to an echo server; yields the relay's port and its target."""
    async with await asyncio.start_server(echo, "127.0.0.1", 0) as there:
        target = f"127.0.0.1:{port_of(there)}"
        async with await relay.start("127.0.0.1", 0, target) as server:
            yield port_of(server), target


async def ask(port: int, request: str) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    line = (await reader.readline()).decode().strip()
    return line, reader, writer


async def test_bytes_go_both_ways_to_the_target() -> None:
    async with relayed() as (port, target):
        line, reader, writer = await ask(port, f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert line == "HTTP/1.1 200 Connection established"
        assert await reader.readline() == b"\r\n"
        for word in (b"hello", b"x" * 1000):
            writer.write(word)
            assert await reader.readexactly(len(word)) == word
        writer.close()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("CONNECT 127.0.0.1:1 HTTP/1.1", "403 Forbidden"),
        ("CONNECT {target}.evil.test:443 HTTP/1.1", "403 Forbidden"),
        ("CONNECT me@{target} HTTP/1.1", "403 Forbidden"),
        ("CONNECT  {target} HTTP/1.1", "405 Method Not Allowed"),
        ("GET http://{target}/ HTTP/1.1", "405 Method Not Allowed"),
        ("junk", "405 Method Not Allowed"),
    ],
)
async def test_nothing_else_is_reached(request_line: str, status: str) -> None:
    async with relayed() as (port, target):
        line, _, writer = await ask(port, request_line.format(target=target) + "\r\n\r\n")
        writer.close()
    assert line == f"HTTP/1.1 {status}"


async def test_a_target_that_is_away_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = f"127.0.0.1:{free.getsockname()[1]}"
    async with await relay.start("127.0.0.1", 0, target) as server:
        line, _, writer = await ask(port_of(server), f"CONNECT {target} HTTP/1.1\r\n\r\n")
        writer.close()
    assert line == "HTTP/1.1 502 Bad Gateway"


async def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "MAX_TUNNELS", 2)
    async with relayed() as (port, target):
        opened = [await ask(port, f"CONNECT {target} HTTP/1.1\r\n\r\n") for _ in range(3)]
        assert [line.split()[1] for line, *_ in opened] == ["200", "200", "503"]
        for _, reader, writer in opened:
            writer.write_eof()  # the relay ends the tunnel
            await reader.read()
            writer.close()
        line, _, writer = await ask(port, f"CONNECT {target} HTTP/1.1\r\n\r\n")
        assert line.split()[1] == "200"
        writer.close()


async def test_a_long_head_is_cut() -> None:
    async with relayed() as (port, _):
        line, _, writer = await ask(port, "CONNECT " + "y" * 9000)
        writer.close()
    assert line == ""


def test_the_relay_outlives_the_command_and_ends_with_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RUN", "LOGS", "STATE"):
        monkeypatch.setattr(layout, name, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def pid() -> int:
        found = processes.recorded(outside.relay(""))
        return found[0].pid if found else 0

    try:
        for target, same in (("a.test:443", False), ("a.test:443", True), ("b.test:443", False)):
            before = pid()
            outside.ensure(outside.relay(target, "127.0.0.1", port))
            assert (pid() == before) is same
        assert processes.inspect(pid()).argv[0] == sys.executable  # type: ignore[union-attr]
    finally:
        outside.close()
    assert pid() == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    outside.close()  # harmless
