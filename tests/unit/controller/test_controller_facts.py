"""How pods are read."""

from typing import Any

import pytest

from overspill.controller.facts import Fault, count_terminating, made_for, read_pods
from overspill.controller.reasons import Reason

MODEL = "registry.example/models/qwen3:q4"
NO_GPU = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu. preemption: 0/1 nodes …"
TAINT = "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) had untolerated taint(s)."
SELECTOR = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."


def raw(name: str = "p", *, node: str = "", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {"nodeName": node} if node else {},
        "status": status,
    }


def unscheduled(reason: str, message: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
    return raw(phase="Pending", conditions=[condition])


def container(node: str = "n", **container_status: Any) -> dict[str, Any]:
    return raw(
        node=node, phase="Running", containerStatuses=[{"name": "engine", **container_status}]
    )


@pytest.mark.parametrize(
    ("pod", "lacks", "fault"),
    [
        (unscheduled("Unschedulable", NO_GPU), Reason.UNSCHEDULABLE, None),
        (unscheduled("Unschedulable", TAINT), Reason.UNSCHEDULABLE, None),
        (unscheduled("Unschedulable", "0/1 nodes: 1 Too many pods."), Reason.UNSCHEDULABLE, None),
        (unscheduled("SchedulingGated", ""), Reason.SCHEDULING_GATED, None),
        (
            unscheduled("Unschedulable", SELECTOR),
            None,
            Fault(Reason.NOT_SCHEDULABLE, SELECTOR),
        ),
        (raw(phase="Pending"), None, None),
    ],
)
def test_full_is_lack_of_capacity_and_nothing_else(pod: Any, lacks: Any, fault: Any) -> None:
    [read] = read_pods([pod], MODEL)
    assert (read.lacks_capacity, read.fault, read.placed, read.starting) == (
        lacks, fault, False, False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pod", "lacks"),
    [
        (unscheduled("Unschedulable", NO_GPU), Reason.PROVISIONING),
        # No node of today has the label: the one that comes will.
        (unscheduled("Unschedulable", SELECTOR), Reason.PROVISIONING),
        (unscheduled("SchedulingGated", ""), Reason.SCHEDULING_GATED),
        (raw(phase="Pending"), None),
        (raw(node="n", phase="Running"), None),
    ],
)
def test_a_pod_for_which_a_node_is_on_its_way_waits_for_that(pod: Any, lacks: Any) -> None:
    said = "pod triggered scale-up: [{gpus 0->1 (max: 4)}]"
    [read] = read_pods([pod], MODEL, {"p": said, "other": "x"})
    assert (read.lacks_capacity, read.fault) == (lacks, None)
    assert (said in read.message) is (lacks is Reason.PROVISIONING)


def test_a_boot_is_from_the_place_on_a_node_until_ready() -> None:
    def pod(begun: str, done: str, restarts: int, ready: str = "True") -> dict[str, Any]:
        times = {"PodScheduled": ("True", begun), "Ready": (ready, done)}
        told = [
            {"type": t, "status": s, "lastTransitionTime": at} for t, (s, at) in times.items() if at
        ]
        engine = {"name": "engine", "restartCount": restarts}
        return raw(node="n", conditions=told, containerStatuses=[engine])

    begun, done = "2026-11-30T10:00:00Z", "2026-11-30T10:01:35Z"
    boots = [(begun, done, 0), (begun, done, 1), (begun, done, 0, "False"), ("", done, 0)]
    assert [read_pods([pod(*b)], MODEL)[0].boot for b in boots] == [95.0, None, None, None]


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"state": {"waiting": {"reason": reason, "message": message}}}


def ended(message: str, code: int = 3, reason: str = "Error") -> dict[str, Any]:
    return {"terminated": {"exitCode": code, "message": message, "reason": reason}}


@pytest.mark.parametrize(
    ("status", "reason", "words", "about_model"),
    [
        (waiting("ErrImagePull", f"{MODEL}: not found"), "ModelImagePullFailed", MODEL, True),
        (
            waiting("ImagePullBackOff", f'Back-off pulling image "{MODEL}": ErrImagePull: gone'),
            "ModelImagePullFailed",
            "ErrImagePull: gone",
            True,
        ),
        (waiting("ErrImageNeverPull", "engine:1"), "EngineImagePullFailed", "engine:1", False),
        (
            waiting("CreateContainerError", "failed to mount volume model"),
            "ContainerNotCreated",
            "model",
            True,
        ),
        (waiting("CreateContainerConfigError", "bad"), "ContainerNotCreated", "bad", False),
        (
            {**waiting("CrashLoopBackOff"), "lastState": ended("ModelNotFound: no file in /model")},
            "ModelNotFound",
            "no file in /model",
            True,
        ),
        (
            {"state": ended("InvalidOptions: OVERSPILL_PORT is missing")},
            "InvalidOptions",
            "OVERSPILL_PORT",
            False,
        ),
        ({"state": ended("", 137, "OOMKilled")}, "OutOfMemory", "resources.memory", False),
        (
            {**waiting("CrashLoopBackOff"), "lastState": ended("one\ntwo", 1)},
            "CrashLoop",
            "exit code 1: two",
            False,
        ),
        (  # of an engine that is not ours: no reason of our list
            {**waiting("CrashLoopBackOff"), "lastState": ended("ValueError: no such device", 1)},
            "CrashLoop",
            "exit code 1: ValueError: no such device",
            False,
        ),
    ],
)
def test_a_fault_has_the_reason_of_whoever_saw_it(
    status: Any, reason: str, words: str, about_model: bool
) -> None:
    [pod] = read_pods([container(**status, restartCount=1)], MODEL)
    assert pod.fault is not None
    assert (pod.fault.reason, pod.fault.model) == (reason, about_model)
    assert words in pod.fault.message
    assert not pod.starting


def test_a_loop_stays_one_while_the_engine_runs_between_two_ends() -> None:
    running = {"state": {"running": {}}, "lastState": ended("killed", 137)}
    once, often = (container(**running, restartCount=count) for count in (1, 2))
    [first], [later] = read_pods([once], MODEL), read_pods([often], MODEL)
    assert first.fault is None
    assert later.fault is not None
    assert later.fault.reason == "CrashLoop"


def test_the_engines_container_tells_not_its_neighbours() -> None:
    pod = container(**waiting("CreateContainerError", "bad"))
    pod["status"]["containerStatuses"].insert(0, {"name": "a-sidecar", "state": {"running": {}}})
    [read] = read_pods([pod], MODEL)
    assert read.fault is not None
    assert read.fault.reason == "ContainerNotCreated"


def before_the_engine(name: str, **status: Any) -> dict[str, Any]:
    pod = container(**waiting("PodInitializing"))
    pod["status"]["initContainerStatuses"] = [{"name": name, **status}]
    return pod


@pytest.mark.parametrize(
    ("name", "status", "fault"),
    [
        (
            "loader",
            {"state": ended("ModelForbidden: hub.example answers 401")},
            Fault("ModelForbidden", "hub.example answers 401", model=True),
        ),
        (
            "loader",  # tries again, and may fail again
            {"state": {"running": {}}, "started": True, "lastState": ended("ModelNotFound: x")},
            Fault("ModelNotFound", "x", model=True),
        ),
        (
            "loader",
            {"state": ended("", 137, "OOMKilled")},
            Fault("OutOfMemory", "the loader passed its memory limit; raise resources.memory"),
        ),
        ("loader", {"state": {"running": {}}}, None),
        ("loader", {"state": ended("ModelNotFound: x", 0), "ready": True}, None),
        (
            "drain",
            waiting("ErrImagePull", "no such image"),
            Fault("EngineImagePullFailed", "no such image"),
        ),
        ("drain", {"state": {"running": {}}, "started": True, "lastState": ended("X: y")}, None),
        ("somebody-elses", {"state": ended("ModelNotFound: x")}, None),
    ],
)
def test_our_helpers_before_the_engine_tell_why_it_does_not_start(
    name: str, status: Any, fault: Fault | None
) -> None:
    [pod] = read_pods([before_the_engine(name, **status)], MODEL)
    assert pod.fault == fault
    assert pod.starting is (fault is None)


def test_an_engine_that_is_up_but_busy_has_no_fault_of_long_ago() -> None:
    status = {"state": {"running": {}}, "lastState": ended("EngineCrashed: x"), "restartCount": 2}
    [pod] = read_pods([container(**status, started=True)], MODEL)
    assert (pod.ready, pod.fault) == (False, None)


def test_a_ready_pod_has_no_fault_whatever_it_went_through() -> None:
    pod = container(lastState=ended("ModelNotFound: x"), restartCount=3, started=True)
    pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    [read] = read_pods([pod], MODEL)
    assert (read.ready, read.fault) == (True, None)


@pytest.mark.parametrize(
    ("status", "starting"),
    [
        ({}, True),
        ({"restartCount": 0, "started": False}, True),
        ({"restartCount": 0, "started": True}, False),
        ({"restartCount": 1, "started": False}, False),
    ],
)
def test_only_the_first_start_counts_as_starting(status: Any, starting: bool) -> None:
    [pod] = read_pods([container(**status)], MODEL)
    assert pod.starting is starting


@pytest.mark.parametrize(
    "pod",
    [
        {**raw(), "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}},
        raw(phase="Failed", reason="Evicted"),
        raw(phase="Succeeded"),
    ],
)
def test_a_pod_on_its_way_out_is_no_replica(pod: Any) -> None:
    assert read_pods([pod], MODEL) == ()


def test_a_terminating_pod_holds_its_place_as_long_as_it_is_on_a_node() -> None:
    gone = {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    pods = [raw(node="n"), {**raw(node="n"), "metadata": gone}, {**raw(), "metadata": gone}]
    assert count_terminating(pods) == 1


ENGINE = {"overspill.dev/service": "chat", "app.kubernetes.io/component": "engine"}
REPLICA_SET = {"kind": "ReplicaSet", "name": "chat-engine-5f", "uid": "r", "controller": True}


@pytest.mark.parametrize(
    ("labels", "owners", "counts"),
    [
        (ENGINE, [REPLICA_SET], True),
        (ENGINE | {"pod-template-hash": "5f"}, [REPLICA_SET], True),
        (ENGINE, [], False),  # copied by hand
        (ENGINE, None, False),
        (ENGINE, [REPLICA_SET | {"controller": False}], False),
        ({"overspill.dev/service": "chat"}, [REPLICA_SET], False),
        (ENGINE | {"overspill.dev/service": "other"}, [REPLICA_SET], False),
        (None, [REPLICA_SET], False),
    ],
)
def test_a_replica_is_what_a_controller_made_as_one(labels: Any, owners: Any, counts: bool) -> None:
    pod = raw(node="n", phase="Running")
    pod["metadata"] |= {"labels": labels, "ownerReferences": owners}
    assert made_for([pod], "chat") == ([pod] if counts else [])
