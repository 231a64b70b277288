"""What is due: the three steps of a count, drift, and nothing when nothing changed."""

import copy
from typing import Any

import pytest
import world

from overspill.api.names import OPERATOR_MANAGER
from overspill.controller import drift, render
from overspill.controller.decide import Plan, decide
from overspill.controller.facts import Facts, Pod
from overspill.controller.reasons import Reason

ZERO = {"minReplicas": 0, "maxReplicas": 2}


def rendered(service: Any = None, **how: Any) -> dict[str, Any]:
    how = {"replicas": None, "unplaceable": 0, **how}
    return render.children(world.facts(service), world.SETTINGS, **how)


def live(service: Any = None, *, scale: bool = True, **how: Any) -> dict[str, Any]:
    """Children as they are after everything was applied."""
    children = {k: world.managed(o) for k, o in rendered(service, **how).items()}
    deployment = children["Deployment"]
    children["Deployment"] = world.managed(rendered(service, **how)["Deployment"], scale=scale)
    children["Deployment"]["spec"] = {"replicas": 1, **deployment["spec"]}
    return children


def due(facts: Facts) -> Plan:
    return decide(facts, world.SETTINGS)


def test_a_new_service_is_created_with_its_count() -> None:
    plan = due(world.facts(world.service(scaling=ZERO), desired=0))
    assert [o["kind"] for o in plan.apply][-1] == "Deployment"
    assert len(plan.apply) == 5
    assert plan.apply[-1]["spec"]["replicas"] == 0
    assert plan.scale_to is None


@pytest.mark.parametrize(
    "spec",
    [
        {"engine": {"quantization": "int4"}},
        {"engine": {"runtime": "nowhere"}},
        {"model": {"uri": "pvc://m/x.gguf"}, "engine": {"runtime": "vllm"}},
    ],
)
def test_nothing_is_made_or_changed_for_an_engine_that_cannot_run_it(spec: Any) -> None:
    assert due(world.facts(world.service(**spec))) == Plan()
    assert due(world.facts(world.service(**spec), children=live())) == Plan()


def test_a_runtime_of_the_users_own_is_rendered() -> None:
    subject = world.service(engine={"runtime": "mine"})
    plan = due(world.facts(subject, runtime=world.runtime()))
    [container] = plan.apply[-1]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/mine:1"
    assert container["args"] == ["--model", "/model"]


def test_step_two_takes_the_count_and_leaves_the_deployment_alone() -> None:
    children = live(replicas=0, scale=False)
    plan = due(world.facts(desired=0, children=children))
    assert plan == Plan(scale_to=0)


def test_step_three_gives_the_count_up() -> None:
    children = live(replicas=0, scale=True)
    plan = due(world.facts(desired=0, children=children))
    assert [o["kind"] for o in plan.apply] == ["Deployment"]
    assert "replicas" not in plan.apply[0]["spec"]
    assert plan.drifted == ("Deployment spec.replicas",)
    assert plan.apply[0]["metadata"]["resourceVersion"] == "7"


def test_then_nothing_is_due() -> None:
    assert due(world.facts(children=live())) == Plan()


def test_a_count_that_somebody_else_took_is_taken_back() -> None:
    children = live(scale=False)
    assert due(world.facts(desired=2, children=children)) == Plan(scale_to=2)


def test_a_changed_template_never_carries_a_count() -> None:
    changed = world.service(scaling=ZERO, resources={"cpu": "2"})
    plan = due(world.facts(changed, desired=0, children=live(world.service(scaling=ZERO))))
    assert [o["kind"] for o in plan.apply] == ["Deployment"]
    assert "replicas" not in plan.apply[0]["spec"]


def test_pods_without_a_place_loosen_rolls_and_drains() -> None:
    probe = Pod("probe", lacks_capacity=Reason.UNSCHEDULABLE, message="1 Insufficient x")
    plan = due(world.facts(desired=1, pods=(probe,), children=live()))
    assert {o["kind"] for o in plan.apply} == {"Deployment", "PodDisruptionBudget"}
    [pdb] = [o for o in plan.apply if o["kind"] == "PodDisruptionBudget"]
    assert pdb["spec"]["maxUnavailable"] == 2


def test_a_pod_that_waits_for_one_that_ends_loosens_nothing() -> None:
    # A roll on the last GPU: the new pod is Pending as long as the old one drains.
    probe = Pod("new", lacks_capacity=Reason.UNSCHEDULABLE, message="1 Insufficient x")
    facts = world.facts(pods=(probe, world.READY), terminating=1, children=live())
    assert due(facts) == Plan()


def test_an_object_of_somebody_else_is_left_alone() -> None:
    children = live()
    children["Service"]["metadata"]["ownerReferences"] = []
    children["Service"]["spec"] = {}
    assert due(world.facts(children=children)) == Plan()


def test_nothing_starts_on_a_cluster_without_image_volumes() -> None:
    assert due(world.facts(server_version=(1, 34))) == Plan()


def change(path: str, value: Any) -> Any:
    """Return a function that sets a field of the live Deployment."""

    def apply(children: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node = children["Deployment"]["spec"]
        for name in parents:
            node = node[int(name)] if name.isdecimal() else node[name]
        if value is None:
            del node[last]
        else:
            node[last] = value

    return apply


CONTAINER = "template.spec.containers.0"


@pytest.mark.parametrize(
    ("path", "value", "drifted"),
    [
        # Defaults of the API server, and what others added, are no drift.
        ("template.spec.restartPolicy", "Always", False),
        (f"{CONTAINER}.terminationMessagePath", "/dev/termination-log", False),
        ("template.metadata.annotations", {"kubectl.kubernetes.io/restartedAt": "x"}, False),
        (f"{CONTAINER}.resources.limits.cpu", "1000m", False),
        (f"{CONTAINER}.resources.limits.memory", "2048Mi", False),
        # Anything of ours is.
        (f"{CONTAINER}.resources.limits.cpu", "2", True),
        (f"{CONTAINER}.image", "other:1", True),
        (f"{CONTAINER}.command", ["sh"], True),
        (f"{CONTAINER}.securityContext.readOnlyRootFilesystem", None, True),
        (f"{CONTAINER}.env", [], True),
        ("template.spec.automountServiceAccountToken", None, False),  # absent is not false …
        ("template.spec.automountServiceAccountToken", True, True),  # … but true is
        ("strategy.rollingUpdate.maxSurge", 3, True),
        ("template.spec.volumes.0.image.reference", "other", True),
    ],
)
def test_drift(path: str, value: Any, drifted: bool) -> None:
    children = copy.deepcopy(live())
    change(path, value)(children)
    assert bool(due(world.facts(children=children)).apply) is drifted


def test_a_rule_that_somebody_added_to_the_network_policy_is_removed() -> None:
    children = copy.deepcopy(live())
    children["NetworkPolicy"]["spec"]["ingress"].append({})
    plan = due(world.facts(children=children))
    assert plan.drifted == ("NetworkPolicy spec.ingress",)


def test_what_others_added_to_a_keyed_list_is_no_drift() -> None:
    children = copy.deepcopy(live())
    spec = children["Deployment"]["spec"]["template"]["spec"]
    spec["containers"][0]["ports"].insert(0, {"containerPort": 15090, "protocol": "TCP"})
    spec["topologySpreadConstraints"].append({"topologyKey": "rack", "whenUnsatisfiable": "x"})
    children["Service"]["spec"]["ports"].append({"port": 9, "protocol": "TCP", "targetPort": 9})
    assert due(world.facts(children=children)) == Plan()


def test_a_port_that_somebody_opened_in_the_network_policy_is_closed() -> None:
    children = copy.deepcopy(live())
    children["NetworkPolicy"]["spec"]["ingress"][0]["ports"].append({"port": 22})
    plan = due(world.facts(children=children))
    assert plan.drifted == ("NetworkPolicy spec.ingress[0].ports",)


def test_a_field_that_is_no_longer_wanted_is_removed() -> None:
    before = live(world.service(pod={"nodeSelector": {"zone": "b"}}))
    plan = due(world.facts(children=before))
    assert plan.drifted == ("Deployment spec.template.spec.nodeSelector",)


def test_an_object_that_we_never_applied_is_applied() -> None:
    obj = rendered()["Service"]
    assert drift.difference(obj, {**obj, "metadata": {"name": "x"}}, OPERATOR_MANAGER)


def test_an_item_of_a_keyed_list_that_is_no_longer_wanted_is_found() -> None:
    wanted = {"spec": {"env": [{"name": "A", "value": "1"}]}}
    fields = {"f:spec": {"f:env": {'k:{"name":"A"}': {"f:value": {}}, 'k:{"name":"B"}': {}}}}
    entry = {"manager": OPERATOR_MANAGER, "operation": "Apply", "fieldsV1": fields}
    have = {**wanted, "metadata": {"managedFields": [entry]}}
    assert drift.difference(wanted, have, OPERATOR_MANAGER) == 'spec.env[{"name":"B"}]'
