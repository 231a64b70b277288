"""Local, hold, spill or refuse: the decision for one request before its first byte.

A request goes to a provider when its expected local wait exceeds the queueWait
objective and the reason that holds is listed in ``spillover.when``. Everything else
stays, also when the cluster is full. Replicas that start count from the moment at which they
are expected to be ready. Pure: every number that counted is in ``Facts``, and the outcome
carries the expected wait, which decided, and the reason.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from overspill.api.names import SpillReason
from overspill.api.service import SpillStrategy
from overspill.gateway.provider import Hindrance

SOMEBODY_SECONDS = 30.0  # somebody has to do something; a kubelet or an HPA comes by itself
# Times the expected one is what a client that is refused is told to wait. Who comes too early is
# refused again, and when a load begins the mean service time is known from few requests.
LATER = 1.5


@dataclass(frozen=True, slots=True)
class Boot:
    """A replica that starts."""

    ready_in: float  # seconds
    slots: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that answers, may be used, and was not tried yet."""

    provider: str
    cost: int  # nano-dollars that this request is expected to cost there


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about one request and its service at one moment. Times in seconds."""

    slots: int  # of all ready replicas
    free: int  # of them, not in use
    ahead: int  # requests waiting before this one
    mean_service: float  # mean time of a request in a slot; slots / it is the service rate
    boots: tuple[Boot, ...]  # under way, and not later than expected
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
    stopped: bool  # somebody has set its replicas to 0
    model_fault: str  # reason of ModelReady=False while no replica is ready, else ""
    when: frozenset[SpillReason]
    may_leave: bool  # dataPolicy, and the request's own header
    providers: tuple[Candidate, ...]  # in the service's order
    strategy: SpillStrategy
    hindered: tuple[Hindrance, ...] = ()  # the other providers of the service's list


@dataclass(frozen=True, slots=True)
class Local:
    """A slot is free for it."""

    expected: float


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
    expected: float = math.inf


Decision = Local | Hold | Spill | Refuse


def decide(facts: Facts) -> Decision:
    """Decide for one request."""
    expected = expected_wait(facts) if facts.room else math.inf
    if expected > facts.objective and facts.may_leave and facts.providers:
        reason = reason_to_spill(facts)
        if reason in facts.when:
            return Spill(_chosen(facts).provider, reason, expected)
    if refusal := _refusal(facts, expected):
        return replace(refusal, expected=expected)
    return Local(expected) if _turns(facts) == 0 and facts.slots else Hold(expected)


def expected_wait(facts: Facts) -> float:
    """Return the wait from arrival to a slot in seconds; infinite without any replica to come."""
    return facts.waited + drain_seconds(_turns(facts), facts.slots, facts.mean_service, facts.boots)


def drain_seconds(turns: int, slots: int, mean_service: float, boots: Iterable[Boot]) -> float:
    """Return the seconds until so many requests have got a slot.

    They get it at the rate slots / mean service time. A boot brings slots that are free at once.
    """
    left, now = float(turns), 0.0
    if left <= 0 and slots:
        return 0.0
    for boot in sorted(boots, key=lambda b: b.ready_in):
        leaving = slots / mean_service * (boot.ready_in - now)
        if slots and left <= leaving:
            break
        left, now, slots = left - leaving - boot.slots, boot.ready_in, slots + boot.slots
        if left <= 0:
            return now
    return now + left * mean_service / slots if slots else math.inf


def _turns(facts: Facts) -> int:
    """Return how many requests, this one included, have to wait until it has a slot."""
    return max(0, facts.ahead + 1 - facts.free)


def _chosen(facts: Facts) -> Candidate:
    """Return the provider by the service's strategy; of two equal prices the first."""
    if facts.strategy is SpillStrategy.CHEAPEST:
        return min(facts.providers, key=lambda candidate: candidate.cost)
    return facts.providers[0]


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
            SOMEBODY_SECONDS,
        )
    if facts.stopped and not facts.slots:
        return Refuse(
            503,
            "scaled_to_zero",
            "the model was scaled to 0 replicas by hand, by an HPA or by KEDA (scaling.mode "
            "Manual), and no request starts one",
            SOMEBODY_SECONDS,
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
    if facts.slots and expected > facts.hold_limit:
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
