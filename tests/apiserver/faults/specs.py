"""Generated resources: what a schema allows, and then what nobody should send.

A base object is drawn from the CRD's own schema, so that new fields are covered the day they
enter it. Then it is spoilt, or not. The same seed gives the same objects.
"""

import json
import random
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CRDS = {
    "InferenceService": "inferenceservices",
    "InferenceProvider": "inferenceproviders",
    "InferenceRuntime": "inferenceruntimes",
}
KINDS = [*["InferenceService"] * 6, "InferenceProvider", "InferenceRuntime"]

SAMPLES = [  # for strings with a pattern, the first three that fit
    "oci://registry.example/models/none:1", "pvc://weights/a.gguf", "hf://org/repo", "chat",
    "s3://bucket/model.gguf", "https://example.com/model.gguf", "https://api.example.com/v1",
    "10m", "800ms", "1h30m", "4", "500m", "1.5", "0.000000001", "999999999.999999999", "16Gi",
    "999999999Pi", "example.com/none", "nvidia.com/gpu", "NVIDIA-L4", "*", "team-a", "API_KEY",
    "/healthz", "engine:running", "key", "a" * 64, "registry.example/engine:1",
]  # fmt: skip
TEXTS = [
    "", "plain", "مرحبا", "\u202egnp.exe", "👩‍👩‍👧", "a\u0000b", "e\u0301" * 30, "\ud7ff\uffff",
    "}\n- &a [*a]\nkind: Secret", "{{ 7 * 7 }}{% for x in y %}", "$(MODEL_PATH)$(OTHER)",
    '"; rm -rf / #', "!!python/object:os.system", "null", "~", "0x10", "1e400", "%s%n", "../..",
    "\r\nHost: other", "'" * 50, "<script>", "a: b: c", "---\n...", "\\u0000", "\t- x",
]  # fmt: skip
NASTY: list[Any] = [
    None, True, -1, 0, 1.5, 2**31, 2**63 - 1, 2**63, -(2**64), 10**400, 1e308, 5e-324,
    float("nan"), float("inf"), [], {}, [[]], {"": ""}, *TEXTS,
]  # fmt: skip
NO_NAMES = [*(text for text in TEXTS if text not in ("plain", "null")), "UPPER", "a" * 300, "1a"]
DEEP = "@deep@"  # replaced in the text: no encoder nests so far
LARGE = 1_400_000  # characters; etcd takes 1.5 MiB


class Specs:
    """A source of objects."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.schemas = {
            kind: yaml.safe_load((ROOT / f"crds/{plural}.yaml").read_text())["spec"]["versions"][0][
                "schema"
            ]["openAPIV3Schema"]["properties"]["spec"]
            for kind, plural in CRDS.items()
        }

    def draw(self, name: str) -> tuple[str, str]:
        """Return kind and JSON text of an object; the text may be no JSON."""
        kind = self.random.choice(KINDS)
        spec = self.spec(kind)
        obj = {
            "apiVersion": "overspill.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        }  # fmt: skip
        if kind == "InferenceService":  # else replicas would be counted in thousands
            spec["scaling"] = {**spec.get("scaling", {}), "minReplicas": 0, "replicas": 0}
        for _ in range(self.random.choice([0, 0, 1, 1, 2])):
            self._spoil(obj)
        text = json.dumps(obj)
        # Python's parsers give up at about 1,000 levels. The API server takes 10,000, but needs
        # gigabytes for the field paths of such an object.
        depth = self.random.choice([20, 20, 900, 1100])
        return kind, text.replace(f'"{DEEP}"', '{"a":' * depth + "1" + "}" * depth)

    def spec(self, kind: str) -> dict[str, Any]:
        """Return a spec that the kind's schema allows, but for rules over several fields."""
        spec: dict[str, Any] = self._value(self.schemas[kind])
        return spec

    def _value(self, schema: dict[str, Any]) -> Any:
        """Return a value that a schema allows, but for rules over several fields."""
        chance = self.random
        if "enum" in schema:
            return chance.choice(schema["enum"])
        match schema.get("type"):
            case "object" if "properties" in schema:
                needed = schema.get("required", [])
                return {
                    name: self._value(inner)
                    for name, inner in schema["properties"].items()
                    if name in needed or chance.random() < 0.3
                }
            case "object" if isinstance(schema.get("additionalProperties"), dict):
                inner = schema["additionalProperties"]
                return {
                    f"example.com/k{i}": self._value(inner) for i in range(chance.randint(0, 3))
                }
            case "object":
                return chance.choice([{}, {"nodeAffinity": {}}, {"name": "x"}, {"a": {"b": [1]}}])
            case "array":
                most = min(schema.get("maxItems", 3), 3)
                items = range(chance.randint(min(schema.get("minItems", 0), most), most))
                return [self._value(schema["items"]) for _ in items]
            case "integer":
                low = schema.get("minimum", 0)
                return chance.choice([low, low + 1, schema.get("maximum", low + 100)])
            case "boolean":
                return chance.random() < 0.5
        return self._text(schema)

    def _text(self, schema: dict[str, Any]) -> str:
        low, high = schema.get("minLength", 0), schema.get("maxLength", 2000)
        pattern = schema.get("pattern")
        fitting = [
            text
            for text in (SAMPLES if pattern else [*SAMPLES, *TEXTS])
            if low <= len(text) <= high and (not pattern or re.search(pattern, text))
        ]
        return self.random.choice((fitting[:3] if pattern else fitting) or ["x"])

    def _spoil(self, obj: dict[str, Any]) -> None:
        """Change one thing for the worse."""
        if not isinstance(obj["spec"], dict):
            return  # spoilt as a whole
        holder, key = self.random.choice(list(_places(obj["spec"])) or [(obj, "spec")])
        match self.random.randrange(20):
            case 0:
                holder[key] = "x" * LARGE
            case 1 | 2:
                pod = obj["spec"].get("pod")
                kept = pod if isinstance(pod, dict) else {}  # it may be spoilt already
                obj["spec"]["pod"] = {**kept, "affinity": {"podAffinity": DEEP}}
            case 3:
                obj["spec"]["scaling"] = {"minReplicas": 5, "maxReplicas": 2}
            case 4:
                obj["apiVersion"] = "overspill.dev/v1alpha0"
            case 5:
                obj["metadata"]["name"] = self.random.choice(NO_NAMES)
            case 6:
                obj["metadata"]["annotations"] = {
                    "example.com/a": "x" * self.random.choice([9, LARGE])
                }
            case 7 | 8:
                (holder if isinstance(holder, dict) else obj["spec"])["unknown"] = DEEP
            case 9:
                del holder[key]
            case 10:
                obj["spec"] = deepcopy(self.random.choice(NASTY))
            case _:
                holder[key] = deepcopy(self.random.choice(NASTY))


def _places(value: Any) -> Any:
    """Yield (holder, key) of every value inside."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)
