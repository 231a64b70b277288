"""Whether a node is on its way for pods that have no place: whoever adds nodes says so in events.

Cluster Autoscaler does in ``TriggeredScaleUp``, Karpenter in ``Nominated``, both of the pod. What
was said longer ago than a node may take counts no more, nor what Cluster Autoscaler took back since
(``NotTriggerScaleUp``, after a node group that could not grow). Events are a help and nothing more:
where they cannot be read (no right, or a store of their own that is down) such a pod lacks
capacity, and that is all.
https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
https://karpenter.sh/docs/troubleshooting/
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime

from overspill.cluster import Cluster, ClusterError
from overspill.cluster.kinds import EVENT
from overspill.controller.facts import Object, without_a_place

# Reasons of events, and whether a node comes by them.
WORDS = {"TriggeredScaleUp": True, "Nominated": True, "NotTriggerScaleUp": False}
NODE_SECONDS = 900.0  # after which both give up a node that did not come
READ_SECONDS = 5.0  # for the events of all pods of a service
ASKED = 4  # pods of one service at most; usually one waits


async def promises(cluster: Cluster, pods: Iterable[Object], now: float) -> dict[str, str]:
    """Return what was said of a node for those of the pods that have no place, by their names.

    :param now: seconds since the epoch.
    """
    found: dict[str, str] = {}
    try:
        async with asyncio.timeout(READ_SECONDS):
            for pod in list(without_a_place(pods))[:ASKED]:
                metadata = pod["metadata"]
                of_pod = f"involvedObject.uid={metadata['uid']}"
                events = await cluster.list(EVENT, metadata["namespace"], fields=of_pod)
                if promise := newest(events.items, now):
                    found[metadata["name"]] = promise
    except (ClusterError, TimeoutError):
        return found
    return found


def newest(events: Iterable[Object], now: float) -> str:
    """Return the newest promise of a node if it still counts, else "".

    :param now: seconds since the epoch.
    """
    said = [
        (_time(e), WORDS[e["reason"]], str(e.get("message", "")))
        for e in events
        if e.get("reason") in WORDS
    ]
    at, comes, message = max(said, default=(0.0, False, ""))
    return message if comes and now - at < NODE_SECONDS else ""


def _time(event: Object) -> float:
    """Return when it happened last; recorders of the older API and of the newer say it apart."""
    times = (
        event["metadata"].get("creationTimestamp"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        (event.get("series") or {}).get("lastObservedTime"),
    )
    return max(datetime.fromisoformat(t).timestamp() for t in times if t)
