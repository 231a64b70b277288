"""What every engine has in common: the children of a service and what their pods carry."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from overspill.api import names
from overspill.api.service import InferenceService
from overspill.api.values import parse_duration, parse_quantity

Object = dict[str, Any]

PRE_STOP_SECONDS = 5  # until every gateway has seen that the endpoint left
EXIT_SECONDS = 10  # after the drain, for the engine to end
MODEL_MOUNT = "/model"
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
    pull_policy: str  # IfNotPresent | Never | Always
    release_namespace: str  # of the gateway and Prometheus, which may reach the engines
    scrape_namespaces: tuple[str, ...] = ()  # whose pods may read the engines' metrics, too
    replicas: int | None = None  # None leaves the field to the autoscaler
    unplaceable: int = 0  # pods that cannot be placed now; rolls and drains must not wait for them


class Runtime(Protocol):
    """An engine."""

    name: str

    def render(self, service: InferenceService, context: RenderContext) -> list[Object]:
        """Return the children of a service, the Deployment last.

        :raises RenderError: when they cannot be made.
        """


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


def model_volume(uri: str, pull_policy: str) -> tuple[Object, str]:
    """Return the pod's volume with the model, and the path at which the engine finds it.

    Image volumes: https://kubernetes.io/docs/tasks/configure-pod-container/image-volumes/

    :param uri: ``oci://reference`` or ``pvc://claim[/path]``.
    """
    scheme, _, rest = uri.partition("://")
    if scheme == "oci":
        image = {"reference": rest, "pullPolicy": pull_policy}
        return {"name": "model", "image": image}, MODEL_MOUNT
    claim, _, path = rest.partition("/")
    volume = {"name": "model", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return volume, f"{MODEL_MOUNT}/{path}".rstrip("/")


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
    volume, model_path = model_volume(service.spec.model.uri, context.pull_policy)
    extra = surge(service)
    pod = service.spec.pod
    return {
        "name": child_name(name),
        "namespace": service.metadata.namespace,
        "labels": labels(name),
        "selector": selector(name),
        "owner": service.reference(),
        "replicas": context.replicas,
        "surge": extra,
        # A roll without surge must stop one replica to start one. Pods that cannot be placed
        # are unavailable already: without adding them a roll or a drain would never go on.
        "roll_unavailable": context.unplaceable + (0 if extra else 1),
        "drain_unavailable": context.unplaceable + 1,
        "release_namespace": context.release_namespace,
        "scrape_namespaces": list(context.scrape_namespaces),
        "image": context.engine_image,
        "pull_policy": context.pull_policy,
        "port": names.ENGINE_PORT,
        "port_name": names.ENGINE_PORT_NAME,
        "pod_labels": {**pod.labels, **labels(name), names.LABEL_SCRAPE: "true"},
        "pod_annotations": pod.annotations,
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
        "volume": volume,
        "model_mount": MODEL_MOUNT,
        "model_path": model_path,
        "pre_stop": PRE_STOP_SECONDS,
        "grace": PRE_STOP_SECONDS + drain_seconds(service) + EXIT_SECONDS,
    }
