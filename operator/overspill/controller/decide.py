"""What to do next for one service. Pure: facts in, a plan out; level-based, one step at a time.

The replica count has one writer, the autoscaler's field manager on ``/scale`` (DESIGN §2 rule 6).
A Deployment that is applied without the field would start one replica, so it comes into being in
three steps, each of which is found again after a crash by looking at who owns ``spec.replicas``:

1. nobody: create it with the wanted count (the operator owns the field);
2. the operator alone: apply the count on ``/scale`` with force (both own it);
3. both: apply without the field (the autoscaler alone owns it).
"""

from dataclasses import dataclass

from overspill.api.names import AUTOSCALER_MANAGER, OPERATOR_MANAGER
from overspill.api.status import InferenceServiceStatus
from overspill.controller import capacity as capacities
from overspill.controller import conditions, drift, engines, render, status
from overspill.controller.facts import Facts, Object
from overspill.controller.settings import Settings


@dataclass(frozen=True)
class Plan:
    """Writes that are due."""

    apply: tuple[Object, ...] = ()  # children that differ, with the observed resourceVersion
    drifted: tuple[str, ...] = ()  # why, for the log: kind and first field of each
    scale_to: int | None = None  # count to write to /scale, to take the field over


def decide_status(
    facts: Facts, found: capacities.Capacity, settings: Settings, now: float, quiet: float
) -> InferenceServiceStatus:
    """Return the status that the facts call for.

    :param found: the lack of capacity that these facts tell of.
    :param now: seconds since the epoch.
    :param quiet: seconds since a replica last lacked capacity.
    """
    capacity = capacities.shown(found, facts.service.status.capacity, quiet)
    verdicts = conditions.judge(facts, found) | conditions.of_capacity(capacity)
    return status.status(facts, capacity, verdicts, settings.url, now)


def decide(facts: Facts, settings: Settings) -> Plan:
    """Return what is due for a service's children.

    :raises RenderError: when the service cannot be turned into objects.
    """
    if engines.obstacle(facts):
        return Plan()  # what runs goes on as it is
    if facts.deployment is None and not conditions.model_mountable(facts):
        return Plan()  # pods without their model would only crash
    desired = facts.scaling.desired
    wanted = render.children(
        facts,
        settings,
        replicas=desired if facts.deployment is None else None,
        # A pod that only waits for the place of one that ends is no reason to stop another.
        unplaceable=max(0, capacities.judge(facts).unplaceable - facts.terminating),
    )
    for kind in facts.foreign:
        del wanted[kind]
    scale_to = None
    if "Deployment" in wanted and _unowned(facts.deployment):
        scale_to = desired
        del wanted["Deployment"]  # step 2 first; step 3 is the next reconcile's
    due = {kind: path for kind, obj in wanted.items() if (path := _due(obj, facts.children[kind]))}
    return Plan(
        apply=tuple(_with_version(wanted[kind], facts.children[kind]) for kind in due),
        drifted=tuple(f"{kind} {path}" for kind, path in due.items()),
        scale_to=scale_to,
    )


def _unowned(deployment: Object | None) -> bool:
    """Whether the autoscaler's manager does not own the count (yet, or any more).

    Once it does, the autoscaler's loop writes every change of the count.
    """
    return deployment is not None and not drift.owns_replicas(
        deployment, AUTOSCALER_MANAGER, "scale"
    )


def _due(wanted: Object, live: Object | None) -> str:
    """Return why an object must be applied, "" when it need not be."""
    return "missing" if live is None else drift.difference(wanted, live, OPERATOR_MANAGER)


def _with_version(wanted: Object, live: Object | None) -> Object:
    """Return the object such that the API server refuses it if the live one changed meanwhile."""
    if live is None:
        return wanted
    version = {"resourceVersion": live["metadata"]["resourceVersion"]}
    return {**wanted, "metadata": {**wanted["metadata"], **version}}
