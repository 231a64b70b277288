"""A forecast may help but never rule: whatever it says costs little over none."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from overspill.autoscaler.economics import Prices
from overspill.autoscaler.regime import SLOTS
from overspill.simulator.fluid import Setting, Sight, simulate
from overspill.simulator.policies import Overspill

Hour = tuple[float, ...]
SETTING = Setting()


class Misled(Overspill):
    """Ours, with a forecast that is put back before each look."""

    def __init__(self, hour: Hour) -> None:
        super().__init__(Prices(SETTING.ratio, SETTING.boot))
        self._hour = hour

    def target(self, sight: Sight) -> int:
        if self.state is not None:
            self.state = replace(self.state, outlook=replace(self.state.outlook, hour=self._hour))
        return super().target(sight)


def load(seed: int = 0, ticks: int = 1600) -> Iterator[float]:
    """Seven hours whose level changes every twelve minutes, with noise."""
    generator = random.Random(seed)
    level = 6.0
    for tick in range(ticks):
        if tick % 48 == 0:
            level = max(1.0, level * generator.lognormvariate(0.0, 0.25))
        yield max(0.0, generator.gauss(level, 0.12 * level))


def cost(hour: Hour) -> float:
    return simulate(Misled(hour), list(load()), SETTING, 6).cost()


LEARNED: Hour = tuple(0.6 if slot % 48 == 0 else 0.002 for slot in range(SLOTS))


@pytest.fixture(scope="module")
def none() -> float:
    return cost((sum(LEARNED) / SLOTS,) * SLOTS)


@pytest.mark.parametrize(
    "hour",
    [
        pytest.param(tuple(max(LEARNED) - p for p in LEARNED), id="inverted"),
        pytest.param((*LEARNED[20:], *LEARNED[:20]), id="shifted"),
        pytest.param(tuple(random.Random(0).sample(LEARNED, SLOTS)), id="random"),
        pytest.param((1.0,) * SLOTS, id="always"),
        pytest.param((0.0,) * SLOTS, id="never"),
    ],
)
def test_a_wrong_forecast_costs_at_most_five_percent(hour: Hour, none: float) -> None:
    assert cost(hour) <= 1.05 * none


def test_a_right_forecast_does_not_cost_more(none: float) -> None:
    assert cost(LEARNED) <= none
