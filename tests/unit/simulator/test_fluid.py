"""Orders, boots, what is given back first, and what it all costs."""

from collections.abc import Sequence

import pytest

from overspill.simulator.fluid import Fleet, Setting, Sight, simulate


class Script:
    """Wants what it is told, tick by tick."""

    def __init__(self, targets: Sequence[int]) -> None:
        self.targets, self.seen = list(targets), list[Sight]()

    def learn(self, now: float, load: float) -> None:
        raise AssertionError

    def target(self, sight: Sight) -> int:
        self.seen.append(sight)
        return self.targets[len(self.seen) - 1]


def test_a_replica_is_billed_from_its_order_and_serves_after_its_boot() -> None:
    setting = Setting(boot=30.0, ratio=3.0)
    run = simulate(Script([1, 1, 1]), [1.0, 1.0, 1.0], setting, 0)
    assert (run.billed, run.ready) == ([1, 1, 1], [0, 0, 1])
    assert run.cost() == pytest.approx((3 + 3 * 2) * setting.tick_cost)
    assert (run.starts, run.spill_share) == (1, pytest.approx(2 / 3))


def test_the_newest_pending_replicas_are_given_back_first() -> None:
    run = simulate(Script([2, 3, 2, 1, 1]), [0.0] * 5, Setting(boot=45.0), 1)
    assert run.billed == [2, 3, 2, 1, 1]
    assert run.ready == [1, 1, 1, 1, 1]
    assert run.starts == 2


def test_no_boot_serves_in_the_same_tick() -> None:
    assert simulate(Script([2]), [2.0], Setting(boot=0.0), 0).ready == [2]


def test_a_policy_sees_the_tick_with_what_serves_in_it() -> None:
    script = Script([3, 3, 3])
    simulate(script, [1.0, 2.0, 4.0], Setting(boot=15.0), 1, begin=600.0)
    assert script.seen == [
        Sight(600.0, 1.0, 1, 0),
        Sight(615.0, 2.0, 3, 0),
        Sight(630.0, 4.0, 3, 0),
    ]


def test_a_spilled_request_costs_the_ratio_over_a_replicas_capacity() -> None:
    """Issue 6: price ratio × 2.5/3600 ÷ 5 USD."""
    setting = Setting(ratio=3.0)
    run = simulate(Script([0]), [1.0], setting, 0)
    requests = setting.capacity * setting.tick
    assert run.cost() == pytest.approx(requests * 3 * 2.5 / 3600 / 5)
    assert run.cost(ratio=5.0) == pytest.approx(requests * 5 * 2.5 / 3600 / 5)


def test_a_fleet_never_falls_below_zero() -> None:
    fleet = Fleet(2, 4)
    fleet.scale(0, -3)
    assert (fleet.ready, fleet.pending) == (0, 0)
