"""Every autoscaler of the discrete-event level by its name, with the settings of a sweep.

Ours is the operator's own ``policy.decide``, with what the operator would see, costs among it. The
baselines of the fluid level get the offered load as requests at a time over the slots of a replica,
spilled ones included; those that see prices get requests/s over what a replica with a full batch
answers, which they would have to know.
"""

from collections.abc import Callable
from dataclasses import dataclass

from overspill.autoscaler.economics import Costs
from overspill.autoscaler.policy import PolicyState, decide
from overspill.autoscaler.signals import Replicas, Rules
from overspill.simulator.baselines import aibrix, classic, delayed, hpa, keda, knative, wva
from overspill.simulator.discrete import Scaler, View, World
from overspill.simulator.fluid import Policy, Sight

TICK = 15.0  # seconds, of the textbook's policies
TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)  # of a replica's slots
KV_TARGETS = (0.5, 0.6, 0.7, 0.8, 0.9)
WINDOWS = (4, 8, 20, 40)  # ticks, of the newsvendor
MAX_REPLICAS = 1000


class Operator:
    """The operator's autoscaler with its default windows, on one service."""

    interval = 5.0

    def __init__(self, world: World, costs: Costs) -> None:
        """Ask for what the world's objectives say, at such costs."""
        self._rules = Rules(
            min_replicas=1,
            max_replicas=MAX_REPLICAS,
            slots=world.engine.slots,
            ttft=world.ttft,
            itl=world.itl,
            queue_wait=world.queue_wait,
            idle_after=600.0,
            costs=costs,
        )
        self._state: PolicyState | None = None

    def target(self, view: View) -> int:
        """Return what the policy decides."""
        if self._state is None:
            self._state = PolicyState.start(view.now, view.ready + view.pending, view.ready)
        replicas = Replicas(view.ready + view.pending, view.ready + view.pending, view.ready)
        decision, self._state = decide(
            view.now, self._state, self._rules, replicas, view.signals, view.live
        )
        return decision.replicas_to


class Wva:
    """llm-d's autoscaler."""

    interval = 60.0

    def __init__(self, kv_threshold: float) -> None:
        """Call a replica saturated from that share of its KV cache."""
        self._threshold = kv_threshold

    def target(self, view: View) -> int:
        """Return the count; at least one."""
        if len(view.engines) != view.ready:  # not scraped since the last change
            return view.ready + view.pending
        return max(1, wva.desired(view.engines, view.pending, self._threshold))


class Baseline:
    """A policy of the fluid level."""

    def __init__(self, policy: Policy, interval: float, load: Callable[[View], float]) -> None:
        """Ask it every so many seconds.

        :param load: gives the offered load in replicas.
        """
        self.interval = interval
        self._policy, self._load = policy, load

    def target(self, view: View) -> int:
        """Return what the policy wants."""
        return self._policy.target(Sight(view.now, self._load(view), view.ready, view.pending))


@dataclass(frozen=True)
class Terms:
    """What a scaler is made for."""

    world: World
    ratio: float  # cost of the cloud for the work of one busy replica, over the replica's own
    capacity: float  # requests/s that a replica answers with a full batch

    @property
    def costs(self) -> Costs:
        """What the operator would be told."""
        hourly = self.world.hourly
        return Costs(hourly, self.ratio * hourly / 3600 / self.capacity, self.world.boot)


@dataclass(frozen=True)
class Contender:
    """A scaler with what a sweep may set."""

    make: Callable[[Terms, float], Scaler]
    values: tuple[float, ...]  # to sweep
    default: float  # as documented


def _concurrency(terms: Terms) -> Callable[[View], float]:
    slots = terms.world.engine.slots
    return lambda view: (
        (view.live.in_flight + view.live.spilled_in_flight + view.live.queued) / slots
    )


def _on_target(make: Callable[[float], Policy], interval: float) -> Contender:
    return Contender(
        lambda terms, value: Baseline(make(value), interval, _concurrency(terms)), TARGETS, 0.7
    )


def _textbook(
    make: Callable[[Terms, float], Policy], values: tuple[float, ...], default: float
) -> Contender:
    def scaler(terms: Terms, value: float) -> Scaler:
        return Baseline(
            make(terms, value), TICK, lambda view: view.live.arrivals_rate / terms.capacity
        )

    return Contender(scaler, values, default)


CONTENDERS: dict[str, Contender] = {
    "overspill": Contender(lambda terms, _: Operator(terms.world, terms.costs), (0.0,), 0.0),
    "lcp": _textbook(
        lambda terms, _: classic.LazyCapacityProvisioning(
            terms.ratio, round(terms.world.boot / TICK)
        ),
        (0.0,),
        0.0,
    ),
    "newsvendor": _textbook(
        lambda terms, value: classic.Newsvendor(terms.ratio, int(value)), WINDOWS, 20
    ),
    "wva": Contender(lambda _, value: Wva(value), KV_TARGETS, wva.KV_THRESHOLD),
    "hpa": _on_target(hpa.HorizontalPodAutoscaler, 15.0),
    "keda": _on_target(keda.Keda, 15.0),
    "kpa": _on_target(knative.KnativePodAutoscaler, 2.0),
    "apa": _on_target(aibrix.AibrixPodAutoscaler, 10.0),
    "ray": _on_target(delayed.RayServe, 10.0),
    "skyserve": _on_target(delayed.SkyServe, 20.0),
    "cloud": _textbook(lambda _, __: classic.Constant(0), (0.0,), 0.0),
}
