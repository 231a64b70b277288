"""A provider refuses the key, the load, everything, or says nothing: somebody else answers.

Each story is told with a provider that fails and a replica that is busy, then free: before the
first byte the request comes back to the own queue, the reason is in the operator's report and in
the metrics, and the provider is left alone for a while.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
from gateway_world import (
    ONE_SLOT,
    Upstream,
    World,
    chat,
    occupy,
    queued,
    service,
    spillover,
    until,
    world,
)

from overspill.gateway.call import CHAT, parse
from overspill.gateway.dispatch import GENERATION_SECONDS, generation_seconds
from overspill.providers.base import Fault, ProviderUnusable

EAGER = {"objective": {"queueWait": {"p95": "1ms"}}}
QUICK = {"connect": "300ms", "firstByte": "300ms", "idle": "300ms"}


@pytest.fixture
async def gateway() -> AsyncIterator[World]:
    async with world(hold=30.0) as w:
        w.state.put_service(service(engine=ONE_SLOT, scaling=EAGER, spillover=spillover()))
        yield w


# what a provider may do


@dataclass
class Hanging:
    """Accepts connections, says ``head``, and then nothing."""

    head: bytes = b""
    address: tuple[str, int] = ("127.0.0.1", 0)
    asked: int = 0
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.address[1]}/v1"

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Hanging"]:
        async with await asyncio.start_server(self._handle, *self.address) as server:
            self.address = server.sockets[0].getsockname()
            yield self

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        writer.write(self.head)
        while await reader.read(65_536):
            pass
        self.gone.set()
        writer.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
WORD = b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n'


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWERS = [
    # provider's answer, reason reported
    (Upstream(status=401), "KeyRefused"),
    (Upstream(status=403), "KeyRefused"),
    (Upstream(status=429), "RateLimited"),
    (Upstream(status=429, headers={"Retry-After": "1e9"}), "RateLimited"),
    (Upstream(status=429, headers={"Retry-After": "soon"}), "RateLimited"),
    (Upstream(status=500), "ServerError"),
    (Upstream(status=529), "ServerError"),
    (Upstream(error_after=0), "ServerError"),
    (Upstream(break_after=0), "ServerError"),
    (Upstream(status=404), "ModelUnknown"),
    (Upstream(status=302), "UnexpectedAnswer"),
    (Hanging(), "TimedOut"),
    (Hanging(OK), "TimedOut"),
    (Hanging(OK + chunk(ROLE)), "TimedOut"),
]


@pytest.mark.parametrize(("cloud", "reason"), ANSWERS)
async def test_before_the_first_byte_the_own_queue_answers(
    gateway: World, engine: Upstream, cloud: Upstream | Hanging, reason: str
) -> None:
    async with cloud.serving():
        gateway.provider(cloud, timeouts=QUICK)  # type: ignore[arg-type]
        gateway.replicas(engine)
        occupied = await occupy(gateway, engine)
        request = chat(gateway, stream=True)
        await until(lambda: queued(gateway) == 1)
        engine.gate.set()
        status, headers, body = await request
        await occupied
        page = await gateway.metrics()
    assert (status, headers["x-overspill-destination"]) == (200, "local")
    assert body.endswith(b"data: [DONE]\n\n")
    failed = f'overspill_failed_attempts_total{{destination="team-a/cloud",reason="{reason}"'
    assert any(x.startswith(failed) and x.endswith(" 1.0") for x in page.splitlines())


async def test_the_next_provider_answers_within_the_patience_with_the_first(
    gateway: World, engine: Upstream
) -> None:
    async with Hanging().serving() as first, Upstream().serving() as second:
        gateway.state.put_service(service(spillover=spillover("first", "second")))
        gateway.provider(first, "first", timeouts=QUICK)  # type: ignore[arg-type]
        gateway.provider(second, "second")
        _, headers, _ = await asyncio.wait_for(chat(gateway, stream=True), 5)
        await asyncio.wait_for(first.gone.wait(), 5)
    assert headers["x-overspill-destination"] == "team-a/second"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_provider_that_hangs_after_its_first_words_ends_honestly(
    gateway: World, stream: bool
) -> None:
    head = OK + chunk(WORD) if stream else OK.replace(b"text/event-stream", b"application/json")
    async with Hanging(head if stream else head + chunk(b'{"id":')).serving() as cloud:
        gateway.provider(cloud, timeouts=QUICK)  # type: ignore[arg-type]
        status, _, body = await chat(gateway, stream)
        await asyncio.wait_for(cloud.gone.wait(), 5)
    assert status == (200 if stream else 502)
    assert b"[DONE]" not in body
    last = body.split(b"\n\n")[-2].removeprefix(b"data: ") if stream else body
    assert orjson.loads(last)["error"]["code"] == "upstream_broken"


async def test_a_refused_key_is_not_tried_with_every_request(
    gateway: World, engine: Upstream
) -> None:
    engine.gate.clear()
    async with Upstream(status=401).serving() as cloud:
        gateway.provider(cloud)
        tasks = [chat(gateway)]
        await until(lambda: queued(gateway) == 1)
        tasks += [chat(gateway) for _ in range(9)]
        await until(lambda: queued(gateway) == 10)
        assert len(cloud.bodies) == 1
        assert report(gateway) == (False, "KeyRefused")
        gateway.state.set_secret("team-a/cloud", "another", "Ready")  # rotated
        await until(lambda: len(cloud.bodies) > 1)
        cloud.status = 200
        gateway.state.set_secret("team-a/cloud", "the right one", "Ready")
        await until(lambda: report(gateway) == (True, "Ready"))
        gateway.replicas(engine)
        engine.gate.set()
        assert {status for status, _, _ in await asyncio.gather(*tasks)} == {200}


async def test_a_model_that_a_provider_does_not_have_bars_no_other_of_it(
    gateway: World, engine: Upstream
) -> None:
    engine.gate.clear()
    price = {"inputPerMTok": "1", "outputPerMTok": "2"}
    both = [{"name": name, "price": price} for name in ("big-1", "typo-1")]
    mistyped = {"providers": [{"name": "cloud", "model": "typo-1"}]}
    async with Upstream(status=404).serving() as cloud:
        gateway.provider(cloud, models=both)
        gateway.state.put_service(service(spillover=mistyped))
        held = [chat(gateway)]
        await until(lambda: queued(gateway) == 1)
        known = gateway.state.providers["team-a/cloud"]
        assert known.busy_for("big-1", 1, gateway.state.clock()) is None
        known.unknown["typo-1"].until += 60.0
        cloud.status = 200
        gateway.state.put_service(service("other", spillover=spillover()))
        body = {"model": "other", "messages": [{"role": "user", "content": "hi"}]}
        _, headers, _ = await gateway.post("/v1/chat/completions", body)
        assert headers["x-overspill-destination"] == "team-a/cloud"
        held.append(chat(gateway))
        await until(lambda: queued(gateway) == 2)
        assert [sent["model"] for sent in cloud.bodies] == ["typo-1", "big-1"]
        gateway.replicas(engine)
        engine.gate.set()
        assert {status for status, _, _ in await asyncio.gather(*held)} == {200}


async def test_when_nobody_answers_the_error_says_what_the_provider_did() -> None:
    async with world(hold=0.2) as w, Upstream(status=401).serving() as cloud:
        w.state.put_service(service(spillover=spillover()))
        w.provider(cloud)
        status, _, body = await chat(w)
    assert (status, orjson.loads(body)["error"]["code"]) == (503, "no_replica_ready")
    assert b"team-a/cloud: the API key was refused (401)" in body


def report(w: World) -> tuple[bool, str]:
    told = orjson.loads(w.plane.demand.report())["providers"]["team-a/cloud"]
    return told["ready"], told["reason"]


async def test_after_a_rest_one_request_probes_and_the_others_follow_its_success(
    gateway: World, engine: Upstream
) -> None:
    engine.gate.clear()
    async with Upstream(status=500).serving() as cloud:
        gateway.provider(cloud)
        tasks = [chat(gateway, stream=True) for _ in range(5)]
        await until(lambda: len(cloud.bodies) == 5 and queued(gateway) == 5)
        cloud.status, cloud.before_gate = 200, 1
        cloud.gate.clear()
        tasks += [chat(gateway, stream=True) for _ in range(3)]
        breaker = gateway.state.providers["team-a/cloud"].breaker
        await until(lambda: len(cloud.bodies) == 8)  # one probed, and its first word let two go
        assert not breaker.half_open
        cloud.gate.set()
        gateway.replicas(engine)
        engine.gate.set()
        assert {status for status, _, _ in await asyncio.gather(*tasks)} == {200}


async def test_while_one_probes_nobody_else_does_and_one_that_leaves_hands_it_on(
    gateway: World, engine: Upstream
) -> None:
    async with Upstream().serving() as cloud:
        gateway.provider(cloud)
        breaker = gateway.state.providers["team-a/cloud"].breaker
        now = gateway.state.clock()
        breaker.failed(ProviderUnusable(Fault.SERVER_ERROR, "500"), now, now)
        breaker.until = now  # it has rested
        cloud.gate.clear()
        probe = chat(gateway)
        await until(lambda: len(cloud.bodies) == 1)
        others = [chat(gateway) for _ in range(3)]
        await until(lambda: queued(gateway) == 3)
        why = gateway.state.providers["team-a/cloud"].busy_for("big-1", 1, gateway.state.clock())
        assert why is not None
        assert why[0] == "another request tries whether it answers again, after: 500"
        assert len(cloud.bodies) == 1
        probe.cancel()
        await until(lambda: len(cloud.bodies) == 2 and queued(gateway) == 2)
        cloud.gate.set()
        assert {status for status, _, _ in await asyncio.gather(*others)} == {200}
        assert len(cloud.bodies) == 4
        assert not breaker.half_open


async def test_when_a_probe_fails_those_who_wait_for_it_learn_of_the_rest(gateway: World) -> None:
    async with Upstream(break_after=0).serving() as cloud:
        gateway.provider(cloud)
        known = gateway.state.providers["team-a/cloud"]
        now = gateway.state.clock()
        known.breaker.failed(ProviderUnusable(Fault.SERVER_ERROR, "500"), now, now)
        known.breaker.until = now  # it has rested
        cloud.gate.clear()
        tasks = [chat(gateway) for _ in range(3)]
        await until(lambda: len(cloud.bodies) == 1 and queued(gateway) == 2)
        waiting = list(gateway.state.services["team-a/chat"].admission.waiting)
        told = [asyncio.create_task(_recheck_of(ticket)) for ticket in waiting]
        await asyncio.sleep(0)
        cloud.gate.set()
        await asyncio.wait_for(asyncio.gather(*told), 5)
        for task in tasks:
            task.cancel()


async def _recheck_of(ticket: Any) -> None:
    """Wait until somebody lets it decide again."""
    told = asyncio.Event()
    ticket.recheck = told.set
    await told.wait()


@pytest.mark.parametrize(
    ("more", "seconds"),
    [
        ({}, GENERATION_SECONDS),
        ({"max_tokens": 100}, 20.0),
        ({"max_tokens": 10, "max_completion_tokens": 50, "n": 2}, 20.0),
        ({"max_tokens": 1_000_000}, GENERATION_SECONDS),
    ],
)
def test_patience_with_a_whole_answer_follows_its_length(
    more: dict[str, int], seconds: float
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], **more}
    assert generation_seconds(parse(CHAT, orjson.dumps(body))) == seconds
