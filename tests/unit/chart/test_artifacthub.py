"""Chart.yaml's annotations for Artifact Hub: its documented fields, and true of this chart.

https://artifacthub.io/docs/topics/annotations/helm/
"""

import re
from typing import Any

import pytest
import yaml
from rights import INSTALL, ROOT

from overspill.api.crd import RESOURCES, crd

PREFIX = "artifacthub.io/"
CHART = yaml.safe_load((ROOT / "charts/overspill/Chart.yaml").read_text())
VALUES = yaml.safe_load((ROOT / "charts/overspill/values.yaml").read_text())
ANNOTATIONS: dict[str, str] = CHART["annotations"]
SAMPLES = [
    obj
    for path in sorted((ROOT / "manifests/samples").glob("*.yaml"))
    for obj in yaml.safe_load_all(path.read_text())
    if obj
]
# Of each list: its entries' required fields, and those that they may have.
LISTS = {
    "changes": ({"kind", "description"}, {"links"}),
    "crds": ({"kind", "version", "name", "displayName", "description"}, set()),
    "images": ({"name", "image"}, {"whitelisted", "platforms"}),
    "links": ({"name", "url"}, set()),
}
PLAIN = {
    "category": "ai-machine-learning",
    "license": "[A-Za-z0-9.-]+",
    "operator": "true|false",
    "operatorCapabilities": "Basic Install|Seamless Upgrades|Full Lifecycle|Deep Insights"
    "|Auto Pilot",
    "prerelease": "true|false",
    "containsSecurityUpdates": "true|false",
}
CHANGES = {"added", "changed", "deprecated", "removed", "fixed", "security"}


def entries(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load(ANNOTATIONS[PREFIX + name])
    return found


def test_every_annotation_is_a_documented_one_and_a_string() -> None:
    documented = {PREFIX + name for name in (*LISTS, *PLAIN, "crdsExamples")}
    assert set(ANNOTATIONS) == documented
    assert all(isinstance(value, str) for value in ANNOTATIONS.values())


@pytest.mark.parametrize(("name", "pattern"), PLAIN.items())
def test_plain_values_are_allowed_ones(name: str, pattern: str) -> None:
    assert re.fullmatch(pattern, ANNOTATIONS[PREFIX + name])


@pytest.mark.parametrize("name", LISTS)
def test_entries_have_their_fields(name: str) -> None:
    required, optional = LISTS[name]
    for entry in entries(name):
        assert required <= set(entry) <= required | optional
        assert all(isinstance(entry[field], str) and entry[field] for field in required)
    if name == "changes":
        assert {entry["kind"] for entry in entries(name)} <= CHANGES


def test_all_our_definitions_are_listed_as_they_are() -> None:
    listed = {(e["kind"], e["name"], e["version"]) for e in entries("crds")}
    ours = set()
    for resource in RESOURCES:
        definition = crd(resource)
        version = definition["spec"]["versions"][0]["name"]
        ours.add((resource.kind, definition["metadata"]["name"], version))
    assert listed == ours


def test_every_kind_has_an_example_that_is_one_of_the_samples() -> None:
    examples = entries("crdsExamples")
    assert {e["kind"] for e in examples} == {resource.kind for resource in RESOURCES}
    for example in examples:
        assert example in SAMPLES


def test_the_images_are_those_that_the_chart_uses() -> None:
    manifest = INSTALL.read_text()
    registry = re.escape(VALUES["image"]["registry"])
    used = set(re.findall(rf"{registry}/[a-z-]+:[\w.]+", manifest))
    assert {e["image"] for e in entries("images")} == used | {VALUES["prometheus"]["image"]}
