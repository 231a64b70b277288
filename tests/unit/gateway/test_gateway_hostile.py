"""Many who mean ill at once, and requests that two parsers read in two ways."""

import asyncio
import contextlib
import random
from typing import Any

import h11
import orjson
import pytest
from aiohttp import web
from gateway_world import Upstream, World, chat, service, spillover, until, world

from lab.lengths import length
from overspill.api.keys import key_secret, new_key

HALF_OPEN = 2000


def raw(w: World, body: bytes, *more: str) -> bytes:
    head = [f"authorization: Bearer {w.key}", "host: x", *more]
    return "\r\n".join(["POST /v1/chat/completions HTTP/1.1", *head, "", ""]).encode() + body


async def test_thousands_of_half_open_requests_end_and_nobody_else_waits_for_them(
    gateway: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overspill.gateway.server.HEAD_SECONDS", 3.0)
    monkeypatch.setattr("overspill.gateway.app.BODY_SECONDS", 3.0)
    port = gateway.plane.public.port
    halves = [b"POST /v1/chat/compl", raw(gateway, b'{"mod', "content-length: 100")]
    pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(HALF_OPEN)]
    for number, (_, writer) in enumerate(pairs):
        writer.write(halves[number % 2])
    answers = [await chat(gateway, stream=number % 2 == 0) for number in range(20)]
    assert {status for status, _, _ in answers} == {200}
    async with asyncio.timeout(120):
        ends = await asyncio.gather(*(reader.read() for reader, _ in pairs))
    assert {end.split(b"\r\n")[0][:12] for end in ends} == {b"", b"HTTP/1.1 408"}
    await until(lambda: not gateway.plane.public.server_state.connections)
    for _, writer in pairs:
        writer.close()


@pytest.mark.parametrize(
    ("status", "later"),
    [
        (429, "1e9"),
        (529, "-5"),
        (429, "Wed, 21 Oct 2015 07:28:00 GMT"),
        (529, "later"),
        (429, ""),
    ],
)
async def test_when_all_are_overloaded_each_request_asks_each_of_them_once(
    status: int, later: str
) -> None:
    """Retry-After of a provider decides when it is asked again, not what clients are told."""
    headers = {"Retry-After": later}
    async with (
        world(hold=0.3) as w,
        Upstream(status=status, headers=headers).serving() as a,
        Upstream(status=status, headers=headers).serving() as b,
    ):
        w.state.put_service(service(spillover=spillover("a", "b")))
        w.provider(a, "a")
        w.provider(b, "b")
        # Those of the first wave are under way when the first answer comes.
        waves = [await asyncio.gather(*(chat(w) for _ in range(20))) for _ in range(4)]
        told = [answer for wave in waves for answer in wave]
    assert {code for code, _, _ in told} == {503}
    assert all(1 <= int(head["Retry-After"]) <= 60 for _, head, _ in told)
    assert max(len(a.bodies), len(b.bodies)) <= 0.5 * len(told), "20, and a few that probe"
    assert len(a.bodies) + len(b.bodies) <= 1.1 * len(told)


class Echo(Upstream):
    """Says what it was asked."""

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        await asyncio.sleep(random.random() * 0.01)
        said = body["messages"][0]["content"]
        if not body.get("stream"):
            return self._unary(request, body | {"model": said})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in (said[:8], said[8:]):
            chunk = {"choices": [{"index": 0, "delta": {"content": part}}]}
            await response.write(b"data: " + orjson.dumps(chunk) + b"\n\n")
            await asyncio.sleep(0)
        await response.write(b"data: [DONE]\n\n")
        return response


async def test_nobody_gets_an_answer_of_another() -> None:
    """Two tenants, kept connections to engine and cloud, clients that leave, all at once."""
    dice = random.Random(5)
    async with world() as w, Echo().serving() as engine, Echo().serving() as cloud:
        eager = {"objective": {"queueWait": {"p95": "1ms"}}}
        w.state.put_service(service(spillover=spillover(), scaling=eager))
        w.replicas(engine)
        w.provider(cloud)
        other, digest = new_key()
        w.state.keys.put(key_secret("overspill-system", "b", digest, "team-b", ("team-a/*",)))

        async def one(number: int) -> None:
            said, stream = f"canary-{number:09d}-{dice.random()}", number % 2 == 0
            body = {"model": "chat", "stream": stream}
            body["messages"] = [{"role": "user", "content": said}]
            key = {"Authorization": f"Bearer {w.key if number % 3 else other}"}
            asking = asyncio.create_task(w.post("/v1/chat/completions", body, **key))
            if number % 10 == 9:
                await asyncio.sleep(dice.random() * 0.02)
                asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                _, _, answer = await asking
                assert heard(answer, stream) == said

        for start in range(0, length(150, 100_000), 30):
            await asyncio.gather(*(one(number) for number in range(start, start + 30)))


def heard(answer: bytes, stream: bool) -> str:
    if not stream:
        return str(orjson.loads(answer)["model"])
    events = [e.removeprefix(b"data: ") for e in answer.split(b"\n\n") if e.startswith(b"data: {")]
    chunks: list[dict[str, Any]] = [orjson.loads(event) for event in events]
    return "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)


SMUGGLED = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer KEY\r\n\r\n"
LENGTH = f"content-length: {len(SMUGGLED)}"
HEADS = [
    ("content-length: 0", LENGTH),
    (LENGTH, "content-length: 0"),
    (f"content-length: 0, {len(SMUGGLED)}",),
    ("content-length: +0",),
    ("content-length: 0x0",),
    ("content-length : 0",),
    ("content-length:\x0b0",),
    ("content-length: 0", "transfer-encoding: chunked"),
    ("transfer-encoding: chunked", LENGTH),
    ("transfer-encoding: xchunked",),
    ("transfer-encoding: identity, chunked, identity",),
    ("transfer-encoding : chunked",),
    ("transfer-encoding:\n chunked",),
    ("x: y\n" + LENGTH,),
    ("x: y\r" + LENGTH,),
    ("x: \x00", "content-length: 0"),
    (" continued: line", "content-length: 0"),
]
BODIES = [SMUGGLED, b"0\r\n\r\n" + SMUGGLED, b"0;x=\n\r\n\r\n" + SMUGGLED, b"+0\r\n\r\n" + SMUGGLED]


def seen_by_h11(data: bytes) -> int:
    """Return how many requests another strict parser sees."""
    connection, seen = h11.Connection(h11.SERVER), 0
    connection.receive_data(data)
    with contextlib.suppress(h11.RemoteProtocolError):
        while True:
            event = connection.next_event()
            if isinstance(event, h11.EndOfMessage):
                seen += 1
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                if connection.our_state is h11.MUST_CLOSE:
                    break
                connection.start_next_cycle()
            elif event in (h11.NEED_DATA, h11.PAUSED) or isinstance(event, h11.ConnectionClosed):
                break
    return seen


async def test_no_request_hides_in_another(gateway: World, engine: Upstream) -> None:
    """What two parsers read in two ways is refused, or ends its connection.

    https://portswigger.net/web-security/request-smuggling
    """
    for head in HEADS:
        for body in BODIES:
            data = raw(gateway, body, *head).replace(b"KEY", gateway.key.encode())
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.plane.public.port)
            writer.write(data)
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), 30)
            writer.close()
            listed = answer.count(b'"object":"list"')
            assert listed <= max(0, seen_by_h11(data) - 1), (head, body, answer)
    assert engine.bodies == []
