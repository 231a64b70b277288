"""Which replica answers: one that has the prompt's beginning cached, unless it has too much to do.

The least of ``uncached blocks + LOAD·requests − HOME`` wins. Requests are our own in flight, and
what others have there, as the replica said a moment ago (``gateway/reports.py``). HOME counts at
the prompt's home only: the replica to which rendezvous hashing of its first two blocks leads.
Gateways share no state, but all of them find the same home. A beginning that a second replica
holds as well, such as a system prompt, does not say which conversation it is; then the home is that
of the first block beyond it.
Short prompts go where the fewest requests are. Why so, and the constants: docs/adr/0012.

A replica that just failed is left out for a moment, so that a request is not sent to a
dead pod before its EndpointSlice says so.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from xxhash import xxh3_64_intdigest

from overspill.gateway.concurrency import Limit
from overspill.gateway.prefix import Blocks, Mirror

Address = tuple[str, int]
SUSPECT_SECONDS = 1.0  # how long a replica that failed is left out
SHORT = 2  # prompts of fewer blocks (1,024 tokens) are computed anew in no time
LOAD = 1.0  # blocks that another request in flight is worth
HOME = 15.0  # blocks that the home is worth


@dataclass(slots=True, eq=False)
class Replica:
    """One engine pod as this gateway sees it.

    :param slots: this gateway's share of the requests that it computes at the same time.
    :param load: requests that this gateway has running there.
    :param others: requests that others have there, as the engine said a moment ago.
    :param used: when it got its last request, to take turns between equals.
    :param refusals: requests that it refused in a row, and of which no other has said the same.
    :param limit: what was learned of the requests that it computes at a time, for all gateways.
    :param blocked: what it gets now waits in it, although it has free slots.
    :param heard: when it said last how much it has to do, in monotonic seconds.
    :param silences: times in a row that it was asked so and did not say it in time.
    :param ask_after: when it may be asked again, in monotonic seconds.
    """

    address: Address
    slots: int
    load: int = 0
    others: int = 0
    used: int = 0
    suspect_until: float = 0.0
    refusals: int = 0
    mirror: Mirror = field(default_factory=Mirror)
    limit: Limit | None = None
    blocked: bool = False
    heard: float = 0.0
    silences: int = 0
    ask_after: float = 0.0
    name: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.name = f"{self.address[0]} {self.address[1]}".encode()

    @property
    def free(self) -> int:
        """Return the slots in which a request would be computed at once."""
        return 0 if self.blocked else max(0, self.slots - self.load)


def free(replicas: Iterable[Replica], now: float, avoid: Replica | None = None) -> list[Replica]:
    """Return the replicas with a free slot.

    :param now: monotonic seconds.
    :param avoid: one that has refused the request.
    """
    return [r for r in replicas if r is not avoid and r.free and r.suspect_until <= now]


def best(replicas: list[Replica], blocks: Blocks = ()) -> Replica:
    """Return the replica that a request should go to.

    :param replicas: at least one.
    :param blocks: of the prompt.
    """
    if len(replicas) > 1 and len(blocks) >= SHORT:
        return _by_prefix(replicas, blocks)
    return min(replicas, key=_by_load)


def _by_load(replica: Replica) -> tuple[int, int]:
    return replica.load + replica.others, replica.used


def _by_prefix(replicas: list[Replica], blocks: Blocks) -> Replica:
    held = [replica.mirror.held(blocks) for replica in replicas]
    second = sorted(held)[-2]
    place = blocks[min(max(1, second), len(blocks) - 1)]
    home = max(replicas, key=lambda replica: xxh3_64_intdigest(replica.name, place))

    def score(found: tuple[Replica, int]) -> tuple[float, int]:
        replica, cached = found
        load = LOAD * (replica.load + replica.others)
        return load - cached - HOME * (replica is home), replica.used

    return min(zip(replicas, held, strict=True), key=score)[0]
