"""Who owns a service's /scale: nobody in mode Objective, whoever writes it in Manual."""

import json

import pytest
from operator_world import World

from lab.kube import CommandFailed

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
