"""Which replica answers: the least loaded one with a free slot.

A replica that just failed is left out for a moment, so that a request is not sent to a
dead pod before its EndpointSlice says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass

Address = tuple[str, int]
SUSPECT_SECONDS = 1.0  # how long a replica that failed is left out


@dataclass(slots=True, eq=False)
class Replica:
    """One engine pod as this gateway sees it.

    :param slots: this gateway's share of the requests that it computes at the same time.
    :param load: requests that this gateway has running there.
    :param used: when it got its last request, to take turns between equals.
    """

    address: Address
    slots: int
    load: int = 0
    used: int = 0
    suspect_until: float = 0.0


def choose(replicas: Iterable[Replica], now: float, avoid: Replica | None = None) -> Replica | None:
    """Return the least loaded replica with a free slot, None when there is none.

    :param now: monotonic seconds.
    :param avoid: one that has refused this request.
    """
    best: Replica | None = None
    for replica in replicas:
        if replica is avoid or replica.load >= replica.slots or replica.suspect_until > now:
            continue
        if best is None or (replica.load, replica.used) < (best.load, best.used):
            best = replica
    return best
