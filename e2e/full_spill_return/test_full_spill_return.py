"""The cluster is full: the excess spills; a GPU becomes free: it comes back."""

import time

from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually
from lab.load import Sent


def test_full_spill_return(story: Story) -> None:
    story.occupy_gpu()
    story.apply(
        "chat",
        scaling={
            "minReplicas": 1,
            "maxReplicas": 2,
            "objective": {"queueWait": {"p95": "300ms"}},
        },
        spillover=platform.spillover(["ClusterFull"]),
    )
    story.wait_ready("chat", 1)
    story.wait_condition("chat", "SpilloverReady", "True")

    with story.load("chat").running(6) as load:
        assert story.wait_condition("chat", "CapacityAvailable", "False", 90) == "Unschedulable"
        assert (
            "Insufficient nvidia.com/gpu" in story.condition("chat", "CapacityAvailable")["message"]
        )
        assert story.condition("chat", "Ready")["status"] == "True"
        eventually("10 spilled", lambda: len(spilled(load.sent)) >= 10, timeout=90)
        assert story.pending("chat") == 1
        story.release_gpu()
        story.wait_condition("chat", "CapacityAvailable", "True", 90)
        story.wait_ready("chat", 2)
        # Two seconds later every gateway knows: ClusterFull no longer holds, nothing may spill.
        settled = time.time() + 2
        eventually("20 more answers", lambda: len(load.since(settled)) >= 20, timeout=90)

    assert_no_failure(load.sent, at_least=30)
    assert {s.reason for s in spilled(load.sent)} == {"ClusterFull"}
    assert spilled(load.since(settled)) == []


def spilled(sent: list[Sent]) -> list[Sent]:
    """Those that a provider answered."""
    return [s for s in sent if s.destination not in ("", "local")]
