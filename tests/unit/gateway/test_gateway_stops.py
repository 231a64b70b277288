"""The gateway stops: what is under way ends as it should, and nothing new is lost."""

import asyncio

import aiohttp
import orjson
import pytest
from gateway_world import BODY, Upstream, service, until, world


async def test_streams_end_when_the_gateway_stops(engine: Upstream) -> None:
    async with world(drain=30.0) as w:
        w.state.put_service(service())
        w.replicas(engine)
        engine.gate.clear()
        engine.before_gate = 2
        request = asyncio.create_task(w.post("/v1/chat/completions", BODY | {"stream": True}))
        await asyncio.wait_for(engine.arrived.wait(), 5)
        url = w.url  # a port that listens no more tells no number
        w.stop.set()
        await until(lambda: w.plane.public.should_exit)
        async with aiohttp.ClientSession() as session:
            answer = await session.get(f"{w.internal_url}/readyz")
            assert answer.status == 503
            with pytest.raises(aiohttp.ClientConnectionError):
                await until_refused(session, url)
        engine.gate.set()
        status, _, body = await request
        assert status == 200
        assert body.endswith(b"data: [DONE]\n\n")
        assert engine.left == 0
        await asyncio.wait_for(w.task, 5)


async def test_a_client_that_asks_again_while_the_gateway_stops_is_answered(
    engine: Upstream,
) -> None:
    """The head of its stream did not say that the connection would end."""
    async with world(drain=30.0) as w, aiohttp.ClientSession() as session:
        w.state.put_service(service())
        w.replicas(engine)
        engine.gate.clear()
        engine.before_gate = 2
        url, headers = f"{w.url}/v1/chat/completions", {"Authorization": f"Bearer {w.key}"}
        stream = await session.post(url, json=BODY | {"stream": True}, headers=headers)
        w.stop.set()
        await until(lambda: not w.plane.public.servers[0].is_serving())
        engine.gate.set()
        assert (await stream.read()).endswith(b"data: [DONE]\n\n")
        again = await session.post(url, json=BODY, headers=headers)
        assert (again.status, again.headers["Connection"]) == (200, "close")
        await again.read()
        await asyncio.wait_for(w.task, 5)


async def test_the_last_answer_of_a_connection_ends_it(engine: Upstream) -> None:
    """Who reads to the end, as RFC 9112 §9.6 allows, does not wait for the door to close."""
    async with world() as w:
        w.state.put_service(service())
        w.replicas(engine)
        w.plane.gateway.closing = True  # its readiness fails, but it still listens
        body = orjson.dumps(BODY)
        reader, writer = await asyncio.open_connection("127.0.0.1", w.plane.public.port)
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        writer.write(b"authorization: Bearer %b\r\ncontent-length: " % w.key.encode())
        writer.write(b"%d\r\n\r\n%b" % (len(body), body))
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.count(b"connection: close\r\n") == 1


async def until_refused(session: aiohttp.ClientSession, url: str) -> None:
    async with asyncio.timeout(5):
        while True:
            await session.get(url, headers={"connection": "close"})


async def test_what_outlasts_the_drain_time_ends_with_an_error(engine: Upstream) -> None:
    async with world(drain=1.0) as w:
        w.state.put_service(service())
        w.replicas(engine)
        engine.gate.clear()
        engine.before_gate = 2
        request = asyncio.create_task(w.post("/v1/chat/completions", BODY | {"stream": True}))
        await asyncio.wait_for(engine.arrived.wait(), 5)
        w.stop.set()
        _, _, body = await request
        assert b'"code":"shutting_down"' in body
        assert b"[DONE]" not in body
        await asyncio.wait_for(w.task, 5)
