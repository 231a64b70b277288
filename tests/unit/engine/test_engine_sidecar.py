"""`overspill-engine drain` beside a real metrics server: when it answers."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable

import pytest

NEVER = "9999"
Reply = Callable[[], bytes]


def page(running: int, waiting: int) -> bytes:
    body = f'e_running{{model="a"}} {running}\ne_waiting {waiting}\n'
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


class Engine:
    """A metrics page that a test changes, and how often it was looked at."""

    def __init__(self) -> None:
        self.reply = page(0, 0)
        self.looks = 0
        self._changed = asyncio.Condition()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        async with self._changed:
            self.looks += 1
            self._changed.notify_all()
        writer.write(self.reply)
        await writer.drain()
        writer.close()

    async def seen(self, looks: int) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: self.looks >= looks)


class Sidecar:
    """One running `overspill-engine drain`."""

    def __init__(self, port: int, process: asyncio.subprocess.Process) -> None:
        self.port = port
        self.process = process

    async def get(self, path: str, method: str = "GET") -> bytes:
        """The status line of an answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: pod\r\n\r\n".encode())
        line = await asyncio.wait_for(reader.readline(), 20)
        writer.close()
        return line.strip()


@pytest.fixture
async def engine() -> Engine:
    return Engine()


@pytest.fixture
async def start(engine: Engine) -> AsyncIterator[Callable[..., "asyncio.Future[Sidecar]"]]:
    server = await asyncio.start_server(engine.answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/metrics"
    started: list[asyncio.subprocess.Process] = []

    async def run(seconds: str, url: str = url) -> Sidecar:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "overspill.engine.main", "drain", "--metrics", url),
            *("--running", "e_running", "--waiting", "e_waiting", "--port", str(port)),
            env={
                **os.environ,
                "OVERSPILL_DRAIN_SECONDS": seconds,
                "OVERSPILL_DRAIN_DELAY": "0",
                "http_proxy": "http://127.0.0.1:1",  # where nobody is: not the way to the engine
            },
            stdout=asyncio.subprocess.PIPE,
        )
        started.append(process)
        assert process.stdout is not None
        assert b"ready to drain" in await asyncio.wait_for(process.stdout.readline(), 20)
        return Sidecar(port, process)

    yield run  # type: ignore[misc]
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()
    server.close()


async def test_it_answers_when_nothing_runs_or_waits(
    engine: Engine, start: Callable[..., "asyncio.Future[Sidecar]"]
) -> None:
    engine.reply = page(1, 2)
    sidecar = await start(NEVER)
    answers = [asyncio.ensure_future(sidecar.get("/drain")) for _ in range(2)]
    await engine.seen(3)
    assert await sidecar.get("/health") == b"HTTP/1.1 200 OK"
    assert not any(answer.done() for answer in answers)
    engine.reply = page(0, 1)
    await engine.seen(engine.looks + 4)
    assert not any(answer.done() for answer in answers)
    engine.reply = page(0, 0)
    assert await asyncio.gather(*answers) == [b"HTTP/1.1 200 OK"] * 2


@pytest.mark.parametrize("reply", [page(1, 0), b"HTTP/1.1 500 x\r\n\r\n", b"nonsense\r\n\r\n"])
async def test_it_answers_when_its_time_is_up(
    engine: Engine, start: Callable[..., "asyncio.Future[Sidecar]"], reply: bytes
) -> None:
    engine.reply = reply
    sidecar = await start("0.3")
    assert await sidecar.get("/drain") == b"HTTP/1.1 200 OK"


async def test_an_engine_that_is_unavailable_may_have_requests(
    engine: Engine, start: Callable[..., "asyncio.Future[Sidecar]"]
) -> None:
    engine.reply = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    sidecar = await start(NEVER)
    answer = asyncio.ensure_future(sidecar.get("/drain"))
    await engine.seen(5)
    assert not answer.done()
    engine.reply = page(0, 0)
    assert await answer == b"HTTP/1.1 200 OK"


async def test_who_asked_before_does_not_shorten_the_wait(
    engine: Engine, start: Callable[..., "asyncio.Future[Sidecar]"]
) -> None:
    sidecar = await start(NEVER)
    assert await sidecar.get("/drain") == b"HTTP/1.1 200 OK"
    engine.reply = page(1, 0)
    answer = asyncio.ensure_future(sidecar.get("/drain"))
    await engine.seen(engine.looks + 4)
    assert not answer.done()
    engine.reply = page(0, 0)
    assert await answer == b"HTTP/1.1 200 OK"


async def test_an_engine_that_is_gone_has_no_requests(
    start: Callable[..., "asyncio.Future[Sidecar]"],
) -> None:
    sidecar = await start(NEVER, "http://127.0.0.1:1/metrics")
    assert await sidecar.get("/drain") == b"HTTP/1.1 200 OK"


async def test_other_requests_and_its_end(
    start: Callable[..., "asyncio.Future[Sidecar]"],
) -> None:
    sidecar = await start(NEVER)
    assert await sidecar.get("/") == b"HTTP/1.1 404 Not Found"
    assert await sidecar.get("/drain", "POST") == b"HTTP/1.1 404 Not Found"
    assert await sidecar.get("/" + "x" * 20_000) == b"HTTP/1.1 400 Bad Request"
    sidecar.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(sidecar.process.wait(), 20) == 0
