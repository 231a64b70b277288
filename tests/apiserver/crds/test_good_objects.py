"""What is right is accepted, with its defaults filled in, and shown well."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from overspill.api.crd import RESOURCES
from overspill.api.service import InferenceService
from overspill.cluster import Cluster, Invalid
from overspill.cluster.kinds import (
    CRD,
    INFERENCE_PROVIDER,
    INFERENCE_RUNTIME,
    INFERENCE_SERVICE,
    PVC,
)

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = {
    path.stem: list(yaml.safe_load_all(path.read_text()))
    for path in sorted((ROOT / "manifests/samples").glob("*.yaml"))
}
KINDS = {k.kind: k for k in (INFERENCE_SERVICE, INFERENCE_PROVIDER, INFERENCE_RUNTIME, PVC)}
MODELS = {resource.kind: resource for resource in RESOURCES}


def service(name: str, namespace: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": INFERENCE_SERVICE.api_version,
        "kind": "InferenceService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"uri": "oci://registry.example.com/chat:v1"}} | spec,
    }


@pytest.mark.parametrize("sample", SAMPLES)
async def test_a_sample_is_applied(cluster: Cluster, namespace: str, sample: str) -> None:
    for obj in SAMPLES[sample]:
        obj["metadata"]["namespace"] = namespace
        await cluster.apply(KINDS[obj["kind"]], obj, manager="overspill-tests")


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"resources": {}},
        {"scaling": {"maxReplicas": 3}},
        {"scaling": {"mode": "Manual", "minReplicas": 2, "maxReplicas": 3}},
        {"scaling": {"objective": {"itl": {"p95": "40ms"}}}},
        {"spillover": {"dataPolicy": "Never"}},
        {"engine": {"kvCache": {}}, "rollout": {}, "cost": {}, "pod": {}},
    ],
    ids=json.dumps,
)
async def test_the_api_server_fills_in_what_the_models_say(
    cluster: Cluster, namespace: str, spec: dict[str, Any]
) -> None:
    stored = await cluster.create(INFERENCE_SERVICE, service("chat", namespace, spec))
    ours = InferenceService.parse(service("chat", namespace, spec))
    theirs = InferenceService.parse(stored)
    assert theirs.spec == ours.spec
    assert "accelerator" not in stored["spec"]["resources"]
    assert stored["spec"]["scaling"]["objective"]["ttft"] == {"p95": "2s"}


@pytest.mark.parametrize(
    "scaling", [{"maxReplicas": 4}, {"mode": "Manual", "minReplicas": 2, "maxReplicas": 4}]
)
async def test_a_manifest_may_drop_a_count_that_it_had(
    cluster: Cluster, namespace: str, scaling: dict[str, Any]
) -> None:
    for counted in ({"replicas": 3}, {}):
        obj = service("chat", namespace, {"scaling": scaling | counted})
        stored = await cluster.apply(INFERENCE_SERVICE, obj, manager="overspill-tests")
    assert stored["spec"]["scaling"]["replicas"] == 1


async def test_a_time_is_a_time_or_absent(cluster: Cluster, namespace: str) -> None:
    obj = service("chat", namespace, {})
    await cluster.create(INFERENCE_SERVICE, obj)
    condition = {"type": "Ready", "status": "False", "reason": "Starting", "message": "x"}

    async def write(conditions: list[dict[str, str]]) -> dict[str, Any]:
        obj["status"] = {"conditions": conditions, "desiredReplicas": 1}
        return await cluster.apply(
            INFERENCE_SERVICE, obj, manager="overspill-tests", subresource="status"
        )

    assert (await write([condition]))["status"] == obj["status"]
    with pytest.raises(Invalid, match="lastTransitionTime"):
        await write([condition | {"lastTransitionTime": ""}])


async def test_the_columns_of_kubectl_get(cluster: Cluster, namespace: str) -> None:
    obj = service("chat", namespace, {})
    await cluster.create(INFERENCE_SERVICE, obj)
    condition = {"type": "Ready", "status": "False", "reason": "ClusterFull", "message": "x"}
    traffic = {"requestsPerSecond": 1.5, "spilledPercent": 12.5}
    obj["status"] = {"conditions": [condition], "readyReplicas": 2, "desiredReplicas": 3}
    obj["status"]["traffic"] = traffic
    obj["status"]["cost"] = {"dollarsPerHour": 4.2, "dollarsPerMTok": 0.31}
    obj["status"]["spent"] = {"perDay": "1.50", "left": "3.50"}
    await cluster.apply(INFERENCE_SERVICE, obj, manager="overspill-tests", subresource="status")
    table = await as_table(cluster, INFERENCE_SERVICE.path(namespace))
    assert table == [
        ["Name", "Ready", "Reason", "Replicas", "Desired", "Spill%", "$/h", "$/1M", "Left", "Age"],
        ["chat", "False", "ClusterFull", 2, 3, 12.5, 4.2, 0.31, "3.50"],
    ]


async def as_table(cluster: Cluster, path: str) -> list[list[Any]]:
    """The columns and the first row that kubectl shows, without the age."""
    accept = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    _, body = await cluster.raw("GET", path, headers=accept)
    table = json.loads(body)
    shown = [i for i, c in enumerate(table["columnDefinitions"]) if not c["priority"]]
    names = [table["columnDefinitions"][i]["name"] for i in shown]
    return [names, [table["rows"][0]["cells"][i] for i in shown][:-1]]


@pytest.mark.parametrize("kind", MODELS)
async def test_each_crd_is_accepted_as_it_stands(cluster: Cluster, kind: str) -> None:
    crd = await cluster.get(CRD, "", f"{MODELS[kind].plural}.overspill.dev")
    conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
    assert conditions["Established"] == "True"
    assert conditions["NamesAccepted"] == "True"
    assert "NonStructuralSchema" not in conditions
