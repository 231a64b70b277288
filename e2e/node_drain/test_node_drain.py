"""A node is drained under load: an engine and a gateway are evicted, and every stream ends well."""

import json

from e2e import data_path
from e2e.data_path import LOOPS, RATE, STREAM_SECONDS
from e2e.story import Story
from lab import platform
from lab.kube import Kube, eventually, is_ready


def evict(story: Story, pod: dict[str, object], namespace: str) -> str:
    """Ask the Eviction API, as `kubectl drain` does; return the pod's name."""
    name = pod["metadata"]["name"]  # type: ignore[index]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    story.kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))
    return str(name)


def test_node_drain_with_live_streams(story: Story) -> None:
    # One engine is enough for all: of its slots a gateway that drains keeps its share.
    data_path.paced(story, "chat", slots=3 * LOOPS)
    kube = story.kube
    node = story.pods("chat")[0]["spec"]["nodeName"]
    with (
        data_path.gateways(kube, 2),
        data_path.streams(story, "chat").running(LOOPS // 2) as long,
        data_path.streams(story, "chat", 0.6).running(LOOPS // 2) as short,
    ):
        eventually("load is flowing", lambda: len(short.sent) >= LOOPS, timeout=60)
        for namespace in (story.namespace, platform.NAMESPACE):
            eventually(
                f"the disruption budget in {namespace} allows it",
                lambda namespace=namespace: may_be_disrupted(kube, namespace),  # type: ignore[misc]
                timeout=60,
            )
        kube.kubectl("cordon", node)
        try:
            engine = evict(
                story, next(p for p in story.pods("chat") if is_ready(p)), story.namespace
            )
            gateway = evict(story, data_path.gateway_pods(kube)[0], platform.NAMESPACE)
            eventually(
                "both have ended",
                lambda: (
                    engine not in names(story.pods("chat"))
                    and gateway not in names(data_path.gateway_pods(kube))
                ),
                timeout=STREAM_SECONDS + 60,
            )
        finally:
            kube.kubectl("uncordon", node)
        story.wait_ready("chat", 2)
    data_path.assert_whole(long.sent, round(STREAM_SECONDS * RATE), at_least=LOOPS // 2)
    data_path.assert_whole(short.sent, 3, at_least=5 * LOOPS)
    data_path.record(
        f"node drain: an engine and a gateway evicted from a cordoned node, {len(long.sent)} "
        f"streams of {STREAM_SECONDS} s and {len(short.sent)} of 0.6 s, 0 failed, 0 truncated"
    )


def may_be_disrupted(kube: Kube, namespace: str) -> bool:
    """Whether every disruption budget of a namespace has counted enough ready pods."""
    budgets = kube.list("pdb", namespace)
    return all(budget["status"]["disruptionsAllowed"] >= 1 for budget in budgets)


def names(pods: list[dict[str, dict[str, str]]]) -> set[str]:
    """Names of pods."""
    return {p["metadata"]["name"] for p in pods}
