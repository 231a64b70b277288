"""An engine that is not ours, described by an InferenceRuntime: it scales, rolls and drains."""

import json
from typing import Any
from urllib.parse import quote

from e2e.story import Story, assert_no_failure
from lab import platform
from lab.kube import eventually, is_ready

NAME = "llama-server"
RUNNING, WAITING = "llamacpp:requests_processing", "llamacpp:requests_deferred"
PROMETHEUS = f"/api/v1/namespaces/{platform.NAMESPACE}/services/overspill-prometheus:http/proxy"


def runtime() -> dict[str, Any]:
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
            "metrics": {"running": RUNNING, "waiting": WAITING},
        },
    }


def scraped(story: Story) -> bool:
    """Whether Prometheus knows the engine's own counts."""
    query = quote(f'{RUNNING}{{service_namespace="{story.namespace}"}}')
    answer = story.kube.kubectl("get", "--raw", f"{PROMETHEUS}/api/v1/query?query={query}")
    return bool(json.loads(answer)["data"]["result"])


def roll(story: Story) -> None:
    """Change the template and wait until the old engines have drained and gone."""
    old = {p["metadata"]["uid"] for p in story.pods("chat")}
    rolled = {"spec": {"pod": {"annotations": {"rolled": "yes"}}}}
    story.kube.patch("infsvc", "chat", story.namespace, rolled)

    def new_ones() -> bool:
        pods = story.pods("chat")
        return not old & {p["metadata"]["uid"] for p in pods} and sum(map(is_ready, pods)) == 2

    eventually("all replicas are new, the old ones have drained", new_ones, timeout=300)


def test_an_engine_of_ones_own(story: Story) -> None:
    story.kube.apply(runtime(), namespace=story.namespace)
    story.apply(
        "chat",
        engine={"runtime": NAME, "batching": {"maxSequences": 2}},
        resources={"cpu": platform.ENGINE_CPU, "memory": "512Mi"},
        scaling={"minReplicas": 1, "maxReplicas": 2},
    )
    story.wait_ready("chat", 1)
    # A decision is recorded where it says something new: the one that adds the second replica
    # knows the engine's own counts if they are there before the load.
    eventually("Prometheus scrapes the engine", lambda: scraped(story), timeout=60)
    with story.load("chat").running(4) as load:
        story.wait_ready("chat", 2, timeout=120)
        roll(story)
    decisions = story.status("chat")["lastDecisions"]
    (rise,) = [d for d in decisions if (d["replicasFrom"], d["replicasTo"]) == (1, 2)]
    assert {"engine_running", "engine_waiting"} <= set(rise["inputs"]), rise
    assert_no_failure(load.sent, at_least=20)
    assert {s.destination for s in load.sent} == {"local"}
    print(f"an engine of one's own: {len(load.sent)} requests, 1 to 2 replicas, a roll, 0 failed")
