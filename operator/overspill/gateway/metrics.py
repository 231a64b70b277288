"""What the gateway counts. Names and labels are in ``overspill.api.metrics``.

Children of a metric are looked up once per service, not once per request, and exist with
0 from the moment a service or provider appears, so that ``increase()`` sees the first
sample. Gauges are read from the state when Prometheus asks.
"""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from overspill.api import metrics as names
from overspill.api.names import DESTINATION_LOCAL
from overspill.api.values import NANO
from overspill.gateway.memory import Memory
from overspill.gateway.state import Service, State
from overspill.ledger.prices import Usage

_DESTINATION = (*names.SERVICE_LABELS, "destination")


class DestinationMetrics:
    """Series of one service and one destination."""

    def __init__(self, metrics: "Metrics", service: tuple[str, str], destination: str) -> None:
        labels = (*service, destination)
        self._metrics, self._labels = metrics, labels
        self._requests: dict[tuple[str, int], Counter] = {}
        self._tokens = {
            kind: metrics.tokens.labels(*labels, kind) for kind in ("input", "cached", "output")
        }
        self._cost = metrics.cost.labels(*labels)
        self.ttft = metrics.ttft.labels(*labels)
        self.itl = metrics.itl.labels(*labels)
        self.duration = metrics.duration.labels(*labels)

    def count(self, reason: str, status: int, amount: int = 1) -> None:
        """Count a request that ended."""
        child = self._requests.get((reason, status))
        if child is None:
            child = self._metrics.requests.labels(*self._labels, reason, str(status))
            self._requests[reason, status] = child
        child.inc(amount)

    def failed_attempt(self, reason: str) -> None:
        """Count an attempt that ended before its first byte; another target may have answered."""
        self._metrics.failed_attempts.labels(*self._labels, reason).inc()

    def charge(self, usage: Usage, nano: int) -> None:
        """Count tokens and nano-dollars."""
        self._tokens["input"].inc(usage.prompt - usage.cached)
        self._tokens["cached"].inc(usage.cached)
        self._tokens["output"].inc(usage.completion)
        self._cost.inc(nano / NANO)


class ServiceMetrics:
    """Series of one service."""

    def __init__(self, metrics: "Metrics", service: tuple[str, str]) -> None:
        self._metrics, self._service = metrics, service
        self._destinations: dict[str, DestinationMetrics] = {}
        self.arrivals = metrics.arrivals.labels(*service)
        self.queue_wait = metrics.queue_wait.labels(*service)
        self.within = metrics.within.labels(*service)

    def to(self, destination: str) -> DestinationMetrics:
        """Return the series of a destination."""
        found = self._destinations.get(destination)
        if found is None:
            found = DestinationMetrics(self._metrics, self._service, destination)
            self._destinations[destination] = found
        return found


class Metrics(Collector):
    """All series of one gateway."""

    def __init__(self, state: State, memory: Memory) -> None:
        self.state, self.memory = state, memory
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._services: dict[str, ServiceMetrics] = {}
        self._all: list[Counter | Histogram] = []
        self.requests = self._counter(
            names.REQUESTS, "Requests that ended.", (*_DESTINATION, "reason", "code")
        )
        self.failed_attempts = self._counter(
            names.FAILED_ATTEMPTS,
            "Attempts that failed before the first byte; another target may have answered.",
            (*_DESTINATION, "reason"),
        )
        self.tokens = self._counter(
            names.TOKENS, "Tokens: input (not cached), cached, output.", (*_DESTINATION, "kind")
        )
        self.cost = self._counter(names.COST, "US dollars for providers.", _DESTINATION)
        self.within = self._counter(
            names.WITHIN_OBJECTIVE, "Requests within TTFT and ITL objective.", names.SERVICE_LABELS
        )
        self.arrivals = self._counter(
            names.ARRIVALS, "Requests that arrived.", names.SERVICE_LABELS
        )
        self.ttft = self._histogram(
            names.TTFT, "Arrival to first token.", _DESTINATION, names.TTFT_BUCKETS
        )
        self.itl = self._histogram(
            names.ITL, "Between two tokens of a stream.", _DESTINATION, names.ITL_BUCKETS
        )
        self.duration = self._histogram(
            names.DURATION, "Arrival to the end of the answer.", _DESTINATION,
            names.DURATION_BUCKETS,
        )  # fmt: skip
        self.queue_wait = self._histogram(
            names.QUEUE_WAIT, "Wait for a replica.", names.SERVICE_LABELS, names.WAIT_BUCKETS
        )

    def of(self, service: Service) -> ServiceMetrics:
        """Return the series of a service."""
        found = self._services.get(service.key)
        if found is None:
            name = service.resource.metadata.name
            found = ServiceMetrics(self, (service.namespace, name))
            self._services[service.key] = found
        return found

    def render(self) -> bytes:
        """Return the page that Prometheus reads."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, read from the state now."""
        self._forget_removed()
        label_names = names.SERVICE_LABELS
        queued = GaugeMetricFamily(names.QUEUED, "Requests that wait here.", labels=label_names)
        ready = GaugeMetricFamily(names.READY_REPLICAS, "Replicas in use.", labels=label_names)
        flight = GaugeMetricFamily(
            names.IN_FLIGHT, "Requests under way.", labels=(*label_names, "destination")
        )
        for service in self.state.services.values():
            self._initialise(service)
            labels = (service.namespace, service.resource.metadata.name)
            queued.add_metric(labels, len(service.admission.waiting))
            ready.add_metric(labels, len(service.admission.replicas))
            flight.add_metric((*labels, DESTINATION_LOCAL), service.in_flight)
            for destination, number in service.spilled.items():
                flight.add_metric((*labels, destination), number)
        yield from (queued, ready, flight)
        yield GaugeMetricFamily(
            names.REQUEST_MEMORY, "Memory that requests hold here.", value=self.memory.held
        )

    def _forget_removed(self) -> None:
        """Drop the series of services that are gone, or they would pile up for ever."""
        for key in set(self._services) - set(self.state.services):
            del self._services[key]
            labels = dict(zip(names.SERVICE_LABELS, key.split("/"), strict=True))
            for metric in self._all:
                metric.remove_by_labels(labels)

    def _initialise(self, service: Service) -> None:
        """Make the series that a service may get, at 0."""
        series = self.of(service)
        series.to(DESTINATION_LOCAL).count("", 200, 0)
        spillover = service.resource.spec.spillover
        for ref in spillover.providers:
            destination = series.to(f"{ref.namespace or service.namespace}/{ref.name}")
            for reason in spillover.when:
                destination.count(reason, 200, 0)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        made = Counter(name, text, labels, registry=self.registry)
        self._all.append(made)
        return made

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histogram:
        made = Histogram(name, text, labels, buckets=buckets, registry=self.registry)
        self._all.append(made)
        return made
