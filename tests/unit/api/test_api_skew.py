"""Readers of an older version read what a newer one wrote: the definitions are upgraded first."""

import copy
from typing import Any

import pytest

from overspill.api.base import InvalidObject
from overspill.api.provider import InferenceProvider
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService

Object = dict[str, Any]

CONDITION = {"type": "Ready", "status": "True", "reason": "Ready"}
DECISION = {
    "time": "2026-11-01T00:00:00Z", "replicasFrom": 0, "replicasTo": 1, "reason": "Demand",
}  # fmt: skip
SERVICE: Object = {
    "metadata": {"name": "chat", "namespace": "team-a"},
    "spec": {
        "model": {"uri": "oci://registry.example/m:1"},
        "resources": {"accelerator": {"count": 1}},
        "scaling": {"maxReplicas": 3, "objective": {"ttft": {"p95": "2s"}}},
        "spillover": {
            "providers": [{"name": "openai", "model": "gpt"}],
            "budget": {"perDay": "60"},
        },
    },
    "status": {
        "conditions": [CONDITION],
        "capacity": {"full": True, "reason": "Unschedulable"},
        "lastDecisions": [DECISION],
    },
}
PROVIDER: Object = {
    "metadata": {"name": "openai", "namespace": "team-a"},
    "spec": {
        "type": "openai",
        "secretRef": {"name": "key"},
        "models": [{"name": "gpt", "price": {"inputPerMTok": "1", "outputPerMTok": "2"}}],
    },
    "status": {"conditions": [CONDITION], "spent": {"perDay": "1.2"}},
}
RUNTIME: Object = {
    "metadata": {"name": "mine", "namespace": "team-a"},
    "spec": {"image": "registry.example/engine:1", "probes": {"readiness": "/health"}},
}
KINDS = {InferenceService: SERVICE, InferenceProvider: PROVIDER, InferenceRuntime: RUNTIME}


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a newer version may have a field more."""
    if isinstance(node, list):
        return [p for i, item in enumerate(node) for p in places(item, (*path, i))]
    if not isinstance(node, dict):
        return []
    return [path, *(p for name, value in node.items() for p in places(value, (*path, name)))]


CASES = [
    pytest.param(kind, part, path, id=f"{kind.kind}.{part}{list(path)}")
    for kind, raw in KINDS.items()
    for part in ("spec", "status")
    for path in places(raw.get(part))
]


@pytest.mark.parametrize(("kind", "part", "path"), CASES)
def test_a_field_that_only_a_newer_version_knows_changes_nothing(
    kind: type[InferenceService], part: str, path: tuple[Any, ...]
) -> None:
    raw = copy.deepcopy(KINDS[kind])
    node = raw[part]
    for step in path:
        node = node[step]
    node["later"] = {"deep": [1]}
    assert kind.parse(raw) == kind.parse(KINDS[kind])
    with pytest.raises(InvalidObject, match=r"later: Extra"):
        kind.parse(raw, unknown="forbid")
