"""The API server refuses what is wrong, with a message that names the field."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from overspill.cluster import Cluster
from overspill.cluster.kinds import INFERENCE_PROVIDER, INFERENCE_RUNTIME, INFERENCE_SERVICE

KINDS = {
    "service": INFERENCE_SERVICE,
    "provider": INFERENCE_PROVIDER,
    "runtime": INFERENCE_RUNTIME,
}
BASES = {
    "service": {"model": {"uri": "oci://registry.example.com/chat:v1"}},
    "provider": {
        "type": "openai",
        "secretRef": {"name": "openai-key"},
        "models": [{"name": "gpt-5.2", "price": {"inputPerMTok": "1.75", "outputPerMTok": "14"}}],
    },
    "runtime": {"image": "registry.example.com/engine:v1"},
}
BAD = yaml.safe_load(Path(__file__).with_name("bad_objects.yaml").read_text())
NEW = [case for case in BAD if "was" not in case]
CHANGED = [case for case in BAD if "was" in case]


def good(kind: str, namespace: str) -> dict[str, Any]:
    """A correct object of a kind."""
    return {
        "apiVersion": KINDS[kind].api_version,
        "kind": KINDS[kind].kind,
        "metadata": {"name": "sample", "namespace": namespace},
        "spec": copy.deepcopy(BASES[kind]),
    }


def laid_over(obj: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """The object with each dotted path set; "300 x" stands for that many letters."""
    for path, value in fields.items():
        *parents, last = path.split(".")
        node = obj
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            del node[last]
        else:
            node[last] = lengthened(value)
    return obj


def lengthened(value: Any) -> Any:
    if isinstance(value, list):
        return [lengthened(item) for item in value]
    if isinstance(value, str) and value.endswith(" x"):
        return "x" * int(value.removesuffix(" x"))
    return value


async def create(cluster: Cluster, kind: str, obj: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """What the API server answers to `kubectl create --dry-run=server`."""
    path = KINDS[kind].path(obj["metadata"]["namespace"])
    query = "?dryRun=All&fieldValidation=Strict"
    status, body = await cluster.raw("POST", path + query, body=obj)
    return status, json.loads(body)


def refused(case: dict[str, Any], status: int, answer: dict[str, Any]) -> None:
    """Check that the answer is a refusal with a case's words."""
    assert status in (400, 422), answer
    missing = [word for word in case["error"] if word not in answer["message"]]
    assert not missing, answer["message"]


@pytest.mark.parametrize("case", NEW, ids=lambda c: f"{c['kind']}: {json.dumps(c['set'])[:80]}")
async def test_a_wrong_field_is_named(cluster: Cluster, case: dict[str, Any]) -> None:
    obj = laid_over(good(case["kind"], "default"), case["set"])
    refused(case, *await create(cluster, case["kind"], obj))


@pytest.mark.parametrize("case", CHANGED, ids=lambda c: f"{c['kind']}: {json.dumps(c['set'])[:80]}")
async def test_a_wrong_change_is_named(
    cluster: Cluster, namespace: str, case: dict[str, Any]
) -> None:
    kind = KINDS[case["kind"]]
    stored = await cluster.create(kind, laid_over(good(case["kind"], namespace), case["was"]))
    path = f"{kind.path(namespace)}/sample?dryRun=All&fieldValidation=Strict"
    status, body = await cluster.raw("PUT", path, body=laid_over(stored, case["set"]))
    refused(case, status, json.loads(body))


@pytest.mark.parametrize("kind", KINDS)
async def test_the_object_they_are_laid_over_is_accepted(cluster: Cluster, kind: str) -> None:
    status, answer = await create(cluster, kind, good(kind, "default"))
    assert status == 201, answer
