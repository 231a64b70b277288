"""Who owns a service's /scale: nobody in mode Objective, whoever writes it in Manual."""

import json

import pytest
from external_metrics import adapter
from operator_world import World

from lab.kube import CommandFailed
from overspill.api import metrics

BY_HAND = {"scaling": {"mode": "Manual", "minReplicas": 0, "maxReplicas": 3, "replicas": 0}}


def scale(world: World, replicas: int) -> None:
    """What a person types; an HPA and KEDA write the same subresource."""
    world.kube.kubectl("scale", "infsvc", "chat", "-n", world.namespace, f"--replicas={replicas}")


def patch(world: World, **scaling: object) -> None:
    change = json.dumps({"spec": {"scaling": scaling}})
    world.kube.kubectl("patch", "infsvc", "chat", "-n", world.namespace, "--type=merge",
                       "-p", change)  # fmt: skip


def runs(world: World, replicas: int) -> bool:
    return bool(world.settled()["spec"]["replicas"] == replicas)


def told(world: World) -> tuple[int, str]:
    """Replicas that exist, and how the last decision's message ends."""
    status = world.get("infsvc", "chat").get("status", {})
    decisions = status.get("lastDecisions") or [{"message": ""}]
    return status.get("replicas", 0), decisions[0]["message"].rpartition("; ")[2]


def test_in_manual_whoever_writes_scale_decides(world: World) -> None:
    operator = world.start()
    world.apply(**BY_HAND)
    assert runs(world, 0)
    scale(world, 2)
    world.eventually("two replicas", lambda: runs(world, 2))
    with pytest.raises(CommandFailed, match="within minReplicas and maxReplicas"):
        scale(world, 4)
    operator.stop()
    world.start()
    world.eventually("told", lambda: told(world) == (2, "mode is Manual, 2 set"))
    assert runs(world, 2)
    path = f"/apis/overspill.dev/v1alpha1/namespaces/{world.namespace}/inferenceservices/chat/scale"
    shown = json.loads(world.kube.kubectl("get", "--raw", path))
    assert (shown["spec"]["replicas"], shown["status"]["replicas"]) == (2, 2)
    assert len(world.kube.list("pods", world.namespace, shown["status"]["selector"])) == 2
    patch(world, maxReplicas=1)
    world.eventually("within the new bounds", lambda: runs(world, 1))


def test_in_objective_nobody_but_the_autoscaler_does(world: World) -> None:
    world.apply(**BY_HAND)
    patch(world, mode="Objective")
    with pytest.raises(CommandFailed, match="set mode: Manual"):
        scale(world, 2)
    patch(world, mode="Manual", replicas=2)
    patch(world, mode="Objective", replicas=1)  # who leaves Manual may tidy up
    assert world.get("infsvc", "chat")["spec"]["scaling"]["replicas"] == 1


def hpa(namespace: str) -> str:
    """The HorizontalPodAutoscaler of docs/how-to/scale-by-hand-hpa-keda.md, falling at once."""
    labels = dict(zip(metrics.SERVICE_LABELS, (namespace, "chat"), strict=True))
    metric = {"name": metrics.DESIRED_REPLICAS, "selector": {"matchLabels": labels}}
    target = {"type": "AverageValue", "averageValue": "1"}
    return json.dumps({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "chat", "namespace": namespace},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "overspill.dev/v1alpha1", "kind": "InferenceService", "name": "chat",
            },
            "minReplicas": 1,
            "maxReplicas": 8,
            "metrics": [{"type": "External", "external": {"metric": metric, "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    })  # fmt: skip


def test_an_hpa_follows_the_advice(world: World) -> None:
    """Kubernetes' own controller; it looks every 15 s. The operator writes no count of the spec."""
    operator = world.start()
    world.apply(scaling={"mode": "Manual", "minReplicas": 3, "maxReplicas": 4})

    def follows(replicas: int) -> bool:
        scaling = world.get("infsvc", "chat")["spec"]["scaling"]
        return bool(scaling["replicas"] == replicas) and runs(world, replicas)

    with adapter(world, f"http://127.0.0.1:{operator.port}/metrics"):
        world.kube.kubectl("apply", "-f", "-", stdin=hpa(world.namespace))
        world.eventually("three replicas, as advised", lambda: follows(3), timeout=60)
        patch(world, minReplicas=2, maxReplicas=2)
        world.eventually("two, as advised", lambda: follows(2), timeout=60)
