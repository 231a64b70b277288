"""On a cluster of the user's the demo touches and removes only what it made.

Its namespaces carry a label. One of the same name without it is somebody's own: an Overspill that
serves people, or a team's `demo`. The definitions of our kinds exist once in a cluster: where
another release brought them, the demo has no place.
"""

import json
from collections.abc import Sequence

from lab import platform
from lab.kube import Kube
from overspill.api.names import GROUP
from overspill.cli.crds import Release, owner

LABEL = "overspill.dev/lab"  # set by lab.platform.namespace

DEMO = (platform.RELEASE, platform.NAMESPACE)


class NotOurs(RuntimeError):
    """The demo would change what it did not make; the text names it and the way out."""


def ours(kube: Kube, names: Sequence[str]) -> list[str]:
    """Return those of the namespaces that are there and that a demo made."""
    return [name for name in names if _made_by_us(kube, name)]


def check(kube: Kube, names: Sequence[str]) -> None:
    """Let the demo start only where neither a namespace nor a definition is somebody else's.

    :raises NotOurs: when one is.
    """
    taken = [name for name in names if _made_by_us(kube, name) is False]
    if taken:
        raise NotOurs(
            f"context {kube.context} has namespaces of these names that no demo made: "
            f"{', '.join(taken)}; use another cluster, or remove them first"
        )
    found = _definitions(kube)
    foreign = [name for name, owner in found.items() if owner != DEMO]
    if foreign or (found and platform.NAMESPACE not in ours(kube, names)):
        raise NotOurs(
            f"context {kube.context} has definitions that no demo made: {', '.join(found)}; "
            "an Overspill is installed there, or was: use another cluster, or remove it first "
            "with overspill uninstall --purge"
        )


def _definitions(kube: Kube) -> dict[str, Release | None]:
    """Return the definitions of our kinds, and the release that each belongs to."""
    found = json.loads(kube.kubectl("get", "customresourcedefinitions", "-o", "json"))["items"]
    return {c["metadata"]["name"]: owner(c) for c in found if c["spec"]["group"] == GROUP}


def _made_by_us(kube: Kube, name: str) -> bool | None:
    """Return None when there is no such namespace."""
    found = kube.get("namespace", name, "default")
    if found is None:
        return None
    return bool(found["metadata"].get("labels", {}).get(LABEL) == "true")
