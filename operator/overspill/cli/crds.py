"""`overspill crds`: the custom resource definitions of this version."""

from typing import Any

import yaml

from overspill.api.crd import RESOURCES, crd
from overspill.cli import show
from overspill.cli.options import Output, Target, connected
from overspill.cluster import Cluster
from overspill.cluster.kinds import CRD

# Helm's own field manager: a chart that is installed later goes on without a conflict.
HELM_MANAGER = "helm"
# Its marks, which say whose release an object is.
RELEASE_NAME, RELEASE_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"

Release = tuple[str, str]  # its name and its namespace


def definitions(target: Target) -> list[dict[str, Any]]:
    """Return the CRDs, marked as the chart's release marks them, so that it takes them over.

    https://helm.sh/docs/chart_best_practices/custom_resource_definitions/
    """
    result = [crd(resource) for resource in RESOURCES]
    for definition in result:
        metadata = definition["metadata"]
        metadata["labels"]["app.kubernetes.io/managed-by"] = "Helm"
        metadata["annotations"] = {
            "helm.sh/resource-policy": "keep",
            RELEASE_NAME: target.release,
            RELEASE_NAMESPACE: target.namespace,
        }
    return result


def owner(obj: dict[str, Any]) -> Release | None:
    """Return whose an object is, by Helm's marks; None for one that was applied by hand."""
    marks = obj["metadata"].get("annotations") or {}
    name = marks.get(RELEASE_NAME)
    return (name, marks.get(RELEASE_NAMESPACE, "")) if name else None


def print_definitions(output: Output) -> None:
    """Print the CRDs as they are in ``crds/``."""
    plain = [crd(resource) for resource in RESOURCES]
    if output is Output.JSON:
        show.as_json(plain)
    else:
        show.line(yaml.safe_dump_all(plain, sort_keys=False, width=100).rstrip())


def apply(target: Target, output: Output) -> None:
    """Install or upgrade the CRDs, without the rest of the chart."""
    names = connected(target, lambda cluster: _apply(cluster, target))
    if output is Output.JSON:
        show.as_json({"applied": names})
    else:
        for name in names:
            show.line(f"{name} applied")


async def _apply(cluster: Cluster, target: Target) -> list[str]:
    names = []
    for definition in definitions(target):
        await cluster.apply(CRD, definition, manager=HELM_MANAGER)
        names.append(definition["metadata"]["name"])
    return names
