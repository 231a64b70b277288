"""dataPolicy Never with a full cluster: nothing leaves; what cannot wait is told when to retry."""

from e2e.story import Story
from lab import platform
from lab.kube import Kube, eventually
from lab.platform import QUEUE_BOUND


def provider_requests(kube: Kube) -> float:
    """Requests that the stand-in cloud has processed, by its own count of prompt tokens."""
    path = f"/api/v1/namespaces/{platform.CLOUD}/services/http:model-server:8000/proxy/metrics"
    text = kube.kubectl("get", "--raw", path, check=False)
    lines = [x for x in text.splitlines() if x.startswith("llamacpp:prompt_tokens")]
    return sum(float(x.split()[-1]) for x in lines if "_total" in x)


def test_data_policy_never_with_a_full_cluster(story: Story) -> None:
    story.occupy_gpu()
    story.apply(
        "chat",
        engine={"batching": {"maxSequences": 1}},
        scaling={
            "minReplicas": 1,
            "maxReplicas": 2,
            "objective": {"queueWait": {"p95": "300ms"}},
        },
        spillover=platform.spillover(["ClusterFull", "ObjectiveAtRisk"], dataPolicy="Never"),
    )
    story.wait_ready("chat", 1)
    before = provider_requests(story.kube)

    with story.load("chat", max_tokens=8, stream=False).running(QUEUE_BOUND + 10) as load:
        assert story.wait_condition("chat", "CapacityAvailable", "False", 90) == "Unschedulable"
        eventually("some are refused", lambda: any(s.status == 429 for s in load.sent), timeout=90)
        eventually("some are answered", lambda: sum(not s.failed for s in load.sent) >= 5, 120)

    answered = [s for s in load.sent if not s.failed]
    assert {s.destination for s in answered} == {"local"}
    assert {s.status for s in load.sent if s.failed} == {429}, [
        s for s in load.sent if s.failed and s.status != 429
    ][:3]
    assert provider_requests(story.kube) == before
    refused = next(s for s in load.sent if s.status == 429)
    assert 1 <= refused.retry_after <= 60
