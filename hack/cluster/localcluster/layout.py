"""Where everything of the local cluster lives: directories, addresses and names, in one place."""

import os
from pathlib import Path

TOOL = Path(__file__).resolve().parents[1]
CHECKOUT = TOOL.parents[1]
CONFIG = TOOL / "config"

CACHE = Path(os.environ.get("OVERSPILL_CACHE") or Path.home() / ".cache/overspill") / "cluster"
STATE = Path("/var/lib/overspill-cluster")
RUN = Path("/run/overspill-cluster")
LOCK = Path("/run/lock/overspill-cluster.lock")

PKI = STATE / "pki"
KUBECONFIGS = STATE / "kubeconfig"
RENDERED = STATE / "config"
LOGS = STATE / "log"
BIN = STATE / "bin"
ADMIN_KUBECONFIG = KUBECONFIGS / "admin.conf"
USER_KUBECONFIG = CHECKOUT / "build/cluster/kubeconfig"
CONTAINERD_SOCKET = RUN / "containerd.sock"
ETCD_SOCKET = RUN / "etcd.sock"

NODE = "overspill"
GPUS = 2
NODE_ADDRESS = "10.95.0.1"
NODE_NETWORK = "10.95.0.0/16"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_SERVICE_ADDRESS = "10.96.0.10"
POD_NETWORK = "10.97.0.0/16"
POD_GATEWAY = "10.97.0.1"
NODE_LINK, SERVICE_LINK, POD_LINK = "ospl-node", "ospl-svc", "ospl-pods"
CGROUP = "overspill-cluster"
PAUSE_IMAGE = "overspill.dev/pause:1"


def values() -> dict[str, str]:
    """Every name that a template of config/ may use."""
    return {
        name: str(value)
        for name, value in globals().items()
        if name.isupper() and isinstance(value, str | int | Path)
    }
