"""The optimum against every possible course, and its place below all policies."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from overspill.simulator.fluid import Setting, simulate
from overspill.simulator.optimum import optimum
from overspill.simulator.policies import CONTENDERS


def brute_force(load: list[float], setting: Setting, initial: int, most: int = 3) -> float:
    """The least cost over every course of counts."""
    costs = []
    for course in itertools.product(range(most + 1), repeat=len(load)):
        cost, before = 0.0, initial
        for n, offered in zip(course, load, strict=True):
            cost += n + setting.ratio * max(0.0, offered - n)
            cost += setting.boot_ticks * max(0, n - before)
            before = n
        costs.append(cost)
    return min(costs) * setting.tick_cost


@settings(max_examples=30)
@given(
    load=st.lists(st.floats(0, 3), min_size=1, max_size=4),
    ratio=st.sampled_from([0.5, 1.0, 2.0, 3.0, 5.0]),
    boot=st.sampled_from([0.0, 15.0, 30.0, 60.0]),
    initial=st.integers(0, 3),
)
def test_no_course_is_cheaper_and_one_is_as_cheap(
    load: list[float], ratio: float, boot: float, initial: int
) -> None:
    setting = Setting(ratio=ratio, boot=boot)
    assert optimum(load, setting, initial) == pytest.approx(brute_force(load, setting, initial))


@settings(max_examples=30)
@given(
    load=st.lists(st.floats(0, 6), min_size=1, max_size=15),
    initial=st.integers(0, 5),
    name=st.sampled_from(sorted(CONTENDERS)),
)
def test_no_policy_is_cheaper(load: list[float], initial: int, name: str) -> None:
    setting = Setting(boot=60.0)
    contender = CONTENDERS[name]
    run = simulate(contender.make(setting, contender.default), load, setting, initial)
    assert run.cost() >= optimum(load, setting, initial) - 1e-9


def test_a_known_case() -> None:
    """Two ticks of one busy replica: cloud 2 × 3, a start with its boot 2 + 2."""
    setting = Setting(boot=30.0, ratio=3.0)
    assert optimum([1.0, 1.0], setting, 0) == pytest.approx(4 * setting.tick_cost)
    assert optimum([1.0, 0.0], setting, 0) == pytest.approx(3 * setting.tick_cost)
