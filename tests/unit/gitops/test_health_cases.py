"""The cases of the Argo CD health scripts are objects as the operator writes them.

That the scripts give the health of each case is tested with Argo CD's own program: e2e/argocd.
"""

from pathlib import Path
from typing import Any

import pytest
import yaml

from overspill.api.base import Resource
from overspill.api.crd import RESOURCES
from overspill.api.names import ConditionType

ROOT = Path(__file__).resolve().parents[3]
KINDS = ROOT / "gitops/argocd/resource_customizations/overspill.dev"
SCRIPTS = sorted(KINDS.glob("*/health.lua"))
CASES = sorted(KINDS.glob("*/testdata/*.yaml"))
MODELS: dict[str, type[Resource]] = {resource.kind: resource for resource in RESOURCES}
HEALTH = {"Healthy", "Progressing", "Degraded", "Suspended"}


def expectations(script: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(script.with_name("health_test.yaml").read_text())["tests"])


def test_every_kind_with_a_status_has_a_script() -> None:
    told = {resource.kind for resource in RESOURCES if "status" in resource.model_fields}
    assert {script.parent.name for script in SCRIPTS} == told


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.parent.name)
def test_every_case_has_an_expected_health(script: Path) -> None:
    expected = {test["inputPath"]: test["healthStatus"]["status"] for test in expectations(script)}
    files = {str(p.relative_to(script.parent)) for p in script.parent.glob("testdata/*")}
    assert set(expected) == files
    assert set(expected.values()) <= HEALTH
    # testdata/<health>_<what>.yaml
    for path, health in expected.items():
        assert Path(path).stem.split("_")[0] == health.lower()


@pytest.mark.parametrize("path", CASES, ids=lambda p: f"{p.parent.parent.name}/{p.stem}")
def test_a_case_is_an_object_that_the_operator_could_have_written(path: Path) -> None:
    raw = yaml.safe_load(path.read_text())
    parsed = MODELS[path.parent.parent.name].parse(raw, unknown="forbid")
    assert {c["type"] for c in raw.get("status", {}).get("conditions", [])} <= set(ConditionType)
    assert parsed.metadata.generation >= 1
