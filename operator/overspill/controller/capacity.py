"""Is the cluster full for a service? Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from overspill.api.status import CapacityStatus
from overspill.controller.facts import Facts, Object, Pod
from overspill.controller.reasons import Reason

HOLD_SECONDS = 30.0  # that a lack is shown after its last sign
LOOK_SECONDS = 30.0  # until we ask again whether a node is on its way: nothing of the pod tells
DECIDED_SECONDS = 300.0  # after which whoever adds nodes has decided; then the resyncs ask


@dataclass(frozen=True)
class Capacity:
    """Lack of capacity, with the words of whoever refused; ``reason`` is None with enough."""

    reason: Reason | str | None = None
    message: str = ""
    unplaceable: int = 0  # wanted replicas that have no place


@dataclass(frozen=True)
class Refusal:
    """The Deployment's controller could not create pods."""

    message: str
    quota: bool


def refusal(deployment: Object | None) -> Refusal | None:
    """Return why pods of a Deployment are not admitted, None when they are."""
    for condition in (deployment or {}).get("status", {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            message = condition.get("message", "")
            return Refusal(message, "exceeded quota" in message)
    return None


def judge(facts: Facts) -> Capacity:
    """Return whether a wanted replica lacks capacity, and how many do."""
    waiting = [pod for pod in facts.pods if pod.lacks_capacity]
    refused = refusal(facts.deployment)
    if refused and refused.quota:
        # At least one was refused: with all that are wanted here, the one that a roll would add.
        missing = max(1, _wanted(facts.deployment) - len(facts.pods))
        return Capacity(Reason.QUOTA_EXCEEDED, refused.message, len(waiting) + missing)
    withheld = facts.scaling.withheld
    if not waiting:  # none is asked for that would not get a place
        return Capacity(Reason.CLUSTER_SHARED, withheld) if withheld else Capacity()
    message = f"{withheld}; {waiting[0].message}" if withheld else waiting[0].message
    return Capacity(waiting[0].lacks_capacity, message, len(waiting))


def shown(found: Capacity, before: CapacityStatus | None, quiet: float) -> Capacity:
    """Return the lack that is told: once there, it is taken back only after a while without any.

    Else the status would change, and the gateway's reason to spill with it, as often as a place
    comes and goes. What the replicas themselves are is told as it is.

    :param before: as told last.
    :param quiet: seconds since the last sign of a lack.
    """
    if found.reason or before is None or not before.full or quiet >= HOLD_SECONDS:
        return found
    return Capacity(before.reason, before.message)


def look_again(pods: Iterable[Pod], now: float) -> float | None:
    """Return seconds until it is worth asking again whether a node is on its way; None: never.

    :param now: seconds since the epoch.
    """
    young = (p.unplaced_since and now - p.unplaced_since < DECIDED_SECONDS for p in pods)
    return LOOK_SECONDS if any(young) else None


def _wanted(deployment: Object | None) -> int:
    return int((deployment or {}).get("spec", {}).get("replicas", 0))
