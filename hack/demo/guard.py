"""On a cluster of the user's the demo touches and removes only namespaces that it made.

They carry a label. One of the same name without it is somebody's own: an Overspill that serves
people, or a team's `demo`.
"""

from collections.abc import Sequence

from lab.kube import Kube

LABEL = "overspill.dev/lab"  # set by lab.platform.namespace


class NotOurs(RuntimeError):
    """The demo would change what it did not make; the text names it and the way out."""


def ours(kube: Kube, names: Sequence[str]) -> list[str]:
    """Return those of the namespaces that are there and that a demo made."""
    return [name for name in names if _made_by_us(kube, name)]


def check(kube: Kube, names: Sequence[str]) -> None:
    """Let the demo start only where none of the namespaces is somebody else's.

    :raises NotOurs: when one is.
    """
    taken = [name for name in names if _made_by_us(kube, name) is False]
    if taken:
        raise NotOurs(
            f"context {kube.context} has namespaces of these names that no demo made: "
            f"{', '.join(taken)}; use another cluster, or remove them first"
        )


def _made_by_us(kube: Kube, name: str) -> bool | None:
    """Return None when there is no such namespace."""
    found = kube.get("namespace", name, "default")
    if found is None:
        return None
    return bool(found["metadata"].get("labels", {}).get(LABEL) == "true")
