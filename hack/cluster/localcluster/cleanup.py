"""Takes the whole cluster down, whatever state it is in, and leaves the machine as it was."""

import shutil
import time
from pathlib import Path

from localcluster import cgroups, components, host, layout, network, processes
from localcluster.progress import ClusterError, run, say, succeeds

NODE_PARTS = frozenset({"kubelet", "kube-proxy", "coredns", "containerd"})


def down(purge: bool = False) -> None:
    """Stop every process, remove mounts, rules, links and state; with `purge` the built binaries."""
    stop_all()
    unmount_all()
    network.remove()
    cgroups.remove()
    host.restore_settings()
    delete_files()
    if purge:
        shutil.rmtree(layout.CACHE, ignore_errors=True)


def stop_all() -> None:
    """Stop the node's parts, then the pods with their shims, then the control plane."""
    for names in (NODE_PARTS, frozenset({"containerd-shim-runc-v2"}), components.PROGRAMS):
        cgroups.kill_members()
        for process in processes.strays(names):
            say(f"stop {Path(process.executable).name} ({process.pid})")
            processes.stop(process, grace=3)


def mounts(mountinfo: str) -> list[str]:
    """The mount points below our folders, the newest first, from /proc/self/mountinfo."""
    points = [line.split()[4] for line in mountinfo.splitlines()]
    ours = (f"{layout.STATE}/", f"{layout.RUN}/")
    return [point for point in reversed(points) if point.startswith(ours)]


def unmount_all() -> None:
    """Unmount all of it; ClusterError when something stays, since its files would be deleted."""
    deadline = time.monotonic() + 20
    while points := mounts(Path("/proc/self/mountinfo").read_text()):
        for point in points:
            succeeds(["umount", "--lazy", point])
        if time.monotonic() > deadline:
            raise ClusterError(f"cannot unmount {' '.join(points)}")


def delete_files() -> None:
    """Delete the cluster's folders, and what its programs leave in folders of the system."""
    for folder in (layout.STATE, layout.RUN):
        shutil.rmtree(folder, ignore_errors=False) if folder.exists() else None
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{layout.STATE}/"):
            link.unlink()
    for cached in Path("/var/lib/cni/results").glob("overspill-*"):
        cached.unlink()
    layout.USER_KUBECONFIG.unlink(missing_ok=True)


def is_down() -> bool:
    """Whether nothing of the cluster is left on the machine."""
    links = run(["ip", "-brief", "link"]) if shutil.which("ip") else ""
    return (
        not layout.STATE.exists()
        and not layout.RUN.exists()
        and layout.POD_LINK not in links
        and not processes.strays(components.PROGRAMS)
    )
