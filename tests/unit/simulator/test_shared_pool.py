"""Two to five services on one pool over a day, against the optimum of them all with hindsight."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.simulator import optimum as single
from overspill.simulator.fluid import Setting
from overspill.simulator.shared import SharedPool, Tenant, day, optimum

SETTING = Setting(tick=120.0)


def tenants(seed: int, count: int, sizes: tuple[int, ...]) -> tuple[list[Tenant], int]:
    """Services of a day, and a pool that has room for about half of their peaks."""
    generator = random.Random(seed)
    found = [
        Tenant(
            generator.choice(sizes),
            generator.choice([1.5, 2.0, 3.0, 5.0]),
            day(generator, SETTING, generator.uniform(1.0, 3.0)),
        )
        for _ in range(count)
    ]
    peaks = sum(t.size * max(t.load) for t in found)
    return found, max(4, min(6, round(peaks * generator.uniform(0.35, 0.7))))


@pytest.mark.parametrize(
    ("seed", "count", "sizes"),
    [(1, 2, (4, 1)), (2, 3, (1, 2)), (3, 5, (1,)), (4, 4, (1, 2)), (5, 3, (1, 2, 4))],
)
def test_a_day_costs_at_most_five_per_cent_more_than_the_optimum(
    seed: int, count: int, sizes: tuple[int, ...]
) -> None:
    found, room = tenants(seed, count, sizes)
    pool = SharedPool(found, room, SETTING)
    assert pool.run() <= 1.05 * optimum(found, room, SETTING)
    assert pool.moves <= 24 * count, "places do not change hands all the time"


def test_who_came_first_does_not_keep_a_place_that_saves_more_elsewhere() -> None:
    """Two that are busy all day, of which the second one begins an hour later."""
    hour = round(3600 / SETTING.tick)
    early = Tenant(1, 1.5, [2.0] * 12 * hour)
    late = Tenant(1, 5.0, [0.0] * hour + [2.0] * 11 * hour)
    best = optimum([early, late], 2, SETTING)
    shared = SharedPool([early, late], 2, SETTING)
    assert shared.run() <= 1.05 * best
    assert shared.moves == 2
    assert SharedPool([early, late], 2, SETTING, shared=False).run() > 1.5 * best


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(0, 2), min_size=3, max_size=3),
    st.lists(st.floats(0, 2), min_size=3, max_size=3),
    st.integers(1, 3),
)
def test_the_optimum_is_that_of_every_course(first, second, size) -> None:
    setting, room = Setting(tick=60.0, boot=60.0), 3
    both = [Tenant(1, 3.0, first), Tenant(size, 2.0, second)]
    fits = [
        (n, m) for n in range(room + 1) for m in range(room // size + 1) if n + m * size <= room
    ]
    costs = []
    for course in itertools.product(fits, repeat=len(first)):
        cost, before = 0.0, (0, 0)
        for tick, counts in enumerate(course):
            for tenant, n, had in zip(both, counts, before, strict=True):
                spilled = max(0.0, tenant.load[tick] - n)
                cost += tenant.size * (n + tenant.ratio * spilled + max(0, n - had))
            before = counts
        costs.append(cost)
    assert optimum(both, room, setting) == pytest.approx(min(costs) * setting.tick_cost)
    alone = single.optimum(first, setting, 0)
    assert optimum(both[:1], 9, setting) == pytest.approx(alone)
