"""dataPolicy Never with a full cluster: nothing leaves; what cannot wait is told when to retry."""

import urllib.request
from dataclasses import dataclass

from e2e.story import Story
from lab import platform
from lab.kube import Kube, eventually
from lab.load import Client, send_one
from lab.platform import QUEUE_BOUND

COUNTER = b"llamacpp:prompt_tokens_total "


@dataclass(frozen=True)
class Cloud:
    """The stand-in cloud as its own operator sees it: its pod, asked with its own key."""

    address: str
    key: str

    @property
    def prompt_tokens(self) -> float:
        """Tokens of all prompts that it was ever sent; an error where it cannot be asked."""
        headers = {"Authorization": f"Bearer {self.key}"}
        request = urllib.request.Request(f"http://{self.address}/metrics", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            (line,) = [line for line in answer if line.startswith(COUNTER)]
        return float(line.split()[1])


def the_cloud(kube: Kube) -> Cloud:
    """The cloud, seen to count what is sent to it."""
    (pod,) = kube.list("pods", platform.CLOUD, "app=model-server")
    cloud = Cloud(f"{pod['status']['podIP']}:8000", platform.cloud_key(kube))
    before = cloud.prompt_tokens
    asked = Client(f"http://{cloud.address}/v1", cloud.key, platform.CLOUD_MODEL, max_tokens=1)
    assert not send_one(asked).failed
    assert cloud.prompt_tokens > before
    return cloud


def test_data_policy_never_with_a_full_cluster(story: Story) -> None:
    story.occupy_gpu()
    story.apply(
        "chat",
        engine={"runtime": "llamacpp", "batching": {"maxSequences": 1}},
        scaling={
            "minReplicas": 1,
            "maxReplicas": 2,
            "objective": {"queueWait": {"p95": "300ms"}},
        },
        spillover=platform.spillover(["ClusterFull", "ObjectiveAtRisk"], dataPolicy="Never"),
    )
    story.wait_ready("chat", 1)
    cloud = the_cloud(story.kube)
    before = cloud.prompt_tokens

    with story.load("chat", max_tokens=8, stream=False).running(QUEUE_BOUND + 10) as load:
        assert story.wait_condition("chat", "CapacityAvailable", "False", 90) == "Unschedulable"
        eventually("some are refused", lambda: any(s.status == 429 for s in load.sent), timeout=90)
        eventually("some are answered", lambda: sum(not s.failed for s in load.sent) >= 5, 120)

    answered = [s for s in load.sent if not s.failed]
    assert {s.destination for s in answered} == {"local"}
    assert {s.status for s in load.sent if s.failed} == {429}, [
        s for s in load.sent if s.failed and s.status != 429
    ][:3]
    assert cloud.prompt_tokens == before
    refused = next(s for s in load.sent if s.status == 429)
    assert 1 <= refused.retry_after <= 60
