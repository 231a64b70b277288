"""Stories about money: what prices change, and what they do not outweigh."""

from dataclasses import replace

import pytest
from scaling_world import CALM, World, busy, told

from overspill.autoscaler.economics import Prices
from overspill.autoscaler.signals import Signals

DEAR, CHEAP = Prices(ratio=3.0, boot=30.0), Prices(ratio=0.8, boot=30.0)


def settled(prices: Prices | None, load: float, rate: float, replicas: int = 3) -> World:
    """A service after half an hour of a steady load."""
    world = World(replicas=replicas, prices=prices)
    world.run(1800, busy(load, rate), told(load, arrivals_rate=rate))
    return world


def test_a_replica_that_would_be_little_busy_is_not_started() -> None:
    """6.6 requests at a time on four slots each: a third replica would work a third of its time."""
    assert settled(None, 6.6, 2.0).count == 3
    world = settled(replace(DEAR, ratio=2.0), 6.6, 2.0)
    assert world.count == 2
    assert "the cloud is 2 times dearer" in world.decisions[-1].message


@pytest.mark.parametrize(("prices", "count"), [(CHEAP, 1), (DEAR, 5)])
def test_price_decides_how_many_stay(prices: Prices, count: int) -> None:
    """Where the cloud is cheaper one replica stays: it is zero only without any request."""
    assert settled(prices, 18.0, 4.0, replicas=5).count == count


def test_latency_above_its_objective_outweighs_the_price() -> None:
    world = settled(CHEAP, 18.0, 4.0, replicas=5)
    slow = busy(8.0, 4.0, ttft_p95=5.0)
    world.run(600, slow, told(8.0, arrivals_rate=4.0))
    assert world.count > 1


def test_nothing_falls_without_prometheus() -> None:
    world = settled(DEAR, 18.0, 4.0, replicas=5)
    before = world.count
    world.run(1200, Signals(), told(1.0, arrivals_rate=0.1))
    assert world.count == before


def test_an_idle_service_goes_to_zero_and_comes_back() -> None:
    world = World(replicas=2, min_replicas=0, prices=DEAR)
    world.run(300, busy(6.0, 2.0), told(6.0, arrivals_rate=2.0))
    world.run(1200, CALM, told())
    assert world.count == 0
    assert world.tick(CALM, told(queued=1.0, held=1.0), seconds=0.1) == 1


def test_limits_hold_whatever_it_costs() -> None:
    world = World(replicas=2, room=3, prices=replace(DEAR, ratio=100.0), max_replicas=8)
    world.run(1800, busy(12.0, 8.0), told(12.0, queued=30.0, arrivals_rate=12.0))
    assert world.count == 4  # the room and one that waits


def test_what_a_replica_does_is_learned_only_while_their_number_stays() -> None:
    """A minute's mean time in a replica tells of the batches of that minute."""
    world = settled(DEAR, 9.0, 3.0)
    known = world.state.capacity
    world.state = replace(world.state, ready=world.state.ready + 1)  # one has gone
    world.run(60, busy(12.0, 3.0), told(12.0, arrivals_rate=3.0))
    assert world.state.capacity == known
    world.run(60, busy(12.0, 3.0), told(12.0, arrivals_rate=3.0))
    assert world.state.capacity.residence > known.residence
