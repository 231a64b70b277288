"""What the policy sees of one service at one moment, and what the user asked for.

All values are plain and can be written as JSON, so that a decision can be replayed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Self

from overspill.api.service import InferenceService
from overspill.api.values import parse_duration
from overspill.autoscaler.economics import Costs
from overspill.autoscaler.sharing import Grant
from overspill.prometheus.samples import Missing, Samples, Value

NO_DATA = Missing.NO_DATA
UP_WINDOW, DOWN_WINDOW = 10.0, 300.0  # seconds, where the operator is told no others
# A gateway has a series per provider only where the service lists one. All others are there from
# the moment the gateway knows the service, so that their absence means that nobody looked, or
# looked only once: a rate needs two scrapes.
_ZERO_WITHOUT_PROVIDERS = ("spilled_in_flight", "spilled_rate")


def number(value: Value) -> float | None:
    """Return a signal's number, or None when it has none."""
    return None if isinstance(value, Missing) else value


@dataclass(frozen=True)
class Signals:
    """What Prometheus says, averaged over the last minute. Rates per second, times in seconds."""

    gateways: Value = NO_DATA  # a number when a gateway that knows the service is scraped
    arrivals_rate: Value = NO_DATA
    in_flight: Value = NO_DATA  # at local replicas, now
    spilled_in_flight: Value = NO_DATA  # at providers, now
    queued: Value = NO_DATA  # in the gateways, now
    ttft_p95: Value = NO_DATA  # local answers
    itl_p95: Value = NO_DATA  # local answers
    queue_wait_p95: Value = NO_DATA
    local_rate: Value = NO_DATA
    spilled_rate: Value = NO_DATA
    within_objective_rate: Value = NO_DATA
    residence: Value = NO_DATA  # mean time of a request in a replica
    engine_running: Value = NO_DATA  # now
    engine_waiting: Value = NO_DATA  # now
    kv_usage: Value = NO_DATA  # of the engines' KV caches, 0 to 1, now; not every engine tells

    @classmethod
    def of(cls, key: str, samples: Mapping[str, Samples]) -> Self:
        """Pick one service's values.

        Where a gateway that knows the service is scraped and says nothing of providers, nothing
        spills: that is zero, not "no data".

        :param key: ``namespace/name``.
        :param samples: per signal, the values of all services.
        """
        found = {n: samples[n].get(key, NO_DATA) if n in samples else NO_DATA for n in _names()}
        if number(found["gateways"]) is not None:
            found |= {n: 0.0 for n in _ZERO_WITHOUT_PROVIDERS if found[n] is NO_DATA}
        return cls(**found)

    def numbers(self) -> dict[str, float]:
        """Return the signals that are numbers, by name."""
        return {n: value for n, value in vars(self).items() if not isinstance(value, Missing)}

    @property
    def complete(self) -> bool:
        """Prometheus is there and sees a gateway that knows the service: zero means zero."""
        return number(self.gateways) is not None and number(self.arrivals_rate) is not None


@cache
def _names() -> tuple[str, ...]:
    return tuple(f.name for f in fields(Signals))


@dataclass(frozen=True)
class Demand:
    """What the gateways say by themselves, at most a few seconds old."""

    arrivals_rate: float  # per second, over the last ten seconds
    in_flight: float  # at local replicas
    spilled_in_flight: float  # at providers
    queued: float
    held: float  # of the queued ones, those that wait because no replica is ready
    wait_p95: float | None = None  # seconds
    complete: bool = True  # every known gateway has reported; else the counts are lower bounds


@dataclass(frozen=True)
class Replicas:
    """Facts from the cluster, counts of pods."""

    desired: int | None = None  # the Deployment's spec.replicas; None: there is no Deployment
    placed: int = 0  # on a node
    ready: int = 0
    unplaceable: int = 0  # the cluster has no room for them
    terminating: int = 0  # still on a node, whose room they will give back
    resource_version: str = ""  # of the Deployment, when this was seen
    grant: Grant | None = None  # where a full pool is shared and has less than is wanted


@dataclass(frozen=True)
class Rules:
    """What the user asked for. Times in seconds."""

    min_replicas: int
    max_replicas: int
    slots: int  # requests that one replica computes at the same time
    ttft: float
    itl: float
    queue_wait: float
    idle_after: float
    up_window: float = UP_WINDOW
    down_window: float = DOWN_WINDOW
    costs: Costs | None = None  # None: the objective alone decides
    set_count: int | None = None  # replicas that somebody has set: what we decide is advice

    @classmethod
    def of(
        cls,
        service: InferenceService,
        slots: int,
        up_window: float = UP_WINDOW,
        down_window: float = DOWN_WINDOW,
    ) -> Self:
        """Read them from a service.

        :param slots: requests that one replica computes at the same time.
        :param up_window: seconds that a higher count must be called for.
        :param down_window: seconds that a higher count must not have been called for.
        """
        scaling = service.spec.scaling
        objective = scaling.objective
        return cls(
            min_replicas=scaling.min_replicas,
            max_replicas=scaling.max_replicas,
            slots=slots,
            ttft=parse_duration(objective.ttft.p95),
            itl=parse_duration(objective.itl.p95),
            queue_wait=parse_duration(objective.queue_wait.p95),
            idle_after=parse_duration(scaling.idle_after),
            up_window=up_window,
            down_window=down_window,
            set_count=scaling.set_count,
        )
