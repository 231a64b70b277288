"""What part a service has in a pool of accelerators that others want as well. Pure.

Services share a pool when their replicas may go to the same nodes: the same resource, node
selector, tolerations, affinity and scheduler. Those that only overlap are not shared out.
"""

import json

from overspill.api.names import SpillReason
from overspill.autoscaler.pool import Stake
from overspill.controller import capacity, conditions
from overspill.controller.facts import Facts, Pod
from overspill.controller.reasons import Reason
from overspill.runtimes.base import node_selector


def stake(facts: Facts) -> Stake | None:
    """Return a service's part; None where it runs on CPUs, or somebody else sets its count."""
    spec = facts.service.spec
    accelerator = spec.resources.accelerator
    if accelerator is None or spec.scaling.set_count is not None:
        return None
    leaves = SpillReason.CLUSTER_FULL in spec.spillover.when
    return Stake(
        pool=_pool(facts),
        size=accelerator.count,
        priority=spec.scaling.priority,
        may_spill=leaves and bool(conditions.spill_rates(facts)),
        lacking=any(
            pod.lacks_capacity is Reason.UNSCHEDULABLE
            and f"Insufficient {accelerator.resource}" in pod.message
            for pod in facts.pods
        ),
        refused=bool(capacity.refusal(facts.deployment)) or any(map(_refused, facts.pods)),
    )


def _refused(pod: Pod) -> bool:
    gated = pod.lacks_capacity is Reason.SCHEDULING_GATED
    return gated or bool(pod.fault and pod.fault.reason == Reason.NOT_SCHEDULABLE)


def _pool(facts: Facts) -> str:
    spec = facts.service.spec
    accelerator = spec.resources.accelerator
    return json.dumps(
        [
            accelerator.resource if accelerator else "",
            node_selector(facts.service),
            [toleration.to_dict() for toleration in spec.pod.tolerations],
            spec.pod.affinity,
            spec.pod.scheduler_name,
        ],
        sort_keys=True,
    )
