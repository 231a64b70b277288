"""`make demo-down` on a cluster of the user's: removes what the demo made, and says what."""

import os
import sys

from demo.main import NAMESPACE
from lab import platform
from lab.kube import Kube


def main() -> int:
    """Remove the release, the CRDs with their services, and the two namespaces."""
    config = os.environ.get("KUBECONFIG", os.path.expanduser("~/.kube/config"))
    kube = Kube(kubeconfig=config, path=platform.LOCAL_BIN, context=os.environ["DEMO_CONTEXT"])
    print(platform.overspill(kube, "uninstall", "--purge", "--yes", timeout=300))
    for namespace in (NAMESPACE, platform.CLOUD, platform.NAMESPACE):
        print(
            kube.kubectl("delete", "namespace", namespace, "--ignore-not-found", timeout=300),
            end="",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
