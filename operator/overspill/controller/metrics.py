"""The controller's own metrics, in the names of :mod:`overspill.api.metrics`."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from overspill.api import metrics as names
from overspill.cluster.kinds import Kind


class Metrics:
    """All of them, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Register them."""
        self.reconciles = Counter(
            names.RECONCILES, "Reconciles", ("kind", "result"), registry=registry
        )
        self.seconds = Histogram(
            names.RECONCILE_SECONDS, "Time of one reconcile", ("kind",), registry=registry
        )
        self.writes = Counter(
            names.WRITES, "Writes sent to the API server", ("kind", "verb"), registry=registry
        )
        self.conflicts = Counter(
            names.CONFLICTS, "Writes of children that had changed since they were read", ("kind",),
            registry=registry,
        )  # fmt: skip
        self.dirty = Gauge(names.DIRTY_KEYS, "Objects that wait for a worker", registry=registry)
        self.leader = Gauge(names.LEADER, "1 while this operator acts", registry=registry)

    def wrote(self, verb: str, kind: Kind) -> None:
        """Count a write."""
        self.writes.labels(kind.kind, verb).inc()
