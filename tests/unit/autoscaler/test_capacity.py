"""A replica's throughput by its batch, learned from what is measured."""

import random

import pytest

from overspill.autoscaler.capacity import UNKNOWN


def residence(batch: float) -> float:
    return 2.0 + 0.1 * batch


def test_nobody_knows_before_the_first_minute() -> None:
    assert UNKNOWN.rate(16) is None


def test_batches_that_differ_teach_the_slope() -> None:
    generator, known = random.Random(0), UNKNOWN
    for _ in range(200):
        batch = generator.uniform(4, 12)
        known = known.observe(batch, residence(batch) * generator.gauss(1, 0.03))
    assert known.rate(32) == pytest.approx(32 / residence(32), rel=0.1)


def test_batches_alike_are_taken_as_half_proportional() -> None:
    known = UNKNOWN
    for _ in range(50):
        known = known.observe(10.0, 3.0)
    assert known.rate(10) == pytest.approx(10 / 3)
    assert known.rate(20) == pytest.approx(20 / 4.5)  # between 20 / 6 and 20 / 3
    assert known.rate(20) > known.rate(10)


def test_another_model_is_learned_anew() -> None:
    known = UNKNOWN
    for n in range(300):
        known = known.observe(8 + n % 3, 3.0)
    for n in range(1500):
        known = known.observe(8 + n % 3, 6.0)
    assert known.rate(9) == pytest.approx(9 / 6, rel=0.05)


@pytest.mark.parametrize("observed", [(1e-9, 1e-9), (1e6, 1e-9), (1e-9, 1e6), (5.0, 0.0)])
def test_a_rate_is_a_positive_number_or_none(observed: tuple[float, float]) -> None:
    known = UNKNOWN
    for _ in range(3):
        known = known.observe(*observed)
        rate = known.rate(8)
        assert rate is None or 0 < rate < 1e12
