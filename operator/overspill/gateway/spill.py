"""Stay, wait, spill or refuse: the decision for one request before its first byte.

A request goes to a provider when its expected local wait exceeds the queueWait
objective and the reason that holds is listed in ``spillover.when``. Everything else
stays, also when the cluster is full. Pure: every number that counted is in ``Facts``,
and the outcome carries the expected wait and the reason.
"""

import math
from dataclasses import dataclass

from overspill.api.names import SpillReason

MODEL_RETRY_SECONDS = 30.0  # somebody has to mend something; a kubelet tries again by itself
# Times the expected one is what a client that is refused is told to wait: the mean service time is
# good to an eighth (standard deviation), and who comes too early is refused again.
LATER = 1.3


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one request and its service at one moment. Times in seconds."""

    slots: int  # of all ready replicas
    free: int  # of them, not in use
    ahead: int  # requests waiting before this one
    mean_service: float  # mean time of a request in a replica
    waited: float  # since the request arrived
    objective: float  # queueWait p95
    room: bool  # it has a place in the queue, or there is one
    queue_length: int
    line: float  # requests that leave the queue before one that is refused now gets a place
    hold_limit: float  # longest wait before an honest error
    starting: bool  # a replica that was never ready before is starting
    broken: bool  # a replica that was ready once is not ready now
    full: bool  # status.capacity.full
    at_max: bool  # all maxReplicas exist and are placed
    model_fault: str  # reason of ModelReady=False while no replica is ready, else ""
    when: frozenset[SpillReason]
    may_leave: bool  # dataPolicy, and the request's own header
    providers: tuple[str, ...]  # usable ones that were not tried, in order


@dataclass(frozen=True, slots=True)
class Hold:
    """Wait for a slot."""

    expected: float


@dataclass(frozen=True, slots=True)
class Spill:
    """Send it to a provider."""

    provider: str
    reason: SpillReason
    expected: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer with an error: 429 when it is too much, 503 when nothing can serve."""

    status: int
    code: str
    message: str
    retry_after: float


Decision = Hold | Spill | Refuse


def decide(facts: Facts) -> Decision:
    """Decide for a request that found no free slot."""
    expected = expected_wait(facts) if facts.room else math.inf
    if expected > facts.objective and facts.may_leave and facts.providers:
        reason = reason_to_spill(facts)
        if reason in facts.when:
            return Spill(facts.providers[0], reason, expected)
    return _refusal(facts, expected) or Hold(expected)


def expected_wait(facts: Facts) -> float:
    """Return the wait from arrival to a slot in seconds; infinite without a ready replica.

    Those ahead and the request itself leave the queue at the rate slots / mean service time.
    """
    if facts.slots == 0:
        return math.inf
    turns = max(0, facts.ahead + 1 - facts.free)
    return facts.waited + turns * facts.mean_service / facts.slots


def reason_to_spill(facts: Facts) -> SpillReason:
    """Return the first reason that holds; they exclude each other.

    A pod that cannot be placed is no replica yet: without any other, the cluster is full.
    """
    if facts.slots == 0:
        if facts.starting:
            return SpillReason.COLD_START
        if facts.broken:
            return SpillReason.REPLICAS_UNAVAILABLE
        return SpillReason.CLUSTER_FULL if facts.full else SpillReason.COLD_START
    if facts.full:
        return SpillReason.CLUSTER_FULL
    return SpillReason.MAX_REPLICAS if facts.at_max else SpillReason.OBJECTIVE_AT_RISK


def _refusal(facts: Facts, expected: float) -> Refuse | None:
    """Return why the request may not wait (any longer), None when it may."""
    if facts.model_fault:
        return Refuse(
            503,
            "model_not_ready",
            f"the model cannot be loaded: {facts.model_fault}; see the service's conditions",
            MODEL_RETRY_SECONDS,
        )
    if not facts.room:
        return Refuse(
            429,
            "queue_full",
            f"{facts.queue_length} requests wait for this model already; retry later",
            _line(facts),
        )
    if facts.waited >= facts.hold_limit:
        return _timed_out(facts)
    if math.isfinite(expected) and expected > facts.hold_limit:
        return Refuse(
            429,
            "overloaded",
            f"the wait would be {expected:.0f} s, longer than {facts.hold_limit:.0f} s; "
            "retry later",
            max(_line(facts), expected - facts.hold_limit),
        )
    return None


def _line(facts: Facts) -> float:
    """Return the seconds until there is a place in the queue for one who is refused now."""
    if facts.slots == 0:
        return math.inf
    return LATER * facts.line * facts.mean_service / facts.slots


def _timed_out(facts: Facts) -> Refuse:
    waited = f"waited {facts.waited:.0f} s"
    if facts.slots:
        return Refuse(429, "overloaded", f"{waited}, and no replica became free", _line(facts))
    why = "the cluster is full" if facts.full else "no replica of this model became ready"
    return Refuse(503, "no_replica_ready", f"{waited}, and {why}", math.inf)
