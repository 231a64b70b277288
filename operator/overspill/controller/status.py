"""The status of an object: what to write, and whether it is worth a write. Pure.

Numbers have two significant digits, so that a status does not change with every request. A
change of numbers alone waits until 30 s after the last write, one of the 24-hour costs an hour:
they grow by themselves as long as a GPU is held, and an idle cluster must stay quiet.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor, log10

from overspill.api import conditions as api
from overspill.api.budget import SpentStatus
from overspill.api.conditions import Condition, timestamp
from overspill.api.names import ConditionType
from overspill.api.provider import InferenceProvider, InferenceProviderStatus
from overspill.api.service import InferenceService
from overspill.api.status import (
    MAX_DECISIONS,
    CapacityStatus,
    CostStatus,
    DecisionStatus,
    InferenceServiceStatus,
    ModelStatus,
    TrafficStatus,
)
from overspill.autoscaler.gateways import ProviderReport
from overspill.controller.capacity import Capacity
from overspill.controller.conditions import Verdict, of_budget
from overspill.controller.facts import Budget, Facts
from overspill.controller.listing import of_prices, price_list
from overspill.runtimes.base import selector

NUMBERS_SECONDS = 30.0
COSTS_SECONDS = 3600.0


def two_digits(value: float) -> float:
    """Return a number rounded to two significant digits."""
    if value == 0:
        return 0.0
    return round(value, 1 - floor(log10(abs(value))))


def conditions(
    verdicts: dict[ConditionType, Verdict], old: list[Condition], generation: int, now: float
) -> list[Condition]:
    """Return verdicts as conditions, with the times at which each status changed.

    :param now: seconds since the epoch.
    """
    new = [
        Condition(
            type=type_,
            status=verdict.status,
            reason=verdict.reason,
            message=verdict.message[: api.MAX_MESSAGE],  # a scheduler or a refusal can say more
            observed_generation=generation,
        )
        for type_, verdict in verdicts.items()
    ]
    return api.merge(old, new, now)


def status(
    facts: Facts, capacity: Capacity, verdicts: dict[ConditionType, Verdict], url: str, now: float
) -> InferenceServiceStatus:
    """Return the status that the facts call for.

    :param url: the gateway's, for clients in the cluster.
    :param now: seconds since the epoch.
    """
    service = facts.service
    generation = service.metadata.generation
    labels = selector(service.metadata.name)
    return InferenceServiceStatus(
        observed_generation=generation,
        conditions=conditions(verdicts, service.status.conditions, generation, now),
        replicas=len(facts.pods),
        ready_replicas=facts.ready,
        desired_replicas=facts.scaling.decided,
        selector=",".join(f"{name}={value}" for name, value in labels.items()),
        url=url,
        model=_model(facts),
        capacity=_capacity(service, capacity, now),
        traffic=rounded(facts.scaling.traffic),
        cost=rounded_cost(facts.scaling.cost),
        spent=_spent(facts),
        last_decisions=_decisions(facts.scaling.decisions, service.status.last_decisions),
    )


def _spent(facts: Facts) -> SpentStatus | None:
    """Return what of the budget is spent; until the ledger was read, what was said last."""
    spec, known = facts.service.spec.spillover.budget, facts.budget
    if spec is None:
        return None
    return SpentStatus.of(known.spent, spec.limits) if known else facts.service.status.spent


def _model(facts: Facts) -> ModelStatus | None:
    """Return how far the model is, until a replica has it."""
    loading = facts.loading
    if facts.ready or loading is None or not loading.begun:
        return None
    return ModelStatus(loaded_bytes=loading.loaded, total_bytes=loading.total)


def _decisions(new: Sequence[DecisionStatus], old: list[DecisionStatus]) -> list[DecisionStatus]:
    """Return the newest decisions; those of an operator that ended are still in the status."""
    known = {(d.time, d.replicas_to, d.reason) for d in new}
    kept = [d for d in old if (d.time, d.replicas_to, d.reason) not in known]
    return sorted([*new, *kept], key=lambda d: d.time, reverse=True)[:MAX_DECISIONS]


def _capacity(service: InferenceService, capacity: Capacity, now: float) -> CapacityStatus:
    if capacity.reason is None:
        return CapacityStatus(full=False)
    before = service.status.capacity
    since = before.since if before and before.full and before.since else timestamp(now)
    message = capacity.message[: api.MAX_MESSAGE]
    return CapacityStatus(full=True, reason=capacity.reason, message=message, since=since)


def rounded(traffic: TrafficStatus | None) -> TrafficStatus | None:
    """Return traffic in two significant digits."""
    if traffic is None:
        return None
    ttft = traffic.ttft_p95_seconds
    return TrafficStatus(
        requests_per_second=two_digits(traffic.requests_per_second),
        spilled_percent=two_digits(traffic.spilled_percent),
        ttft_p95_seconds=None if ttft is None else two_digits(ttft),
    )


def rounded_cost(cost: CostStatus | None) -> CostStatus | None:
    """Return costs in two significant digits."""
    if cost is None:
        return None
    return CostStatus(**{name: None if v is None else two_digits(v) for name, v in cost})


def provider_status(
    provider: InferenceProvider, report: ProviderReport, budget: Budget | None, now: float
) -> InferenceProviderStatus:
    """Return the status of a provider.

    :param report: what the gateways say of it.
    :param budget: None: it has none, or the ledger was not read yet.
    :param now: seconds since the epoch.
    """
    old, generation = provider.status, provider.metadata.generation
    today = datetime.fromtimestamp(now, UTC).date()
    ready = Verdict("True" if report.ready else "False", report.reason, report.message)
    verdicts = {ConditionType.READY: ready}
    prices = of_prices(provider.spec, today)
    if prices is not None:
        verdicts[ConditionType.PRICES_CURRENT] = prices
    kept: list[Condition] = []
    spent = None
    limits = provider.spec.budget.limits if provider.spec.budget else {}
    if budget is not None:
        verdicts[ConditionType.WITHIN_BUDGET] = of_budget(budget, "spec.budget")
        spent = SpentStatus.of(budget.spent, limits)
    elif limits:  # what was said last stands
        kept = [c for c in old.conditions if c.type == ConditionType.WITHIN_BUDGET]
        spent = old.spent
    return InferenceProviderStatus(
        observed_generation=generation,
        conditions=[*conditions(verdicts, old.conditions, generation, now), *kept],
        spent=spent,
        price_list=price_list(provider.spec, today),
    )


def provider_wait(
    old: InferenceProviderStatus, new: InferenceProviderStatus, since: float
) -> float | None:
    """Return seconds until a provider's ``new`` status should be written: 0 now, None never.

    :param since: seconds since the last write.
    """
    if old == new:
        return None
    numbers_only = old == new.model_copy(update={"spent": old.spent})
    return max(0.0, NUMBERS_SECONDS - since) if numbers_only else 0.0


def wait(old: InferenceServiceStatus, new: InferenceServiceStatus, since: float) -> float | None:
    """Return seconds until ``new`` should be written: 0 now, None never.

    :param since: seconds since the last write.
    """
    if old == new:
        return None
    if _essence(old) != _essence(new):
        return 0.0
    costs_only = old == new.model_copy(update={"cost": old.cost})
    return max(0.0, (COSTS_SECONDS if costs_only else NUMBERS_SECONDS) - since)


def _essence(status: InferenceServiceStatus) -> InferenceServiceStatus:
    """Return the part of a status whose change is told at once."""
    bare = [c.model_copy(update={"message": ""}) for c in status.conditions]
    capacity = status.capacity and status.capacity.model_copy(update={"message": ""})
    told_later = dict.fromkeys(("model", "traffic", "cost", "spent"))
    return status.model_copy(update={"conditions": bare, "capacity": capacity, **told_later})
