"""Start, keep or stop against spilling: the rules of thumb that must hold whatever is learned."""

import random
from itertools import pairwise

import pytest

from overspill.autoscaler.economics import Choice, EconomicsState, Prices, choose

TICK = 15.0


def course(loads: list[float], prices: Prices, begin: int) -> list[int]:
    """The counts over a load, when every wish is granted."""
    state, count, counts = EconomicsState.start(0.0, loads[0]), begin, []
    for index, load in enumerate(loads[1:], 1):
        choice, state = choose(index * TICK, state, load, count, prices)
        count = choice.replicas
        counts.append(count)
    return counts


@pytest.mark.parametrize(
    ("load", "ratio", "wanted"),
    [
        (3.0, 3.0, 3),
        (3.5, 3.0, 4),  # the fourth is half busy: worth it from a third
        (3.2, 3.0, 3),  # a fifth busy: not worth it
        (3.2, 6.0, 4),
        (3.0, 0.9, 0),  # the cloud is always cheaper
        (0.0, 3.0, 0),
    ],
)
@pytest.mark.parametrize("begin", [0, 8])
def test_a_steady_load_gets_the_cheapest_count(
    load: float, ratio: float, wanted: int, begin: int
) -> None:
    assert course([load] * 60, Prices(ratio, 120.0), begin)[-1] == wanted


def test_a_long_boot_waits_longer() -> None:
    loads = [1.0] * 40 + [4.0] * 40
    first = [
        next(i for i, n in enumerate(course(loads, Prices(3.0, boot), 1)) if n > 1)
        for boot in (30.0, 300.0, 1200.0)
    ]
    assert first == sorted(first)
    assert first[0] < first[2]


def test_a_short_burst_starts_nothing_where_a_boot_is_dear() -> None:
    assert max(course([1.0] * 100 + [3.0] + [1.0] * 20, Prices(2.0, 600.0), 1)) == 1


def test_a_steady_load_with_noise_does_not_swing() -> None:
    generator = random.Random(0)
    counts = course([generator.gauss(6.0, 1.0) for _ in range(480)], Prices(3.0, 120.0), 6)
    moves = sum(1 for a, b in pairwise(counts) if a != b)
    assert moves <= 12  # two hours, six an hour


def test_the_count_that_is_there_is_taken_as_it_is() -> None:
    """Limits or a person may have set another than was wanted."""
    state = EconomicsState.start(0.0, 2.0)
    for index in range(1, 40):
        choice, state = choose(index * TICK, state, 2.0, 5, Prices(3.0, 120.0))
    assert choice.replicas == 2


def test_a_choice_says_why() -> None:
    choice = Choice(2, 1, (1.0, 0.8, 0.1), 3.0)
    assert choice.explain(0.8) == (
        "a replica costs $0.80/h; in the cloud, the work of replica 2 (80% busy) $1.92/h and of "
        "replica 3 (10% busy) $0.24/h"
    )
    assert choice.best == 2


@pytest.mark.parametrize("loads", [[0.0, 50.0, 0.0], [40.0] * 10, [0.0] * 10])
@pytest.mark.parametrize(("ratio", "boot", "begin"), [(1.6, 0.0, 60), (3.0, 120.0, 0)])
def test_whatever_was_before_a_steady_load_gets_its_count(
    loads: list[float], ratio: float, boot: float, begin: int
) -> None:
    counts = course([*loads, *(1.9,) * 100], Prices(ratio, boot), begin)
    assert min(counts) >= 0
    assert counts[-1] == 2
