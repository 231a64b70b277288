"""The autoscaler's own metrics: what it wants, what it decided, and the accelerator time used."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from overspill.api import metrics
from overspill.api.status import CostStatus

Costs = Callable[[], Iterable[tuple[str, CostStatus]]]  # by "namespace/name"


class Meter:
    """Counters and gauges per service."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register the metrics.

        :param registry: where to; tests have their own.
        """
        labels = metrics.SERVICE_LABELS
        self._registry = registry
        self._gauges: dict[str, tuple[Gauge, Gauge]] = {}  # by service, set with every pass
        self._desired = Gauge(
            metrics.DESIRED_REPLICAS, "Replicas that the autoscaler wants; advice in mode Manual",
            labels, registry=registry,
        )  # fmt: skip
        self._active = Gauge(
            metrics.SCALING_ACTIVE, "1 while the signals of the service are there", labels,
            registry=registry,
        )  # fmt: skip
        self._decisions = Counter(
            metrics.DECISIONS, "Decisions that changed something", (*labels, "reason"),
            registry=registry,
        )  # fmt: skip
        self._gpu_seconds = Counter(
            metrics.GPU_SECONDS, "Placed replicas times accelerators times seconds", labels,
            registry=registry,
        )  # fmt: skip
        self._gpu_cost = Counter(
            metrics.GPU_COST, "US dollars of that time, at the price it had then", labels,
            registry=registry,
        )  # fmt: skip

    def show(self, costs: Costs) -> None:
        """Export what services cost, asked for when Prometheus asks."""
        self._registry.register(_Costs(costs))

    def desired(self, key: str, replicas: int) -> None:
        """Show the wanted count."""
        self._of(key)[0].set(replicas)

    def active(self, key: str, active: bool) -> None:
        """Show whether scaling has what it needs: the condition ScalingActive."""
        self._of(key)[1].set(active)

    def _of(self, key: str) -> tuple[Gauge, Gauge]:
        """Return a service's wanted count and whether scaling is active."""
        gauges = self._gauges.get(key)
        if gauges is None:
            labels = key.split("/")
            gauges = self._desired.labels(*labels), self._active.labels(*labels)
            self._gauges[key] = gauges
        return gauges

    def decided(self, key: str, reason: str) -> None:
        """Count a decision."""
        self._decisions.labels(*key.split("/"), reason).inc()

    def used(self, key: str, device_seconds: float, hourly: float) -> None:
        """Count accelerator time and what it costs.

        :param device_seconds: accelerators of all placed replicas, times seconds.
        :param hourly: US dollars of one accelerator for an hour.
        """
        labels = key.split("/")
        self._gpu_seconds.labels(*labels).inc(device_seconds)
        self._gpu_cost.labels(*labels).inc(device_seconds / 3600 * hourly)

    def rest(self) -> None:
        """Show nothing of what is: another leads now, and what we saw last stays true no longer."""
        self._gauges.clear()
        self._desired.clear()
        self._active.clear()

    def forget(self, key: str) -> None:
        """Drop the series of a service that was deleted; Prometheus keeps what they were."""
        self._gauges.pop(key, None)
        labels = dict(zip(metrics.SERVICE_LABELS, key.split("/"), strict=True))
        counters = (self._decisions, self._gpu_seconds, self._gpu_cost)
        for metric in (self._desired, self._active, *counters):
            metric.remove_by_labels(labels)


class _Costs(Collector):
    """Gauges of what is reckoned from other metrics."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs

    def collect(self) -> Iterator[Metric]:
        labels = metrics.SERVICE_LABELS
        rate = GaugeMetricFamily(
            metrics.COST_RATE, "US dollars of the last hour, own and cloud.", labels=labels
        )
        token = GaugeMetricFamily(
            metrics.PER_MILLION, "US dollars per million tokens, 24 hours.",
            labels=(*labels, "side"),
        )  # fmt: skip
        saved = GaugeMetricFamily(
            metrics.SAVED, "US dollars less than all at a provider, 24 hours.", labels=labels
        )
        even = GaugeMetricFamily(
            metrics.BREAK_EVEN, "Tokens per second from which a replica is cheaper.", labels=labels
        )
        for key, cost in self._costs():
            service = key.split("/")
            _add(rate, service, cost.dollars_per_hour)
            _add(token, [*service, "all"], cost.dollars_per_m_tok)
            _add(token, [*service, "own"], cost.own_dollars_per_m_tok)
            _add(token, [*service, "cloud"], cost.cloud_dollars_per_m_tok)
            _add(saved, service, cost.saved_dollars)
            _add(even, service, cost.break_even_tokens_per_second)
        yield from (rate, token, saved, even)


def _add(family: GaugeMetricFamily, labels: list[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)
