"""How much memory a service's devices have, where ``resources.accelerator.memory`` does not say.

GPU Feature Discovery labels nodes with ``<resource>.memory`` (MiB of one device). Of the nodes
that a replica may go to the smallest counts. Nodes are listed at most once a minute, with their
labels only, and only those that bear the label; what no service has asked for in the last ten
minutes is forgotten. They are a help and nothing more: without the right, or while they cannot be
read, what was known last counts, and a reconcile goes on.

A node that comes or goes must not roll engines that run: what they were started with stays while
their service asks for the same devices, until none is wanted any more or one says that its model
does not fit.
https://github.com/NVIDIA/k8s-device-plugin/blob/main/docs/gpu-feature-discovery/README.md
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from overspill.api.service import AcceleratorSpec, InferenceService
from overspill.cluster import Cluster, ClusterError, Forbidden, backoff
from overspill.cluster.kinds import NODE
from overspill.controller.facts import ENGINE_CONTAINER, Object, Pod
from overspill.runtimes.base import node_selector

log = structlog.get_logger(__name__)

MIB = 1 << 20
DOES_NOT_FIT = "ModelDoesNotFit"  # the engine's word
FRESH_SECONDS = 60.0
FORBIDDEN_SECONDS = 600.0  # until a right that was missing is tried again
KEPT_SECONDS = 600.0  # without a question
WAIT_SECONDS = 5.0  # longest that a reconcile waits for the nodes

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


@dataclass
class Nodes:
    """Those that bear one label, as they were read last."""

    labels: list[Labels] = field(default_factory=list)
    until: float = 0.0  # seconds of the event loop's clock; then they are read again
    asked: float = 0.0  # likewise; when a service last wanted to know
    failures: int = 0
    reading: "asyncio.Task[None] | None" = None


class Accelerators:
    """The nodes' labels, read when a service asks and they are older than a minute."""

    def __init__(self, cluster: Cluster) -> None:
        """Read through ``cluster``."""
        self._cluster = cluster
        self._nodes: dict[str, Nodes] = {}  # by label

    async def memory(
        self, service: InferenceService, deployment: Object | None, pods: Iterable[Pod] = ()
    ) -> int | None:
        """Return the bytes of one of the service's devices; None when nobody but the field says.

        :param deployment: of the service, as it is.
        :param pods: of the service, as they are.
        """
        accelerator = service.spec.resources.accelerator
        if accelerator is None or accelerator.memory is not None:
            return None
        known, kept = started_with(deployment, service)
        keep = known and not any(p.fault and p.fault.reason == DOES_NOT_FIT for p in pods)
        if keep and deployment is not None and deployment["spec"].get("replicas"):
            return kept
        label = memory_label(accelerator)
        found = smallest(await self._labelled(label), label, node_selector(service))
        # Nodes that come when they are needed are not there while nothing runs.
        return kept if keep and found is None else found

    async def _labelled(self, label: str) -> list[Labels]:
        """Return the labels of all nodes that bear ``label``: one list for all who wait for it."""
        now = asyncio.get_running_loop().time()
        # Names of resources are the users': anybody may come with a new one each minute.
        self._nodes = {k: n for k, n in self._nodes.items() if now - n.asked < KEPT_SECONDS}
        nodes = self._nodes.setdefault(label, Nodes())
        nodes.asked = now
        if nodes.reading is None and nodes.until <= now:
            nodes.reading = asyncio.create_task(self._read(label, nodes))
        if nodes.reading is not None:
            await asyncio.wait([nodes.reading], timeout=WAIT_SECONDS)
        return nodes.labels

    async def _read(self, label: str, nodes: Nodes) -> None:
        pause = FRESH_SECONDS
        try:
            nodes.labels = [
                node["metadata"].get("labels") or {}
                async for node in self._cluster.scan(NODE, labels=label)
            ]
            nodes.failures = 0
        except Forbidden:
            log.info("nodes may not be read: resources.accelerator.memory counts", label=label)
            nodes.labels, pause = [], FORBIDDEN_SECONDS
        except ClusterError as error:
            nodes.failures += 1
            pause = backoff(nodes.failures, longest=FRESH_SECONDS)
            log.warning("nodes not read", label=label, error=str(error), failures=nodes.failures)
        finally:
            nodes.until = asyncio.get_running_loop().time() + pause
            nodes.reading = None
