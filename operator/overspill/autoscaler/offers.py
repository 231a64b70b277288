"""What a service's work would cost here and in the cloud, from prices and its own requests.

A request that spills costs what a usual one of the last hour would: its tokens, read and made, at
the provider's prices. The prompt counts in full, whatever our own caches had of it: what spills now
and then finds a provider's cache cold. So the cloud may look dearer than it is, and a replica
more than is cheapest may run; never one fewer.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from overspill.api.values import NANO
from overspill.autoscaler.economics import Costs
from overspill.ledger.prices import Rates, Usage, cost


@dataclass(frozen=True)
class Offer:
    """What is asked for a service's work, where a choice between both sides exists."""

    replica_hour: float  # US dollars of all accelerators of one replica; more than 0
    rates: tuple[Rates, ...]  # of the providers of which the cheapest gets a request; one at least
    boot: float  # seconds from a place on a node until a replica is ready


def costs(offer: Offer | None, tokens: Mapping[str, float | None]) -> Costs | None:
    """Return what decides between a replica and the cloud; None where there is nothing to weigh.

    A provider that takes nothing was given no price to weigh: a zero is how one says "unknown".

    :param tokens: of a usual request, by the names of ``queries.MIX``; None: nobody knows.
    """
    read, made = tokens["prompt_tokens"], tokens["completion_tokens"]
    if offer is None or read is None or made is None:
        return None
    usual = Usage(round(read), round(made))
    request = min(cost(rates, usual) for rates in offer.rates) / NANO
    return Costs(offer.replica_hour, request, offer.boot) if request > 0 else None
