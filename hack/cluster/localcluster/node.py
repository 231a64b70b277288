"""Makes the running node useful: DNS objects, GPUs, the default service account."""

import json

from localcluster import layout
from localcluster.components import kubectl
from localcluster.progress import ClusterError, run, succeeds, wait_until

GPU = "nvidia.com/gpu"
GPU_PATH = r"jsonpath={.status.allocatable.nvidia\.com/gpu}"


def apply_objects() -> None:
    """Apply config/objects.yaml, as soon as a new API server has made its namespaces."""
    namespace = kubectl("get", "namespace", "kube-system")
    wait_until("namespace kube-system", lambda: succeeds(namespace), timeout=30)
    manifest = str(layout.RENDERED / "objects.yaml")
    run(kubectl("apply", "--server-side", "--force-conflicts", "-f", manifest))


def gpus() -> str:
    """How many GPUs pods can get on the node, as the API server says; empty when none."""
    return run(kubectl("get", "node", layout.NODE, "-o", GPU_PATH))


def ensure_gpus() -> None:
    """Announce the GPUs in the node's status.

    They are numbers for the scheduler, not devices. The kubelet keeps them as long as its folder
    for device plugins is not empty (a restart leaves a socket there), and else sets them to zero
    when it starts: so this is checked at each `up`.
    """
    if gpus() == str(layout.GPUS):
        return
    count = {GPU: str(layout.GPUS)}
    patch = json.dumps({"status": {"capacity": count, "allocatable": count}})
    target = ("patch", "node", layout.NODE, "--subresource=status", "--type=merge")
    run(kubectl(*target, "-p", patch))


def ensure() -> None:
    """Wait for the node and give it what a pod needs."""
    wait_until("node", is_ready, timeout=60)
    ensure_gpus()
    account = kubectl("get", "serviceaccount", "default", "-n", "default")
    wait_until("default service account", lambda: succeeds(account), timeout=30)


def is_ready() -> bool:
    """Whether the node's Ready condition is true."""
    path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    try:
        return run(kubectl("get", "node", layout.NODE, "-o", path)) == "True"
    except ClusterError:
        return False
