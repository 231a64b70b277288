"""What every engine has in common: the children of a service and what their pods carry."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from overspill.api import names
from overspill.api.service import InferenceService
from overspill.api.values import parse_duration, parse_quantity

Object = dict[str, Any]

PRE_STOP_SECONDS = 5  # until every gateway has seen that the endpoint left
EXIT_SECONDS = 10  # after the drain, for the engine to end
CACHE_HOME = "/cache"  # can be written, under a root that cannot
CACHE_VARIABLES = {"HOME": CACHE_HOME, "XDG_CACHE_HOME": f"{CACHE_HOME}/xdg"}
GPU_PRODUCT_LABEL = "nvidia.com/gpu.product"  # set by GPU Feature Discovery

CHILD_KINDS = (
    "ServiceAccount",
    "NetworkPolicy",
    "Service",
    "PodDisruptionBudget",
    "Deployment",
)


@dataclass(frozen=True)
class RenderContext:
    """What a service does not say itself."""

    engine_image: str
    engine_gpu_image: str
    pull_policy: str  # IfNotPresent | Never | Always
    release_namespace: str  # of the gateway and Prometheus, which may reach the engines
    pull_secrets: tuple[str, ...] = ()  # names of Secrets in the service's namespace
    scrape_namespaces: tuple[str, ...] = ()  # whose pods may read the engines' metrics, too
    replicas: int | None = None  # None leaves the field to the autoscaler
    unplaceable: int = 0  # pods that cannot be placed now; rolls and drains must not wait for them
    accelerator_memory: int | None = None  # bytes of one device, as the nodes' labels say


class Runtime(Protocol):
    """An engine."""

    name: str

    def unsupported(self, service: InferenceService) -> list[str]:
        """Return the options that the engine lacks: field, why, and what to do instead."""

    def incompatible(self, service: InferenceService) -> str:
        """Return why the engine cannot load what model.uri names, "" where nothing says so."""

    def values(self, service: InferenceService, context: RenderContext) -> Object:
        """Return the template values that are this engine's own."""


def child_name(service_name: str) -> str:
    """Return the name that all children of a service bear."""
    return f"{service_name}-engine"


def selector(service_name: str) -> dict[str, str]:
    """Return the labels that select a service's pods; they never change (a Deployment's cannot)."""
    return {names.LABEL_SERVICE: service_name, names.LABEL_COMPONENT: "engine"}


def labels(service_name: str) -> dict[str, str]:
    """Return the labels of every child."""
    return {
        **selector(service_name),
        names.LABEL_NAME: "overspill",
        names.LABEL_INSTANCE: service_name,
        names.LABEL_MANAGED_BY: names.MANAGED_BY,
    }


def surge(service: InferenceService) -> int:
    """Return how many replicas a roll may add: none where each needs a device of its own."""
    if service.spec.rollout.surge is not None:
        return service.spec.rollout.surge
    return 0 if service.spec.resources.accelerator else 1


def drain_seconds(service: InferenceService) -> int:
    """Return how long a stopping replica may finish its requests, rounded up."""
    return math.ceil(parse_duration(service.spec.rollout.drain))


def cpu_threads(service: InferenceService) -> int:
    """Return the threads that the CPU limit can feed, at least 1."""
    return max(1, math.ceil(parse_quantity(service.spec.resources.cpu)))


def escape(text: str) -> str:
    """Return a text of which the kubelet makes this one: it expands $(NAME) and turns $$ into $."""
    return text.replace("$", "$$")


def environment(variables: Mapping[str, object]) -> list[Object]:
    """Return a container's environment; a variable without a value is left out."""
    return [
        {"name": name, "value": escape(str(value))}
        for name, value in variables.items()
        if value is not None
    ]


def resources(service: InferenceService) -> dict[str, str]:
    """Return requests and limits alike: an engine's speed must not hang on its neighbours."""
    spec = service.spec.resources
    wanted = {"cpu": spec.cpu, "memory": spec.memory}
    if spec.accelerator:
        wanted[spec.accelerator.resource] = str(spec.accelerator.count)
    return wanted


def tolerations(service: InferenceService) -> list[Object]:
    """Return the user's tolerations, and the one for the taint that GPU nodes usually bear."""
    wanted = [toleration.to_dict() for toleration in service.spec.pod.tolerations]
    accelerator = service.spec.resources.accelerator
    if accelerator:
        taint = {"key": accelerator.resource, "operator": "Exists", "effect": "NoSchedule"}
        wanted += [taint] if taint not in wanted else []
    return wanted


def node_selector(service: InferenceService) -> dict[str, str]:
    """Return the user's node labels, and the one of the GPU product."""
    wanted = dict(service.spec.pod.node_selector)
    accelerator = service.spec.resources.accelerator
    if accelerator and accelerator.product:
        wanted[GPU_PRODUCT_LABEL] = accelerator.product
    return wanted


def topology_spread(service: InferenceService) -> list[Object]:
    """Return the user's constraints, else one that spreads over nodes where it can."""
    if service.spec.pod.topology_spread_constraints:
        return service.spec.pod.topology_spread_constraints
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(service.metadata.name)},
            "matchLabelKeys": ["pod-template-hash"],
        }
    ]


def common_values(service: InferenceService, context: RenderContext) -> Object:
    """Return the template values that do not depend on the engine."""
    name = service.metadata.name
    extra = surge(service)
    pod = service.spec.pod
    return {
        "name": child_name(name),
        "namespace": service.metadata.namespace,
        "labels": labels(name),
        "selector": selector(name),
        "owner": service.reference(),
        "surge": extra,
        # A roll without surge must stop one replica to start one. Pods that cannot be placed
        # are unavailable already: without adding them a roll or a drain would never go on.
        "roll_unavailable": context.unplaceable + (0 if extra else 1),
        "drain_unavailable": context.unplaceable + 1,
        "release_namespace": context.release_namespace,
        "pull_secrets": [{"name": name} for name in context.pull_secrets],
        "scrape_namespaces": list(context.scrape_namespaces),
        "helper_image": context.engine_image,
        "pull_policy": context.pull_policy,
        "port_name": names.ENGINE_PORT_NAME,
        "pod_labels": {**pod.labels, **labels(name), names.LABEL_SCRAPE: "true"},
        "pod_annotations": dict(pod.annotations),
        "node_selector": node_selector(service),
        "tolerations": tolerations(service),
        "topology_spread": topology_spread(service),
        "affinity": pod.affinity,
        "priority_class": pod.priority_class_name,
        "scheduler": pod.scheduler_name,
        "resource_claims": pod.resource_claims,
        "claim_names": [{"name": str(claim.get("name", ""))} for claim in pod.resource_claims],
        "resources": resources(service),
        "accelerated": service.spec.resources.accelerator is not None or bool(pod.resource_claims),
        "pre_stop": PRE_STOP_SECONDS,
        "grace": PRE_STOP_SECONDS + drain_seconds(service) + EXIT_SECONDS,
    }
