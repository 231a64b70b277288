"""The slots of an engine, divided among the gateways that send to it.

A replica computes so many requests at a time, whoever sends them. Gateways share no
state; each knows from the EndpointSlices of their own Service who else is there, and all come to
the same division: a service's slots are numbered through its replicas, and slot k belongs to
gateway k modulo their number, in the order of their names. So the shares differ by one at most
and add up to the slots. Every gateway has at least one slot of every replica, or it could not
reach some of them: where a replica has fewer slots than there are gateways, it may get as many
requests as there are gateways, and those beyond its slots wait in the engine's own queue.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one gateway.

    :param rank: its place among them, from 0.
    :param of: how many gateways there are, itself included.
    """

    rank: int = 0
    of: int = 1

    @classmethod
    def among(cls, own: str, others: Iterable[str]) -> "Share":
        """Return the share of a gateway by the names of all; its own may be missing there."""
        names = sorted({own, *others})
        return cls(names.index(own), len(names))

    def slots(self, first: int, slots: int) -> int:
        """Return how many slots of a replica are this gateway's.

        :param first: the number of its first slot: those of the service's replicas before it, in
            the order of their addresses.
        :param slots: of the replica.
        """
        return max(1, self._below(first + slots) - self._below(first))

    def _below(self, number: int) -> int:
        """Return how many of the slots 0 to ``number`` - 1 are this gateway's."""
        return (number - self.rank + self.of - 1) // self.of
