"""Row 23: views that lose, double, reorder or hold back what happened, and lists of the past."""

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from faulty_world import FaultyWorld, figure, length
from proxy import Call, Faults, Lines

CONVERGED_SECONDS = 75
MORE_SECONDS = 110  # that a slow machine may take for as many faults as are asked for
GONE = b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}\n'
UNSCHEDULABLE = {
    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
    "message": "0/2 nodes are available: 2 Insufficient example.com/none.",
}  # fmt: skip


class MangledWatches(Faults):
    """Of the events of each watch some are lost, some come twice, some late; some watches end."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loss = 0.3
        self.lost = self.doubled = self.late = self.gone = 0

    @property
    def enough(self) -> bool:
        """Whether so much happened that it means something."""
        return self.lost > 20 and self.gone > 0

    async def events(self, call: Call, lines: Lines) -> Lines:
        held: list[bytes] = []
        async for line in lines:
            luck = self.random.random()
            if b'"BOOKMARK"' in line:
                yield line  # so that the client goes on from after what was lost
            elif luck > 0.96 and self.loss < 1:
                self.gone += 1
                yield GONE
                return
            elif luck < self.loss:
                self.lost += 1
            elif luck < 0.4:
                self.doubled += 1
                yield line + line
            elif luck < 0.5:
                self.late += 1
                held.append(line)
            else:
                yield line + b"".join(held)
                held.clear()


class StaleLists(Faults):
    """Lists are remembered, then half of the answers are from then."""

    def __init__(self) -> None:
        self.random = random.Random(1)
        self.bodies: dict[str, bytes] = {}
        self.stale = False
        self.served = 0

    def listed(self, call: Call, body: bytes) -> bytes:
        key = f"{call.path} {call.query.get('labelSelector', '')}"
        if not self.stale:
            self.bodies[key] = body
        elif key in self.bodies and self.random.random() < 0.5:
            self.served += 1
            return self.bodies[key]
        return body

    def remembers(self, words: str, count: int) -> bool:
        return any(body.count(words.encode()) >= count for body in self.bodies.values())


def test_watches_that_lose_double_and_reorder_events(faulty: FaultyWorld) -> None:
    mangled = MangledWatches(seed=23)
    faulty.start(faults=mangled)
    names, last = [f"chat{i}" for i in range(length(6, 20))], 0
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < length(10, 300) or not mangled.enough:
        assert passed < length(10, 300) + MORE_SECONDS, "too few events for the faults to show"
        last += 1
        for name in names:
            faulty.edit(name, last)
    mangled.loss, last = 1.0, last + 1  # of what comes now no watch tells anything
    for name in names[1:]:
        faulty.edit(name, last)
    faulty.world.kube.kubectl("delete", "infsvc", names[0], "-n", faulty.world.namespace)
    for kind in ("networkpolicy", "service"):  # drift that nobody may tell of
        faulty.world.kube.kubectl(
            "delete", kind, f"{names[1]}-engine", "-n", faulty.world.namespace
        )
    left, slowest = time.monotonic() + CONVERGED_SECONDS, 0.0
    for name in names[1:]:
        slowest = max(slowest, faulty.reaches(name, last, left - time.monotonic()))
        for kind in ("networkpolicy", "service"):
            faulty.world.eventually(
                f"{kind} of {name}",
                lambda kind=kind, name=name: faulty.world.get(kind, f"{name}-engine"),
                left - time.monotonic(),
            )
    took = CONVERGED_SECONDS - (left - time.monotonic())
    figure(
        "23", f"watch events: {mangled.lost} lost, {mangled.doubled} doubled, {mangled.late} late, "
        f"{mangled.gone} × 410",
        f"{len(names)} services as last asked for after {took:.0f} s",
    )  # fmt: skip


@pytest.fixture
def node(faulty: FaultyWorld) -> Iterator[str]:
    """A node that is nowhere, for pods that a test declares to run."""
    name = f"node-{faulty.world.namespace}"
    node = {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"taints": [{"key": "overspill.dev/test", "effect": "NoSchedule"}]},
    }  # fmt: skip
    faulty.world.kube.kubectl("create", "-f", "-", stdin=json.dumps(node))
    yield name
    faulty.world.kube.delete("node", name, "", "--wait=false")


def pods(faulty: FaultyWorld, count: int) -> list[dict[str, Any]]:
    """The pods of the service, once there are so many."""

    def found() -> list[dict[str, Any]]:
        listed = faulty.world.kube.list(
            "pods", faulty.world.namespace, "overspill.dev/service=chat"
        )
        return listed if len(listed) == count else []

    return list(faulty.world.eventually(f"{count} pods", found, 30))


def declare(faulty: FaultyWorld, pod: str, phase: str, *conditions: dict[str, str]) -> None:
    """Say of a pod what its kubelet or the scheduler would say."""
    patch = {"status": {"phase": phase, "conditions": list(conditions)}}
    faulty.world.kube.kubectl(
        "patch", "pod", pod, "-n", faulty.world.namespace, "--subresource=status",
        "--type=strategic", "-p", json.dumps(patch),
    )  # fmt: skip


def bind(faulty: FaultyWorld, pod: str, node: str) -> None:
    metadata = {"name": pod, "namespace": faulty.world.namespace}
    target = {"apiVersion": "v1", "kind": "Node", "name": node}
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
    path = f"/api/v1/namespaces/{faulty.world.namespace}/pods/{pod}/binding"
    faulty.world.kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(binding))


def test_no_live_pod_is_deleted_on_a_list_of_the_past(faulty: FaultyWorld, node: str) -> None:
    """The past: four pods without a place, of which one would be kept as the probe."""
    count = 4
    lists = StaleLists()
    operator, _ = faulty.start(faults=lists)
    scaling = {"minReplicas": count, "maxReplicas": count}
    faulty.edit("chat", 1, scaling=scaling)
    names = [pod["metadata"]["name"] for pod in pods(faulty, count)]
    for name in names:
        declare(faulty, name, "Pending", UNSCHEDULABLE)
    faulty.world.eventually(
        "a list says so", lambda: lists.remembers("Insufficient example.com/none", count), 60
    )
    operator.kill()
    for name in names:
        bind(faulty, name, node)
        declare(faulty, name, "Running", {"type": "Ready", "status": "True"},
                {"type": "PodScheduled", "status": "True"})  # fmt: skip
    before = {pod["metadata"]["uid"] for pod in pods(faulty, count)}
    lists.stale = True
    config = str(faulty.world.folder / "one.kubeconfig")
    operator = faulty.world.start("one", KUBECONFIG=config)
    faulty.lead(operator)
    faulty.edit("chat", 1, scaling={"minReplicas": 1, "maxReplicas": count + 1})
    faulty.edit("new", 2)
    took = faulty.reaches("new", 2, CONVERGED_SECONDS)
    begun = time.monotonic()
    while (passed := time.monotonic() - begun) < length(20, 120) or lists.served <= 3:
        assert passed < length(20, 120) + MORE_SECONDS, "too few lists of the past were served"
        living = faulty.world.kube.list(
            "pods", faulty.world.namespace, "overspill.dev/service=chat"
        )
        alive = {p["metadata"]["uid"] for p in living if "deletionTimestamp" not in p["metadata"]}
        assert alive == before
        time.sleep(1)
    assert operator.leads
    figure(
        "23", f"{lists.served} lists of the past, in which the {count} live pods have no place",
        f"0 live pods deleted; a new service applied after {took:.0f} s",
    )  # fmt: skip
