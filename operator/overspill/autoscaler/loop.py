"""The autoscaler's loop: looks at every service, decides, and sees that the count is written.

Three things run side by side and meet only here: the poll of Prometheus, the streams of the
gateways, and the passes over the services, one every few seconds. A request that waits for a
service without a replica wakes a pass for that service at once. No pass waits for I/O: a slow
Prometheus makes readings old and a slow API server makes writes late, but neither stops a pass.

Runs on the leader only. A restart begins with the counts that the cluster has.
"""

import asyncio
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import structlog

from overspill.api.service import InferenceService
from overspill.api.status import CostStatus, TrafficStatus
from overspill.autoscaler.demand import load
from overspill.autoscaler.gateways import Gateways, ProviderReport
from overspill.autoscaler.health import ScalingHealth, judge
from overspill.autoscaler.meter import Meter
from overspill.autoscaler.offers import Offer, costs
from overspill.autoscaler.policy import LOOK, Decision, PolicyState, decide
from overspill.autoscaler.pool import EMPTY, Member, PoolState, Stake, divide
from overspill.autoscaler.readings import Readings, Source
from overspill.autoscaler.sharing import Grant
from overspill.autoscaler.signals import Replicas, Rules, Signals, number
from overspill.autoscaler.subject import Subject
from overspill.cluster.backoff import backoff
from overspill.cluster.errors import ClusterError, Conflict
from overspill.ledger import economy
from overspill.ledger.economy import Use
from overspill.ledger.messages import Statement
from overspill.ledger.prices import Rates
from overspill.prometheus.queries import COSTS, OwnMetrics

log = structlog.get_logger(__name__)

WRITE_TIMEOUT = 10.0  # seconds
WRITES = 16  # at the same time
BATCH = 50  # services decided before others get the event loop


@dataclass(frozen=True)
class Settings:
    """Pace of the loop, in seconds, and how Prometheus is asked."""

    interval: float = 5.0
    up_window: float = 10.0
    down_window: float = 300.0
    recorded: bool = False  # Prometheus has our recording rules


class ScaleWriter(Protocol):
    """Writes the count of a service's Deployment."""

    async def write_scale(self, key: str, replicas: int, resource_version: str) -> None:
        """Set the count of the Deployment that was seen in that version.

        Raises ClusterError when it was not written; Conflict when the Deployment has changed.
        """


class Autoscaler:
    """Keeps every service at the replicas that its objective needs.

    Services are named by ``namespace/name``.
    """

    def __init__(
        self,
        prometheus: Source,
        gateways: Callable[[], Iterable[str]],
        token_file: Path | None,
        writer: ScaleWriter,
        *,
        settings: Settings | None = None,
        meter: Meter | None = None,
        on_change: Callable[[str], None] = lambda key: None,
        on_statement: Callable[[str, Statement], None] = lambda address, statement: None,
    ) -> None:
        """Make the loop; ``run`` runs it.

        :param gateways: gives the ``host:port`` of every gateway's internal server, now.
        :param token_file: the operator's token for the gateways.
        :param on_change: called with a service whose decision or health is new.
        :param on_statement: called with what a gateway says of money, and its ``host:port``.
        """
        self._settings = settings or Settings()
        self._epoch = time.time() - time.monotonic()
        self._readings = Readings(
            prometheus,
            self._settings.interval,
            self.now,
            self._own_metrics,
            recorded=self._settings.recorded,
        )
        self._gateways = Gateways(
            gateways,
            token_file,
            clock=self.now,
            on_held=self._wake_if_stopped,
            on_statement=on_statement,
        )
        self._writer = writer
        self._writes = asyncio.Semaphore(WRITES)
        self._meter = meter or Meter()
        self._on_change = on_change
        self._subjects: dict[str, Subject] = {}
        self._pools: dict[str, PoolState] = {}
        self._woken: set[str] = set()
        self._wake = asyncio.Event()
        self._passed_at = time.monotonic()
        self._meter.show(self._costs)

    def now(self) -> float:
        """Return seconds since the epoch; steps of the system's clock do not move it."""
        return self._epoch + time.monotonic()

    # What the controller tells.

    def observe(
        self,
        key: str,
        service: InferenceService,
        replicas: Replicas,
        slots: int,
        own: OwnMetrics | None = None,
        offer: Offer | None = None,
        cloud: Rates | None = None,
        stake: Stake | None = None,
    ) -> None:
        """Take note of a service and its replicas.

        :param replicas: as the cluster shows them now.
        :param slots: requests that one replica computes at the same time.
        :param own: metric names of its engine, where that is not one of ours.
        :param offer: what replicas and the cloud cost; None: the objective alone decides.
        :param cloud: of the first of its providers that has a price.
        :param stake: its part in a pool of accelerators; None: it has none that we share out.
        """
        windows = (self._settings.up_window, self._settings.down_window)
        rules = Rules.of(service, slots, *windows)
        devices = service.spec.resources.accelerators
        hourly = float(service.spec.cost.gpu_hour)
        subject = self._subjects.get(key)
        if subject is None:
            subject = self._subjects[key] = Subject(
                rules, replicas, devices, hourly, self.now(), own, offer, cloud, stake
            )
            subject.decisions.extend(map(Decision.from_status, service.status.last_decisions))
            if not subject.decisions and self._informed(key):
                self._decide(key, subject)  # so that its first status is whole
            return
        changed = subject.rules != rules
        if rules.set_count is None and subject.rules.set_count is not None:
            subject.state = None  # what was set is where it begins, not what was advised
        subject.rules, subject.replicas = rules, replicas
        subject.devices, subject.hourly = devices, hourly
        subject.stale, subject.own = False, own
        subject.offer, subject.cloud, subject.stake = offer, cloud, stake
        if changed or subject.write_due(self.now()):
            self._wake_up(key)

    def forget(self, key: str) -> None:
        """Drop a service that is gone."""
        if self._subjects.pop(key, None) is not None:
            self._meter.forget(key)

    # What the controller asks.

    def desired(self, key: str) -> int:
        """Return the replicas that are wanted of an observed service."""
        return self._subjects[key].desired

    def decided(self, key: str) -> int:
        """Return the replicas that were decided on for an observed service: advice in Manual."""
        return self._subjects[key].decided

    def decisions(self, key: str) -> list[Decision]:
        """Return the last decisions, newest first."""
        return list(self._subjects[key].decisions)

    def withheld(self, key: str) -> str:
        """Return why an observed service has less than it wants of a full pool, "" if it has it."""
        grant = self._subjects[key].grant
        return grant.why if grant else ""

    def health(self, key: str) -> ScalingHealth:
        """Return whether scaling works for an observed service."""
        subject = self._subjects[key]
        subject.health = self._judge(subject, self._readings.signals(key))
        return subject.health

    def _informed(self, key: str) -> bool:
        """Whether a pass would know no more of a new service than is known now."""
        if self._readings.outage and not self._gateways.expected:
            return True
        return load(self._readings.signals(key), self._gateways.demand(key)) is not None

    def _judge(self, subject: Subject, signals: Signals) -> ScalingHealth:
        subject.known = subject.known or signals.complete
        return judge(
            outage=self._readings.outage,
            asked=self._readings.fresh or self._readings.outage is not None,
            complete=signals.complete,
            known=subject.known,
            age=self.now() - subject.seen_at,
            replicas=subject.decided,
            advice=subject.rules.set_count is not None,
        )

    def traffic(self, key: str) -> TrafficStatus | None:
        """Return the last minute's requests; None when nobody knows."""
        signals = self._readings.signals(key)
        rate = number(signals.arrivals_rate)
        if rate is None:
            return None
        spilled = number(signals.spilled_rate) or 0.0
        answered = spilled + (number(signals.local_rate) or 0.0)
        return TrafficStatus(
            requests_per_second=rate,
            spilled_percent=100 * spilled / answered if answered else 0.0,
            ttft_p95_seconds=number(signals.ttft_p95),
        )

    def cost(self, key: str) -> CostStatus | None:
        """Return what the last 24 hours took; None before the first answer of Prometheus."""
        found = {name: self._readings.cost(key, name) for name in COSTS}
        if all(value is None for value in found.values()):
            return None
        subject, use = self._subjects[key], Use(**{n: v or 0.0 for n, v in found.items()})
        return economy.cost(use, subject.devices * subject.hourly, subject.cloud)

    def _costs(self) -> Iterator[tuple[str, CostStatus]]:
        """Yield what each service costs, while we lead and Prometheus answers."""
        if self._readings.fresh:
            for key in tuple(self._subjects):
                if cost := self.cost(key):
                    yield key, cost

    def providers(self) -> dict[str, ProviderReport]:
        """Return each provider's state, as the gateways see it."""
        return self._gateways.providers()

    def _own_metrics(self) -> frozenset[OwnMetrics]:
        return frozenset(s.own for s in self._subjects.values() if s.own)

    def age(self) -> float:
        """Return seconds since the last pass ended."""
        return time.monotonic() - self._passed_at

    # The loop.

    async def run(self) -> None:
        """Scale until cancelled; only while this process is the leader.

        What was seen before may be another leader's past by now: each service waits until it is
        observed again.
        """
        self._pools.clear()
        for key, subject in self._subjects.items():
            subject.state, subject.stale, subject.seen_at = None, True, self.now()
            subject.known, subject.want, subject.grant = False, None, None
            self._on_change(key)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._gateways.run())
                tasks.create_task(self._readings.run())
                await self._passes(tasks)
        finally:
            self._meter.rest()

    async def _passes(self, tasks: asyncio.TaskGroup) -> None:
        """The first look at all services comes after one interval, when there are readings."""
        interval = self._settings.interval
        last = self.now()
        while True:
            with_all = self.now() >= last + interval
            keys = list(self._subjects) if with_all else list(self._woken)
            self._woken.clear()
            self._wake.clear()
            if with_all:
                self._share_out()
            for index, key in enumerate(keys):
                self._step(key, tasks)
                if index % BATCH == BATCH - 1:
                    await asyncio.sleep(0)
            if with_all:
                self._count_use(self.now() - last)
                last = self.now()
            self._passed_at = time.monotonic()
            await self._sleep(last + interval - self.now())

    def _share_out(self) -> None:
        """Divide each full pool anew, by what its services wanted in the last pass."""
        pools = defaultdict[str, list[Member]](list)
        for key, subject in self._subjects.items():
            member = subject.member(key)
            if member is None:
                self._grant(key, subject, None)
            else:
                pools[member.stake.pool].append(member)
        before, self._pools = self._pools, {}
        for pool, members in pools.items():
            grants: Mapping[str, Grant] = {}
            try:
                grants, self._pools[pool] = divide(self.now(), before.get(pool, EMPTY), members)
            except Exception:  # one pool that cannot be divided must not stop the others
                log.exception("pool not divided", services=[m.service for m in members])
            for member in members:
                key = member.service
                self._grant(key, self._subjects[key], grants.get(key))

    def _grant(self, key: str, subject: Subject, grant: Grant | None) -> None:
        before, subject.grant = subject.grant, grant
        if (before is None) != (grant is None):
            self._on_change(key)

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(seconds, 0.0)):  # wait_for can lose a cancellation
                await self._wake.wait()
        except TimeoutError:
            return

    def _step(self, key: str, tasks: asyncio.TaskGroup) -> None:
        subject = self._subjects.get(key)
        if subject is None or subject.stale:
            return
        try:
            news = self._decide(key, subject)
        except Exception:  # one service that cannot be decided on must not stop the others
            log.exception("no decision", service=key)
            return
        if news:
            self._on_change(key)
        if subject.write_due(self.now()):
            subject.writing = True
            tasks.create_task(self._write(key, subject))

    def _decide(self, key: str, subject: Subject) -> bool:
        """Decide once; return whether the controller does not know it all yet."""
        now = self.now()
        if subject.state is None:
            ready = subject.replicas.ready
            subject.state = PolicyState.start(now, subject.decided, ready, _turn(key))
        signals, live = self._readings.signals(key), self._gateways.demand(key)
        rules = subject.priced(costs(subject.offer, self._readings.mix(key)))
        grant = subject.grant
        replicas = replace(subject.replicas, grant=grant) if grant else subject.replicas
        decision, subject.state = decide(now, subject.state, rules, replicas, signals, live)
        subject.want = decision.want
        self._meter.desired(key, decision.replicas_to)
        health, before = self._judge(subject, signals), subject.health
        subject.health = health
        self._meter.active(key, health.active)
        told = self._record(key, subject, decision)
        known = before and (before.reason, before.asked) == (health.reason, health.asked)
        return told or not known

    def _record(self, key: str, subject: Subject, decision: Decision) -> bool:
        """Keep a decision that says something new."""
        if not decision.is_news(subject.decisions):
            return False
        subject.decisions.appendleft(decision)
        self._meter.decided(key, decision.reason)
        log.info(
            "decision",
            service=key,
            replicas_from=decision.replicas_from,
            replicas_to=decision.replicas_to,
            reason=decision.reason,
            message=decision.message,
            inputs=decision.seen,
        )
        return True

    async def _write(self, key: str, subject: Subject) -> None:
        """Write the wanted count once. A conflict waits for the next observation."""
        count, version = subject.desired, subject.replicas.resource_version
        try:
            async with self._writes, asyncio.timeout(WRITE_TIMEOUT):
                await self._writer.write_scale(key, count, version)
            subject.failures, subject.settled = 0, (count, version)
        except Conflict:
            subject.settled = (count, version)
        except (ClusterError, TimeoutError) as error:
            subject.failures += 1
            subject.retry_at = self.now() + backoff(subject.failures)
            log.warning("count not written", service=key, replicas=count, problem=str(error))
        finally:
            subject.writing = False

    def _count_use(self, seconds: float) -> None:
        for key, subject in self._subjects.items():
            if subject.devices:
                devices = subject.replicas.placed * subject.devices
                self._meter.used(key, devices * seconds, subject.hourly)

    def _wake_if_stopped(self, key: str) -> None:
        subject = self._subjects.get(key)
        if subject is not None and not subject.stale and subject.decided == 0:
            self._wake_up(key)

    def _wake_up(self, key: str) -> None:
        self._woken.add(key)
        self._wake.set()


def _turn(key: str) -> float:
    """Spread services over the passes in which prices are looked at, always alike: 0 to LOOK."""
    return zlib.crc32(key.encode()) / 2**32 * LOOK
