"""The outlook: news is told from noise, and the hours' habits are learned but do not rule."""

import random
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.autoscaler import regime
from overspill.autoscaler.regime import MAX_BEGINNINGS, Outlook, observe

TICK = 15.0


def seen(loads: list[float], begin: float = 0.0) -> Outlook:
    outlook = Outlook.start(begin, loads[0])
    for index, load in enumerate(loads[1:], 1):
        outlook = observe(begin + index * TICK, outlook, load)
    return outlook


def noisy(mean: float, deviation: float, count: int, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [max(0.0, generator.gauss(mean, deviation)) for _ in range(count)]


def test_a_steady_load_fills_replicas_one_after_another() -> None:
    busy = seen([2.5] * 40).busy(4)
    assert busy == pytest.approx([1, 1, 0.5, 0], abs=0.02)


def test_noise_makes_the_next_replica_a_little_busy() -> None:
    busy = seen(noisy(2.0, 0.5, 200)).busy(5)
    # E max(0, X − 2) of a normal distribution is 0.4 deviations.
    assert busy[2] == pytest.approx(0.2, abs=0.06)
    assert busy[0] == pytest.approx(1.0, abs=0.02)


def test_a_jump_is_believed_within_three_looks() -> None:
    busy = seen([*noisy(2.0, 0.3, 200), *noisy(8.0, 0.3, 3, seed=1)]).busy(9)
    assert busy[6] > 0.5


def test_one_wild_value_is_forgotten() -> None:
    busy = seen([*noisy(2.0, 0.3, 200), 12.0, *noisy(2.0, 0.3, 4, seed=1)]).busy(9)
    assert busy[4] < 0.15


def test_minutes_at_which_loads_change_are_learned() -> None:
    """A load that changes on every full hour makes that slot likely, and no other."""
    generator = random.Random(0)
    loads = []
    for _ in range(24):
        loads += noisy(generator.uniform(2, 12), 0.4, 240, seed=len(loads))
    hour = seen(loads).hour
    assert hour[0] > 0.5
    assert max(hour[1:]) < 0.2


def test_a_regime_lasts_until_a_change_is_due() -> None:
    """With nothing learned as long as regimes do; with a known minute of change until then."""
    outlook = Outlook.start(0.0, 1.0)
    assert outlook.lasting(0.0) == pytest.approx(regime.REGIME, rel=0.05)
    assert outlook.lasting(300.0) == pytest.approx(regime.REGIME * 0.99**20, rel=0.05)
    hour = tuple(0.5 if slot % 40 == 0 else 0.002 for slot in range(regime.SLOTS))
    due = replace(outlook, time=500.0, hour=hour)  # the next change is due at 600 s
    assert 100 < due.lasting(0.0) < 800
    assert due.lasting(120.0) < 0.85 * due.lasting(0.0)


@settings(max_examples=15)
@given(loads=st.lists(st.floats(0, 1e6), min_size=2, max_size=20))
def test_shares_are_shares(loads: list[float]) -> None:
    outlook = seen(loads)
    busy = outlook.busy(8)
    assert all(-1e-3 <= b <= 1 + 1e-3 for b in busy)
    assert all(a >= b - 1e-2 for a, b in pairwise(busy))
    assert sum(b.weight for b in outlook.beginnings) == pytest.approx(1.0, abs=0.02)
    assert len(outlook.beginnings) <= MAX_BEGINNINGS + 1
    assert all(0 <= p <= 1 for p in outlook.hour)


def test_constants_agree() -> None:
    assert len(Outlook.start(0.0, 1.0).hour) * regime.SLOT == regime.HOUR


def test_hours_that_always_change_are_not_believed() -> None:
    """A forecast of a change at every look would take all noise for news."""
    loads = noisy(6.0, 1.0, 200)
    misled = replace(seen(loads[:100]), hour=(0.5,) * regime.SLOTS)
    for index, load in enumerate(loads[100:], 100):
        misled = replace(observe(index * TICK, misled, load), hour=misled.hour)
    assert misled.busy(10) == pytest.approx(seen(loads).busy(10), abs=0.1)
    assert misled.lasting(0.0) > 300
