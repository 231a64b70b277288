"""Many services, one full cluster: who gets the accelerators. Pure.

When more replicas are wanted than there is room for, room goes where it saves most. First to
services that may not spill and miss their objective: their requests have no other place. Then to
what began to run a short while ago, for a move costs a boot. Then by priority, and among equals
by dollars saved. Replicas have different sizes, so this is a knapsack; replicas of one size are
interchangeable, though, so of each size the best go first, and what is left to find is how many of
each size: exact by dynamic programming over the accelerators, in a large room for the last
``CORE`` of them, after the densest (Martello and Toth, Knapsack Problems, 1990, §2.6.3 and §5.4).

A replica that runs counts for more than the same replica elsewhere: it keeps its place until
another's saving is better by a margin. What nobody can compare stays where it is.

Limits: accelerators are alike and counted; which node has them is the scheduler's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter

from overspill.autoscaler.economics import dollars

MARGIN = 1.2  # times what a replica that runs saves, which another must save to displace it
CORE = 64  # accelerators that are shared exactly
LEAST = 1e-6  # US dollars per hour that any wanted replica counts for: room is used while there is

STRANDED, RECENT, ORDINARY = range(3)  # ranks, first to last


@dataclass(frozen=True, slots=True)
class Claim:
    """What a service would do with accelerators."""

    service: str  # namespace/name
    wanted: int  # replicas
    held: int = 0  # that have a place
    floor: int = 0  # that nothing takes
    size: int = 1  # accelerators of one replica
    priority: int = 0
    savings: tuple[float, ...] = ()  # US dollars per hour, first replica to last; empty: unknown
    stranded: bool = False  # may not spill, and misses its objective
    recent: bool = False  # what it holds it has held for a short while only
    waiting: bool = False  # one of its replicas is Pending
    barred: bool = False  # room was made for it lately, and it could not use it
    first: bool = False  # none of its replicas is ready: nobody knows yet how many it needs


@dataclass(frozen=True, slots=True)
class Grant:
    """What a service gets that wants more."""

    replicas: int
    probe: bool  # one more may stay Pending, to see room come back
    why: str  # for people

    @property
    def most(self) -> int:
        """Replicas that may be asked for."""
        return self.replicas + self.probe


@dataclass(frozen=True, slots=True)
class Replica:
    """One replica that somebody wants beyond what nothing takes."""

    claim: Claim
    index: int  # from 0
    saving: float  # US dollars per hour
    rank: tuple[int, int, bool]  # the smaller goes first

    @property
    def held(self) -> bool:
        """Whether it has a place."""
        return self.index < self.claim.held

    @property
    def open(self) -> bool:
        """Whether it may be granted now."""
        return self.held or not (self.claim.barred or (self.claim.first and self.index))

    @property
    def worth(self) -> float:
        """What it counts for within its rank."""
        if self.claim.stranded:
            return 1 / (self.index + 1)  # to each one before any has two
        return max(self.saving, LEAST) * (MARGIN if self.held else 1.0)

    @property
    def order(self) -> tuple[tuple[int, int, bool], float, str, int]:
        """A key by which the first is granted first; never a tie, or counts would swing."""
        return self.rank, -self.worth / self.claim.size, self.claim.service, self.index

    @property
    def density(self) -> float:
        """US dollars per accelerator and hour."""
        return self.saving / self.claim.size


def share(claims: Sequence[Claim], room: int, *, probes: bool = False) -> Mapping[str, Grant]:
    """Return what each service gets that wants more than there is for it; the others have it all.

    :param room: accelerators that there are for all claims together.
    :param probes: every service may keep a probe; else of each size the one that is next.
    """
    wishes = sorted((r for claim in claims for r in _replicas(claim)), key=attrgetter("order"))
    granted = _grant(wishes, room - sum(min(c.floor, c.wanted) * c.size for c in claims))
    counts = {claim.service: min(claim.floor, claim.wanted) for claim in claims}
    for replica in granted:
        counts[replica.claim.service] += 1
    denied = {r.claim.service: r for r in wishes if r.index == counts[r.claim.service]}
    moving = any(counts[c.service] > c.held for c in claims)
    probing = set(denied if probes else _next(denied.values()))
    last = _last_two(granted)
    return {
        service: Grant(
            replica.index,
            probe=not moving and service in probing,  # a pod that waits could take what is freed
            why=_why(replica, last),
        )
        for service, replica in denied.items()
    }


def _replicas(claim: Claim) -> Iterator[Replica]:
    """Yield what is wanted beyond the floor. A later replica never saves more than an earlier."""
    known = tuple(accumulate(claim.savings, min))
    for index in range(claim.floor, claim.wanted):
        saving = max(0.0, known[index]) if index < len(known) else 0.0
        held = index < claim.held
        yield Replica(claim, index, saving, (*_rank(claim, held=held), bool(known) or not held))


def _rank(claim: Claim, *, held: bool) -> tuple[int, int]:
    if claim.stranded:
        return STRANDED, -claim.priority
    return (RECENT, 0) if held and claim.recent else (ORDINARY, -claim.priority)


def _grant(wishes: Iterable[Replica], room: int) -> list[Replica]:
    """Return what is granted, rank by rank.

    :param wishes: in their order.
    """
    ranks: dict[tuple[int, int, bool], list[Replica]] = {}
    for replica in wishes:
        if replica.open:
            ranks.setdefault(replica.rank, []).append(replica)
    granted: list[Replica] = []
    for equals in ranks.values():
        chosen = _pack(equals, room)
        room -= sum(r.claim.size for r in chosen)
        granted += chosen
    return granted


def _pack(replicas: list[Replica], room: int) -> list[Replica]:
    """Return those that fit and are worth most together: the densest, and the last ones exactly.

    :param replicas: the densest first.
    """
    if sum(r.claim.size for r in replicas) <= room:
        return replicas
    taken = 0
    while room > CORE:
        room -= replicas[taken].claim.size
        taken += 1
    return replicas[:taken] + _exact(replicas[taken:], max(0, room))


def _exact(replicas: Sequence[Replica], room: int) -> list[Replica]:
    """Return those that fit and are worth most together. Steps: room² for each size, over it."""
    sizes: dict[int, list[Replica]] = {}
    for replica in replicas:  # of one size, the densest is worth most
        alike = sizes.setdefault(replica.claim.size, [])
        if len(alike) < room // replica.claim.size:
            alike.append(replica)
    best = [0.0] * (room + 1)  # worth, by the room for what was looked at
    counts: list[list[int]] = []
    for size, alike in sizes.items():
        worth = [0.0, *accumulate(r.worth for r in alike)]
        counts.append([_count(best, worth, size, space) for space in range(room + 1)])
        best = [best[space - n * size] + worth[n] for space, n in enumerate(counts[-1])]
    chosen: list[Replica] = []
    for (size, alike), by_space in zip(reversed(sizes.items()), reversed(counts), strict=True):
        chosen += alike[: by_space[room]]
        room -= by_space[room] * size
    return sorted(chosen, key=attrgetter("order"))


def _count(best: list[float], worth: list[float], size: int, space: int) -> int:
    """Return how many replicas of one size a space is best used for."""
    top, count = -1.0, 0
    for n in range(min(len(worth) - 1, space // size) + 1):
        total = best[space - n * size] + worth[n]
        if total > top:
            top, count = total, n
    return count


def _next(denied: Iterable[Replica]) -> Iterator[str]:
    """Yield the service of each size that would get more room first.

    A small one sees room that is not enough for a large one. Who has a replica Pending keeps it
    until another is better by the margin.
    """
    first: dict[int, tuple[tuple[int, int, bool], float, str]] = {}
    for replica in denied:
        claim = replica.claim
        worth = replica.worth * (MARGIN if claim.waiting else 1.0)
        candidate = replica.rank, -worth, claim.service
        first[claim.size] = min(first.get(claim.size, candidate), candidate)
    return (service for _, _, service in first.values())


def _last_two(granted: Iterable[Replica]) -> list[Replica]:
    """Return what is granted last of all, and last to another service."""
    found: list[Replica] = []
    for replica in sorted(granted, key=attrgetter("order"), reverse=True):
        if not found or replica.claim.service != found[0].claim.service:
            found.append(replica)
        if len(found) == 2:
            break
    return found


def _why(mine: Replica, last: Iterable[Replica]) -> str:
    """Say what goes before a service's next replica.

    :param last: as of ``_last_two``.
    """
    claim = mine.claim
    text = f"cluster full: {mine.index} of {claim.wanted} wanted replicas granted"
    if claim.barred and not mine.held:
        return f"{text}; room that was made for more could not be used, it is tried again later"
    if not mine.open:
        return f"{text}; more when its first replica is ready"
    rival = next((r for r in last if r.claim.service != claim.service), None)
    if rival is None:
        return f"{text}; nobody else holds more than minReplicas and what may not spill"
    return f"{text}; {_compare(mine, rival)}"


def _compare(mine: Replica, rival: Replica) -> str:
    """Say what went before: the first of the ranks that differs, or the dollars."""
    name = _name(rival.claim.service, mine.claim.service)
    if rival.rank[0] == STRANDED < mine.rank[0]:
        return f"{name} may not spill and misses its objective"
    if rival.rank[0] == RECENT < mine.rank[0]:
        return f"{name} has got its place a short while ago and keeps it for now"
    if rival.claim.priority > mine.claim.priority:
        return f"priority {rival.claim.priority} of {name} goes before {mine.claim.priority}"
    if not (mine.claim.savings and rival.claim.savings):
        return f"what runs stays: nobody knows what one more here saves against {name}"
    own = mine.claim.service.partition("/")[2]
    text = f"{own} saves {_about(mine.density)} per GPU-hour here, {name} {_about(rival.density)}"
    if rival.density >= mine.density:
        return text
    return f"{text}, which runs" if rival.held else f"{text}, which fits"


def _name(service: str, reader: str) -> str:
    """Return a service's name for those who read another one: other namespaces are not named."""
    namespace, _, name = service.partition("/")
    return name if namespace == reader.partition("/")[0] else "another namespace's service"


def _about(amount: float) -> str:
    """Return dollars in two significant digits, so that they do not change with every look."""
    return dollars(float(f"{amount:.2g}"))
