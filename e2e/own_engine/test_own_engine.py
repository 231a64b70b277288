"""An engine that is not ours, described by an InferenceRuntime: it scales, rolls and drains."""

from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually, is_ready

NAME = "llama-server"


def runtime() -> dict[str, object]:
    """llama.cpp's own server, which has no drain of its own."""
    args = ["--model", "$(MODEL_PATH)", "--alias", "$(SERVED_NAME)", "--port", "$(PORT)"]
    args += ["--parallel", "$(MAX_SEQUENCES)", "--context", "$(CONTEXT_LENGTH)"]
    return {
        "apiVersion": "overspill.dev/v1alpha1",
        "kind": "InferenceRuntime",
        "metadata": {"name": NAME},
        "spec": {
            "image": platform.images()[NAME],
            "args": args,
            "port": 8080,
            "metrics": {
                "running": "llamacpp:requests_processing",
                "waiting": "llamacpp:requests_deferred",
            },
        },
    }


def test_an_engine_of_ones_own(story: Story) -> None:
    story.kube.apply(runtime(), namespace=story.namespace)
    story.apply(
        "chat",
        engine={"runtime": NAME, "batching": {"maxSequences": 2}},
        resources={"cpu": platform.ENGINE_CPU, "memory": "512Mi"},
        scaling={"minReplicas": 1, "maxReplicas": 2},
    )
    story.wait_ready("chat", 1)
    with story.load("chat").running(4) as load:
        story.wait_ready("chat", 2, timeout=120)
        eventually(
            "a decision knows the engine's own counts",
            lambda: any(
                "engine_running" in d["inputs"] for d in story.status("chat")["lastDecisions"]
            ),
            timeout=60,
        )
        old = {p["metadata"]["uid"] for p in story.pods("chat")}
        rolled = {"spec": {"pod": {"annotations": {"rolled": "yes"}}}}
        story.kube.patch("infsvc", "chat", story.namespace, rolled)
        eventually(
            "all replicas are new, the old ones have drained",
            lambda: (
                not old & {p["metadata"]["uid"] for p in story.pods("chat")}
                and sum(is_ready(p) for p in story.pods("chat")) == 2
            ),
            timeout=180,
        )
    assert_no_failure(load.sent, at_least=20)
    assert {s.destination for s in load.sent} == {"local"}
    print(f"an engine of one's own: {len(load.sent)} requests, 1 to 2 replicas, a roll, 0 failed")
