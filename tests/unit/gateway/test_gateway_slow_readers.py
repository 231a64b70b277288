"""Clients that read a byte a second hold little of the gateway's memory, and nobody else up.

RELIABILITY row 14; in full with `make fuzz-hostile`.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
from gateway_world import BODY, Upstream, World, endpoint_slice, service, until, world

from lab.lengths import LONG, length

CLIENTS = length(5, 500)
KEPT = 256 * 1024  # bytes for each of them, at most
ASKED = 300  # requests of others, for a p99


@asynccontextmanager
async def slow_readers(w: World) -> AsyncIterator[list[socket.socket]]:
    """Ask for streams, and read a byte of each every second."""
    loop, readers = asyncio.get_running_loop(), list[socket.socket]()
    body = orjson.dumps(BODY | {"stream": True})
    head = f"authorization: Bearer {w.key}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    for _ in range(CLIENTS):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", w.plane.public.port))
        await loop.sock_sendall(client, b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + head)
        await loop.sock_sendall(client, body)
        readers.append(client)

    async def read() -> None:
        while True:
            for client in readers:
                with contextlib.suppress(BlockingIOError):
                    client.recv(1)
            await asyncio.sleep(1)

    reading = asyncio.create_task(read())
    try:
        yield readers
    finally:
        reading.cancel()
        for client in readers:
            client.close()


async def p99_of_first_tokens(w: World) -> float:
    """Seconds until the first token of quick streams, one after the other."""
    taken = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {w.key}"}) as session:
        for _ in range(length(5, ASKED)):
            began = time.perf_counter()
            asked = {"model": "quick", "messages": BODY["messages"], "stream": True}
            async with session.post(f"{w.url}/v1/chat/completions", json=asked) as answer:
                first = await answer.content.readany()
                taken.append(time.perf_counter() - began)
                assert (first + await answer.read()).endswith(b"data: [DONE]\n\n")
    return sorted(taken)[len(taken) * 99 // 100]


async def test_who_reads_slowly_holds_little_memory_and_nobody_up() -> None:
    long_answer = Upstream(words=["x" * 50_000] * 200)
    async with world() as w, long_answer.serving() as engine, Upstream().serving() as quick:
        w.state.put_service(service(engine={"batching": {"maxSequences": 1024}}))
        w.state.put_service(service("quick"))
        slices = [endpoint_slice(engine.address), endpoint_slice(quick.address, name="quick")]
        w.state.replace_slices(slices)
        pool, public = w.plane.gateway.dispatcher.pool, w.plane.public
        before = await p99_of_first_tokens(w)
        async with slow_readers(w):
            await until(lambda: sum(c.paused for c in pool.busy) == CLIENTS, 120)
            writing = [c.transport.get_write_buffer_size() for c in public.server_state.connections]
            assert max(writing) + max(c.size for c in pool.busy) <= KEPT
            kernels = [
                c.transport.get_extra_info("socket") for c in public.server_state.connections
            ]
            assert max(_send_buffer(s) for s in kernels) <= KEPT
            beside = await p99_of_first_tokens(w)
        await until(lambda: w.state.services["team-a/chat"].in_flight == 0)
    assert beside <= 1.1 * before or not LONG


def _send_buffer(connection: socket.socket) -> int:
    """Bytes that the kernel takes for a client that does not read; the pod's memory, too."""
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
