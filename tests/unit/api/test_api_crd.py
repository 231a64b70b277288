from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field

from overspill.api.base import InvalidObject, Model, Resource, cel
from overspill.api.crd import RESOURCES, crd, schema
from overspill.api.provider import InferenceProvider
from overspill.api.service import CLOSED_ANNOTATIONS, InferenceService

Schema = dict[str, Any]


def nodes(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema in a schema, with its path."""
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if "additionalProperties" in node:
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def root(resource: type[Resource]) -> Schema:
    version: Schema = crd(resource)["spec"]["versions"][0]
    result: Schema = version["schema"]["openAPIV3Schema"]
    return result


@pytest.mark.parametrize("resource", RESOURCES)
def test_every_field_has_one_type_a_meaning_and_a_bound(resource: type[Resource]) -> None:
    for path, node in nodes(root(resource)["properties"]["spec"], "spec"):
        assert node["type"] in ("object", "array", "string", "integer", "number", "boolean"), path
        if node["type"] == "array":
            assert "maxItems" in node, path
        if "additionalProperties" in node:
            assert "maxProperties" in node, path
        if node["type"] == "string" and path != "spec":
            assert {"maxLength", "enum"} & set(node), path
        if node["type"] == "integer" and not path.endswith("tolerationSeconds"):
            assert {"minimum", "maximum"} <= set(node), path
        assert node.get("description") or path.endswith(("[]", "{}")), path


@pytest.mark.parametrize("resource", RESOURCES)
def test_nothing_is_left_that_a_structural_schema_refuses(resource: type[Resource]) -> None:
    refused = {"$ref", "$defs", "title", "anyOf", "oneOf", "allOf", "const", "patternProperties"}
    for path, node in nodes(root(resource)):
        assert not refused & set(node), path
        assert not ("properties" in node and "additionalProperties" in node), path


WITH_STATUS = [resource for resource in RESOURCES if "status" in resource.model_fields]


@pytest.mark.parametrize("resource", WITH_STATUS)
def test_a_status_has_no_defaults(resource: type[Resource]) -> None:
    for path, node in nodes(root(resource)["properties"]["status"]):
        assert "default" not in node, path


def test_an_object_defaults_to_its_fields_defaults_in_full() -> None:
    spec = root(InferenceService)["properties"]["spec"]["properties"]
    scaling = spec["scaling"]
    assert scaling["default"]["objective"]["ttft"] == {"p95": "2s"}
    assert scaling["default"]["minReplicas"] == 1
    assert "default" not in spec["resources"]["properties"]["accelerator"]
    assert "default" not in spec["model"]


def test_rules_stand_on_the_object_they_speak_of() -> None:
    whole = root(InferenceService)
    assert "metadata.name" in whole["x-kubernetes-validations"][0]["message"]
    scaling = whole["properties"]["spec"]["properties"]["scaling"]
    rules = [r["rule"] for r in scaling["x-kubernetes-validations"]]
    assert "self.minReplicas <= self.maxReplicas" in rules


@pytest.mark.parametrize(
    ("scaling", "count"),
    [
        ({}, None),
        ({"replicas": 3, "maxReplicas": 4}, None),
        ({"mode": "Manual"}, 1),
        ({"mode": "Manual", "replicas": 0, "minReplicas": 0}, 0),
        ({"mode": "Manual", "replicas": 3, "maxReplicas": 4}, 3),
        ({"mode": "Manual", "replicas": 1, "minReplicas": 2, "maxReplicas": 4}, 2),
        ({"mode": "Manual", "replicas": 9, "maxReplicas": 4}, 4),
    ],
)
def test_the_count_that_somebody_set_is_within_the_bounds(scaling: Schema, count: Any) -> None:
    spec = {"model": {"uri": "oci://a/b:1"}, "scaling": scaling}
    service = InferenceService.parse({"metadata": {"name": "chat"}, "spec": spec})
    assert service.spec.scaling.set_count == count


def test_scale_reads_and_writes_fields_that_there_are() -> None:
    version = crd(InferenceService)["spec"]["versions"][0]
    for path in version["subresources"]["scale"].values():
        node = version["schema"]["openAPIV3Schema"]
        for name in path.removeprefix(".").split("."):
            node = node["properties"][name]
        assert node["type"] in ("integer", "string"), path


def test_columns_show_the_reason() -> None:
    version = crd(InferenceProvider)["spec"]["versions"][0]
    names = [column["name"] for column in version["additionalPrinterColumns"]]
    assert names == ["Type", "Ready", "Reason", "Left", "Age"]


def test_a_field_of_two_types_is_refused() -> None:
    class Odd(Model):
        value: int | str = Field(description="Either.")

    with pytest.raises(ValueError, match="one type"):
        schema(Odd)


def test_an_optional_object_with_a_rule_keeps_the_rule() -> None:
    @cel("self.a < self.b", "a must be below b")
    class Pair(Model):
        a: int = 1
        b: int = 2

    class Holder(Model):
        pair: Pair | None = Field(None, description="May be left out.")

    pair = schema(Holder)["properties"]["pair"]
    assert pair["x-kubernetes-validations"] == [
        {"rule": "self.a < self.b", "message": "a must be below b"}
    ]
    assert pair["description"] == "May be left out."
    assert "default" not in pair


@pytest.mark.parametrize(
    "key",
    [
        "container.apparmor.security.beta.kubernetes.io/engine",
        "seccomp.security.alpha.kubernetes.io/pod",
        "io.kubernetes.cri-o.Devices",
        "run.oci.keep_original_groups",
        "cdi.k8s.io/gpu",
        "mounts.nri.io/container.engine",
        "overspill.dev/metrics-path",
    ],
)
def test_an_annotation_that_opens_a_pod_is_refused(key: str) -> None:
    def parse(key: str) -> InferenceService:
        spec = {"model": {"uri": "pvc://models/a.gguf"}, "pod": {"annotations": {key: "x"}}}
        return InferenceService.parse({"metadata": {"name": "chat"}, "spec": spec})

    with pytest.raises(InvalidObject, match=rf"spec.pod.annotations.{key}.*isolation"):
        parse(key)
    assert parse(f"x-{key}").spec.pod.annotations == {f"x-{key}": "x"}
    rules = root(InferenceService)["properties"]["spec"]["properties"]["pod"]
    assert any(
        f"k.startsWith('{prefix}')" in rule["rule"]
        for rule in rules["x-kubernetes-validations"]
        for prefix in CLOSED_ANNOTATIONS
        if key.startswith(prefix)
    )
