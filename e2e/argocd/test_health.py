"""The health scripts give each of their cases its health, by Argo CD's own interpreter."""

from pathlib import Path

import pytest
import yaml

from lab import argocd
from lab.kube import ROOT

CONFIG_MAP = ROOT / "gitops" / "argocd" / "argocd-cm.yaml"
SCRIPTS = sorted((CONFIG_MAP.parent / "resource_customizations").glob("*/*/health.lua"))


@pytest.fixture(scope="module")
def program() -> Path:
    """Argo CD, of the version that the cluster's tool pins."""
    return argocd.program()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.parent.name)
def test_health_of_every_case(program: Path, script: Path) -> None:
    cases = yaml.safe_load(script.with_name("health_test.yaml").read_text())["tests"]
    expected = {c["inputPath"]: (c["healthStatus"]["status"], c["healthStatus"]["message"])
                for c in cases}  # fmt: skip
    seen = {path: argocd.health(program, script.parent / path, CONFIG_MAP) for path in expected}
    assert seen == expected
