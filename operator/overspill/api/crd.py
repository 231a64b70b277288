"""CustomResourceDefinitions from the pydantic models.

The API server wants a structural schema: no references, no titles, one type per field, objects
that default to their fields' defaults, and CEL rules on the object they speak of. Pydantic
writes general JSON Schema; this module turns one into the other and adds what a schema does not
know: names, printer columns, subresources.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from typing import Any

from pydantic.json_schema import DEFAULT_REF_TEMPLATE, GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from overspill.api.base import Model, Resource
from overspill.api.names import GROUP, VERSION
from overspill.api.provider import InferenceProvider
from overspill.api.runtime import InferenceRuntime
from overspill.api.service import InferenceService

RESOURCES: tuple[type[Resource], ...] = (InferenceService, InferenceProvider, InferenceRuntime)

# Client-side apply stores the object in an annotation, which may have 262,144 bytes.
MAX_BYTES = 262_144

Schema = dict[str, Any]


class _Generator(GenerateJsonSchema):
    """Pydantic's generator, plus the CEL rules of each model."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        result = super().model_schema(schema)
        rules = getattr(schema["cls"], "cel_rules", ())
        if rules:
            result["x-kubernetes-validations"] = [
                {"rule": r.rule, "message": r.message} for r in rules
            ]
        return result


def schema(model: type[Model]) -> Schema:
    """Return the structural schema of a model.

    :raises ValueError: when a field has no single type, which a structural schema needs.
    """
    raw = model.model_json_schema(by_alias=True, schema_generator=_Generator)
    definitions = raw.pop("$defs", {})
    return _structural(raw, definitions)


def _structural(node: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _nonnull(_resolve(node, definitions), definitions)
    result = {k: v for k, v in node.items() if k in _KEPT and v is not None}
    if "type" not in result:
        raise ValueError(f"a field needs one type, found {node}")
    if "properties" in node:
        properties = node["properties"].items()
        result["properties"] = {name: _structural(p, definitions) for name, p in properties}
    if "items" in node:
        result["items"] = _structural(node["items"], definitions)
    values = _map_values(node)
    if values is not None:
        result["additionalProperties"] = _structural(values, definitions)
    optional = "default" in node and node["default"] is None
    filled = {k: f["default"] for k, f in result.get("properties", {}).items() if "default" in f}
    if filled and not optional and not result.get("required"):
        # In full, for the API server checks a default against the CEL rules as it stands.
        result.setdefault("default", filled)
    return result


# Values that mean the same in both dialects; the rest is translated or left out.
_KEPT = {
    *("type", "description", "default", "enum", "pattern", "format", "required"),
    *("minimum", "maximum", "minLength", "maxLength"),
    *("minItems", "maxItems", "minProperties", "maxProperties"),
    "x-kubernetes-validations",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-preserve-unknown-fields",
}


def _resolve(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Follow a reference; what stands beside it (the field's description) wins."""
    if "$ref" not in node:
        return node
    name = node["$ref"].removeprefix(DEFAULT_REF_TEMPLATE.format(model=""))
    return {**definitions[name], **{k: v for k, v in node.items() if k != "$ref"}}


def _nonnull(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Turn "X or null" into X: an optional field is one that may be left out."""
    choices = [c for c in node.get("anyOf", ()) if c.get("type") != "null"]
    if len(choices) != 1:
        return node
    beside = {k: v for k, v in node.items() if k != "anyOf"}
    return {**_resolve(choices[0], definitions), **beside}


def _map_values(node: Schema) -> Schema | None:
    """Return the schema of a map's values. Patterns of keys have no place in a CRD."""
    patterns = list(node.get("patternProperties", {}).values())
    values = patterns[0] if patterns else node.get("additionalProperties")
    return values if isinstance(values, dict) else None


def _without_defaults(node: Schema) -> Schema:
    """Leave the defaults out: nobody but us writes a status, and absent means unknown."""
    result = {k: v for k, v in node.items() if k != "default"}
    if "properties" in node:
        result["properties"] = {k: _without_defaults(v) for k, v in node["properties"].items()}
    if "items" in node:
        result["items"] = _without_defaults(node["items"])
    return result


def _root(resource: type[Resource]) -> Schema:
    fields = resource.model_fields
    kind = {"type": "string"}
    root: Schema = {
        "type": "object",
        "description": (resource.__doc__ or "").strip(),
        "required": ["spec"],
        "properties": {
            "apiVersion": kind,
            "kind": kind,
            "metadata": {"type": "object"},
            "spec": schema(_model(fields["spec"].annotation)),
        },
    }
    if "status" in fields:
        status = schema(_model(fields["status"].annotation))
        root["properties"]["status"] = _without_defaults(status)
    if resource.cel_rules:
        rules = [{"rule": r.rule, "message": r.message} for r in resource.cel_rules]
        root["x-kubernetes-validations"] = rules
    return root


def _model(annotation: Any) -> type[Model]:
    if not (isinstance(annotation, type) and issubclass(annotation, Model)):
        raise TypeError(f"spec and status must be models, found {annotation}")
    return annotation


def _condition(name: str, type_: str, field: str, **more: Any) -> Schema:
    path = f'.status.conditions[?(@.type=="{type_}")].{field}'
    return {"name": name, "type": "string", "jsonPath": path, **more}


def _column(name: str, path: str, type_: str = "string", **more: Any) -> Schema:
    return {"name": name, "type": type_, "jsonPath": path, **more}


_AGE = _column("Age", ".metadata.creationTimestamp", "date")
_READY = _condition("Ready", "Ready", "status", description="Would a request be answered now?")
_REASON = _condition("Reason", "Ready", "reason")

# What `kubectl get` shows; priority 1 only with -o wide.
COLUMNS: dict[type[Resource], list[Schema]] = {
    InferenceService: [
        _READY,
        _REASON,
        _column("Replicas", ".status.readyReplicas", "integer", description="Ready replicas."),
        _column("Desired", ".status.desiredReplicas", "integer"),
        _column("Spill%", ".status.traffic.spilledPercent", "number"),
        _column("$/h", ".status.cost.dollarsPerHour", "number", description="Own and cloud."),
        _column("$/1M", ".status.cost.dollarsPerMTok", "number", description="Million tokens."),
        _column("Left", ".status.spent.left", description="Of the budget, in US dollars."),
        _column("Mode", ".spec.scaling.mode", priority=1),
        _column("Model", ".spec.model.uri", priority=1),
        _column("URL", ".status.url", priority=1),
        _AGE,
    ],
    InferenceProvider: [
        _column("Type", ".spec.type"),
        _READY,
        _REASON,
        _column("Left", ".status.spent.left", description="Of the budget, in US dollars."),
        _AGE,
    ],
    InferenceRuntime: [
        _column("Image", ".spec.image"),
        _column("Port", ".spec.port", "integer", priority=1),
        _AGE,
    ],
}


# What `kubectl scale`, a HorizontalPodAutoscaler and KEDA read and write.
SCALE: dict[type[Resource], Schema] = {
    InferenceService: {
        "specReplicasPath": ".spec.scaling.replicas",
        "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector",
    }
}


def crd(resource: type[Resource]) -> Schema:
    """Return the CustomResourceDefinition of a resource.

    :raises ValueError: when a field cannot be written as a structural schema.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "overspill"},
        },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.singular,
                "shortNames": [resource.short_name],
                "categories": ["overspill"],
            },
            "versions": [_version(resource)],
        },
    }


def _version(resource: type[Resource]) -> Schema:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": ({"status": {}} if "status" in resource.model_fields else {})
        | ({"scale": SCALE[resource]} if resource in SCALE else {}),
        "additionalPrinterColumns": COLUMNS[resource],
        "schema": {"openAPIV3Schema": _root(resource)},
    }
