"""S21: whatever a service or a runtime says, its pods are admitted under ``restricted``.

`make test` renders a thousand specs, `make fuzz` ten thousand; FUZZ_SEED repeats a run. Specs are
drawn from the schema alone: those that rules over several fields refuse are among them, so more
is rendered than the API server would let in.

What users write as in a pod (affinity, tolerations, …) is replaced by what makes a valid pod: that
a wrong one is shown in a condition is another test's.
"""

import asyncio
import os
from collections.abc import Iterator
from typing import Any

from specs import Specs

from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService
from overspill.cluster import Cluster
from overspill.cluster.kinds import POD
from overspill.runtimes import RenderContext, render, runtime_of

COUNT = 10_000 if os.environ.get("OVERSPILL_FUZZ") else 1_000
SEED = int(os.environ.get("FUZZ_SEED", "21"))
SENDERS = 4
CONTEXT = RenderContext("engine-cpu:1", "engine-gpu:1", "IfNotPresent", "overspill-system")
ENGINES = ("auto", "vllm", "llamacpp", "own", "own")
Object = dict[str, Any]

AFFINITIES: list[Object] = [
    {},
    {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}}]}},
    {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}}},
]  # fmt: skip
SPREADS: list[list[Object]] = [
    [],
    [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}],
]
CLAIMS: list[list[Object]] = [[], [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]]
TOLERATIONS: list[list[Object]] = [
    [],
    [{"operator": "Exists"}],
    [{"key": "a", "value": "b", "effect": "NoExecute", "tolerationSeconds": 5}],
]


def pod(specs: Specs, number: int, namespace: str) -> Object:
    """Return the pod of a generated service."""
    choose = specs.random.choice
    spec, own = specs.spec("InferenceService"), specs.spec("InferenceRuntime")
    spec.setdefault("engine", {})["runtime"] = choose(ENGINES)
    spec.setdefault("pod", {}).update(
        affinity=choose(AFFINITIES), topologySpreadConstraints=choose(SPREADS),
        resourceClaims=choose(CLAIMS), tolerations=choose(TOLERATIONS),
    )  # fmt: skip
    spec["pod"].pop("priorityClassName", None)  # there is none of that name
    metadata = {"name": f"s{number}", "namespace": namespace, "uid": "1"}
    service = InferenceService.parse({"metadata": metadata, "spec": spec})
    runtime = InferenceRuntime.parse({"metadata": {"name": "own"}, "spec": own})
    template: Object = render(runtime_of(service, runtime), service, CONTEXT)[-1]["spec"][
        "template"
    ]
    template["spec"]["serviceAccountName"] = "default"  # its own would be made before it
    template["metadata"]["name"] = metadata["name"]
    return {"apiVersion": "v1", "kind": "Pod", **template}


async def refusals(
    cluster: Cluster, namespace: str, pods: Iterator[Object], parts: set[str]
) -> list[str]:
    """Have the API server look at the pods; return what it refuses, and add what they had."""
    refused = []
    for obj in pods:
        spec = obj["spec"]
        for part in (*spec["containers"], *spec.get("initContainers", []), *spec["volumes"]):
            parts.add(part["name"])
        status, answer = await cluster.raw("POST", POD.path(namespace) + "?dryRun=All", body=obj)
        if status != 201:
            refused.append(f"{status} {answer.decode()[:500]}")
    return refused


async def test_generated_pods_are_admitted(cluster: Cluster, namespace: str) -> None:
    specs, parts = Specs(SEED), set[str]()
    pods = (pod(specs, number, namespace) for number in range(COUNT))
    senders = [refusals(cluster, namespace, pods, parts) for _ in range(SENDERS)]
    assert [refused for found in await asyncio.gather(*senders) for refused in found] == []
    volumes = {"model", "tmp", "cache", "shm", "draft", "loader-tmp", "model-secret"}
    assert parts == {"engine", "loader", "drain", *volumes}
