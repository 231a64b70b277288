"""Whether a node is on its way for pods without a place."""

import asyncio
from typing import Any

import pytest

from overspill.api.conditions import timestamp
from overspill.cluster import ClusterError, Forbidden, Unavailable
from overspill.cluster.client import Listing
from overspill.controller import provisioning
from overspill.controller.capacity import LOOK_SECONDS, look_again
from overspill.controller.facts import Pod

NOW = 1_795_000_000.0
AUTOSCALER = "pod triggered scale-up: [{gpus 0->1 (max: 4)}]"
KARPENTER = "Pod should schedule on: nodeclaim/gpus-x7k2q"
Object = dict[str, Any]


def at(ago: float) -> str:
    return timestamp(NOW - ago)


def event(reason: str, message: str, ago: float, **more: Any) -> Object:
    """An event as the older recorder writes it."""
    times = {"lastTimestamp": at(ago), "eventTime": None}
    metadata = {"creationTimestamp": at(ago)}
    return {"reason": reason, "message": message, "metadata": metadata, **times, **more}


def of_the_newer_api(reason: str, message: str, ago: float, last: float | None = None) -> Object:
    """An event of events.k8s.io, which may have come again since."""
    times = {"lastTimestamp": None, "eventTime": at(ago).replace("Z", ".123456Z")}
    series = {"series": {"count": 2, "lastObservedTime": at(last)}} if last is not None else {}
    return event(reason, message, ago, **times, **series)


FAILED = event("FailedScheduling", "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.", 1)

NO_NODE = event("NotTriggerScaleUp", "pod didn't trigger scale-up: 1 in backoff", 5)


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], ""),
        ([FAILED], ""),
        ([NO_NODE], ""),
        ([event("TriggeredScaleUp", AUTOSCALER, 60), NO_NODE], ""),  # the node group failed
        ([event("TriggeredScaleUp", AUTOSCALER, 2), NO_NODE], AUTOSCALER),
        ([FAILED, event("TriggeredScaleUp", AUTOSCALER, 20)], AUTOSCALER),
        ([event("Nominated", KARPENTER, 20)], KARPENTER),
        ([event("TriggeredScaleUp", AUTOSCALER, 60), event("Nominated", KARPENTER, 5)], KARPENTER),
        ([event("TriggeredScaleUp", AUTOSCALER, 901)], ""),  # that node did not come
        ([of_the_newer_api("Nominated", KARPENTER, 20)], KARPENTER),
        ([of_the_newer_api("Nominated", KARPENTER, 3000)], ""),
        ([of_the_newer_api("Nominated", KARPENTER, 3000, last=20)], KARPENTER),
    ],
)
def test_a_promise_counts_for_as_long_as_a_node_may_take(events: list[Object], said: str) -> None:
    assert provisioning.newest(events, NOW) == said


class Events:
    """A cluster that has one event for each pod, or does not give us any."""

    def __init__(self, error: ClusterError | None = None, *, hangs: bool = False) -> None:
        self.asked: list[str] = []
        self._error, self._hangs = error, hangs

    async def list(self, kind: Any, namespace: str, *, fields: str) -> Listing:
        self.asked.append(f"{namespace} {kind.plural} {fields}")
        if self._error:
            raise self._error
        if self._hangs:
            await asyncio.Event().wait()
        return Listing([event("Nominated", KARPENTER, 5)], "1")


def pod(name: str, reason: str = "Unschedulable", **metadata: Any) -> Object:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason}
    whole = {"name": name, "namespace": "team-a", "uid": f"u-{name}", **metadata}
    return {"metadata": whole, "status": {"phase": "Pending", "conditions": [condition]}}


async def test_only_pods_without_a_place_are_asked_for_and_few_of_them() -> None:
    cluster: Any = Events()
    pods = [
        pod("gated", "SchedulingGated"),
        pod("gone", deletionTimestamp=at(1)),
        {"metadata": {"name": "runs"}, "status": {"phase": "Running"}},
        *(pod(f"p{n}") for n in range(9)),
    ]
    found = await provisioning.promises(cluster, pods, NOW)
    assert found == {f"p{n}": KARPENTER for n in range(provisioning.ASKED)}
    assert cluster.asked[0] == "team-a events involvedObject.uid=u-p0"


@pytest.mark.parametrize(
    "cluster",
    [
        Events(Forbidden("events is forbidden")),
        Events(Unavailable("etcdserver: request timed out")),
        Events(hangs=True),
    ],
    ids=["forbidden", "down", "silent"],
)
async def test_events_that_cannot_be_read_hold_nothing_up(
    monkeypatch: pytest.MonkeyPatch, cluster: Any
) -> None:
    """Many clusters keep them in an etcd of their own."""
    monkeypatch.setattr(provisioning, "READ_SECONDS", 0.05)
    assert await provisioning.promises(cluster, [pod("p0"), pod("p1")], NOW) == {}
    assert len(cluster.asked) == 1


@pytest.mark.parametrize(
    ("since", "again"), [(None, None), (NOW - 1, LOOK_SECONDS), (NOW - 600, None)]
)
def test_it_is_asked_again_while_whoever_adds_nodes_decides(
    since: float | None, again: float | None
) -> None:
    pods = [Pod("ready", placed=True, ready=True), Pod("probe", unplaced_since=since)]
    assert look_again(pods, NOW) == again
