"""Latency above the objective adds a replica; silence takes it away again."""

from e2e.story import Story, assert_no_failure
from lab.kube import eventually


def test_scale_out_on_latency_and_back(story: Story) -> None:
    story.apply(
        "chat",
        engine={"runtime": "llamacpp", "batching": {"maxSequences": 8}},
        scaling={
            "minReplicas": 1,
            "maxReplicas": 2,
            # Three requests fit a replica of eight sequences; only latency asks for a second.
            "objective": {"ttft": {"p95": "50ms"}, "queueWait": {"p95": "5s"}},
        },
    )
    story.wait_ready("chat", 1)

    with story.load("chat").running(3) as load:
        # For 90 s after a replica became ready, latency asks for no other.
        story.wait_ready("chat", 2)
        decisions = story.status("chat")["lastDecisions"]
        up = next(d for d in decisions if (d["replicasFrom"], d["replicasTo"]) == (1, 2))
        assert up["reason"] == "LatencyAboveObjective"
        assert up["inputs"]["ttft_p95"] > 0.05

    assert_no_failure(load.sent, at_least=20)
    assert {s.destination for s in load.sent} == {"local"}
    story.wait_ready("chat", 1, timeout=180)
    eventually("the decision to go down", lambda: (2, 1) in story.steps("chat"), timeout=60)
