"""The operator's policy before the gateway of bench/dollars.py, on its virtual clock.

As in a cluster, the gateway's report of every second and a scrape of its metrics every 15 s are
what is seen. What a Prometheus would make of the scrapes is the simulator's
(``overspill/simulator/meter.py``), with exact percentiles. Replicas tell how full their KV caches
are and how many requests wait in them, as vLLM does.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from prometheus_client.parser import text_string_to_metric_families

from dollars_world import Cluster
from overspill.api import metrics
from overspill.api.names import DESTINATION_LOCAL
from overspill.autoscaler import offers
from overspill.autoscaler.gateways import Report, Voice
from overspill.autoscaler.offers import Offer
from overspill.autoscaler.policy import PolicyState, decide
from overspill.autoscaler.signals import Demand, Replicas, Rules
from overspill.gateway.plane import Plane
from overspill.simulator.baselines.wva import EngineLoad
from overspill.simulator.discrete import WARM_UP
from overspill.simulator.meter import SCRAPE, Meter, Now

LOOK = 5.0  # seconds between two decisions
REPORT = 1.0  # seconds between two reports
Page = list[tuple[str, Mapping[str, str], float]]  # name, labels, value


async def scrape(plane: Plane) -> Page:
    """Return the samples of the gateway's page of metrics."""
    families = text_string_to_metric_families((await plane.metrics.render()).decode())
    return [(s.name, s.labels, s.value) for family in families for s in family.samples]


def total(page: Page, name: str, service: str = "", **labels: str) -> float:
    """Return the sum of a metric's series.

    :param service: ``namespace/name``; "" for all.
    :param labels: that they have; destination="*" is any provider.
    """

    def wanted(found: Mapping[str, str]) -> bool:
        of = "/".join(found[label] for label in metrics.SERVICE_LABELS)
        place = found.get("destination", "")
        return service in ("", of) and all(
            "/" in place if value == "*" else found[label] == value
            for label, value in labels.items()
        )

    return sum(value for n, found, value in page if n == name and wanted(found))


class Autoscaler:
    """Sets the number of replicas.

    :param service: ``namespace/name``.
    :param offer: what both sides ask; None: the latency objective alone decides.
    """

    def __init__(
        self, plane: Plane, cluster: Cluster, service: str, rules: Rules, offer: Offer | None
    ) -> None:
        self._plane, self._cluster, self._service = plane, cluster, service
        self._rules, self._offer = rules, offer
        self._voice, self._meter = Voice(), Meter()
        self._tokens: dict[str, float | None] = {"prompt_tokens": None, "completion_tokens": None}
        self._engines = (0.0, 0.0)  # requests that all replicas compute, and that wait in them

    def answered(self, ttft: float, itl: float) -> None:
        """Take note of a local answer's latencies, in seconds."""
        self._meter.answered(self._now, ttft, itl)

    async def run(self, end: float) -> None:
        """Look and decide until then, in the loop's seconds; the first minute only look."""
        state: PolicyState | None = None
        while self._now < end:
            report = Report.model_validate_json(self._plane.demand.report())
            self._voice.add(self._now, report)
            if self._now % SCRAPE < REPORT:
                await self._scrape()
            if self._now >= WARM_UP and self._now % LOOK < REPORT:
                state = await self._decide(state)
            await asyncio.sleep(REPORT)

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _decide(self, state: PolicyState | None) -> PolicyState:
        wanted, ready = len(self._cluster.replicas), len(self._cluster.ready)
        state = state or PolicyState.start(self._now, wanted, ready)
        rules = replace(self._rules, costs=offers.costs(self._offer, self._tokens))
        replicas = Replicas(wanted, wanted, ready)
        running, waiting = self._engines
        signals = replace(self._meter.signals, engine_running=running, engine_waiting=waiting)
        decision, state = decide(self._now, state, rules, replicas, signals, self._live())
        if decision.replicas_to != wanted:
            await self._cluster.scale(decision.replicas_to)
        return state

    def _live(self) -> Demand:
        """Return what the operator makes of the gateway's reports."""
        report = self._voice.latest(self._now)
        own = report.services.get(self._service) if report else None
        if own is None:
            return Demand(0.0, 0.0, 0.0, 0.0, 0.0)
        rate = self._voice.rate(self._service)
        counts = (own.in_flight, own.spilled_in_flight, own.queued, own.held)
        return Demand(rate, *map(float, counts), own.wait_p95)

    async def _scrape(self) -> None:
        page, ready = await scrape(self._plane), self._cluster.ready

        def count(name: str, **labels: str) -> int:
            return int(total(page, name, self._service, **labels))

        self._meter.scrape(
            Now(
                self._now,
                count(metrics.ARRIVALS),
                count(metrics.REQUESTS, destination=DESTINATION_LOCAL),
                count(metrics.REQUESTS, destination="*"),
                count(metrics.WITHIN_OBJECTIVE),
                count(metrics.IN_FLIGHT, destination=DESTINATION_LOCAL),
                count(metrics.IN_FLIGHT, destination="*"),
                count(metrics.QUEUED),
                tuple(EngineLoad(r.batch.kv_usage, len(r.waiting)) for r in ready),
            )
        )
        self._engines = (sum(r.batch.running for r in ready), sum(len(r.waiting) for r in ready))
        answered = count(metrics.REQUESTS, code="200")
        made = count(metrics.TOKENS, kind="output")
        if answered and made:
            read = count(metrics.TOKENS) - made
            self._tokens = {
                "prompt_tokens": read / answered,
                "completion_tokens": made / answered,
            }
