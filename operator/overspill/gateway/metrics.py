"""What the gateway counts. Names and labels are in ``overspill.api.metrics``.

Children of a metric are looked up once per service, not once per request, and exist with
0 from the moment a service or provider appears, so that ``increase()`` sees the first
sample. Gauges are read from the state when Prometheus asks.

Every service has a registry of its own. So the page of a thousand services is made service by
service, with the event loop free in between: a thread would not do, as each event of the loop then
waits up to 5 ms for the interpreter's lock. And a service that is gone takes its series along.
"""

import asyncio
import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from overspill.api import metrics as names
from overspill.api.names import DESTINATION_LOCAL
from overspill.api.values import NANO
from overspill.gateway.memory import Memory
from overspill.gateway.series import Count, Counters, Histograms
from overspill.gateway.state import Service, State
from overspill.ledger.prices import Usage

SLICE_SECONDS = 0.005  # of a page that is being made, before others have a turn
_DESTINATION = (*names.SERVICE_LABELS, "destination")


class DestinationMetrics:
    """Series of one service and one destination."""

    def __init__(self, service: "ServiceMetrics", destination: str) -> None:
        labels = (*service.labels, destination)
        self._service, self._labels = service, labels
        self._requests: dict[tuple[str, int], Count] = {}
        self._tokens = {
            kind: service.tokens.labels(*labels, kind) for kind in ("input", "cached", "output")
        }
        self._cost = service.cost.labels(*labels)
        self.ttft = service.ttft.labels(*labels)
        self.itl = service.itl.labels(*labels)
        self.duration = service.duration.labels(*labels)

    def count(self, reason: str, status: int, amount: int = 1) -> None:
        """Count a request that ended."""
        child = self._requests.get((reason, status))
        if child is None:
            child = self._service.requests.labels(*self._labels, reason, str(status))
            self._requests[reason, status] = child
        child.inc(amount)

    def failed_attempt(self, reason: str) -> None:
        """Count an attempt that ended before its first byte; another target may have answered."""
        self._service.failed_attempts.labels(*self._labels, reason).inc()

    def charge(self, usage: Usage, nano: int) -> None:
        """Count tokens and nano-dollars."""
        self._tokens["input"].inc(usage.prompt - usage.cached)
        self._tokens["output"].inc(usage.completion)
        if usage.cached:
            self._tokens["cached"].inc(usage.cached)
        if nano:
            self._cost.inc(nano / NANO)


class ServiceMetrics(Collector):
    """Series of one service."""

    def __init__(self, state: State, key: str) -> None:
        self._state, self._key = state, key
        namespace, _, name = key.partition("/")
        self.labels = (namespace, name)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._destinations: dict[str, DestinationMetrics] = {}
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
        ).labels(*self.labels)
        self.arrivals = self._counter(
            names.ARRIVALS, "Requests that arrived.", names.SERVICE_LABELS
        ).labels(*self.labels)
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
        ).labels(*self.labels)

    def to(self, destination: str) -> DestinationMetrics:
        """Return the series of a destination."""
        found = self._destinations.get(destination)
        if found is None:
            found = DestinationMetrics(self, destination)
            self._destinations[destination] = found
        return found

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, read from the state now."""
        label_names = names.SERVICE_LABELS
        queued = GaugeMetricFamily(names.QUEUED, "Requests that wait here.", labels=label_names)
        ready = GaugeMetricFamily(names.READY_REPLICAS, "Replicas in use.", labels=label_names)
        slots = GaugeMetricFamily(
            names.SLOTS, "Requests that replicas may have of this gateway.", labels=label_names
        )
        flight = GaugeMetricFamily(
            names.IN_FLIGHT, "Requests under way.", labels=(*label_names, "destination")
        )
        service = self._state.services.get(self._key)
        if service is not None:
            queued.add_metric(self.labels, len(service.admission.waiting))
            ready.add_metric(self.labels, len(service.admission.replicas))
            slots.add_metric(self.labels, service.admission.waiting.slots)
            flight.add_metric((*self.labels, DESTINATION_LOCAL), service.in_flight)
            for destination, number in service.spilled.items():
                flight.add_metric((*self.labels, destination), number)
        yield from (queued, ready, slots, flight)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counters:
        family = Counters(name, text, labels)
        self.registry.register(family)
        return family

    def _histogram(
        self, name: str, text: str, labels: tuple[str, ...], buckets: tuple[float, ...]
    ) -> Histograms:
        family = Histograms(name, text, labels, buckets)
        self.registry.register(family)
        return family


class Metrics(Collector):
    """All series of one gateway."""

    def __init__(self, state: State, memory: Memory) -> None:
        self.state, self.memory = state, memory
        self.registry = CollectorRegistry()  # of what is no service's
        self.registry.register(self)
        self._services: dict[str, ServiceMetrics] = {}

    def of(self, service: Service) -> ServiceMetrics:
        """Return the series of a service."""
        found = self._services.get(service.key)
        if found is None:
            found = self._services[service.key] = ServiceMetrics(self.state, service.key)
        return found

    async def render(self) -> bytes:
        """Return the page that Prometheus reads."""
        for key in self._services.keys() - self.state.services.keys():
            del self._services[key]
        families: dict[bytes, list[bytes]] = {}
        _sort_in(families, generate_latest(self.registry))
        begun = time.monotonic()
        for service in tuple(self.state.services.values()):
            if time.monotonic() - begun >= SLICE_SECONDS:
                await asyncio.sleep(0)
                begun = time.monotonic()
            _sort_in(families, generate_latest(self._initialised(service).registry))
        return b"".join(part for head, series in families.items() for part in (head, *series))

    def collect(self) -> Iterator[Metric]:
        """Yield what belongs to no service."""
        yield GaugeMetricFamily(
            names.REQUEST_MEMORY, "Memory that requests hold here.", value=self.memory.held
        )

    def _initialised(self, service: Service) -> ServiceMetrics:
        """Return the series of a service, with those that it may get at 0."""
        series = self.of(service)
        series.to(DESTINATION_LOCAL).count("", 200, 0)
        spillover = service.resource.spec.spillover
        for ref in spillover.providers:
            destination = series.to(f"{ref.namespace or service.namespace}/{ref.name}")
            for reason in spillover.when:
                destination.count(reason, 200, 0)
        return series


def _sort_in(families: dict[bytes, list[bytes]], page: bytes) -> None:
    """Add a page's series to their families: all lines of a metric must be one group.

    https://prometheus.io/docs/instrumenting/exposition_formats/#grouping-and-sorting
    """
    for family in page.split(b"# HELP ")[1:]:
        text, kind, series = family.split(b"\n", 2)
        families.setdefault(b"# HELP %b\n%b\n" % (text, kind), []).append(series)
