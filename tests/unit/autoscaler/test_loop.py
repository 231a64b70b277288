"""The loop with a real demand stream; Prometheus and the API server are small stand-ins."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from demand_server import TOKEN, DemandServer, until
from prometheus_client import CollectorRegistry

from overspill.api import metrics
from overspill.api.service import InferenceService
from overspill.autoscaler.loop import Autoscaler, Settings
from overspill.autoscaler.meter import Meter
from overspill.autoscaler.offers import Offer
from overspill.autoscaler.pool import Stake
from overspill.autoscaler.readings import Source
from overspill.autoscaler.signals import Replicas
from overspill.cluster.errors import Conflict, Unavailable
from overspill.ledger.prices import Rates
from overspill.prometheus.client import PrometheusUnavailable
from overspill.prometheus.queries import COSTS, MIX, SIGNALS
from overspill.prometheus.samples import Samples

KEY = "team-a/chat"
FAST = Settings(interval=0.03, up_window=0.06, down_window=0.3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for gateways sooner than in life; what was read stays good on a machine that is slow."""
    monkeypatch.setattr("overspill.autoscaler.gateways.RESCAN", 0.02)
    monkeypatch.setattr("overspill.autoscaler.readings.ROUNDS", 1000)  # 30 s


class Prometheus:
    """Answers each signal with a number, or with an outage."""

    def __init__(self) -> None:
        self.away = False
        self.values: dict[str, float] = dict.fromkeys(
            ("gateways", "arrivals_rate", "in_flight", "queued", "spilled_in_flight"), 0.0
        )

    async def query(self, promql: str) -> Samples:
        if self.away:
            raise PrometheusUnavailable("prometheus cannot be reached", retry=True)
        name = next(n for n, q in (SIGNALS | COSTS | MIX).items() if q == promql)
        return {KEY: self.values[name]} if name in self.values else {}


class Cluster:
    """Keeps one Deployment's count and version, as the API server does, and tells the loop."""

    def __init__(self, count: int) -> None:
        self.count, self.version = count, 1
        self.faults: list[Exception] = []
        self.tries = 0
        self.scaler: Autoscaler | None = None
        self.service = service()
        self.offer: Offer | None = None
        self.stake: Stake | None = None

    async def write_scale(self, key: str, replicas: int, resource_version: str) -> None:
        self.tries += 1
        if self.faults:
            raise self.faults.pop(0)
        if resource_version != str(self.version):
            raise Conflict("the object has been modified")
        self.change(replicas)

    def change(self, count: int) -> None:
        """A write that anyone made; the loop sees it as an event."""
        self.count, self.version = count, self.version + 1
        self.tell()

    def tell(self) -> None:
        pods = Replicas(self.count, self.count, self.count, 0, 0, str(self.version))
        self.scaler.observe(KEY, self.service, pods, slots=4, offer=self.offer, stake=self.stake)


def service(**scaling: object) -> InferenceService:
    spec = {"model": {"uri": "oci://models/small"}, "scaling": {"maxReplicas": 4, **scaling}}
    spec["resources"] = {"accelerator": {"count": 2}}
    spec["cost"] = {"gpuHour": "1.5"}
    return InferenceService.parse(
        {"metadata": {"name": "chat", "namespace": "team-a"}, "spec": spec}
    )


class Rig:
    """Everything that a test of the loop needs."""

    def __init__(
        self,
        tmp_path: Path,
        server: DemandServer,
        count: int,
        prometheus: Source | None = None,
        **scaling: object,
    ) -> None:
        token = tmp_path / "token"
        token.write_text(TOKEN)
        self.server, self.addresses = server, [server.address]
        self.prometheus = Prometheus()
        self.cluster = Cluster(count)
        self.cluster.service = service(**scaling)
        self.registry = CollectorRegistry()
        self.changes: list[str] = []
        self.scaler = Autoscaler(
            prometheus or self.prometheus,
            lambda: self.addresses,
            token,
            self.cluster,
            settings=FAST,
            meter=Meter(self.registry),
            on_change=self.changes.append,
        )
        self.cluster.scaler = self.scaler

    def metric(self, name: str, **more: str) -> float | None:
        labels = dict(zip(metrics.SERVICE_LABELS, KEY.split("/"), strict=True))
        return self.registry.get_sample_value(name, labels | more)


@pytest.fixture
def rig(tmp_path):
    """Make and run a rig: ``async with rig(count, **scaling) as r``."""

    @asynccontextmanager
    async def make(count: int, **scaling: object) -> AsyncIterator[Rig]:
        async with DemandServer() as server:
            made = Rig(tmp_path, server, count, **scaling)
            task = asyncio.create_task(made.scaler.run())
            await asyncio.sleep(0)
            made.cluster.tell()
            try:
                yield made
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    return make


HELD = {KEY: {"arrivals": 1, "queued": 1, "held": 1}}


async def test_a_held_request_starts_a_replica_without_waiting_for_a_pass(rig, monkeypatch):
    monkeypatch.setattr("test_loop.FAST", Settings(interval=3600))
    async with rig(0, minReplicas=0) as r:
        await r.server.say(HELD)
        await until(lambda: r.cluster.count == 1)
        assert r.scaler.desired(KEY) == 1
        assert [d.reason for d in r.scaler.decisions(KEY)] == ["FromZero"]
        assert r.changes == [KEY]


async def test_a_held_request_is_served_while_prometheus_is_away(rig):
    async with rig(0, minReplicas=0) as r:
        r.prometheus.away = True
        await r.server.say(HELD)
        await until(lambda: r.cluster.count == 1)
        health = r.scaler.health(KEY)
        assert (health.active, health.reason) == (False, "PrometheusUnavailable")
        assert "prometheus.url" in health.message
        assert r.metric(metrics.SCALING_ACTIVE) == 0
        r.prometheus.away = False
        await until(lambda: r.metric(metrics.SCALING_ACTIVE) == 1)
        assert r.scaler.health(KEY).active


async def test_a_prometheus_that_never_answers_stops_nothing(rig):
    async with rig(0, minReplicas=0) as r:

        async def never(promql: str) -> Samples:
            await asyncio.Event().wait()
            return {}

        r.prometheus.query = never
        await r.server.say(HELD)
        await until(lambda: r.cluster.count == 1)
        first = r.scaler.now()
        await until(lambda: r.scaler.now() > first + 0.2)
        await until(lambda: r.scaler.age() < 0.15)  # else it only grows


async def test_slow_sums_over_a_day_delay_no_signal(rig):
    async with rig(1) as r:
        answer = r.prometheus.query

        async def slow(promql: str) -> Samples:
            if promql in COSTS.values():
                await asyncio.Event().wait()
            return await answer(promql)

        r.prometheus.query = slow
        await until(lambda: r.scaler.decisions(KEY))
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: r.cluster.count == 3)


async def test_a_service_that_prometheus_does_not_know_is_said_so(rig, monkeypatch):
    async with rig(1) as r:
        del r.prometheus.values["gateways"]
        await until(lambda: r.scaler.health(KEY).reason == "Starting")
        assert r.scaler.health(KEY).active, "its first metrics may take a while"
        monkeypatch.setattr("overspill.autoscaler.health.GRACE", 0.0)
        assert r.scaler.health(KEY).reason == "NoMetrics"
        await until(lambda: KEY in r.changes)


async def test_metrics_that_a_new_service_had_and_lost_are_missed_at_once(rig):
    async with rig(1) as r:
        await until(lambda: r.scaler.health(KEY).reason == "Active")
        del r.prometheus.values["gateways"]
        await until(lambda: r.scaler.health(KEY).reason == "NoMetrics")


async def test_load_raises_the_count_and_its_absence_lowers_it(rig):
    async with rig(1) as r:
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: r.cluster.count == 3)
        assert r.metric(metrics.DESIRED_REPLICAS) == 3
        assert r.metric(metrics.DECISIONS, reason="LoadAboveCapacity") == 1
        r.prometheus.values["in_flight"] = 0.0
        await until(lambda: r.cluster.count == 1)
        assert r.scaler.decisions(KEY)[0].inputs["in_flight"] == 0.0


async def test_what_somebody_has_set_is_written_and_the_autoscaler_only_advises(rig):
    by_hand = {"mode": "Manual", "minReplicas": 0}
    async with rig(0, **by_hand, replicas=0) as r:
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: r.metric(metrics.DESIRED_REPLICAS) == 1)
        await until(lambda: r.scaler.health(KEY).message.startswith("Advised only"))
        assert (r.scaler.desired(KEY), r.cluster.count, r.cluster.tries) == (0, 0, 0)
        r.cluster.service = service(**by_hand, replicas=2)
        r.cluster.tell()
        await until(lambda: r.cluster.count == 2 and r.metric(metrics.DESIRED_REPLICAS) == 3)
        assert r.scaler.decided(KEY) == 3
        said = "replicas advised: 3; mode is Manual, 2 set"
        assert r.scaler.decisions(KEY)[0].message.endswith(said)
        r.cluster.change(4)
        await until(lambda: r.cluster.count == 2)
        r.prometheus.away = True
        await until(lambda: "advised count holds at 3" in r.scaler.health(KEY).message)
        assert r.cluster.count == 2


async def test_who_gives_the_count_back_gives_it_as_it_is(rig):
    async with rig(0, mode="Manual", replicas=4) as r:
        r.prometheus.values["in_flight"] = 0.0
        await until(lambda: r.cluster.count == 4 and r.metric(metrics.DESIRED_REPLICAS) == 1)
        r.cluster.service = service()
        r.cluster.tell()
        assert r.scaler.desired(KEY) == 4, "what runs is where it begins"
        await until(lambda: r.cluster.count == 1)
        assert r.scaler.decisions(KEY)[0].replicas_from == 4


async def test_prices_count_where_there_are_any(rig):
    async with rig(1) as r:
        r.prometheus.values |= {"prompt_tokens": 50.0, "completion_tokens": 20.0}
        r.cluster.offer = Offer(0.8, (Rates(10**9, 10**9, 10**9, 10**9),), boot=30.0)
        r.cluster.tell()
        await until(lambda: r.scaler._readings.mix(KEY)["prompt_tokens"])
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: "WatchingLoad" in [d.reason for d in r.scaler.decisions(KEY)])
        assert "is known when it has worked for a while" in r.scaler.decisions(KEY)[0].message
        r.cluster.offer = None
        r.cluster.tell()
        await until(lambda: r.cluster.count == 3)  # by load alone


async def test_only_what_is_new_is_recorded(rig):
    async with rig(1) as r:
        # A pass before Prometheus' first answer decides without it.
        await until(lambda: any("gateways" in d.inputs for d in r.scaler.decisions(KEY)))
        r.changes.clear()
        last = r.scaler.decisions(KEY)
        first = r.scaler.now()
        await until(lambda: r.scaler.now() > first + 0.2)
        assert r.scaler.decisions(KEY) == last
        assert r.changes == []
        assert r.cluster.tries == 0, "the count is right: nothing is written"


@pytest.mark.parametrize(("away", "gateways"), [(False, True), (True, True), (True, False)])
async def test_a_new_service_is_decided_on_at_once(rig, away, gateways):
    """So that its first status tells all that there is to tell."""
    async with rig(1) as r:
        r.prometheus.away = away
        if gateways:
            await r.server.say({})
        else:
            r.addresses.clear()
        new = "team-a/new"
        await until(lambda: r.scaler._informed(new))
        r.scaler.observe(new, service(minReplicas=0), Replicas(), slots=4)
        [decision] = r.scaler.decisions(new)
        assert (decision.replicas_to, decision.replicas_from) == (0, 0)
        r.scaler.health(new)
        started = r.scaler.now()
        await until(lambda: r.scaler.now() > started + 3 * FAST.interval)
        assert len(r.scaler.decisions(new)) == 1
        assert new not in r.changes, "the controller knows it all"


async def test_after_a_restart_the_controller_is_told_news_only(rig):
    async with rig(1) as r:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"time": now, "replicasFrom": 1, "replicasTo": 1, "reason": "HoldingNoData"}
        known = service().to_dict() | {"status": {"lastDecisions": [told]}}
        old = "team-a/old"
        await until(lambda: r.scaler._readings.fresh)  # that Prometheus answers is news, too
        r.scaler.observe(old, InferenceService.parse(known), Replicas(1, 1, 1), slots=4)
        assert r.scaler.health(old).reason == "Starting"
        started = r.scaler.now()
        await until(lambda: r.scaler.now() > started + 3 * FAST.interval)
        assert old not in r.changes
        assert len(r.scaler.decisions(old)) == 1


async def test_nothing_is_decided_before_anybody_was_asked(tmp_path):
    async with DemandServer() as server:
        r = Rig(tmp_path, server, 1)
        r.cluster.tell()
        assert r.scaler.decisions(KEY) == []


async def test_a_conflict_waits_for_the_new_version_and_no_longer(rig, monkeypatch):
    monkeypatch.setattr("overspill.autoscaler.loop.backoff", lambda failures: 3600)
    async with rig(1) as r:
        r.cluster.version = 7  # the loop has seen version 1
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: r.cluster.tries == 1)
        first = r.scaler.now()
        await until(lambda: r.scaler.now() > first + 0.2)
        assert (r.cluster.tries, r.cluster.count) == (1, 1), "the same version is not tried twice"
        r.cluster.tell()
        await until(lambda: r.cluster.count == 3)


async def test_a_write_that_failed_is_tried_again(rig, monkeypatch):
    monkeypatch.setattr("overspill.autoscaler.loop.backoff", lambda failures: 0.1)
    async with rig(1) as r:
        r.cluster.faults = [Unavailable("HTTP 503"), Unavailable("HTTP 503")]
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: r.cluster.count == 3)
        assert r.cluster.tries == 3


async def test_a_foreign_write_is_taken_back_without_waiting_for_a_pass(rig, monkeypatch):
    monkeypatch.setattr("test_loop.FAST", Settings(interval=3600))
    async with rig(0, minReplicas=0) as r:
        await r.server.say(HELD)
        await until(lambda: r.cluster.count == 1)
        r.cluster.change(0)
        await until(lambda: r.cluster.count == 1)


async def test_a_slow_api_server_does_not_hold_up_the_passes(rig):
    async with rig(1) as r:

        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        r.cluster.write_scale = never
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: r.scaler.desired(KEY) == 3)
        first = r.scaler.now()
        await until(lambda: r.scaler.now() > first + 0.2)
        await until(lambda: r.scaler.age() < 0.15)  # else it only grows


async def test_a_service_that_cannot_be_decided_does_not_stop_the_others(rig):
    async with rig(1) as r:
        pods = Replicas(1, 1, 1, 0, 0, "1")
        r.scaler.observe("team-a/broken", service(), pods, slots=0)
        r.prometheus.values["in_flight"] = 7.0
        await until(lambda: r.cluster.count == 3)


async def test_a_new_leader_begins_with_what_the_cluster_has(rig):
    async with rig(4, maxReplicas=8) as r:
        assert r.scaler.desired(KEY) == 4
        await until(lambda: r.scaler.decisions(KEY))
        assert r.scaler.desired(KEY) == 4


async def test_a_leader_that_comes_back_looks_before_it_writes(rig, tmp_path):
    async with rig(2) as r:
        await until(lambda: r.scaler.decisions(KEY))
    r.cluster.count, r.cluster.version = 4, 9  # by the other leader
    r.changes.clear()
    started = r.scaler.now()
    task = asyncio.create_task(r.scaler.run())
    await until(lambda: r.scaler.now() > started + 0.2)
    assert r.changes == [KEY], "asks to be told"
    assert r.cluster.tries == 0
    r.cluster.tell()
    assert r.scaler.desired(KEY) == 4
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_leader_that_comes_back_gives_the_first_metrics_time(rig, monkeypatch):
    """It has not asked Prometheus yet: that is no fault of the service's metrics."""
    async with rig(2) as r:
        await until(lambda: r.scaler.decisions(KEY))
    monkeypatch.setattr("overspill.autoscaler.readings.ROUNDS", 0)  # what was read is old
    monkeypatch.setattr(r.scaler, "_epoch", r.scaler._epoch + 3600)
    task = asyncio.create_task(r.scaler.run())
    await until(lambda: len(r.changes) > 1)
    assert r.scaler.health(KEY).reason == "Starting"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_who_leads_no_longer_shows_no_state(rig):
    """Its last "active" would stand beside the next leader's "inactive", and hide it."""
    async with rig(1) as r:
        await until(lambda: r.metric(metrics.SCALING_ACTIVE) == 1)
        assert r.metric(metrics.DESIRED_REPLICAS) is not None
    assert r.metric(metrics.SCALING_ACTIVE) is None
    assert r.metric(metrics.DESIRED_REPLICAS) is None


async def test_accelerator_seconds_are_counted(rig):
    async with rig(2, minReplicas=2) as r:
        started = time.monotonic()
        await until(lambda: (r.metric(metrics.GPU_SECONDS) or 0) > 0.4)
        used = r.metric(metrics.GPU_SECONDS)
        assert used <= 4 * (time.monotonic() - started) + 0.4, "2 replicas of 2 accelerators"
        assert r.metric(metrics.GPU_COST) == pytest.approx(used / 3600 * 1.5), "gpuHour is 1.5"
        r.scaler.forget(KEY)
        assert r.metric(metrics.GPU_SECONDS) is r.metric(metrics.GPU_COST) is None


async def test_decisions_of_the_status_are_remembered(tmp_path):
    async with DemandServer() as server:
        old = {"time": "2026-11-25T00:00:00Z", "replicasFrom": 1, "replicasTo": 2}
        old |= {"reason": "LoadAboveCapacity", "message": "six", "inputs": {"load": 6.0}}
        r = Rig(tmp_path, server, 2)
        raw = {"metadata": {"name": "b", "namespace": "a"}, "status": {"lastDecisions": [old]}}
        raw["spec"] = {"model": {"uri": "oci://models/small"}}
        r.scaler.observe("a/b", InferenceService.parse(raw), Replicas(2), slots=4)
        decision = r.scaler.decisions("a/b")[0]
        assert decision.to_status().to_dict() == old


async def test_traffic_and_cost(rig):
    async with rig(1) as r:
        assert r.scaler.traffic(KEY) is None
        r.prometheus.values |= {"arrivals_rate": 4.0, "local_rate": 3.0, "spilled_rate": 1.0}
        r.prometheus.values |= {"ttft_p95": 0.4, "gpu_hours": 1.5, "gpu_dollars": 1.2}
        r.prometheus.values |= {"own_output": 3e6, "spilled_tokens": 1e6, "spilled_dollars": 2.8}
        r.prometheus.values |= {"gpu_dollars_hour": 0.5, "spilled_dollars_hour": 0.25}
        await until(lambda: r.scaler.cost(KEY))
        traffic = r.scaler.traffic(KEY)
        assert (traffic.requests_per_second, traffic.spilled_percent) == (4.0, 25.0)
        assert traffic.ttft_p95_seconds == 0.4
        cost = r.scaler.cost(KEY)
        assert (cost.gpu_hours, cost.gpu_dollars, cost.spilled_dollars) == (1.5, 1.2, 2.8)
        assert (cost.dollars_per_hour, cost.dollars_per_m_tok) == (0.75, 1.0)
        assert r.metric(metrics.COST_RATE) == cost.dollars_per_hour
        sides = {side: r.metric(metrics.PER_MILLION, side=side) for side in ("all", "own", "cloud")}
        assert sides == {"all": 1.0, "own": cost.own_dollars_per_m_tok, "cloud": 2.8}
        assert r.metric(metrics.SAVED) is None, "there is no price to compare with"


async def test_a_full_pool_is_shared_out_and_the_controller_is_told(rig, monkeypatch):
    """Room for five: the one with priority gets the two that it wants, the other the rest."""
    monkeypatch.setattr("overspill.autoscaler.pool.SETTLE", 0.1)
    monkeypatch.setattr("overspill.autoscaler.pool.HOLD", 0.1)
    async with rig(4, minReplicas=1) as r:
        r.prometheus.values["in_flight"] = 14.0  # work for four
        r.cluster.stake = Stake("gpus", 2, may_spill=True)
        r.cluster.tell()
        full = replace(r.cluster.stake, priority=1, lacking=True)
        r.scaler.observe("team-a/rival", service(), Replicas(2, 1, 1, 1), slots=4, stake=full)
        await until(lambda: r.cluster.count == 3)
        assert r.scaler.decisions(KEY)[0].reason == "ClusterShared"
        why = "cluster full: 3 of 4 wanted replicas granted; priority 1 of rival goes before 0"
        assert r.scaler.withheld(KEY) == why
        assert KEY in r.changes
        r.scaler.forget("team-a/rival")
        await until(lambda: r.cluster.count == 4)
        assert r.scaler.withheld(KEY) == ""
