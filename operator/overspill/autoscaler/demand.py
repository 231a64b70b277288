"""Layer 1: how many replicas the offered load needs to stay within its objective.

Load is the number of requests that replicas would work on if there were enough of them: what is
in the system now, local and spilled. While replicas are missing a queue grows that says more about
the wait than about the need, so Little's law bounds what it counts for: arrivals per second times
the seconds that a request spends in a replica (https://en.wikipedia.org/wiki/Little%27s_law).

A replica's capacity is its batch (slots), used to 80 %. Latency above its objective asks for more,
but not before the replicas that were asked for have had their effect, and not where every request
could have a replica of its own already.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from operator import itemgetter

from overspill.autoscaler.signals import Demand, Replicas, Rules, Signals, number

UTILISATION = 0.8  # of the slots, above which another replica is wanted
UTILISATION_DOWN = 0.7  # of the slots of one replica fewer, below which one is given back
TOLERANCE = 1.1  # times the objective; less is noise
MAX_GROWTH = 2.0  # times the ready replicas, for one look at the latency
BACKLOG = 2.0  # times the offered concurrency; what queues beyond it does not count
MISS_MEMORY = 1800.0  # seconds that a count is known to miss the objective,
MISS_SHARE = 0.8  # at this share of the load at which it did, or more
KV_HIGH = 0.9  # of the engines' KV caches, above which a request that waits waits for room
LATENCY_MEMORY = 90.0  # seconds that the percentiles remember: window, plus a scrape interval


class ScalingReason(StrEnum):
    """Why a count was decided."""

    FROM_ZERO = "FromZero"
    LATENCY_ABOVE_OBJECTIVE = "LatencyAboveObjective"
    LOAD_ABOVE_CAPACITY = "LoadAboveCapacity"
    KV_CACHE_FULL = "KVCacheFull"
    LOAD_BELOW_CAPACITY = "LoadBelowCapacity"
    REPLICA_CHEAPER = "ReplicaCheaper"
    CLOUD_CHEAPER = "CloudCheaper"
    WATCHING_LOAD = "WatchingLoad"
    WITHIN_OBJECTIVE = "WithinObjective"
    IDLE = "Idle"
    MIN_REPLICAS = "MinReplicas"
    MAX_REPLICAS = "MaxReplicas"
    CLUSTER_FULL_PROBE = "ClusterFullProbe"
    CLUSTER_SHARED = "ClusterShared"
    HOLDING_NO_DATA = "HoldingNoData"


@dataclass(frozen=True)
class Load:
    """Requests that a service has to work on, now."""

    concurrency: float  # as far as it counts for capacity
    sustained: float  # of it, what remains when the backlog is worked off
    present: bool  # there is a request, or a gateway has just told of one
    arriving: bool  # or there was one in the minute that Prometheus' rates look back
    bounded: bool  # by Little's law; else a growing queue looks like growing need
    complete: bool  # nothing seen means nothing there


@dataclass(frozen=True)
class Pressure:
    """The latency that is worst in proportion to its objective."""

    ratio: float = 0.0  # 1 = at the objective
    message: str = ""

    @property
    def high(self) -> bool:
        """Whether the objective is missed by more than noise."""
        return self.ratio > TOLERANCE


@dataclass(frozen=True)
class Squeeze:
    """Requests wait while the KV caches are full."""

    usage: float  # 0 to 1
    waiting: float  # requests, in the engines and before them

    @property
    def message(self) -> str:
        """It in words."""
        return f"KV cache {self.usage:.0%} used and {self.waiting:.2g} requests wait"


@dataclass(frozen=True)
class Miss:
    """So many replicas were too few for so much load: by the objective, or by their caches."""

    time: float  # seconds since the epoch
    replicas: int
    concurrency: float

    def holds(self, now: float, load: Load) -> bool:
        """Whether so few replicas would miss it again."""
        recent = now - self.time < MISS_MEMORY
        return recent and load.concurrency >= MISS_SHARE * self.concurrency


@dataclass(frozen=True)
class Wish:
    """Replicas that are wanted, before any limit, and why."""

    replicas: int
    reason: ScalingReason
    message: str
    late: bool = False  # the objective is missed
    steady: bool = False  # it has waited for noise to pass already: no window is needed


def load(signals: Signals, live: Demand | None) -> Load | None:
    """Return what a service has to work on; None when nobody knows.

    The gateways' own word is the freshest. Where one of them is missing, it is a lower bound.

    :param live: what the gateways said in the last seconds.
    """
    witnesses = [w for w in (_from_gateways(live), _from_prometheus(signals)) if w is not None]
    if not witnesses:
        return None
    fresh = witnesses[:1] if live is not None and live.complete else witnesses
    busy = max(w[0] for w in fresh)
    queued = max(w[1] for w in fresh)
    rate = max(w[2] for w in fresh)
    floor, sustained = _offered(signals, rate)
    concurrency = max(floor, busy, min(busy + queued, BACKLOG * sustained))
    told = live is not None and (live.held > 0 or live.arrivals_rate > 0)
    present = busy + queued > 0 or told
    return Load(
        concurrency=concurrency,
        sustained=min(concurrency, max(busy, sustained)),
        present=present,
        arriving=present or rate > 0,
        bounded=sustained < math.inf,
        complete=(live is not None and live.complete) or signals.complete,
    )


def _from_gateways(live: Demand | None) -> tuple[float, float, float] | None:
    """Requests being answered, requests waiting, arrivals per second."""
    if live is None:
        return None
    return live.in_flight + live.spilled_in_flight, live.queued, live.arrivals_rate


def _from_prometheus(signals: Signals) -> tuple[float, float, float] | None:
    """The same as Prometheus has it; without any gateway the engines still know their part."""
    local, spilled, queued, rate = map(
        number,
        (signals.in_flight, signals.spilled_in_flight, signals.queued, signals.arrivals_rate),
    )
    if local is not None and spilled is not None and queued is not None and rate is not None:
        return local + spilled, queued, rate
    running, waiting = number(signals.engine_running), number(signals.engine_waiting)
    return (running, waiting, 0.0) if running is not None and waiting is not None else None


def _offered(signals: Signals, rate: float) -> tuple[float, float]:
    """Bounds of the concurrency that arrivals keep up in the long run.

    :param rate: arrivals per second by the freshest witness: it ends a minute's memory early
        when a load stops, and lets a new load count before a minute is over.
    """
    residence = number(signals.residence)
    if residence is None:
        return 0.0, math.inf
    steady = number(signals.arrivals_rate) or 0.0
    return min(steady, 2 * rate) * residence, max(steady, rate) * residence


def pressure(rules: Rules, signals: Signals, live: Demand | None) -> Pressure:
    """Return the worst latency of local answers; none where nothing is answered locally."""
    local = number(signals.local_rate) or number(signals.in_flight) or (live and live.in_flight)
    if not local:
        return Pressure()
    wait = number(signals.queue_wait_p95)
    if wait is None and live is not None:
        wait = live.wait_p95
    measured = (
        ("ttft p95", number(signals.ttft_p95), rules.ttft),
        ("inter-token p95", number(signals.itl_p95), rules.itl),
        ("queue wait p95", wait, rules.queue_wait),
    )
    known = [
        (value / bound, name, value, bound) for name, value, bound in measured if value is not None
    ]
    return _compare(*max(known, key=itemgetter(0))) if known else Pressure()


def squeeze(signals: Signals, live: Demand | None) -> Squeeze | None:
    """Return how the KV caches hold requests up, None where they do not, or nobody knows.

    Long prompts fill the cache before the slots: the engine then lets requests wait, or recomputes
    some of them (https://docs.vllm.ai/en/stable/configuration/optimization/#preemption), and
    neither slots nor load show it.
    """
    usage = number(signals.kv_usage)
    queued = live.queued if live is not None else number(signals.queued)
    waiting = (number(signals.engine_waiting) or 0.0) + (queued or 0.0)
    return Squeeze(usage, waiting) if usage is not None and usage > KV_HIGH and waiting else None


def _compare(ratio: float, name: str, value: float, bound: float) -> Pressure:
    sign = ">" if value > bound else "≤"
    return Pressure(ratio, f"{name} {seconds(value)} {sign} {seconds(bound)}")


def seconds(value: float) -> str:
    """Return a time with two significant digits, in ms below one second."""
    amount, unit = (value, "s") if value >= 1 else (value * 1000, "ms")
    return f"{float(f'{amount:.2g}'):g} {unit}"


def wish(
    rules: Rules,
    current: int,
    replicas: Replicas,
    load: Load,
    press: Pressure,
    *,
    settled: bool,
    squeezed: Squeeze | None = None,
    too_few: int = 0,
) -> Wish:
    """Return the replicas that load, latency and cache call for; at least one.

    :param current: replicas wanted so far; what is still starting counts as asked for.
    :param settled: the latency was measured with the replicas that are ready now.
    :param too_few: replicas that missed the objective, or had full caches, under such a load
        lately: what was added for it is kept, or the count would swing for as long as it stays.
    """
    have = max(0, current - replicas.unplaceable)  # a pod without a place is no capacity
    starting = have > replicas.ready
    by_load = _by_load(rules, have, load)
    if starting and not load.bounded:
        by_load = min(by_load, current)
    by_latency = proven(too_few, current, load)
    if press.high:
        grown = math.ceil(replicas.ready * min(MAX_GROWTH, press.ratio))
        asked = max(current, grown) if settled and not starting else current
        by_latency = min(asked, math.ceil(load.concurrency))
    grown = min(current + 1, math.ceil(load.concurrency)) if settled and not starting else current
    if squeezed and (by_cache := max(current, grown)) >= max(by_load, by_latency):
        message = f"{squeezed.message}; {_message(rules, load, press)}"
        return Wish(by_cache, ScalingReason.KV_CACHE_FULL, message, late=press.high)
    wanted = max(by_load, by_latency, 1)
    reason = _reason(wanted, current, by_load, press)
    message = _message(rules, load, press)
    if by_latency > by_load and not press.high:
        message += f"; {too_few} were too few under such a load"
    return Wish(wanted, reason, message, late=press.high)


def proven(too_few: int, current: int, load: Load) -> int:
    """Return the replicas that are known to be needed: one more than were too few lately.

    :param too_few: 0 where no count is known to be.
    :param current: no more than these are kept for it.
    """
    return min(current, too_few + 1, math.ceil(load.concurrency)) if too_few else 0


def _by_load(rules: Rules, have: int, load: Load) -> int:
    """Replicas for the load: as many as there are, where they are neither too few nor too many.

    A backlog adds one at most: it grows for as long as what was asked for does not get ready.
    """
    slots = rules.slots * UTILISATION
    up = min(_ceil(load.concurrency / slots), _ceil(load.sustained / slots) + 1)
    down = _ceil(load.concurrency / (rules.slots * UTILISATION_DOWN))
    return max(up, min(have, down))


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)  # 2.4 / 0.8 is a hair above 3


def _reason(wanted: int, current: int, by_load: int, press: Pressure) -> ScalingReason:
    if wanted > current and by_load >= wanted:
        return ScalingReason.LOAD_ABOVE_CAPACITY
    if wanted >= current and press.high:
        return ScalingReason.LATENCY_ABOVE_OBJECTIVE
    less = wanted < current
    return ScalingReason.LOAD_BELOW_CAPACITY if less else ScalingReason.WITHIN_OBJECTIVE


def _message(rules: Rules, load: Load, press: Pressure) -> str:
    work = f"{load.concurrency:.2g} requests at a time, {rules.slots} slots per replica"
    return f"{press.message}; {work}" if press.message else work
