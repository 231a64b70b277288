"""An engine pod can be evicted while the cluster is full, and nobody notices."""

import json

from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually, is_ready


def evict(story: Story, pod: str) -> None:
    """Ask the Eviction API, as `kubectl drain` does."""
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": story.namespace},
    }
    path = f"/api/v1/namespaces/{story.namespace}/pods/{pod}/eviction"
    story.kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def test_eviction_of_an_engine_pod_while_full(story: Story) -> None:
    story.apply(
        "chat",
        scaling={"minReplicas": 3, "maxReplicas": 3},
        spillover=platform.spillover(["ClusterFull", "ReplicasUnavailable"]),
    )
    eventually(
        "two ready, one pending",
        lambda: story.ready("chat") == 2 and story.pending("chat") == 1,
        timeout=120,
    )
    # Before an eviction is allowed, the disruption budget must count the pending pod.
    eventually(
        "the disruption budget allows it",
        lambda: story.kube.list("pdb", story.namespace)[0]["status"]["disruptionsAllowed"] >= 1,
        timeout=60,
    )
    victim = next(p["metadata"]["name"] for p in story.pods("chat") if is_ready(p))

    with story.load("chat").running(4) as load:
        eventually("load is flowing", lambda: len(load.sent) >= 10, timeout=60)
        evict(story, victim)
        eventually(
            "the pod has gone and two others are ready",
            lambda: (
                victim not in {p["metadata"]["name"] for p in story.pods("chat")}
                and story.ready("chat") == 2
            ),
            timeout=120,
        )
        seen = len(load.sent)
        eventually("10 more answers", lambda: len(load.sent) >= seen + 10, timeout=60)
    assert_no_failure(load.sent, at_least=20)
