"""What a Prometheus of ours should scrape: the pods that carry the scrape label.

Prometheus asks for the list over HTTP, so it needs no right on the cluster's API, and keeps the
last list while the operator is away: https://prometheus.io/docs/prometheus/latest/http_sd/
"""

import asyncio
import time
from typing import Any

from overspill.api.metrics import SERVICE_LABELS
from overspill.api.names import (
    ANNOTATION_METRICS_PATH,
    ENGINE_PORT_NAME,
    LABEL_COMPONENT,
    LABEL_SCRAPE,
    LABEL_SERVICE,
)
from overspill.cluster import Cluster
from overspill.cluster.kinds import POD

Object = dict[str, Any]

METRICS_PORT_NAME = "metrics"  # of our own parts; an engine answers /metrics on its API port
FRESH_SECONDS = 2.0  # however often it is asked for, the list is read at most this often


class Targets:
    """The list of targets, read when asked for."""

    def __init__(self, cluster: Cluster, namespaces: tuple[str, ...]) -> None:
        """Look into ``namespaces``; empty means all."""
        self._cluster = cluster
        self._namespaces = namespaces or ("",)
        self._read = -FRESH_SECONDS  # monotonic seconds
        self._groups: list[Object] = []
        self._lock = asyncio.Lock()

    async def __call__(self) -> list[Object]:
        """Return the target groups.

        :raises ClusterError: when the pods cannot be listed.
        """
        async with self._lock:
            if time.monotonic() - self._read >= FRESH_SECONDS:
                self._groups = await self._list()
                self._read = time.monotonic()
            return self._groups

    async def _list(self) -> list[Object]:
        labels = f"{LABEL_SCRAPE}=true"
        found = [await self._cluster.list(POD, n, labels=labels) for n in self._namespaces]
        return [group for pods in found for pod in pods.items for group in groups(pod)]


def groups(pod: Object) -> list[Object]:
    """Return the target group of a pod, none when it has no address or no port to scrape."""
    status, metadata = pod.get("status", {}), pod["metadata"]
    address = status.get("podIP")
    if not address or status.get("phase") != "Running":
        return []
    labels = metadata.get("labels", {})
    service = labels.get(LABEL_SERVICE, "")
    wanted = ENGINE_PORT_NAME if service else METRICS_PORT_NAME
    ports = [p for c in pod["spec"]["containers"] for p in c.get("ports", [])]
    host = f"[{address}]" if ":" in address else address
    found = [f"{host}:{p['containerPort']}" for p in ports if p.get("name") == wanted]
    target_labels = {
        "namespace": metadata["namespace"],
        "pod": metadata["name"],
        "component": labels.get(LABEL_COMPONENT, ""),
    }
    path = metadata.get("annotations", {}).get(ANNOTATION_METRICS_PATH)
    if path:
        target_labels["__metrics_path__"] = path
    if service:
        # Engines do not know which service they serve.
        target_labels |= dict(zip(SERVICE_LABELS, (metadata["namespace"], service), strict=True))
    return [{"targets": found, "labels": target_labels}] if found else []
