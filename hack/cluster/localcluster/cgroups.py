"""The cgroup tree that holds the cluster's pods, on cgroup v1 and v2."""

import os
import signal
import time
from pathlib import Path

from localcluster import layout
from localcluster.progress import ClusterError


def hierarchies(mountinfo: str) -> list[Path]:
    """Where cgroups are mounted, from the text of /proc/self/mountinfo: v1, v2 or both."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] in ("cgroup", "cgroup2"):
            found.append(Path(before.split()[4]))
    return found


def roots() -> list[Path]:
    """Our own cgroup in every hierarchy."""
    mounts = hierarchies(Path("/proc/self/mountinfo").read_text())
    return sorted({mount / layout.CGROUP for mount in mounts})


def ensure() -> None:
    """Create our cgroups; the kubelet refuses to start without its root."""
    for root in roots():
        enable_controllers(root.parent)
        root.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            inherit(root / name)


def enable_controllers(parent: Path) -> None:
    """On cgroup v2: hand the controllers that kubelet needs down to our cgroup."""
    available = parent / "cgroup.controllers"
    if not available.exists():
        return
    for controller in available.read_text().split():
        if controller in ("cpu", "cpuset", "memory", "pids", "hugetlb", "io"):
            (parent / "cgroup.subtree_control").write_text(f"+{controller}")


def inherit(file: Path) -> None:
    """On cgroup v1 a new cpuset is empty and takes no process: copy the parent's."""
    legacy = (file.parent / "tasks").exists()
    if legacy and file.exists() and not file.read_text().strip():
        file.write_text((file.parents[1] / file.name).read_text())


def members() -> set[int]:
    """The pids of all processes in our cgroups."""
    found: set[int] = set()
    for root in roots():
        for file in root.rglob("cgroup.procs"):
            try:
                found.update(int(pid) for pid in file.read_text().split())
            except OSError:
                continue  # removed meanwhile, or a threaded cgroup
    return found


def kill_members(timeout: float = 20) -> None:
    """Kill every process of every pod; ClusterError when some are left after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while pids := members():
        if time.monotonic() > deadline:
            raise ClusterError(f"these processes of pods cannot be killed: {sorted(pids)}")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def remove(timeout: float = 10) -> None:
    """Remove our cgroups, deepest first; a just-emptied one may stay busy for a moment."""
    deadline = time.monotonic() + timeout
    while left := [root for root in roots() if root.exists()]:
        for root in left:
            for folder in sorted((p for p in root.rglob("*") if p.is_dir()), reverse=True):
                try_rmdir(folder)
            try_rmdir(root)
        if time.monotonic() > deadline:
            raise ClusterError(f"cgroups are still busy: {left}")
        time.sleep(0.05)


def try_rmdir(folder: Path) -> None:
    """Remove a cgroup unless it is busy or gone."""
    try:
        folder.rmdir()
    except OSError:
        return
