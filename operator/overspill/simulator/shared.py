"""Several services on one pool at the fluid level, and the optimum of them all together.

Each service decides by its own economics what it wants, and the pool is divided as the operator
does it. A replica that there is no room for is Pending: nobody pays for it.

Limits: as of ``fluid``; which node has an accelerator counts for nothing, and what is stopped
gives its place back at once.
"""

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overspill.autoscaler.economics import EconomicsState, Prices, choose
from overspill.autoscaler.pool import EMPTY, Member, PoolState, Stake, Want, divide
from overspill.simulator.fluid import Fleet, Setting


@dataclass(frozen=True)
class Tenant:
    """One service: what its replicas take, and what the cloud asks for their work."""

    size: int  # accelerators of a replica
    ratio: float  # cost of a busy replica's work in the cloud, over the replica's own
    load: Sequence[float]  # offered, in replicas' worth of work, by tick

    @property
    def most(self) -> int:
        """Replicas that it may ever want."""
        return math.ceil(max(self.load)) + 2


def day(generator: random.Random, setting: Setting, peak: float) -> list[float]:
    """Return a day's load by tick: a wave with its own hour, steps that last, and noise.

    :param peak: of the wave, in replicas' worth of work.
    """
    phase, step, loads = generator.random(), 1.0, []
    ticks = round(86400 / setting.tick)
    for tick in range(ticks):
        if generator.random() < setting.tick / 2400:
            step = generator.uniform(0.6, 1.4)
        wave = 0.55 + 0.45 * math.sin(2 * math.pi * (tick / ticks + phase))
        loads.append(max(0.0, peak * wave * step * generator.gauss(1, 0.05)))
    return loads


class SharedPool:
    """One pool of accelerators under our policy, tick by tick."""

    def __init__(
        self, tenants: Sequence[Tenant], room: int, setting: Setting, *, shared: bool = True
    ) -> None:
        """Begin with an empty pool.

        :param room: accelerators.
        :param shared: else who comes first has the place.
        """
        self.tenants, self.room, self.setting = tenants, room, setting
        self.shared = shared
        self.fleets = [Fleet(0, setting.boot_ticks) for _ in tenants]
        self.states: list[EconomicsState | None] = [None] * len(tenants)
        self.counts = [0] * len(tenants)  # decided
        self.pool: PoolState = EMPTY
        self.moves = 0
        self.cost = 0.0  # USD

    def run(self) -> float:
        """Return what a day costs."""
        for tick in range(len(self.tenants[0].load)):
            self.step(tick)
        return self.cost

    def step(self, tick: int) -> None:
        """Decide, place and pay once."""
        now = tick * self.setting.tick
        for fleet in self.fleets:
            fleet.pass_to(tick)
        wants = [self._want(now, n, tenant.load[tick]) for n, tenant in enumerate(self.tenants)]
        members = [self._member(n, want) for n, want in enumerate(wants)]
        grants, self.pool = divide(now, self.pool, members if self.shared else ())
        for n, (member, want) in enumerate(zip(members, wants, strict=True)):
            grant = grants.get(member.service)
            self.counts[n] = min(want.replicas, grant.most) if grant else want.replicas
        self._place(tick)
        for fleet, tenant in zip(self.fleets, self.tenants, strict=True):
            spilled = max(0.0, tenant.load[tick] - fleet.ready)
            billed = fleet.ready + fleet.pending + tenant.ratio * spilled
            self.cost += self.setting.tick_cost * tenant.size * billed

    def _want(self, now: float, n: int, load: float) -> Want:
        prices = Prices(self.tenants[n].ratio, self.setting.boot)
        state = self.states[n]
        if state is None:
            self.states[n] = EconomicsState.start(now, load)
            return Want(self.counts[n])
        choice, self.states[n] = choose(now, state, load, self.counts[n], prices)
        savings = choice.savings(self.setting.hourly * self.tenants[n].size)
        return Want(min(choice.replicas, self.tenants[n].most), savings=savings)

    def _member(self, n: int, want: Want) -> Member:
        tenant, held = self.tenants[n], self._held(n)
        stake = Stake("p", tenant.size, may_spill=True, lacking=self.counts[n] > held)
        return Member(f"t/{n}", stake, want, 0, self.counts[n], held)

    def _held(self, n: int) -> int:
        return self.fleets[n].ready + self.fleets[n].pending

    def _place(self, tick: int) -> None:
        """Stop what is too much, then start what there is room for."""
        for n, fleet in enumerate(self.fleets):
            self.moves += max(0, self._held(n) - self.counts[n])
            fleet.scale(tick, min(self._held(n), self.counts[n]))
        for n, fleet in enumerate(self.fleets):
            used = sum(self._held(m) * t.size for m, t in enumerate(self.tenants))
            fits = (self.room - used) // self.tenants[n].size
            fleet.scale(tick, max(self._held(n), min(self.counts[n], self._held(n) + fits)))


def optimum(tenants: Sequence[Tenant], room: int, setting: Setting) -> float:
    """Return the least cost in USD of all services together, with hindsight.

    :param room: accelerators.

    Dynamic programming over every division of the pool. From one to the next, all stops come
    first, which are free, and then each start costs its boot: both ways keep within the room.
    """
    ranges = [range(min(t.most, room // t.size) + 1) for t in tenants]
    sizes = [t.size for t in tenants]
    states = [s for s in itertools.product(*ranges) if _used(s, sizes) <= room]
    place = {state: n for n, state in enumerate(states)}
    ups = [_neighbours(states, place, axis) for axis in range(len(tenants))]
    best = [float(setting.boot_ticks * _used(s, sizes)) for s in states]
    for tick in range(len(tenants[0].load)):
        for pairs in ups:
            for low, high in reversed(pairs):
                best[low] = min(best[low], best[high])
        for size, pairs in zip(sizes, ups, strict=True):
            for low, high in pairs:
                best[high] = min(best[high], best[low] + setting.boot_ticks * size)
        costs = [
            [t.size * (n + t.ratio * max(0.0, t.load[tick] - n)) for n in counts]
            for t, counts in zip(tenants, ranges, strict=True)
        ]
        for n, state in enumerate(states):
            best[n] += sum(cost[k] for cost, k in zip(costs, state, strict=True))
    return min(best) * setting.tick_cost


def _used(counts: Sequence[int], sizes: Sequence[int]) -> int:
    return sum(n * size for n, size in zip(counts, sizes, strict=True))


def _neighbours(
    states: Sequence[tuple[int, ...]], place: dict[tuple[int, ...], int], axis: int
) -> list[tuple[int, int]]:
    """Return the places of all that differ by one replica of one service, the lower first."""

    def pairs() -> Iterator[tuple[int, int]]:
        for state in states:
            more = (*state[:axis], state[axis] + 1, *state[axis + 1 :])
            if more in place:
                yield place[state], place[more]

    return list(pairs())
