"""What stories do to a cluster around Overspill: a claim, a server, no Prometheus."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from e2e.story import Story
from lab import platform
from lab.kube import ROOT, Kube

SIZE = {"storage": "1Gi"}


@contextmanager
def claim(story: Story, name: str, access: str) -> Iterator[None]:
    """A bound claim on an empty folder of the node, which is this machine; any user may write.

    :param access: ReadWriteOnce or ReadWriteMany.
    """
    folder = ROOT / "build" / "e2e" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    common = {"accessModes": [access], "storageClassName": ""}
    metadata = {"name": name, "namespace": story.namespace}
    volume = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": story.namespace},
        "spec": common
        | {
            "capacity": SIZE,
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": metadata,
            "hostPath": {"path": str(folder)},
        },
    }
    bound = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": common | {"resources": {"requests": SIZE}, "volumeName": story.namespace},
    }
    story.kube.apply(volume, bound)
    try:
        yield
    finally:
        story.kube.kubectl("delete", "pv", story.namespace, "--wait=false")
        shutil.rmtree(folder)


def start_server(kube: Kube, namespace: str, pod: dict[str, Any], port: int) -> None:
    """Start a pod with a Service of its name in front, and wait until it is ready."""
    name = pod["metadata"]["name"]
    pod["metadata"]["labels"] = {"app": name, **pod["metadata"].get("labels", {})}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}]},
    }
    kube.apply(pod, service, namespace=namespace)
    kube.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "-n", namespace, "--timeout=60s")


@contextmanager
def no_prometheus(kube: Kube) -> Iterator[None]:
    """Prometheus is away, and back afterwards."""
    deployment = ("deployment/overspill-prometheus", "-n", platform.NAMESPACE)
    kube.kubectl("scale", "--replicas=0", *deployment)
    try:
        yield
    finally:
        kube.kubectl("scale", "--replicas=1", *deployment)
