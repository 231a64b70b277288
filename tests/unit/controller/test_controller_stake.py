"""A service's part in a pool of accelerators, and how it is told that others got more."""

from typing import Any

import pytest
import world

from overspill.api.budget import Window
from overspill.autoscaler.pool import Stake
from overspill.controller import capacity, conditions
from overspill.controller.facts import Budget, Facts, Fault, Pod, Scaling
from overspill.controller.reasons import Reason
from overspill.controller.stake import stake

WHY = "cluster full: 1 of 2 wanted replicas granted; chat saves $1.00 per GPU-hour here, b $2.00"
SPILL = {"providers": [{"name": "openai", "model": "gpt"}]}


def probe(message: str, lack: Reason | None = Reason.UNSCHEDULABLE) -> Pod:
    return Pod("probe", lacks_capacity=lack, message=message)


GPU = probe("0/2 nodes are available: 2 Insufficient nvidia.com/gpu.")


def found(pods: tuple[Pod, ...] = (), budget: Any = None, **spec: Any) -> Stake | None:
    given = {"resources": {"accelerator": {"count": 2}}, "spillover": SPILL, **spec}
    usable = {"team-a/openai": world.USABLE}
    facts = world.facts(world.service(**given), pods=pods, providers=usable, budget=budget)
    return stake(facts)


def part(**spec: Any) -> Stake:
    known = found(**spec)
    assert known is not None
    return known


def test_what_is_shared() -> None:
    plain = part()
    assert (plain.size, plain.priority, plain.may_spill, plain.lacking) == (2, 0, True, False)
    assert part(scaling={"priority": 7}).priority == 7
    assert found(resources={}) is None, "CPUs are not shared out"
    assert found(scaling={"mode": "Manual", "replicas": 1}) is None, "nor what somebody else sets"


@pytest.mark.parametrize(
    "closed",
    [
        {"spillover": {}},
        {"spillover": {**SPILL, "dataPolicy": "Never"}},
        {"spillover": {**SPILL, "when": ["ObjectiveAtRisk"]}},
        {
            "spillover": {**SPILL, "budget": {"perDay": "1"}},
            "budget": Budget({Window.DAY: 1}, full=Window.DAY, ends=9e9),
        },
    ],
)
def test_what_may_not_leave_a_full_cluster(closed: dict[str, Any]) -> None:
    assert not part(**closed).may_spill


@pytest.mark.parametrize(
    ("pod", "lacking"),
    [
        (GPU, True),
        (probe("2 Insufficient memory"), False),
        (probe("2 Insufficient nvidia.com/gpu", Reason.SCHEDULING_GATED), False),
        (probe("2 Insufficient nvidia.com/gpu", Reason.PROVISIONING), False),
        (probe("2 Insufficient nvidia.com/gpu", None), False),
        (world.READY, False),
    ],
)
def test_a_pool_is_full_when_the_scheduler_misses_an_accelerator(pod: Pod, lacking: bool) -> None:
    assert part(pods=(pod,)).lacking is lacking


WRONG_NODE = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."


@pytest.mark.parametrize(
    ("pod", "refused"),
    [
        (GPU, False),
        (probe("2 Insufficient memory"), False),  # a replica that ends gives its memory, too
        (probe("a node is on its way", Reason.PROVISIONING), False),
        (probe("kueue", Reason.SCHEDULING_GATED), True),
        (Pod("probe", fault=Fault(Reason.NOT_SCHEDULABLE, WRONG_NODE)), True),
        (Pod("broken", placed=True, fault=Fault("EngineCrashed", "out of memory")), False),
    ],
)
def test_what_no_accelerator_mends_is_no_claim(pod: Pod, refused: bool) -> None:
    assert part(pods=(pod,)).refused is refused


def test_a_pool_is_those_that_may_go_to_the_same_nodes() -> None:
    other = {"accelerator": {"count": 1, "product": "NVIDIA-L4"}}
    assert part().pool == part(resources={"accelerator": {"count": 1}}).pool
    assert part(resources=other).pool != part().pool
    for pod in (
        {"nodeSelector": {"zone": "a"}},
        {"tolerations": [{"key": "gpu", "operator": "Exists"}]},
        {"affinity": {"nodeAffinity": {}}},
        {"schedulerName": "other"},
    ):
        assert part(pod=pod).pool not in (part().pool, part(resources=other).pool)
        assert part(pod=pod).pool == part(pod=pod).pool


def facts(*pods: Pod, desired: int = 1, subject: Any = None) -> Facts:
    scaling = Scaling(desired, reason="Active", decided=desired, withheld=WHY)
    usable = {"team-a/openai": world.USABLE}
    return world.facts(subject, pods=pods, scaling=scaling, providers=usable)


def test_what_others_got_is_a_full_cluster_also_without_a_pod_that_waits() -> None:
    lack = capacity.judge(facts(world.READY))
    assert (lack.reason, lack.message, lack.unplaceable) == ("ClusterShared", WHY, 0)
    lack = capacity.judge(facts(world.READY, GPU))
    assert (lack.reason, lack.unplaceable) == ("Unschedulable", 1)
    assert lack.message == f"{WHY}; {GPU.message}"


def test_a_service_that_gave_its_last_place_is_ready_when_it_may_spill() -> None:
    subject = world.service(spillover=SPILL, scaling={"minReplicas": 0})
    gone = facts(desired=0, subject=subject)
    verdict = conditions.judge(gone, capacity.judge(gone))[conditions.ConditionType.READY]
    assert (verdict.status, verdict.reason) == ("True", "SpillingOver")
    assert "ClusterFull" in verdict.message
