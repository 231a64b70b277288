"""`make demo-down` on a cluster of the user's: lists what goes, asks on a terminal, removes it."""

import os
import sys

from demo import guard
from demo.main import NAMESPACES
from lab import platform
from lab.kube import Kube


def main() -> int:
    """Remove the release, the CRDs with their services, and the demo's namespaces."""
    config = os.environ.get("KUBECONFIG", os.path.expanduser("~/.kube/config"))
    kube = Kube(kubeconfig=config, path=platform.LOCAL_BIN, context=os.environ["DEMO_CONTEXT"])
    namespaces = guard.ours(kube, NAMESPACES)
    if platform.NAMESPACE in namespaces:
        print(platform.overspill(kube, "uninstall", "--purge", "--dry-run", check=False))
    print(f"namespaces: {', '.join(namespaces) or 'none that a demo made'}")
    if not namespaces or not _agreed():
        return 1
    if platform.NAMESPACE in namespaces:
        platform.overspill(kube, "uninstall", "--purge", "--yes", timeout=300)
    for name in namespaces:
        print(kube.kubectl("delete", "namespace", name, timeout=300), end="")
    return 0


def _agreed() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    return input("Remove all of it? [y/N] ").strip().lower() in ("y", "yes")


if __name__ == "__main__":
    sys.exit(main())
