"""`make demo-down` on a cluster of the user's: lists what goes, asks, removes it.

Where nobody can be asked it needs YES=1. What serves another release too is not removed at all.
"""

import os
import sys

from demo import guard
from demo.main import NAMESPACES
from lab import platform
from lab.kube import CommandFailed, Kube


def main() -> int:
    """Remove the release, the CRDs with their services, and the demo's namespaces."""
    config = os.environ.get("KUBECONFIG", os.path.expanduser("~/.kube/config"))
    kube = Kube(kubeconfig=config, path=platform.LOCAL_BIN, context=os.environ["DEMO_CONTEXT"])
    namespaces = guard.ours(kube, NAMESPACES)
    installed = platform.NAMESPACE in namespaces and _installed(kube)
    try:
        if installed:
            print(platform.overspill(kube, "uninstall", "--purge", "--dry-run"))
        print(f"namespaces: {', '.join(namespaces) or 'none that a demo made'}")
        if not namespaces or not _agreed():
            return 1
        if installed:
            platform.overspill(kube, "uninstall", "--purge", "--yes", timeout=300)
    except CommandFailed as error:
        print(error)
        return 1
    for name in namespaces:
        print(kube.kubectl("delete", "namespace", name, timeout=300), end="")
    return 0


def _installed(kube: Kube) -> bool:
    """Whether helm has begun a release in the demo's namespace."""
    history = f"owner=helm,name={platform.RELEASE}"
    return bool(kube.list("secrets", platform.NAMESPACE, history))


def _agreed() -> bool:
    if os.environ.get("YES") == "1":
        return True
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("nothing was removed: nobody can be asked here; to remove all of it, set YES=1")
        return False
    return input("Remove all of it? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
