"""The conditions of a service, each a pure function of the facts: status, reason, message.

All are True when good. ``Ready`` means that a request sent now would be answered within policy:
by a local replica, by one that starts from zero by design, or by a provider. So tools that wait
for Ready (Helm, Argo CD, kubectl wait) hang neither at zero nor when the cluster is full.
"""

from dataclasses import dataclass

from overspill.api import conditions as api
from overspill.api.names import ConditionType, SpillReason
from overspill.api.service import DataPolicy, ProviderRef
from overspill.autoscaler.health import STARTING, UNAVAILABLE
from overspill.controller import engines
from overspill.controller.capacity import Capacity, refusal
from overspill.controller.facts import (
    Budget,
    Facts,
    Fault,
    Loading,
    Object,
    ProviderFacts,
)
from overspill.controller.reasons import Reason
from overspill.ledger import pricelist
from overspill.ledger.prices import Rates
from overspill.providers.base import Fault as ProviderFault
from overspill.runtimes import child_name

# Image volumes are on by default from this version on; older API servers drop the field.
IMAGE_VOLUMES_SINCE = (1, 35)


@dataclass(frozen=True)
class Verdict:
    """One aspect: how it stands, why, and what to do."""

    status: api.Status
    reason: str
    message: str = ""


def judge(facts: Facts, capacity: Capacity) -> dict[ConditionType, Verdict]:
    """Return every condition."""
    unfit = engines.obstacle(facts)
    model = _model(facts, unfit)
    replicas = _replicas(facts, capacity, unfit)
    spillover, budget = _spillover(facts), _within_budget(facts)
    return {
        ConditionType.READY: _ready(facts, capacity, model, replicas, _usable(spillover, budget)),
        ConditionType.MODEL_READY: model,
        ConditionType.REPLICAS_READY: replicas,
        ConditionType.SCALING_ACTIVE: _scaling(facts),
        **of_capacity(capacity),
        ConditionType.SPILLOVER_READY: spillover,
        ConditionType.WITHIN_BUDGET: budget,
    }


def _true(reason: str, message: str = "") -> Verdict:
    return Verdict("True", reason, message)


def _false(reason: str, message: str) -> Verdict:
    return Verdict("False", reason, message)


def _first_fault(facts: Facts, *, model: bool) -> Fault | None:
    return next((p.fault for p in facts.pods if p.fault and p.fault.model == model), None)


def model_mountable(facts: Facts) -> bool:
    """Whether this API server knows the kind of volume that the model needs."""
    image = any(uri.startswith("oci://") for uri in facts.service.model_uris)
    return not image or facts.server_version >= IMAGE_VOLUMES_SINCE


def _model(facts: Facts, unfit: Fault | None) -> Verdict:
    uri = facts.service.spec.model.uri
    if unfit and unfit.model:
        return _false(unfit.reason, unfit.message)
    if not model_mountable(facts):
        have = "{}.{}".format(*facts.server_version)
        return _false(
            Reason.IMAGE_VOLUMES_UNSUPPORTED,
            f"a model from oci:// needs Kubernetes 1.35 or newer, this cluster has {have}; "
            "put the model on a PersistentVolumeClaim and use pvc://",
        )
    if facts.claim_missing:
        return _false(
            Reason.CLAIM_NOT_FOUND,
            f"PersistentVolumeClaim {facts.claim_missing} does not exist in namespace "
            f"{facts.service.metadata.namespace}; create it or name another",
        )
    loading = facts.loading if facts.loading and facts.loading.begun else None
    fault = _first_fault(facts, model=True)
    if fault and not loading:  # a loader that gets on again has overcome what ended it before
        return _false(fault.reason, f"model.uri {uri}: {fault.message}")
    if facts.ready:
        return _true(Reason.LOADED)
    if facts.scaling.desired == 0:
        return _true(Reason.SCALED_TO_ZERO, f"no replica runs; {_first_start(facts)}")
    if loading:
        return _false(Reason.LOADING, describe(loading))
    return Verdict("Unknown", Reason.LOADING, "no replica has loaded the model yet")


def _first_start(facts: Facts) -> str:
    """Return what starts a replica of a service that is at zero by design."""
    if facts.service.spec.scaling.set_count is None:
        return "the first request starts a replica"
    return "mode is Manual and scaling.replicas is 0; until it is raised no request waits for one"


_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def describe(loading: Loading) -> str:
    """Return how far a loader is, in words."""
    largest = loading.total or loading.loaded
    size, unit = next((u for u in _UNITS if largest >= u[0]), _UNITS[-1])
    if loading.total is None:
        return f"{loading.loaded / size:.1f} {unit} are loaded"
    percent = 100 * loading.loaded // max(1, loading.total)
    text = f"{loading.loaded / size:.1f} of {loading.total / size:.1f} {unit} ({percent} %)"
    if loading.left is None:
        return text
    minutes = round(loading.left / 60)
    return f"{text}, about {minutes} min left" if minutes else f"{text}, less than a minute left"


def _replicas(facts: Facts, capacity: Capacity, unfit: Fault | None) -> Verdict:
    desired, ready = facts.scaling.desired, facts.ready
    if unfit and not unfit.model:
        return _false(unfit.reason, unfit.message)
    if facts.refused:
        return _false(facts.refused.reason, facts.refused.message)
    if facts.foreign:
        kind, name = next(iter(facts.foreign.items()))
        return _false(
            Reason.NAME_CONFLICT,
            f"{kind} {name} exists and does not belong to this service; delete or rename it",
        )
    refused = refusal(facts.deployment)
    if refused and not refused.quota:
        return _false(Reason.REPLICA_FAILURE, refused.message)
    fault = _first_fault(facts, model=False)
    if fault:
        return _false(fault.reason, fault.message)
    if facts.contested:
        return _false(Reason.CONTESTED, _contested(facts))
    if desired == 0:
        return _true(Reason.SCALED_TO_ZERO, "no replica is wanted")
    count = f"{ready} of {desired} replicas are ready"
    if ready >= desired:
        rolling = _rolling_out(facts.deployment)
        return _false(Reason.ROLLING_OUT, rolling) if rolling else _true(Reason.ALL_READY, count)
    if capacity.reason:
        return _false(Reason.WAITING_FOR_CAPACITY, f"{count}; see CapacityAvailable")
    return _false(Reason.STARTING, count)


def _contested(facts: Facts) -> str:
    path, rival = next(iter(facts.contested.items()))
    return (
        f"{path} of {child_name(facts.service.metadata.name)} is changed back again and again by "
        f"{rival or 'somebody'}; stop that, or say in the service what you want there"
    )


def _rolling_out(deployment: Object | None) -> str:
    """Return how far a roll of the Deployment is, "" when none is under way.

    As ``kubectl rollout status`` reads it: while the controller has not seen the newest
    generation, its counts are about the old pods. A count that falls is such a generation
    too, and no roll.
    """
    if deployment is None:
        return ""
    status = deployment.get("status") or {}
    existing, updated = status.get("replicas", 0), status.get("updatedReplicas", 0)
    seen = status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    if not seen and existing <= deployment["spec"].get("replicas", 0):
        return "the change is not rolled out yet"
    if updated < existing:
        return f"{updated} of {existing} replicas run what the spec says"
    return ""


def _scaling(facts: Facts) -> Verdict:
    """Until the first metrics come (again), what was said last stands: a restart is no news.

    Not that Prometheus is away, once it answers.
    """
    scaling = facts.scaling
    old = api.find(facts.service.status.conditions, ConditionType.SCALING_ACTIVE)
    over = old and scaling.asked and old.reason == UNAVAILABLE
    if old and not over and scaling.reason == STARTING:
        return Verdict(old.status, old.reason, old.message)
    return Verdict("True" if scaling.active else "False", scaling.reason, scaling.message)


def of_capacity(capacity: Capacity) -> dict[ConditionType, Verdict]:
    """Return the condition that tells of the cluster's room."""
    if capacity.reason is None:
        return {ConditionType.CAPACITY_AVAILABLE: _true(Reason.AVAILABLE)}
    return {ConditionType.CAPACITY_AVAILABLE: _false(capacity.reason, capacity.message)}


def _spillover(facts: Facts) -> Verdict:
    spec = facts.service.spec.spillover
    if not spec.providers:
        return _true(Reason.NOT_CONFIGURED, "spillover.providers is empty; nothing spills")
    if spec.data_policy is DataPolicy.NEVER:
        return _true(Reason.DATA_POLICY_NEVER, "spillover.dataPolicy is Never; nothing spills")
    verdicts = [_provider(facts, ref) for ref in spec.providers]
    usable = [v for v in verdicts if v.status == "True"]
    if usable:
        return _true(Reason.PROVIDERS_READY, f"{len(usable)} of {len(verdicts)} can be used")
    return next((v for v in verdicts if v.status == "False"), None) or _unreported(facts, verdicts)


def spill_rates(facts: Facts) -> list[Rates]:
    """Return the prices of the listed providers that a request could be sent to, in their order.

    None where nothing may leave now. Those that no gateway speaks of yet count only as long as
    what was said of them before stands.
    """
    verdict = _usable(_spillover(facts), _within_budget(facts))
    if (verdict.status, verdict.reason) != ("True", Reason.PROVIDERS_READY):
        return []
    spent = {key for key, budget in facts.provider_budgets.items() if budget and budget.full}
    able = [r for r in facts.service.spec.spillover.providers if _key(facts, r) not in spent]
    return [
        rates
        for ref in able
        if _provider(facts, ref).status != "False"
        and (provider := facts.providers[_key(facts, ref)].provider)
        and (rates := pricelist.rates(provider.spec, ref.model))
    ]


def _unreported(facts: Facts, verdicts: list[Verdict]) -> Verdict:
    """Until a gateway speaks (again), what the gateways said of this very spec stands."""
    old = api.find(facts.service.status.conditions, ConditionType.SPILLOVER_READY)
    if old is None or old.observed_generation != facts.service.metadata.generation:
        return verdicts[0]
    ours = old.reason in set(Reason) - {Reason.PROVIDERS_READY}
    return verdicts[0] if ours else Verdict(old.status, old.reason, old.message)


def _key(facts: Facts, ref: ProviderRef) -> str:
    return f"{ref.namespace or facts.service.metadata.namespace}/{ref.name}"


def _provider(facts: Facts, ref: ProviderRef) -> Verdict:
    """Return whether one listed provider can be used, else the first obstacle."""
    key = _key(facts, ref)
    known = facts.providers.get(key, ProviderFacts(None))
    if known.invalid:
        return _false(Reason.INVALID_SPEC, f"InferenceProvider {key}: {known.invalid}")
    if known.provider is None:
        return _false(
            Reason.PROVIDER_NOT_FOUND, f"InferenceProvider {key} does not exist; create it"
        )
    own = facts.service.metadata.namespace
    if not known.provider.allows(own):
        return _false(
            Reason.NAMESPACE_NOT_ALLOWED,
            f"InferenceProvider {key} does not list namespace {own} in spec.allowedNamespaces",
        )
    if all(model.name != ref.model for model in known.provider.spec.models):
        return _false(
            Reason.MODEL_NOT_LISTED,
            f"InferenceProvider {key} does not list model {ref.model} in spec.models",
        )
    if pricelist.rates(known.provider.spec, ref.model) is None:
        return _false(
            Reason.PRICE_MISSING,
            f"model {ref.model} of InferenceProvider {key} has no price, and the bundled list has "
            "none for it; nothing spills unpriced",
        )
    if not known.reported:
        return Verdict("Unknown", Reason.NO_REPORT, f"no gateway has tried the key of {key} yet")
    if not known.ready:
        return _false(known.reason, f"InferenceProvider {key}: {known.message}")
    if ref.model in known.unknown_models:
        return _false(
            ProviderFault.MODEL_UNKNOWN,
            f"InferenceProvider {key} says that it does not have {ref.model} (status 404); check "
            "the name against the provider's list",
        )
    return _true(Reason.PROVIDERS_READY)


def _within_budget(facts: Facts) -> Verdict:
    spec, providers = facts.service.spec.spillover, facts.provider_budgets
    if spec.budget is None and not providers:
        return _true(Reason.NOT_CONFIGURED, "no budget; what spills is not limited")
    if (spec.budget and facts.budget is None) or None in providers.values():
        old = api.find(facts.service.status.conditions, ConditionType.WITHIN_BUDGET)
        if old and old.reason != Reason.NOT_CONFIGURED:
            return Verdict(old.status, old.reason, old.message)
        return Verdict("Unknown", Reason.LEDGER_NOT_READ, "the ledger was not read yet")
    if facts.budget and facts.budget.full:
        return of_budget(facts.budget, "spillover.budget")
    listed = {_key(facts, ref) for ref in spec.providers}
    spent = {key: b for key in listed if (b := providers.get(key)) and b.full}
    if listed and len(spent) == len(listed):
        key, budget = min(spent.items())
        verdict = of_budget(budget, f"spec.budget of InferenceProvider {key}")
        return _false(Reason.PROVIDER_BUDGET_SPENT, verdict.message)
    return _true(Reason.ROOM_LEFT)


def of_budget(budget: Budget, field: str) -> Verdict:
    """Return whether there is money.

    :param field: where the budget is said, for people.
    """
    if budget.full is None:
        return _true(Reason.ROOM_LEFT)
    return _false(
        Reason.BUDGET_SPENT,
        f"{field} has no room for more in this {budget.full}; requests that do not fit stay local "
        f"until {api.timestamp(budget.ends)}, or until it is raised",
    )


def _usable(spillover: Verdict, budget: Verdict) -> Verdict:
    """Return whether a request that spilled now would be sent."""
    return budget if spillover.status == "True" and budget.status == "False" else spillover


def _ready(
    facts: Facts, capacity: Capacity, model: Verdict, replicas: Verdict, spillover: Verdict
) -> Verdict:
    if facts.name_taken_by:
        return _false(
            Reason.SERVED_NAME_TAKEN,
            f"service {facts.name_taken_by} is older and serves {facts.service.served_name}; "
            "set another model.servedName",
        )
    if facts.ready:
        return _true(Reason.SERVING, f"{facts.ready} of {facts.scaling.desired} replicas are ready")
    broken = next((v for v in (model, replicas) if v.status == "False"), None)
    faulty = broken is not None and broken.reason not in (
        Reason.LOADING,
        Reason.STARTING,
        Reason.WAITING_FOR_CAPACITY,
        Reason.CONTESTED,
    )
    from_zero = facts.service.spec.scaling.min_replicas == 0
    if from_zero and not faulty and not capacity.reason:
        if facts.scaling.desired == 0:
            return _true(Reason.SCALED_TO_ZERO, _first_start(facts))
        return _true(Reason.STARTING, "requests are held until the first replica is ready")
    if spillover.reason == Reason.PROVIDERS_READY and spillover.status == "True":
        reason = spill_reason(facts, capacity)
        if reason in facts.service.spec.spillover.when:
            return _true(Reason.SPILLING_OVER, f"no replica is ready ({reason}); requests spill")
    if not faulty and capacity.reason:
        return _false(capacity.reason, capacity.message)
    cause = broken or model
    return _false(cause.reason, cause.message)


def spill_reason(facts: Facts, capacity: Capacity) -> SpillReason:
    """Return why a request would spill while no replica is ready.

    The same order as the gateway's: a pod that cannot be placed is no replica yet.
    """
    if any(pod.starting for pod in facts.pods):
        return SpillReason.COLD_START
    if facts.placed:
        return SpillReason.REPLICAS_UNAVAILABLE
    return SpillReason.CLUSTER_FULL if capacity.reason else SpillReason.COLD_START
