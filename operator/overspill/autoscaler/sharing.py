"""Many services, one full cluster: who gets the accelerators.

When more replicas are wanted than there is room for, room goes where it saves most. First to
services that may not spill and miss their objective: their requests have no other place. Then by
priority, then by dollars saved per accelerator-hour: what the next replica's work would cost in
the cloud, over the accelerators that it takes. That saving falls with every replica of a service,
so taking the best offer again and again gives the optimum of the fractional problem, and misses the
whole one by less than the largest replica's share.

A held replica is worth more than the same replica elsewhere: a move costs a boot. It keeps its
place until another offer is better by a margin, and for a while in any case.

Limits: accelerators are alike and counted; which node has them is the scheduler's.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARGIN = 1.2  # times its own saving that another offer must have to displace a replica
HOLD = 600.0  # seconds that a replica keeps its place


@dataclass(frozen=True)
class Claim:
    """What a service would do with accelerators."""

    service: str
    savings: Sequence[float]  # USD per hour that each replica saves, first to last, not rising
    accelerators: int = 1  # of one replica
    held: int = 0  # replicas that have a place
    held_since: float = 0.0  # seconds since the epoch; when the newest of them got it
    priority: int = 0
    stranded: bool = False  # may not spill, and misses its objective

    def rank(self, index: int, now: float) -> tuple[bool, bool, int, float]:
        """Return how much a replica's claim counts; the larger goes first.

        :param index: of the replica, from 0.
        """
        held = index < self.held
        fresh = held and now - self.held_since < HOLD
        saving = self.savings[index] / self.accelerators * (MARGIN if held else 1.0)
        return fresh, self.stranded, self.priority, saving


def share(now: float, claims: Sequence[Claim], accelerators: int) -> Mapping[str, int]:
    """Return how many replicas each service gets.

    :param now: seconds since the epoch.
    :param claims: one for each service, as many savings as replicas it wants.
    :param accelerators: that there are in all.
    """
    granted = {claim.service: 0 for claim in claims}
    offers = [(_order(claim, 0, now), claim) for claim in claims if claim.savings]
    heap = [(order, place, 0) for place, (order, _) in enumerate(offers)]
    heapq.heapify(heap)
    left = accelerators
    while heap and left > 0:
        _, place, index = heapq.heappop(heap)
        claim = offers[place][1]
        if claim.accelerators > left:
            continue  # smaller replicas may still fit
        granted[claim.service] = index + 1
        left -= claim.accelerators
        if index + 1 < len(claim.savings):
            heapq.heappush(heap, (_order(claim, index + 1, now), place, index + 1))
    return granted


def _order(claim: Claim, index: int, now: float) -> tuple[bool, bool, int, float, str]:
    """Return a key whose smallest goes first; ties by name, so that they never swing."""
    fresh, stranded, priority, saving = claim.rank(index, now)
    return not fresh, not stranded, -priority, -saving, claim.service
