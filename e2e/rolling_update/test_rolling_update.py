"""A changed service rolls without a failed request: two replicas, one GPU only, cluster full."""

from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually, is_ready
from lab.load import Load


def roll(story: Story, load: Load) -> None:
    """Change the template and wait until only new pods are left."""
    before = {p["metadata"]["uid"] for p in story.pods("chat") if is_ready(p)}
    count = len(before)
    eventually("load is flowing", lambda: len(load.sent) >= 10, timeout=60)
    story.kube.patch(
        "infsvc", "chat", story.namespace, {"spec": {"pod": {"annotations": {"rolled": "yes"}}}}
    )

    def rolled() -> bool:
        pods = story.pods("chat")
        return not before & {p["metadata"]["uid"] for p in pods} and (
            sum(is_ready(p) for p in pods) == count
        )

    eventually("all replicas are new and ready", rolled, timeout=300)
    seen = len(load.sent)
    eventually("10 answers from the new ones", lambda: len(load.sent) >= seen + 10, timeout=60)


def test_rolling_update_under_load(story: Story) -> None:
    story.apply("chat", scaling={"minReplicas": 2, "maxReplicas": 2})
    story.wait_ready("chat", 2)
    with story.load("chat").running(3) as load:
        roll(story, load)
    assert_no_failure(load.sent, at_least=20)
    print(f"rolling update, two replicas: {len(load.sent)} requests, 0 failed")


def test_rolling_update_with_one_gpu(story: Story) -> None:
    story.occupy_gpu()
    story.apply("chat")
    story.wait_ready("chat", 1)
    with story.load("chat").running(2) as load:
        roll(story, load)
    assert_no_failure(load.sent, at_least=20)
    assert {s.destination for s in load.sent} == {"local"}
    print(f"rolling update, one GPU: {len(load.sent)} requests, 0 failed")


def test_rolling_update_while_full(story: Story) -> None:
    story.apply(
        "chat",
        scaling={"minReplicas": 3, "maxReplicas": 3},
        spillover=platform.spillover(["ClusterFull"]),
    )
    eventually("two ready, one pending", lambda: _two_and_probe(story), timeout=120)
    with story.load("chat").running(4) as load:
        roll(story, load)
        eventually("the probe is back", lambda: story.pending("chat") == 1, timeout=60)
    assert_no_failure(load.sent, at_least=20)
    print(f"rolling update, cluster full: {len(load.sent)} requests, 0 failed")


def _two_and_probe(story: Story) -> bool:
    return story.ready("chat") == 2 and story.pending("chat") == 1
