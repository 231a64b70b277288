"""One pool of accelerators: is it full, how much is there, who gets what. Pure.

A pool is what services' replicas may go to alike: the same resource and the same rules for nodes.
How much there is in it nobody is asked: it is what our services hold while one of their replicas
has no place. So nothing is limited in a pool that nobody has found full, and no right to see other
people's pods is needed. A pool whose nodes come when they are called for gets them within minutes;
only one that has been full without any growth for ``SETTLE`` seconds is divided anew. Until then
just those take a place who may not spill and miss their objective.

Room that was made and that the one it was for cannot use (its replicas need more accelerators on
one node than came free on any, or somebody else was quicker) is seen by its staying free: nobody
moves for that one again for ``BAR`` seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from overspill.autoscaler.sharing import Claim, Grant, share

FULL_MEMORY = 30.0  # seconds that a pool counts as full after the last sign of it
SETTLE = 300.0  # seconds that a pool must be full without growing before places change hands
HOLD = 300.0  # seconds that a replica keeps its place at least
ROOM_MEMORY = 120.0  # seconds that room counts that nobody holds: a replica ends, another starts
STEADY = 3  # looks in a row at which room must have been held: two observations can overlap
REPLACED = 30.0  # seconds after which a replica that ended has lost its place, if none follows
STUCK = 60.0  # seconds that a replica may take to use room that there is for it
BAR = 1800.0  # seconds


@dataclass(frozen=True)
class Stake:
    """What a service has to do with its pool."""

    pool: str
    size: int  # accelerators of one replica
    priority: int = 0
    may_spill: bool = False  # while the cluster is full
    lacking: bool = False  # a replica is Pending for lack of accelerators
    refused: bool = False  # one is kept from a place by what no accelerator mends: a quota, a gate


@dataclass(frozen=True)
class Want:
    """Replicas that a service would have in an empty cluster."""

    replicas: int  # within minReplicas and maxReplicas
    late: bool = False  # its objective is missed, or its requests wait for a first replica
    savings: tuple[float, ...] = ()  # US dollars per hour, first replica to last; empty: unknown
    first: bool = False  # none is ready: of what waits nobody knows yet how many it needs


@dataclass(frozen=True)
class Member:
    """One service of a pool, at one moment."""

    service: str  # namespace/name
    stake: Stake
    want: Want
    min_replicas: int
    count: int  # replicas that it was last decided to have
    placed: int  # replicas that have a place
    terminating: int = 0  # replicas whose place will be free

    @property
    def occupied(self) -> int:
        """Places that it has."""
        return self.placed + self.terminating


@dataclass(frozen=True)
class Look:
    """What was occupied at one moment."""

    time: float  # seconds since the epoch
    used: Mapping[str, int]  # accelerators, by service
    occupied: Mapping[str, int]  # replicas, by service


@dataclass(frozen=True)
class PoolState:
    """What one look hands to the next. Times in seconds since the epoch."""

    looks: tuple[Look, ...] = ()  # oldest first
    room: int = 0  # accelerators that there are for us
    full_at: float | None = None  # last sign of a full pool
    full_since: float = 0.0  # without growing
    held: Mapping[str, tuple[int, float]] = field(default_factory=dict)  # replicas, and since when
    stuck: Mapping[str, float] = field(default_factory=dict)  # does not use its room, since when
    barred: Mapping[str, float] = field(default_factory=dict)  # until when


EMPTY = PoolState()


def divide(
    now: float, state: PoolState, members: Sequence[Member]
) -> tuple[Mapping[str, Grant], PoolState]:
    """Return what each service gets that cannot have all that it wants, and the next state.

    :param now: seconds since the epoch; never earlier than in the last call.
    :param state: what the last call returned, ``EMPTY`` before.
    """
    state = _look(now, state, members)
    alone = len(members) < 2
    if alone or state.full_at is None:
        return {}, state
    settled = now - state.full_since >= SETTLE
    claims = [_claim(now, state, member, settled=settled) for member in members]
    grants = share(claims, state.room, probes=not settled)
    return grants, _watch(now, state, members, grants)


def _look(now: float, state: PoolState, members: Sequence[Member]) -> PoolState:
    occupied = {m.service: m.occupied for m in members}
    used = {m.service: m.occupied * m.stake.size for m in members}
    recent = (look for look in state.looks if now - look.time < ROOM_MEMORY)
    looks = (*recent, Look(now, used, occupied))
    room = _room([sum(look.used.values()) for look in looks])
    full_at = now if any(m.stake.lacking for m in members) else state.full_at
    if full_at is not None and now - full_at >= FULL_MEMORY:
        full_at = None
    anew = state.full_at is None or room > state.room
    stuck = {} if full_at is None else state.stuck
    return replace(
        state,
        looks=looks,
        room=room,
        full_at=full_at,
        full_since=now if anew else state.full_since,
        held={
            m.service: _since(now, state.held.get(m.service), _held(now, looks, m)) for m in members
        },
        stuck=stuck,
        barred={service: until for service, until in state.barred.items() if until > now},
    )


def _room(used: Sequence[int]) -> int:
    """Return the most that was occupied at some looks in a row."""
    steady = min(STEADY, len(used))
    return max(min(used[n : n + steady]) for n in range(len(used) - steady + 1))


def _held(now: float, looks: Sequence[Look], member: Member) -> int:
    """Return the replicas that have a place by right: one that is replaced is still the same."""
    lately = (look for look in looks if now - look.time < REPLACED)
    return min(member.count, max(look.occupied.get(member.service, 0) for look in lately))


def _since(now: float, before: tuple[int, float] | None, held: int) -> tuple[int, float]:
    """Return how many replicas are held, and when the newest of them got its place."""
    if before is None or held > before[0]:
        return held, now
    return held, before[1]


def _claim(now: float, state: PoolState, member: Member, *, settled: bool) -> Claim:
    stake, want = member.stake, member.want
    held, since = state.held[member.service]
    kept = 0 if stake.may_spill else held  # what its requests need stays
    return Claim(
        service=member.service,
        wanted=_wanted(state, member),
        held=held,
        floor=max(member.min_replicas, min(kept, want.replicas)),
        size=stake.size,
        priority=stake.priority,
        savings=want.savings,
        stranded=want.late and not stake.may_spill,
        recent=not settled or now - since < HOLD,
        waiting=stake.lacking,
        barred=member.service in state.barred,
        first=want.first,
    )


def _wanted(state: PoolState, member: Member) -> int:
    """Return the replicas that a service claims a place for."""
    wanted, (held, _) = member.want.replicas, state.held[member.service]
    return min(wanted, held) if member.stake.refused else wanted


def _watch(
    now: float, state: PoolState, members: Sequence[Member], grants: Mapping[str, Grant]
) -> PoolState:
    """Note who does not use the room that was made for it, and bar who has not for too long.

    What a service lost with a node, or a deleted one still has while its replicas end, counts as
    room for a while and was made for nobody.
    """
    used = state.looks[-1].used
    ours = [sum(look.used.get(service, 0) for service in used) for look in state.looks]
    free = _room(ours) - sum(used.values())
    stuck = {
        m.service: state.stuck.get(m.service, now)
        for m in members
        if m.stake.size <= free and _granted(state, m, grants) > _had(state, m)
    }
    over = {service for service, since in stuck.items() if now - since >= STUCK}
    return replace(
        state,
        stuck={service: since for service, since in stuck.items() if service not in over},
        barred={**state.barred, **dict.fromkeys(over, now + BAR)},
    )


def _had(state: PoolState, member: Member) -> int:
    """Return the most places that a service had lately."""
    return max(look.occupied.get(member.service, 0) for look in state.looks)


def _granted(state: PoolState, member: Member, grants: Mapping[str, Grant]) -> int:
    grant = grants.get(member.service)
    return grant.replicas if grant else _wanted(state, member)
