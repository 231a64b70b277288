"""The demand streams, over real loopback connections."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from demand_server import TOKEN, DemandServer, until

from overspill.autoscaler.gateways import (
    RATE_WINDOW,
    SILENCE,
    Gateways,
    Report,
    ServiceReport,
    Voice,
)

KEY = "team-a/chat"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for gateways and reconnect sooner than in life."""
    monkeypatch.setattr("overspill.autoscaler.gateways.RESCAN", 0.02)
    monkeypatch.setattr("overspill.autoscaler.gateways.backoff", lambda *_, **__: 0.02)


class Hands:
    """A clock that a test turns."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def listening(
    tmp_path: Path, servers: list[DemandServer], clock: Callable[[], float]
) -> AsyncIterator[tuple[Gateways, list[str]]]:
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    held: list[str] = []
    gateways = Gateways(
        lambda: [s.address for s in servers], token, clock=clock, on_held=held.append
    )
    task = asyncio.create_task(gateways.run())
    try:
        yield gateways, held
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_counts_of_two_gateways_are_summed(tmp_path):
    async with DemandServer("gw-1") as one, DemandServer("gw-2") as two:
        clock = Hands()
        async with listening(tmp_path, [one, two], clock) as (gateways, _):
            assert gateways.demand(KEY) is None, "nobody has spoken"
            await one.say({KEY: {"arrivals": 3, "queued": 2, "in_flight": 4, "wait_p95": 0.4}})
            await until(lambda: gateways.demand(KEY))
            assert not gateways.demand(KEY).complete, "one gateway is silent"
            await two.say({KEY: {"arrivals": 5, "in_flight": 1, "spilled_in_flight": 2}})
            await until(lambda: gateways.demand(KEY).complete)
            demand = gateways.demand(KEY)
            assert (demand.queued, demand.in_flight, demand.spilled_in_flight) == (2, 5, 2)
            assert demand.wait_p95 == 0.4
            clock.now += 2
            await one.say({KEY: {"arrivals": 13}})
            await two.say({KEY: {"arrivals": 6}})
            await until(lambda: gateways.demand(KEY).arrivals_rate > 5)
            assert gateways.demand(KEY).arrivals_rate == pytest.approx(5.5)
            other = gateways.demand("team-b/unused")
            assert (other.queued, other.arrivals_rate, other.complete) == (0, 0, True)


async def test_a_held_request_is_told_at_once(tmp_path):
    async with DemandServer() as server, listening(tmp_path, [server], Hands()) as (_, held):
        await server.say({KEY: {"arrivals": 1, "queued": 1, "held": 1}})
        await until(lambda: held)
        assert held == [KEY]


async def test_a_silent_gateway_does_not_count(tmp_path):
    async with DemandServer() as server:
        clock = Hands()
        async with listening(tmp_path, [server], clock) as (gateways, _):
            await server.say({KEY: {"arrivals": 1}}, {"p/openai": {"ready": True, "reason": "R"}})
            await until(lambda: gateways.demand(KEY))
            clock.now += SILENCE + 0.1
            assert gateways.demand(KEY) is None
            assert gateways.providers() == {}


async def test_a_broken_stream_is_opened_again(tmp_path):
    async with DemandServer() as server, listening(tmp_path, [server], Hands()) as (gateways, _):
        await server.say({KEY: {"arrivals": 1}})
        await until(lambda: gateways.demand(KEY))
        await server.hang_up()
        await server.say({KEY: {"arrivals": 2, "in_flight": 9}})
        await until(lambda: gateways.demand(KEY).in_flight == 9)
        assert server.connections == 2


@pytest.mark.parametrize(
    "line",
    [
        b"no json\n",
        b'{"services": {}}\n',
        b'{"instance": "a", "services": {"x": {"arrivals": -1}}}\n',
        b'{"instance": "a", "services": {"x": {"arrivals": 1, "wait_p95": NaN}}}\n',
    ],
)
async def test_nonsense_is_not_believed_and_the_stream_opened_again(tmp_path, line):
    async with DemandServer() as server, listening(tmp_path, [server], Hands()) as (gateways, _):
        await server.send(line)
        await until(lambda: server.connections == 2)
        assert gateways.demand(KEY) is None


async def test_a_refused_token_is_tried_again_and_read_anew(tmp_path):
    async with DemandServer() as server:
        server.refuse = True
        async with listening(tmp_path, [server], Hands()) as (gateways, _):
            await until(lambda: server.connections)
            server.refuse = False
            await server.say({KEY: {"arrivals": 1}})
            await until(lambda: gateways.demand(KEY))


async def test_gateways_come_and_go(tmp_path):
    async with DemandServer("gw-1") as one, DemandServer("gw-2") as two:
        servers = [one]
        async with listening(tmp_path, servers, Hands()) as (gateways, _):
            await one.say({KEY: {"arrivals": 1, "in_flight": 1}})
            await until(lambda: gateways.demand(KEY))
            servers[:] = [two]
            await two.say({KEY: {"arrivals": 1, "in_flight": 5}})
            await until(lambda: gateways.demand(KEY) and gateways.demand(KEY).in_flight == 5)
            assert gateways.demand(KEY).complete


async def test_gateways_that_went_between_two_runs_are_forgotten(tmp_path):
    """A leader that comes back does not wait for gateways that are gone."""
    async with DemandServer("gw-1") as one, DemandServer("gw-2") as two:
        servers, clock = [one], Hands()
        async with listening(tmp_path, servers, clock) as (gateways, _):
            await one.say({KEY: {"arrivals": 1}})
            await until(lambda: gateways.demand(KEY))
        servers[:] = [two]
        clock.now += SILENCE + 1
        again = asyncio.create_task(gateways.run())
        await two.say({KEY: {"arrivals": 1, "in_flight": 5}})
        await until(lambda: gateways.demand(KEY) and gateways.demand(KEY).in_flight == 5)
        assert gateways.demand(KEY).complete
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)


async def test_a_stream_outlives_a_fault_of_ours(tmp_path):
    async with DemandServer() as server, listening(tmp_path, [server], Hands()) as (gateways, _):

        def fault(key: str) -> None:
            raise KeyError(key)

        gateways._on_held = fault
        await server.say({KEY: {"arrivals": 1, "held": 1}})
        await until(lambda: server.connections == 2)


async def test_a_large_report_fits(tmp_path):
    services = {
        f"team-{i:04}/a-service-with-a-long-name-{i:04}": {"arrivals": i} for i in range(5000)
    }
    async with DemandServer() as server, listening(tmp_path, [server], Hands()) as (gateways, _):
        await server.say(services)
        await until(lambda: gateways.demand(KEY))


async def test_a_provider_is_ready_where_one_gateway_says_so(tmp_path):
    missing = {"ready": False, "reason": "SecretNotFound", "message": "create it"}
    ready = {"ready": True, "reason": "Ready"}
    async with (
        DemandServer("gw-1") as one,
        DemandServer("gw-2") as two,
        listening(tmp_path, [one, two], Hands()) as (gateways, _),
    ):
        await one.say({}, {"p/a": missing | {"unknown_models": ["typo"]}, "p/b": missing})
        await two.say({}, {"p/a": ready, "p/b": missing})
        await until(lambda: len(gateways.providers()) == 2 and gateways.demand(KEY).complete)
        assert gateways.providers()["p/a"].ready
        assert gateways.providers()["p/a"].unknown_models == {"typo"}
        assert gateways.providers()["p/b"].reason == "SecretNotFound"


def report(instance: str, arrivals: int) -> Report:
    return Report(instance=instance, services={KEY: ServiceReport(arrivals=arrivals)})


def test_the_rate_looks_back_ten_seconds():
    voice = Voice()
    for second in range(60):
        voice.add(1000.0 + second, report("a", 2 * min(second, 50)))
    assert voice.reports[0][0] == 1059.0 - RATE_WINDOW
    assert voice.rate(KEY) == pytest.approx(2 * 1 / RATE_WINDOW)


def test_a_restarted_gateway_counts_from_zero():
    voice = Voice()
    voice.add(1000.0, report("a", 500))
    voice.add(1001.0, report("b", 3))
    assert voice.rate(KEY) == 0.0
    voice.add(1002.0, report("b", 5))
    assert voice.rate(KEY) == 2.0


def test_many_reports_in_a_second_take_no_more_memory_and_shorten_no_window():
    """A report comes at once when a request is held: up to twenty in a second."""
    voice = Voice()
    for step in range(1200):
        voice.add(1000.0 + step / 20, report("a", step // 10))
    assert len(voice.reports) <= 25
    assert voice.reports[-1][0] - voice.reports[0][0] > RATE_WINDOW - 1
    assert voice.rate(KEY) == pytest.approx(2.0, rel=0.1)
    assert voice.latest(1060.0).services[KEY].arrivals == 119
