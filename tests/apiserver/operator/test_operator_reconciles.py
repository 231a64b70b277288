"""One operator, one service, a real API server."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from operator_world import CHILDREN, NOWHERE, World

from overspill.cluster.lease import DURATION

ZERO = {"scaling": {"minReplicas": 0, "maxReplicas": 2}}


def test_a_service_becomes_its_children_and_says_how_it_stands(world: World) -> None:
    world.start()
    world.apply()
    world.settled()
    uid = world.get("infsvc", "chat")["metadata"]["uid"]
    for kind in CHILDREN.values():
        [owner] = world.get(kind)["metadata"]["ownerReferences"]
        assert owner["uid"] == uid
    capacity = world.eventually(
        "full", lambda: (c := world.condition("CapacityAvailable"))[0] == "False" and c
    )
    assert capacity[1] == "Unschedulable"
    assert "Insufficient example.com/none" in capacity[2]
    assert world.condition("Ready")[:2] == ("False", "Unschedulable")
    assert world.condition("ScalingActive")[:2] == ("False", "PrometheusUnavailable")
    assert world.condition("SpilloverReady")[:2] == ("True", "NotConfigured")
    status = world.get("infsvc", "chat")["status"]
    assert status["capacity"]["full"] is True
    assert status["observedGeneration"] == 1
    # The probe that cannot be placed must not hold up rolls and drains.
    pdb = world.eventually(
        "two may be away", lambda: (p := world.get("pdb"))["spec"]["maxUnavailable"] == 2 and p
    )
    assert pdb["metadata"]["labels"]["overspill.dev/service"] == "chat"
    [event] = [
        e for e in world.kube.list("events", world.namespace) if e["reason"] == "Unschedulable"
        and e["involvedObject"]["kind"] == "InferenceService" and "Capacity" in e["message"]
    ]  # fmt: skip
    assert event["type"] == "Warning"


def test_a_node_that_is_on_its_way_is_told_as_such(world: World) -> None:
    """Said of the pod as Cluster Autoscaler says it; a change of the pod makes us look at once."""
    world.start()
    world.apply()
    world.eventually("full", lambda: world.condition("CapacityAvailable")[1] == "Unschedulable")
    [pod] = world.kube.list("pods", world.namespace)
    said = "pod triggered scale-up: [{gpus 0->1 (max: 4)}]"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    place = {"name": pod["metadata"]["name"], "namespace": world.namespace}
    event = {
        "apiVersion": "v1", "kind": "Event", "type": "Normal", "reason": "TriggeredScaleUp",
        "metadata": {**place, "name": f"{place['name']}.18"}, "message": said,
        "involvedObject": {"kind": "Pod", "uid": pod["metadata"]["uid"], **place},
        "firstTimestamp": now, "lastTimestamp": now, "count": 1,
        "source": {"component": "cluster-autoscaler"},
    }  # fmt: skip
    world.kube.kubectl("create", "-f", "-", stdin=json.dumps(event))
    world.kube.kubectl("annotate", "pod", place["name"], "-n", world.namespace, "a=b")
    capacity = world.eventually(
        "a node is on its way",
        lambda: (c := world.condition("CapacityAvailable"))[1] == "Provisioning" and c,
    )
    assert capacity[0] == "False"
    assert said in capacity[2]
    assert world.get("infsvc", "chat")["status"]["capacity"]["full"] is True  # so requests spill
    assert world.condition("Ready")[:2] == ("False", "Provisioning")


def test_a_service_with_minimum_zero_never_starts_a_pod(world: World) -> None:
    def pods_ever() -> Any:
        events = world.kube.list("events", world.namespace)
        made = [e for e in events if e["reason"] == "SuccessfulCreate"]
        return made + world.kube.list("pods", world.namespace)

    operator = world.start()
    world.apply(**ZERO)
    assert world.settled()["spec"]["replicas"] == 0
    operator.stop()
    operator = world.start()
    world.apply(**ZERO, engine={"batching": {"maxSequences": 8}})
    world.eventually(
        "the template changed",
        lambda: '"OVERSPILL_MAX_SEQUENCES", "value": "8"' in str(world.get("deployment")).replace(
            "'", '"'
        ),
    )  # fmt: skip
    operator.kill()
    world.start()
    world.apply(**ZERO, resources={**NOWHERE["resources"], "memory": "1Gi"})
    world.eventually("the template changed again", lambda: "1Gi" in str(world.get("deployment")))
    assert world.settled()["spec"]["replicas"] == 0
    world.eventually("ready by design", lambda: world.condition("Ready")[1] == "ScaledToZero")
    assert pods_ever() == []


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("deployment", '{"spec":{"template":{"spec":{"enableServiceLinks":true}}}}'),
        ("service", '{"spec":{"ports":[{"port":8000,"targetPort":81}]}}'),
        ("pdb", '{"spec":{"maxUnavailable":0}}'),
        ("networkpolicy", '{"spec":{"egress":[{}]}}'),
        ("serviceaccount", '{"automountServiceAccountToken":true}'),
    ],
)
def test_a_drifted_child_is_restored(world: World, kind: str, patch: str) -> None:
    world.start()
    world.apply(**ZERO)
    world.settled()

    def essence() -> Any:
        child = world.get(kind) or {}
        return {k: v for k, v in child.items() if k not in ("metadata", "status")}

    before, uid = essence(), world.get(kind)["metadata"]["uid"]
    kubectl = world.kube.kubectl
    kubectl("patch", kind, "chat-engine", "-n", world.namespace, "--type=merge", "-p", patch)
    world.eventually(f"the {kind} is as it was", lambda: essence() == before)
    kubectl("delete", kind, "chat-engine", "-n", world.namespace, "--wait=true")
    again = world.eventually(f"the {kind} is back", lambda: world.get(kind))
    assert again["metadata"]["uid"] != uid


def test_a_count_that_somebody_changed_is_taken_back(world: World) -> None:
    world.start()
    world.apply(**ZERO)
    world.settled()
    world.eventually(
        "a first decision", lambda: world.get("infsvc", "chat")["status"].get("lastDecisions")
    )
    world.kube.kubectl("scale", "deployment", "chat-engine", "-n", world.namespace, "--replicas=3")
    world.eventually("the count is back", lambda: world.get("deployment")["spec"]["replicas"] == 0)
    world.settled()


def test_a_field_that_somebody_keeps_changing_back_is_set_ever_more_seldom(world: World) -> None:
    operator = world.start()
    world.apply(**ZERO)
    world.settled()
    world.eventually("judged", lambda: world.condition("ReplicasReady")[0] == "True")
    applied = operator.log.read_text().count('"applied"')

    def fought() -> Any:
        patch = ("--type=merge", "--field-manager=rival", "-p", '{"spec":{"maxUnavailable":7}}')
        world.kube.kubectl("patch", "pdb", "chat-engine", "-n", world.namespace, *patch)
        verdict = world.condition("ReplicasReady")
        return verdict[1] == "Contested" and verdict

    verdict = world.eventually("told", fought)
    assert "PodDisruptionBudget spec.maxUnavailable of chat-engine" in verdict[2]
    assert "rival" in verdict[2]
    assert world.condition("Ready")[:2] == ("True", "ScaledToZero")
    for _ in range(20):
        fought()
    assert operator.log.read_text().count('"applied"') - applied < 9
    world.apply(**ZERO, rollout={"drain": "77s"})  # what is not contested waits for nothing
    world.eventually("applied", lambda: "77" in str(world.get("deployment")), 15)
    world.eventually("in the end", lambda: world.get("pdb")["spec"]["maxUnavailable"] != 7, 60)


def test_a_service_deleted_while_the_operator_is_down_leaves_nothing(world: World) -> None:
    operator = world.start()
    world.apply()
    world.settled()
    operator.stop()
    world.kube.kubectl("delete", "infsvc", "chat", "-n", world.namespace, "--timeout=20s")
    for kind in (*CHILDREN.values(), "replicasets", "pods"):
        world.eventually(
            f"no {kind} is left",
            lambda kind=kind: not world.kube.list(kind, world.namespace, "overspill.dev/service"),
        )


def test_a_child_that_the_api_server_refuses_is_told_and_heals(world: World) -> None:
    world.start()
    world.apply(**ZERO, pod={"affinity": {"nodeAffinity": {"nonsense": 1}}})
    verdict = world.eventually(
        "refused", lambda: (c := world.condition("ReplicasReady"))[1] == "ApplyRefused" and c
    )
    assert "nonsense" in verdict[2] or "nodeAffinity" in verdict[2]
    world.apply(**ZERO)
    world.settled()
    world.eventually("healed", lambda: world.condition("ReplicasReady")[0] == "True")


def test_an_object_of_somebody_else_is_not_touched(world: World) -> None:
    world.kube.kubectl("create", "service", "clusterip", "chat-engine", "--tcp=1:1", "-n",
                       world.namespace)  # fmt: skip
    world.start()
    world.apply(**ZERO)
    world.eventually("said", lambda: world.condition("ReplicasReady")[1] == "NameConflict")
    assert world.get("service")["spec"]["ports"][0]["port"] == 1
    world.kube.kubectl("delete", "service", "chat-engine", "-n", world.namespace)
    world.eventually("taken over", lambda: world.condition("ReplicasReady")[0] == "True", 60)


def test_the_younger_of_two_services_gives_way(world: World) -> None:
    world.start()
    model = {"uri": "oci://registry.example/models/none:1", "servedName": "qwen"}
    world.apply("elder", **ZERO, model=model)
    world.eventually("elder", lambda: world.condition("Ready", "elder")[0] == "True")
    world.apply("young", **ZERO, model=model)
    verdict = world.eventually(
        "taken", lambda: (c := world.condition("Ready", "young"))[1] == "ServedNameTaken" and c
    )
    assert f"{world.namespace}/elder" in verdict[2]
    world.kube.kubectl("delete", "infsvc", "elder", "-n", world.namespace)
    world.eventually("free", lambda: world.condition("Ready", "young")[0] == "True")


def test_a_missing_claim_is_named_and_heals(world: World) -> None:
    world.start()
    world.apply(model={"uri": "pvc://weights/model.gguf"}, engine={"runtime": "llamacpp"})
    world.eventually("said", lambda: world.condition("ModelReady")[1] == "ClaimNotFound")
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "weights", "namespace": world.namespace},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    world.kube.kubectl("apply", "-f", "-", stdin=json.dumps(claim))
    world.eventually("healed", lambda: world.condition("ModelReady")[1] == "Loading", 60)


def test_an_exceeded_quota_is_a_full_cluster(world: World) -> None:
    world.kube.kubectl("create", "quota", "none", "--hard=pods=0", "-n", world.namespace)
    world.start()
    world.apply()
    verdict = world.eventually(
        "full", lambda: (c := world.condition("CapacityAvailable"))[1] == "QuotaExceeded" and c
    )
    assert "exceeded quota: none" in verdict[2]
    world.kube.kubectl("delete", "quota", "none", "-n", world.namespace)


def test_a_provider_that_cannot_be_used_is_named(world: World) -> None:
    world.start()
    spillover = {"providers": [{"name": "openai", "model": "gpt"}]}
    world.apply(spillover=spillover)
    world.eventually("said", lambda: world.condition("SpilloverReady")[1] == "ProviderNotFound")
    provider = {"type": "openai", "secretRef": {"name": "key"}, "models": [{"name": "gpt"}]}
    world.apply_object(provider, "openai", "InferenceProvider")
    world.eventually("said", lambda: world.condition("SpilloverReady")[1] == "PriceMissing")
    provider["models"] = [{"name": "gpt", "price": {"inputPerMTok": "1", "outputPerMTok": "2"}}]
    world.apply_object(provider, "openai", "InferenceProvider")
    world.eventually("said", lambda: world.condition("SpilloverReady")[1] == "NoReport")
    # Somebody else's namespace is nothing we may look into.
    world.apply(spillover={"providers": [{"name": "x", "namespace": "default", "model": "gpt"}]})
    verdict = world.eventually(
        "said", lambda: (c := world.condition("SpilloverReady"))[1] == "InvalidSpec" and c
    )
    assert "watchNamespaces" in verdict[2]


def test_an_operator_whose_lease_was_deleted_leads_again(world: World) -> None:
    """`kubectl delete lease`, a prune or a restore without it is no end of the operator."""
    operator = world.start()
    world.eventually("it leads", lambda: operator.leads)
    world.kube.kubectl("delete", "lease", "overspill-operator", "-n", world.namespace)

    def holder() -> str:
        lease = world.get("lease", "overspill-operator") or {"spec": {}}
        return str(lease["spec"].get("holderIdentity", ""))

    world.eventually("it made the lease anew", lambda: holder() == "one", DURATION)
    assert operator.leads
    world.apply(**ZERO)
    world.settled()
