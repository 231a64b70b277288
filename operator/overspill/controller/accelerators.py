"""How much memory a service's devices have, as the nodes' labels say.

GPU Feature Discovery labels nodes with ``<resource>.memory`` (MiB of one device). Of the nodes
that a replica may go to the smallest counts. Nodes are listed at most once a minute, with their
labels only, and only those that bear the label; without the right nobody knows, and the field
``resources.accelerator.memory`` counts.

What an engine was started with stays while its service asks for the same devices: a node that
comes or goes must not roll engines that run.
https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md
"""

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from overspill.api.service import AcceleratorSpec, InferenceService
from overspill.cluster import Cluster, Forbidden
from overspill.cluster.kinds import NODE
from overspill.controller.facts import ENGINE_CONTAINER, Object
from overspill.runtimes.base import node_selector

log = structlog.get_logger(__name__)

MIB = 1 << 20
FRESH_SECONDS = 60.0
FORBIDDEN_SECONDS = 600.0  # until a right that was missing is tried again

Labels = Mapping[str, str]


def memory_label(accelerator: AcceleratorSpec) -> str:
    """Return the label that says how many MiB one device has."""
    return f"{accelerator.resource}.memory"


def smallest(nodes: Iterable[Labels], label: str, selector: Labels) -> int | None:
    """Return the bytes of the smallest device among nodes that ``selector`` lets a pod go to.

    :param nodes: their labels; a value that is no whole number of MiB is passed over.
    """
    sizes = (
        labels.get(label, "")
        for labels in nodes
        if all(labels.get(key) == value for key, value in selector.items())
    )
    return min(
        (int(size) * MIB for size in sizes if size.isascii() and size.isdigit()), default=None
    )


def started_with(deployment: Object | None, service: InferenceService) -> tuple[bool, int | None]:
    """Return whether a Deployment's engines ask for the devices of ``service``, and their memory.

    The memory is None where they were started without knowing it.
    """
    accelerator = service.spec.resources.accelerator
    if deployment is None or accelerator is None:
        return False, None
    pod = deployment["spec"]["template"]["spec"]
    engine: Object = next((c for c in pod["containers"] if c["name"] == ENGINE_CONTAINER), {})
    limits = (engine.get("resources") or {}).get("limits") or {}
    same = (pod.get("nodeSelector") or {}) == node_selector(service)
    env = {one["name"]: one.get("value", "") for one in engine.get("env") or []}
    memory = env.get("OVERSPILL_ACCELERATOR_MEMORY", "")
    return same and accelerator.resource in limits, int(memory) if memory.isdigit() else None


class Accelerators:
    """The nodes' labels, read when a service asks and they are older than a minute."""

    def __init__(self, cluster: Cluster) -> None:
        """Read through ``cluster``."""
        self._cluster = cluster
        self._nodes: dict[str, tuple[float, list[Labels]]] = {}  # by label: good until, labels
        self._lock = asyncio.Lock()

    async def memory(self, service: InferenceService, deployment: Object | None) -> int | None:
        """Return the bytes of one of the service's devices; None when the labels do not say.

        :param deployment: of the service, as it is.
        :raises ClusterError: when the API server does not answer.
        """
        accelerator = service.spec.resources.accelerator
        if accelerator is None:
            return None
        # The field may have been what counted, and may be what changed.
        known, memory = started_with(deployment, service)
        if known and accelerator.memory is None:
            return memory
        label = memory_label(accelerator)
        return smallest(await self._labelled(label), label, node_selector(service))

    async def _labelled(self, label: str) -> list[Labels]:
        """Return the labels of all nodes that bear ``label``."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            until, nodes = self._nodes.get(label, (now, []))
            if until > now:
                return nodes
            try:
                nodes = [
                    node["metadata"].get("labels") or {}
                    async for node in self._cluster.scan(NODE, labels=label)
                ]
                until = now + FRESH_SECONDS
            except Forbidden:
                log.info("nodes may not be read: resources.accelerator.memory counts", label=label)
                nodes, until = [], now + FORBIDDEN_SECONDS
            self._nodes[label] = until, nodes
            return nodes
