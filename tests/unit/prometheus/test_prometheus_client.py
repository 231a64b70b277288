"""The client against servers that misbehave: each fault is one kind of PrometheusUnavailable."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest
from aiohttp import web

from overspill.prometheus.client import PrometheusClient, PrometheusUnavailable
from overspill.prometheus.queries import SIGNALS
from overspill.prometheus.samples import Missing, parse


def series(value: str, **labels: str) -> dict[str, object]:
    return {"metric": labels, "value": [1700000000.0, value]}


NAMED = {"service_namespace": "a", "service_name": "chat"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        ("NaN", Missing.NOT_A_NUMBER),
        ("+Inf", Missing.NOT_A_NUMBER),
        ("-Inf", Missing.NOT_A_NUMBER),
        ("-1", Missing.NOT_A_NUMBER),
        ("1e300", Missing.NOT_A_NUMBER),
        ("1e-300", 1e-300),
    ],
)
def test_zero_nan_and_infinity_are_told_apart(text, expected):
    assert parse([series(text, **NAMED)]) == {"a/chat": expected}


def test_no_series_is_no_entry_and_foreign_series_are_left_out():
    assert parse([]) == {}
    assert parse([series("1"), series("2", job="x"), series("3", service_name="chat")]) == {}


@asynccontextmanager
async def answering(status: int = 200, body: str = "", delay: float = 0.0) -> AsyncIterator[str]:
    async def answer(request: web.Request) -> web.Response:
        await asyncio.sleep(delay)
        return web.Response(status=status, text=body, content_type="application/json")

    app = web.Application()
    app.router.add_get("/api/v1/query", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://user:secret@127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


GOOD = '{"status": "success", "data": {"resultType": "vector", "result": []}}'


async def test_an_empty_answer_is_an_answer():
    async with answering(body=GOOD) as url:
        with closing(PrometheusClient(url)) as client:
            assert await client.query("up") == {}


@pytest.mark.parametrize(
    ("status", "body", "text", "retry"),
    [
        (400, '{"status":"error","error":"parse error"}', "refused the query", False),
        (422, "{}", "refused the query", False),
        (503, "starting", "not ready: HTTP 503", True),
        (429, "slow down", "not ready: HTTP 429", True),
        (200, "<html>login</html>", "no usable answer", False),
        (200, '{"status": "success"}', "no usable answer", False),
        (200, '{"data": {"result": [{"metric": {}}]}}', "no usable answer", False),
        (200, '{"data": {"result": 5}}', "no usable answer", False),
        (200, "[]", "no usable answer", False),
        (200, "[" * 100_000, "no usable answer", False),
    ],
)
async def test_faults_are_named(status, body, text, retry):
    body = body.replace('"metric": {}', '"metric": {"service_namespace":"a","service_name":"b"}')
    async with answering(status, body) as url:
        with (
            closing(PrometheusClient(url)) as client,
            pytest.raises(PrometheusUnavailable, match=text) as caught,
        ):
            await client.query("up")
    assert caught.value.retry is retry
    assert "secret" not in str(caught.value)


async def test_a_slow_answer_costs_the_timeout_and_no_more():
    async with answering(body=GOOD, delay=30) as url:
        with closing(PrometheusClient(url, timeout=0.2)) as client:
            started = time.monotonic()
            with pytest.raises(PrometheusUnavailable) as caught:
                await client.query("up")
            assert time.monotonic() - started < 5
            assert caught.value.retry


async def test_a_slow_prometheus_has_time_for_all_signals_at_once():
    """Each query takes a third of the time that it may; none is lost waiting for the others."""
    async with answering(body=GOOD, delay=1.0) as url:
        with closing(PrometheusClient(url, timeout=3.2)) as client:
            assert await asyncio.gather(*(client.query(q) for q in SIGNALS.values()))


async def test_a_closed_port_is_named_without_the_password():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with (
        closing(PrometheusClient(f"http://user:secret@127.0.0.1:{port}")) as client,
        pytest.raises(PrometheusUnavailable, match="cannot be reached") as caught,
    ):
        await client.query("up")
    assert caught.value.retry
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [("", "no Prometheus is configured"), ("prometheus:9090", "no usable answer: Invalid")],
)
async def test_a_wrong_address_is_said_so(url, text):
    with (
        closing(PrometheusClient(url)) as client,
        pytest.raises(PrometheusUnavailable, match=text) as caught,
    ):
        await client.query("up")
    assert not caught.value.retry
