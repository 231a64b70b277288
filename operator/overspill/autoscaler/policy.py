"""From what is seen to how many replicas: pure, explicit in its state, replayable.

``decide`` is called every few seconds for every service. It keeps no state of its own, reads no
clock, and gives the same answer for the same arguments, so a recorded decision can be replayed.
Nothing falls without Prometheus: the gateways' own word may only raise a count.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Self

from overspill.api.conditions import timestamp
from overspill.api.status import DecisionStatus, Weighed
from overspill.autoscaler import demand, economics, limits
from overspill.autoscaler.capacity import UNKNOWN, Capacity
from overspill.autoscaler.demand import Load, Miss, Pressure, ScalingReason, Squeeze, Wish
from overspill.autoscaler.economics import Choice, Costs, EconomicsState, Prices
from overspill.autoscaler.pool import Want
from overspill.autoscaler.signals import Demand, Replicas, Rules, Signals, number

MAX_MESSAGE = 512  # characters, as in the CRD
LOOK = 10.0  # seconds between two looks of the economics: gateways count arrivals over as many
GAP = 60.0  # seconds without a look after which the load in between is unknown
QUIET = 600.0  # seconds in which a reason for the same count is told once
# What no price outweighs.
URGENT = (ScalingReason.FROM_ZERO, ScalingReason.IDLE, ScalingReason.KV_CACHE_FULL)
THROUGH_ZERO = (ScalingReason.FROM_ZERO, ScalingReason.IDLE)


@dataclass(frozen=True)
class PolicyState:
    """What one decision hands to the next. Times in seconds since the epoch."""

    replicas: int  # wanted
    history: limits.History
    active_at: float  # last time there was a request, or nobody could tell
    ready: int
    grown_at: float  # last time a replica became ready
    full_at: float | None = None  # last time a replica had no place
    held: int = 0  # replicas that had one then
    miss: Miss | None = None  # last time that the replicas of that time were too few
    counted_at: float = 0.0  # last time that the ready replicas became more or fewer
    capacity: Capacity = UNKNOWN
    economics: EconomicsState | None = None
    since: float = 0.0  # first decision
    turn: float = 0.0  # seconds by which its second look at prices is later than it could be

    @classmethod
    def start(cls, now: float, replicas: int, ready: int, turn: float = 0.0) -> Self:
        """Begin with a count that counts as recommended now, so that nothing falls at once.

        :param turn: seconds, less than ``LOOK``. Services that begin together look at prices in
            different passes where this differs, else all of them do in the same.
        """
        return cls(
            replicas, ((now, replicas),), now, ready, now, counted_at=now, since=now, turn=turn
        )

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read what ``to_dict`` gave, also after a way through JSON."""
        history = tuple((float(t), int(n)) for t, n in raw["history"])
        miss = Miss(**raw["miss"]) if raw["miss"] else None
        capacity = Capacity(**raw["capacity"])
        money = EconomicsState.from_dict(raw["economics"]) if raw["economics"] else None
        rebuilt = {"history": history, "miss": miss, "capacity": capacity, "economics": money}
        return cls(**{**raw, **rebuilt})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Decision:
    """One decision, with what it saw."""

    time: float  # seconds since the epoch
    replicas_from: int
    replicas_to: int
    reason: str
    message: str
    inputs: dict[str, float]
    weighed: dict[str, float] = field(default_factory=dict)  # named as in ``Weighed``
    want: Want | None = None  # in an empty cluster; None: decided before this process began

    @property
    def seen(self) -> dict[str, float]:
        """The inputs for people: in the order of their names, with four significant digits."""
        return dict(sorted(_rounded(self.inputs).items()))

    def is_news(self, told: Iterable["Decision"]) -> bool:
        """Whether it says another count or another reason than what was told.

        Why a count stays may change with every look, for example while a latency wavers about
        its objective: a reason that comes back to the same count is told again only after
        ``QUIET`` seconds, or the last moves would be pushed out of sight.

        :param told: what was told before, newest first.
        """
        for index, before in enumerate(told):
            if before.replicas_to != self.replicas_to:
                return True
            if before.reason == self.reason and (not index or self.time - before.time < QUIET):
                return False
        return True

    @classmethod
    def from_status(cls, told: DecisionStatus) -> Self:
        """Return a decision that the status of a service tells."""
        moment = datetime.strptime(told.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return cls(
            moment.timestamp(),
            told.replicas_from,
            told.replicas_to,
            told.reason,
            told.message,
            told.inputs,
            told.weighed.model_dump(exclude_none=True) if told.weighed else {},
        )

    def to_status(self) -> DecisionStatus:
        """Return it as the service's status shows it."""
        return DecisionStatus(
            time=timestamp(self.time),
            replicas_from=self.replicas_from,
            replicas_to=self.replicas_to,
            reason=self.reason,
            message=self.message[:MAX_MESSAGE],
            inputs=self.seen,
            weighed=Weighed.model_validate(_rounded(self.weighed)) if self.weighed else None,
        )


def _rounded(numbers: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in numbers.items()}


def decide(
    now: float,
    state: PolicyState,
    rules: Rules,
    replicas: Replicas,
    signals: Signals,
    live: Demand | None,
) -> tuple[Decision, PolicyState]:
    """Decide how many replicas a service should have.

    :param now: seconds since the epoch; never earlier than in the last call.
    :param state: what the last call returned, or ``PolicyState.start``.
    :param rules: what the user asked for.
    :param replicas: what the cluster has.
    :param signals: what Prometheus says; all missing when it is away.
    :param live: what the gateways say; None when none has said anything for some seconds.

    Where somebody else sets the count, the answer is advice. It begins at what is set, which may be
    far from the last advice; at zero it begins at the last advice, or the call for a first replica
    would last no longer than the request.
    """
    if rules.set_count:
        state = replace(state, replicas=rules.set_count)
    load = demand.load(signals, live)
    state = _look(now, state, replicas, load)
    choice, capacity, money = None, state.capacity, state.economics
    if load is None:
        wish = called = _hold(state.replicas)
    else:
        press = demand.pressure(rules, signals, live)
        settled = now - state.grown_at >= demand.LATENCY_MEMORY
        squeezed = demand.squeeze(signals, live)
        if (press.high or squeezed) and settled and replicas.ready:
            state = replace(state, miss=Miss(now, replicas.ready, load.concurrency))
        called = _wish(now, state, rules, replicas, signals, load, press, squeezed, settled=settled)
        wish, choice, capacity, money = _economise(
            now, state, rules, replicas, signals, live, load, called
        )
    # What is held while nothing may fall counts as called for: Prometheus may come back empty.
    called_for = wish.replicas if signals.complete else max(wish.replicas, state.replicas)
    history = limits.remember(state.history, now, called_for, rules)
    paced = _pace(now, state, history, rules, wish)
    count = _fit(now, state, history, rules, replicas, wish, paced)
    final = limits.clamp(count, rules)
    savings = choice.savings(rules.costs.replica_hour) if choice and rules.costs else ()
    late = load is not None and _late(now, state, replicas, load, called)
    want = Want(limits.clamp(paced, rules), late, savings, first=not replicas.ready)
    reason = _reason(now, state, wish, count, final, replicas, want, may_fall=signals.complete)
    message = _message(state.replicas, wish, final, reason, rules, replicas)
    inputs = _inputs(signals, live, replicas, load)
    weighed = _weighed(called.replicas, final, choice, rules.costs)
    decision = Decision(now, state.replicas, final, reason, message, inputs, weighed, want)
    return decision, replace(
        state, replicas=final, history=history, capacity=capacity, economics=money
    )


def _look(now: float, state: PolicyState, replicas: Replicas, load: Load | None) -> PolicyState:
    """Note when there was work, when a replica became ready, and when one had no place last."""
    full = replicas.unplaceable > 0
    return replace(
        state,
        active_at=now if load is None or load.arriving or not load.complete else state.active_at,
        grown_at=now if replicas.ready > state.ready else state.grown_at,
        counted_at=now if replicas.ready != state.ready else state.counted_at,
        full_at=now if full else state.full_at,
        held=replicas.placed + replicas.terminating if full else state.held,
        ready=replicas.ready,
    )


def _hold(current: int) -> Wish:
    return Wish(current, ScalingReason.HOLDING_NO_DATA, "neither Prometheus nor a gateway answers")


def _wish(
    now: float,
    state: PolicyState,
    rules: Rules,
    replicas: Replicas,
    signals: Signals,
    load: Load,
    press: Pressure,
    squeezed: Squeeze | None,
    *,
    settled: bool,
) -> Wish:
    """Layer 1, with the two ways through zero."""
    if state.replicas == 0 and load.present:
        return Wish(1, ScalingReason.FROM_ZERO, "a request arrived")
    if state.replicas == 0:
        return Wish(0, ScalingReason.IDLE, "no request")
    idle = now - state.active_at
    if rules.min_replicas == 0 and idle >= rules.idle_after and signals.complete:
        return Wish(0, ScalingReason.IDLE, f"no request for {rules.idle_after:g} s")
    return demand.wish(
        rules,
        state.replicas,
        replicas,
        load,
        press,
        settled=settled,
        squeezed=squeezed,
        too_few=_too_few(now, state, load),
    )


def _too_few(now: float, state: PolicyState, load: Load) -> int:
    """Return how many replicas missed the objective under such a load lately, 0 for none."""
    return state.miss.replicas if state.miss and state.miss.holds(now, load) else 0


def _measure(now: float, state: PolicyState, replicas: Replicas, signals: Signals) -> Capacity:
    """Learn what a replica does, from a minute in which their number did not change."""
    in_flight, residence = number(signals.in_flight), number(signals.residence)
    if not replicas.ready or now - state.counted_at < demand.LATENCY_MEMORY:
        return state.capacity
    if in_flight is None or residence is None:
        return state.capacity
    if not (0 < in_flight < math.inf and 0 < residence < math.inf):
        return state.capacity
    return state.capacity.observe(in_flight / replicas.ready, residence)


def _economise(
    now: float,
    state: PolicyState,
    rules: Rules,
    replicas: Replicas,
    signals: Signals,
    live: Demand | None,
    load: Load,
    wish: Wish,
) -> tuple[Wish, Choice | None, Capacity, EconomicsState | None]:
    """Layer 2: of what load calls for, what is cheaper than the cloud.

    Where latency or caches call for more, or there is nothing, or nobody knows, layer 1 stands;
    and a count that missed the objective lately is not gone back to, whatever it would save.
    Who has no replica because a full pool grants none is weighed all the same, until the one that
    it grants is ready: else nobody could see that it saves more than who has them.
    """
    arrivals = number(signals.arrivals_rate)  # of a minute: the first look is at no blip
    looked = wish.replicas and state.economics and now - state.economics.outlook.time <= GAP
    weighable = signals.complete and (replicas.ready or replicas.grant or looked)
    if rules.costs is None or arrivals is None or not weighable:
        return wish, None, state.capacity, state.economics
    if live and live.complete and state.economics:
        arrivals = live.arrivals_rate
    capacity, current = _measure(now, state, replicas, signals), state.replicas
    rate = capacity.rate(rules.slots)
    work = None if rate is None else min(arrivals / rate, float(rules.max_replicas))
    prices = rules.costs.prices(rate or 0.0)
    choice, money = _worth(now, state.economics, current, work, prices, state.turn)
    worth = max(1, choice.replicas) if choice else current
    outweighs = wish.reason in URGENT or (wish.late and wish.replicas > worth)
    if outweighs or not replicas.ready:
        return wish, choice, capacity, money
    too_few = _too_few(now, state, load)
    proven = demand.proven(too_few, current, load)
    count, best = max(worth, proven), choice.best if choice else None
    message = choice.explain(rules.costs.replica_hour) if choice else _unknown(work)
    if best is not None and best < proven:
        message += f"; {too_few} were too few under such a load"
    elif best is not None and best != count:
        message += "; whether that lasts is watched"
    reason = _by_price(current, count, wish, best)
    return Wish(count, reason, message, steady=True), choice, capacity, money


def _by_price(current: int, count: int, wish: Wish, best: int | None) -> ScalingReason:
    """Name what a count is for, where money had a say.

    :param best: the count that pays right now; None while nobody knows.
    """
    if count > current:
        return ScalingReason.REPLICA_CHEAPER
    if wish.replicas > count:
        known = best is not None and best <= count
        return ScalingReason.CLOUD_CHEAPER if known else ScalingReason.WATCHING_LOAD
    less = count < current
    return ScalingReason.LOAD_BELOW_CAPACITY if less else ScalingReason.WITHIN_OBJECTIVE


def _worth(
    now: float,
    before: EconomicsState | None,
    current: int,
    work: float | None,
    prices: Prices,
    turn: float,
) -> tuple[Choice | None, EconomicsState | None]:
    """Return how many replicas are cheaper than the cloud; None while nobody knows.

    :param work: offered now, in replicas' worth; None before it is known what a replica does.
    """
    if work is None:
        return None, before
    if before is None:
        return None, EconomicsState.start(now, work)
    age, first = now - before.outlook.time, before.outlook.since == before.outlook.time
    if age > GAP:
        return None, before.resume(now, work)
    if age >= (LOOK + turn if first else LOOK):
        return economics.choose(now, before, work, current, prices)
    if not before.busy:
        return None, before
    count = max(current, before.chosen)  # what a limit withheld is wanted as before
    return Choice(count, current, before.busy, prices.ratio), before


def _unknown(work: float | None) -> str:
    if work is None:
        return "what a replica does is known when it has worked for a while"
    return f"a load of {work:.2g} replicas is watched before a count changes"


def _pace(now: float, state: PolicyState, history: limits.History, rules: Rules, wish: Wish) -> int:
    """Layer 3 in time: windows and rates. The ways through zero wait for neither."""
    if wish.reason in THROUGH_ZERO:
        return wish.replicas
    current, count = state.replicas, wish.replicas
    if wish.steady and now - state.since < rules.down_window:
        count = max(count, current)  # what was there when we began has a window's grace
    if not wish.steady:
        count = limits.stabilise(current, history, now, rules)
    return limits.cap_rate(current, count)


def _fit(
    now: float,
    state: PolicyState,
    history: limits.History,
    rules: Rules,
    replicas: Replicas,
    wish: Wish,
    count: int,
) -> int:
    """Layer 3 in space: the cluster's room, and this service's part of it."""
    granted = limits.cap_grant(count, replicas)
    if wish.reason in THROUGH_ZERO:
        return granted
    recent = limits.in_force(history, now - rules.up_window)
    called_for = max(n for _, n in recent)
    if _was_full(now, state):
        granted = limits.cap_after_full(granted, state.replicas, state.held)
    return limits.cap_cluster(granted, replicas, called_for)


def _late(now: float, state: PolicyState, replicas: Replicas, load: Load, called: Wish) -> bool:
    """Whether requests need another replica than those that have a place.

    They do until it has one, not only while they can be seen to miss the objective: what a full
    pool has granted would be taken back while somebody else's replica still ends.
    """
    if called.late or called.reason in (ScalingReason.FROM_ZERO, ScalingReason.KV_CACHE_FULL):
        return True
    if not replicas.ready:
        return load.arriving
    return _too_few(now, state, load) >= replicas.placed


def _was_full(now: float, state: PolicyState) -> bool:
    return state.full_at is not None and now - state.full_at < limits.FULL_MEMORY


def _reason(
    now: float,
    state: PolicyState,
    wish: Wish,
    count: int,
    final: int,
    replicas: Replicas,
    want: Want,
    *,
    may_fall: bool,
) -> ScalingReason:
    """Name what decided: the outermost limit that holds, else the wish."""
    current, grant = state.replicas, replicas.grant
    if final > count:
        return ScalingReason.MIN_REPLICAS
    if final < count:
        return ScalingReason.MAX_REPLICAS
    if grant and not grant.probe and final == grant.replicas < want.replicas:
        return ScalingReason.CLUSTER_SHARED
    if replicas.unplaceable and final > replicas.placed + replicas.terminating:
        return ScalingReason.CLUSTER_FULL_PROBE
    if _was_full(now, state) and state.held < final < wish.replicas:
        return ScalingReason.CLUSTER_FULL_PROBE
    if final == current and wish.replicas < current and not may_fall:
        return ScalingReason.HOLDING_NO_DATA
    if final == current and wish.replicas != current:  # a window has yet to pass
        late = wish.late
        return ScalingReason.LATENCY_ABOVE_OBJECTIVE if late else ScalingReason.WITHIN_OBJECTIVE
    return wish.reason


def _message(
    current: int, wish: Wish, final: int, reason: ScalingReason, rules: Rules, replicas: Replicas
) -> str:
    """Say it with its numbers."""
    move = f"replicas stay at {final}" if current == final else f"replicas {current} → {final}"
    if rules.set_count is not None:
        move = f"replicas advised: {final}; mode is Manual, {rules.set_count} set"
    return f"{wish.message}{_note(reason, rules, replicas)}: {move}"[:MAX_MESSAGE]


def _note(reason: ScalingReason, rules: Rules, replicas: Replicas) -> str:
    """Say which limit held, "" for none."""
    if reason is ScalingReason.MIN_REPLICAS:
        return f"; minReplicas is {rules.min_replicas}"
    if reason is ScalingReason.MAX_REPLICAS:
        return f"; maxReplicas is {rules.max_replicas}"
    if reason is ScalingReason.HOLDING_NO_DATA:
        return "; nothing falls without Prometheus"
    share = f"; {replicas.grant.why}" if replicas.grant else ""
    if reason is ScalingReason.CLUSTER_SHARED:
        return share
    if reason is not ScalingReason.CLUSTER_FULL_PROBE:
        return ""
    if replicas.unplaceable:
        room = f"; the cluster has room for {replicas.placed}"
        return f"{room}, one more stays Pending to see when it has more{share}"
    return (
        "; the cluster was full a moment ago, and more than one more waits until it has had room "
        f"for {limits.FULL_MEMORY:g} s"
    )


def _weighed(
    called: int, final: int, choice: Choice | None, costs: Costs | None
) -> dict[str, float]:
    """Return what each layer said and what each count would cost, named as in ``Weighed``."""
    if choice is None or costs is None:
        return {"by_demand": called}
    hour = costs.replica_hour
    weighed: dict[str, float] = {
        "by_demand": called,
        "by_price": max(1, choice.replicas),
        "replica_hourly": hour,
        "request_dollars": costs.request,
        "boot_seconds": costs.boot,
        "decided_hourly": choice.hourly(final, hour),
        "one_more_hourly": choice.hourly(final + 1, hour),
        "all_cloud_hourly": choice.hourly(0, hour),
    }
    if final:
        weighed["one_fewer_hourly"] = choice.hourly(final - 1, hour)
    return weighed


def _inputs(
    signals: Signals, live: Demand | None, replicas: Replicas, load: Load | None
) -> dict[str, float]:
    """Return every number that was seen, by name."""
    numbers = signals.numbers()
    numbers["placed"], numbers["ready"] = replicas.placed, replicas.ready
    numbers["unplaceable"] = replicas.unplaceable
    if replicas.grant is not None:
        numbers["granted"] = replicas.grant.replicas
    if live is not None:
        numbers.update({f"gateway_{k}": v for k, v in vars(live).items() if v is not None})
    if load is not None:
        numbers["load"] = load.concurrency
    return numbers
