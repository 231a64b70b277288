"""Takes the whole cluster down, whatever state it is in, and leaves the machine as it was."""

import shutil
import time
from pathlib import Path

from localcluster import cgroups, components, host, layout, network, outside, processes
from localcluster.progress import ClusterError, run, say, succeeds

# kubelet and the network plugins use these whatever their options say.
SHARED_FOLDERS = (
    "/var/log/containers",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
)
NODE_PARTS = frozenset({"kubelet", "kube-proxy", "coredns", "containerd"})


def down(purge: bool = False) -> None:
    """Stop every process and remove what the cluster made; with `purge` the built programs too."""
    stop_all()
    unmount_all()
    network.remove()
    cgroups.remove()
    host.restore_settings()
    delete_files()
    if purge:
        shutil.rmtree(layout.CACHE, ignore_errors=True)


def stop_all() -> None:
    """Stop the way out, the node's parts, the pods with their shims, then the control plane."""
    outside.close()
    for names in (NODE_PARTS, frozenset({"containerd-shim-runc-v2"}), components.PROGRAMS):
        cgroups.kill_members()
        for process in processes.strays(names):
            say(f"stop {Path(process.executable).name} ({process.pid})")
            processes.stop(process, grace=1)


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
            # Private first, or unmounting a bind mount could reach what lies below its source.
            succeeds(["mount", "--make-rprivate", point])
            succeeds(["umount", "--lazy", point])
        if time.monotonic() > deadline:
            raise ClusterError(f"cannot unmount {' '.join(points)}")


def delete_files() -> None:
    """Delete the cluster's folders, and what its programs leave in fixed places of the system."""
    for link in Path("/var/log/containers").glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{layout.STATE}/"):
            link.unlink()
    for cached in Path("/var/lib/cni/results").glob("overspill-*"):
        cached.unlink()
    Path("/var/lib/kubelet/device-plugins/kubelet.sock").unlink(missing_ok=True)
    for folder in SHARED_FOLDERS:
        remove_if_empty(Path(folder))
    for own in (layout.STATE, layout.RUN):
        if own.exists():
            shutil.rmtree(own)
    layout.USER_KUBECONFIG.unlink(missing_ok=True)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that other programs may use too, unless they do."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def is_down() -> bool:
    """Whether nothing of the cluster is left on the machine."""
    links = run(["ip", "-brief", "link"]) if shutil.which("ip") else ""
    return (
        not layout.STATE.exists()
        and not layout.RUN.exists()
        and layout.POD_LINK not in links
        and not processes.strays(components.PROGRAMS)
    )
