"""What was made cheaper does what it did: log line, an answer's writes, the pieces of a stream."""

import asyncio
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from gateway_world import BODY, World
from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.gateway.errors import StreamBroken
from overspill.gateway.server import Beginning
from overspill.gateway.upstream import Pool, UpstreamConnection

PROGRAM = """
import structlog
from overspill import logs
logs.configure({level!r})
fields = {{"id": "é", "wait": None, "stream": False, "seconds": 0.25}}
structlog.get_logger("x").info("request", **fields)
logs.info("request", fields)
"""


@pytest.mark.parametrize(("level", "lines"), [("debug", 2), ("info", 2), ("warning", 0)])
def test_the_line_of_a_request_is_as_structlog_writes_it(level: str, lines: int) -> None:
    command = [sys.executable, "-c", PROGRAM.format(level=level)]
    run = subprocess.run(command, capture_output=True, check=True, timeout=60)
    found = [orjson.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == lines
    for theirs, ours in [found] if found else []:
        times = theirs.pop("timestamp"), ours.pop("timestamp")
        assert list(theirs.items()) == list(ours.items())
        assert all(time.endswith("Z") and len(time) in (20, 27) for time in times)


class Transport:
    """Remembers what is done with it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def is_closing(self) -> bool:
        return "closed" in self.done

    def close(self) -> None:
        self.done.append("closed")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([b"head", b"body"], [b"headbody"]),
        ([b"head", b"", b"chunk", b"chunk"], [b"head", b"chunk", b"chunk"]),
        ([b"head", None], [b"head", "closed"]),
        ([None], ["closed"]),
        ([b"head", b"body", None], [b"headbody", "closed"]),
    ],
)
def test_head_and_first_body_are_one_write(messages: list[bytes | None], expected: Any) -> None:
    """None: the connection is closed."""
    transport = Transport()
    cycle = SimpleNamespace()
    cycle.transport = Beginning(cycle, transport)  # type: ignore[arg-type]
    for message in messages:
        if message is None:
            cycle.transport.close()
        else:
            cycle.transport.write(message)
    assert transport.done == expected
    assert cycle.transport.is_closing() == (None in messages)


BODY_OF_A_STREAM = b"".join(b"data: %d\n\n" % number for number in range(40))
STREAM = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(
    b"%x\r\n%b\r\n" % (len(part), part)
    for part in (BODY_OF_A_STREAM[at : at + 50] for at in range(0, len(BODY_OF_A_STREAM), 50))
)
END = b"0\r\n\r\n"


async def poured(pieces: list[bytes], refused: set[int], *, ends: bool) -> tuple[bytes, str]:
    """Return what a reader gets that pours, and reads where that was refused; and how it ended."""
    pool = Pool(asyncio.get_running_loop())
    connection = UpstreamConnection(pool, ("x", 1))
    got: list[bytes] = []

    def take(data: bytes) -> bool:
        got.append(data)
        return len(got) not in refused

    async def read() -> str:
        try:
            while data := await connection.read(5.0):
                got.append(data)
                await connection.pour(take, 5.0)
        except StreamBroken as error:
            return str(error)
        return "whole"

    reading = asyncio.create_task(read())
    for number, piece in enumerate(pieces):
        connection.data_received(piece)
        if number % 3 == 0:
            await asyncio.sleep(0)
    if not ends:
        connection.connection_lost(None)
    how = await asyncio.wait_for(reading, 5)
    pool.close()
    return b"".join(got), how


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 90), min_size=1), st.sets(st.integers(1, 40)), st.booleans())
def test_a_stream_that_is_poured_is_whole_or_broken_as_one_that_is_read(
    sizes: list[int], refused: set[int], ends: bool
) -> None:
    data, pieces, at = STREAM + (END if ends else b""), [], 0
    while at < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[at : at + size])
        at += size
    got, how = asyncio.run(poured(pieces, refused, ends=ends))
    assert got == BODY_OF_A_STREAM
    assert how == ("whole" if ends else "the engine closed the connection")


async def test_an_answer_past_asgi_is_the_same_and_keeps_its_place(gateway: World) -> None:
    """Of three at once the last asks for the end of the connection, and goes the long way."""
    body = orjson.dumps(BODY)
    head = f"authorization: Bearer {gateway.key}\r\ncontent-length: {len(body)}\r\n"
    start = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head.encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
    writer.write((start + b"\r\n" + body) * 2 + start + b"connection: close\r\n\r\n" + body)
    answers = (await asyncio.wait_for(reader.read(), 5)).split(b"HTTP/1.1 200 OK\r\n")[1:]
    writer.close()
    assert len(answers) == 3
    heads, bodies = zip(*(answer.split(b"\r\n\r\n") for answer in answers), strict=True)
    lines = [[line for line in found.split(b"\r\n") if b"-id: " not in line] for found in heads]
    assert lines[0] == lines[1]
    assert sorted([*lines[0], b"connection: close"]) == sorted(lines[2])
    assert bodies[0] == bodies[2]
