"""Reference pages as Markdown: custom resources from their schema, the command from its help."""

import inspect
import json
from collections.abc import Iterator
from typing import Any

import typer
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from overspill.api import metrics as names
from overspill.api.base import Resource
from overspill.api.crd import crd
from overspill.api.names import API_VERSION
from overspill.autoscaler.meter import Meter
from overspill.cli import __doc__ as cli_doc
from overspill.cli.main import app
from overspill.controller.metrics import Metrics as ControllerMetrics
from overspill.controller.treasurer import Treasurer
from overspill.gateway.memory import Memory
from overspill.gateway.metrics import Metrics as GatewayMetrics
from overspill.gateway.metrics import ServiceMetrics
from overspill.gateway.state import State

Schema = dict[str, Any]


def page(resource: type[Resource]) -> str:
    """Return the page of one kind: every field with its type, default and meaning."""
    definition = crd(resource)["spec"]
    root = definition["versions"][0]["schema"]["openAPIV3Schema"]
    short = definition["names"]["shortNames"][0]
    return "\n".join(
        [
            f"# {resource.kind}",
            "",
            f"{root['description']} API version `{API_VERSION}`, namespaced, short name `{short}`.",
            "",
            "Generated from the models by `make generate`.",
            *_part("spec", root),
            *(_part("status", root) if "status" in root["properties"] else ()),
            "",
        ]
    )


def _part(name: str, root: Schema) -> list[str]:
    part = root["properties"][name]
    rows = [_row(path, field, required) for path, field, required in _fields(part, "")]
    rules = list(_rules(part, name)) + (
        [r["message"] for r in _validations(root)] * (name == "spec")
    )
    lines = [
        "",
        f"## {name}",
        "",
        "| field | type | default | meaning |",
        "|---|---|---|---|",
        *rows,
    ]
    if rules:
        lines += ["", "Rules that the API server checks:", "", *(f"* {r}" for r in rules)]
    return lines


def _fields(node: Schema, prefix: str) -> Iterator[tuple[str, Schema, bool]]:
    required = node.get("required", ())
    for name, field in node.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, field, name in required
        if field["type"] == "array":
            yield from _fields(field["items"], f"{path}[].")
        else:
            yield from _fields(field, f"{path}.")


def _row(path: str, field: Schema, required: bool) -> str:
    default = "required" if required else _default(field)
    meaning = field.get("description", "").replace("|", "\\|")
    return f"| `{path}` | {_type(field)} | {default} | {meaning} |"


def _default(field: Schema) -> str:
    default = field.get("default")
    return "" if default is None or "properties" in field else f"`{json.dumps(default)}`"


def _type(field: Schema) -> str:
    values = field.get("items", field).get("enum")
    if values:
        return " \\| ".join(f"`{v}`" for v in values) + (" (list)" * (field["type"] == "array"))
    if field["type"] == "array":
        return f"list of {field['items']['type']}"
    low, high = field.get("minimum"), field.get("maximum")
    if high is not None:
        return f"{field['type']}, {low} to {high}"
    return "map" if "additionalProperties" in field else str(field["type"])


def _validations(node: Schema) -> list[dict[str, str]]:
    rules: list[dict[str, str]] = node.get("x-kubernetes-validations", [])
    return rules


def _rules(node: Schema, path: str) -> Iterator[str]:
    for rule in _validations(node):
        yield f"`{path}`: {rule['message']}"
    for name, field in node.get("properties", {}).items():
        yield from _rules(field, f"{path}.{name}")


def _commands(group: Any, prefix: str = "") -> Iterator[str]:
    """Yield every command that does something, ``keys create`` for one of a group."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def command_line() -> str:
    """Return the page of the command: what it is for, and the help of each part of it."""
    lines = ["# overspill", "", inspect.cleandoc(cli_doc or ""), ""]
    lines += ["The text below is its own help, written here by `make generate`."]
    for command in ("", *_commands(typer.main.get_command(app))):
        name = f"overspill {command}".strip()
        lines += ["", f"## {name}", "", "```text", _help(command.split()), "```"]
    return "\n".join([*lines, ""])


def _help(command: list[str]) -> str:
    result = CliRunner(env={"COLUMNS": "100", "TERM": "dumb"}).invoke(
        app, [*command, "--help"], prog_name="overspill"
    )
    return "\n".join(line.rstrip() for line in result.output.strip().splitlines())


def metrics() -> str:
    """Return the page of metrics: what the gateway and the operator export."""
    operator = CollectorRegistry()
    ControllerMetrics(operator)
    Meter(operator).show(tuple)
    nobody: Any = None
    operator.register(Treasurer(nobody, "", "", None))
    state = State(clock=lambda: 0.0, queue_limit=1)
    gateway = [GatewayMetrics(state, Memory(0)).registry, ServiceMetrics(state, "a/b").registry]
    service = " and ".join(f"`{label}`" for label in names.SERVICE_LABELS)
    return "\n".join(
        [
            "# Metrics",
            "",
            f"What is told per service has the labels {service}. `destination` is `local` or a "
            "provider's `namespace/name`, `reason` why a request left the cluster (empty for one "
            "that did not). Histograms have `_bucket`, `_sum` and `_count`.",
            "",
            "Generated from the code by `make generate`.",
            *_metrics("Gateway, port 9090", *gateway),
            *_metrics("Operator, port 9090", operator),
            "",
            "Engines export their own, which the autoscaler reads: "
            f"`{names.LLAMACPP_RUNNING}`, `{names.LLAMACPP_WAITING}`, `{names.VLLM_RUNNING}`, "
            f"`{names.VLLM_WAITING}`, `{names.VLLM_KV_USAGE}`, and those that an InferenceRuntime "
            "names.",
            "",
        ]
    )


def _metrics(title: str, *registries: CollectorRegistry) -> Iterator[str]:
    yield from ["", f"## {title}", "", "| metric | type | labels | meaning |", "|---|---|---|---|"]
    for row in sorted(row for registry in registries for row in _metric_rows(registry)):
        yield "| " + " | ".join(row) + " |"


def _metric_rows(registry: CollectorRegistry) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, labels and meaning; a collector without series tells nothing else."""
    for collector in registry._collector_to_names:
        described = [collector] if hasattr(collector, "_type") else list(collector.collect())
        for metric in described:
            kind = getattr(metric, "_type", "") or metric.type
            name = getattr(metric, "_name", "") or metric.name
            labels = [f"`{x}`" for x in metric._labelnames if x not in names.SERVICE_LABELS]
            if names.SERVICE_LABELS[0] in metric._labelnames:
                labels.insert(0, "service")
            meaning = getattr(metric, "_documentation", "") or metric.documentation
            total = "_total" if kind == "counter" else ""
            yield f"`{name}{total}`", kind, ", ".join(labels), meaning.rstrip(".") + "."
