"""What the machine must offer, and the kernel settings that change while the cluster is up."""

import json
import os
import platform
import shutil
from pathlib import Path

from localcluster import layout
from localcluster.progress import ClusterError, run, step, succeeds

# command → Debian package
COMMANDS = {
    "runc": "runc",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "cc": "gcc",
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
}
HEADERS = {
    "/usr/include/stdio.h": "libc6-dev",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
# kubelet and kube-proxy set these when they start.
SETTINGS = (
    "net/ipv4/conf/all/route_localnet",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
SAVED = layout.STATE / "kernel-settings.json"


def missing_packages() -> list[str]:
    """The Debian packages that have to be installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    wanted = [
        package for command, package in COMMANDS.items() if not shutil.which(command, path=path)
    ]
    return wanted + [package for file, package in HEADERS.items() if not Path(file).exists()]


def check() -> None:
    """Raise ClusterError where the cluster cannot run at all."""
    if platform.system() != "Linux":
        raise ClusterError("the local cluster needs Linux; elsewhere use an existing cluster")
    if os.geteuid() != 0:
        raise ClusterError("the local cluster needs root: run the same command with sudo")
    if missing_packages() and not shutil.which("apt-get"):
        raise ClusterError(
            f"not a Debian system, so install the equivalents of: {' '.join(missing_packages())}"
        )


def install_packages() -> None:
    """Install what is missing; the package lists are only refreshed when that fails."""
    packages = missing_packages()
    if not packages:
        return
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    with step(f"install {' '.join(packages)}", "1 min"):
        try:
            run(install, env=env, timeout=600)
        except ClusterError:
            run(["apt-get", "update"], env=env, timeout=300)
            run(install, env=env, timeout=600)


def save_settings() -> None:
    """Remember the kernel settings as they were before the cluster first started."""
    if SAVED.exists():
        return
    present = {name: Path("/proc/sys", name) for name in SETTINGS}
    found = {name: file.read_text().strip() for name, file in present.items() if file.exists()}
    SAVED.write_text(json.dumps(found))


def restore_settings() -> None:
    """Put the kernel settings back."""
    if not SAVED.exists():
        return
    for name, value in json.loads(SAVED.read_text()).items():
        file = Path("/proc/sys", name)
        if file.read_text().strip() != value:
            file.write_text(value)


def foreign_cluster() -> bool:
    """Whether another Kubernetes node already runs its service proxy on this machine."""
    ours = layout.STATE.exists()
    return not ours and succeeds(["iptables", "-w", "-t", "nat", "-n", "-L", "KUBE-SERVICES"])
