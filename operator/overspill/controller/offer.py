"""Whether a service's replicas are weighed against the cloud, and at which prices. Pure.

A choice exists only where a request that replicas are too few for may leave: its reason is then
``ObjectiveAtRisk``, or ``ClusterFull`` while the cluster is full. Without a price on both sides,
or a provider that can be used now, the latency objective alone decides how many replicas there are.
Nor is advice weighed: whoever sets the count weighs prices, too.
"""

from overspill.api.names import SpillReason
from overspill.api.service import SpillStrategy
from overspill.autoscaler.offers import Offer
from overspill.controller import capacity, conditions
from overspill.controller.facts import Facts
from overspill.ledger import pricelist
from overspill.ledger.prices import Rates

DEFAULT_BOOT = 120.0  # seconds; a model of some GB from a disk, before a replica told more


def offer(facts: Facts) -> Offer | None:
    """Return what both sides ask, None where there is no choice."""
    spec = facts.service.spec
    replica_hour = float(spec.cost.gpu_hour) * spec.resources.accelerators
    decided_here = spec.scaling.set_count is None
    rates = _rates(facts) if decided_here and replica_hour and _may_leave(facts) else ()
    return Offer(replica_hour, rates, _boot(facts)) if rates else None


def first_rates(facts: Facts) -> Rates | None:
    """Return the prices of the first listed provider that has any, to compare own costs with."""
    own = facts.service.metadata.namespace
    for ref in facts.service.spec.spillover.providers:
        known = facts.providers.get(f"{ref.namespace or own}/{ref.name}")
        if known and known.provider and (rates := pricelist.rates(known.provider.spec, ref.model)):
            return rates
    return None


def _may_leave(facts: Facts) -> bool:
    """Whether ``when`` lists the reason that holds for a request without a free slot."""
    when, shown = facts.service.spec.spillover.when, facts.service.status.capacity
    full = capacity.judge(facts).unplaceable or (shown and shown.full)
    return SpillReason.OBJECTIVE_AT_RISK in when and (not full or SpillReason.CLUSTER_FULL in when)


def _rates(facts: Facts) -> tuple[Rates, ...]:
    """Return the prices of the providers that the strategy chooses from."""
    rates = conditions.spill_rates(facts)
    ordered = facts.service.spec.spillover.strategy is SpillStrategy.ORDERED
    return tuple(rates[:1] if ordered else rates)


def _boot(facts: Facts) -> float:
    """Return how long the quickest of the running replicas took."""
    return min((pod.boot for pod in facts.pods if pod.boot is not None), default=DEFAULT_BOOT)
