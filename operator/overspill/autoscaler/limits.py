"""Layer 3: what bounds a wish: stabilisation, rates, room in the cluster, minimum and maximum.

The stabilisation is that of the HorizontalPodAutoscaler: a count rises to the lowest and falls to
the highest recommendation of a window
(https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#stabilization-window).
"""

from overspill.autoscaler.signals import Replicas, Rules

MAX_STEP = 4  # replicas that may be added at once,
MAX_FACTOR = 2  # or times the current count, whichever is more
FULL_MEMORY = 30.0  # seconds without a full moment before more than the probe is asked for

History = tuple[tuple[float, int], ...]  # (time, recommendation), oldest first


def remember(history: History, now: float, wanted: int, rules: Rules) -> History:
    """Append a recommendation and drop what can no longer matter.

    A recommendation is in force until the next one, so the last one before the up window belongs
    to it. Before that only the highest count, so one that a later one reaches is dropped; this
    keeps the history short however long the down window is.
    """
    recent = in_force((*history, (now, wanted)), now - rules.up_window)
    older = history[: len(history) + 1 - len(recent)]
    highest = max(n for _, n in recent)
    stairs: list[tuple[float, int]] = []
    for time, n in reversed(older):
        if n > highest and time >= now - rules.down_window:
            stairs.append((time, n))
            highest = n
    return (*reversed(stairs), *recent)


def in_force(history: History, since: float) -> History:
    """Return the recommendations that were in force at ``since`` or came later."""
    first = 0
    for index, (time, _) in enumerate(history):
        if time <= since:
            first = index
    return history[first:]


def stabilise(current: int, history: History, now: float, rules: Rules) -> int:
    """Return the count after stabilisation.

    :param current: replicas wanted so far.
    :param history: what ``remember`` returned for now.
    """
    lowest = min(n for _, n in in_force(history, now - rules.up_window))
    highest = max(n for _, n in history)
    return max(lowest, min(current, highest))


def cap_rate(current: int, wanted: int) -> int:
    """Return at most four more or twice as many as ``current``, whichever is more."""
    return min(wanted, max(current + MAX_STEP, current * MAX_FACTOR))


def cap_cluster(wanted: int, replicas: Replicas, called_for: int) -> int:
    """Return at most what the cluster holds and one more, where it has no room.

    The one more stays Pending: it is the probe that sees capacity come back. It goes when nobody
    has called for it for a while. Pods that are terminating give their room back.

    :param called_for: highest recommendation of the up window.
    """
    if not replicas.unplaceable:
        return wanted
    held = replicas.placed + replicas.terminating
    return min(wanted, held + 1 if called_for > held else held)


def cap_after_full(wanted: int, current: int, held: int) -> int:
    """Return at most the current count or the last probe, a short while after a full cluster.

    Capacity that comes and goes, such as of spot nodes or a queue's quota, moves no count.

    :param held: replicas that had a place when the cluster was full last.
    """
    return min(wanted, max(current, held + 1))


def cap_grant(wanted: int, replicas: Replicas) -> int:
    """Return at most what a pool that others want as well has for this service."""
    return min(wanted, replicas.grant.most) if replicas.grant else wanted


def clamp(wanted: int, rules: Rules) -> int:
    """Return the count within minReplicas and maxReplicas; these are the user's and win."""
    return max(rules.min_replicas, min(wanted, rules.max_replicas))
