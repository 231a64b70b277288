"""Recorded decisions, decided anew: under the same setting as they were, under another as told."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from scaling_world import CALM, World, busy, told

from overspill.autoscaler.economics import Costs
from overspill.autoscaler.policy import Decision
from overspill.autoscaler.replay import Setting, hourly, replay
from overspill.autoscaler.sharing import Grant
from overspill.autoscaler.signals import Signals

PAID = Costs(replica_hour=0.8, request=2.0 * 0.8 / 3600 / 0.85, boot=30.0)


def crowded() -> World:
    """17 requests at a time for slots of four: more replicas, as soon as one may."""
    world = World(replicas=2)
    world.run(60, busy(17.0), told(17.0))
    return world


def late() -> World:
    world = World(replicas=2)
    world.run(200, busy(5.0), told(5.0))
    world.run(60, busy(5.0, ttft_p95=3.0), told(5.0))
    return world


def quiet() -> World:
    world = World(replicas=6)
    world.run(600, busy(6.0), told(6.0))
    return world


def asleep() -> World:
    world = World(replicas=1, min_replicas=0)
    world.run(900, CALM, told())
    return world


def full() -> World:
    world = World(replicas=2, room=3)
    world.run(60, busy(30.0), told(30.0))
    return world


def shared() -> World:
    world = World(replicas=2)
    world.grant = Grant(3, probe=False, why="cluster full")
    world.run(60, busy(17.0), told(17.0))
    return world


def blind() -> World:
    world = World(replicas=2)
    world.run(60, Signals())
    return world


def priced() -> World:
    world = World(replicas=3, costs=PAID)
    world.run(1800, busy(6.6, 2.0), told(6.6, arrivals_rate=2.0))
    return world


def recorded(world: World, want: Callable[[Decision], bool]) -> Decision:
    """The first decision like that, as the service's status keeps it."""
    return Decision.from_status(next(d for d in world.decisions if want(d)).to_status())


def setting(world: World, replica_hour: float = 0.0, **rules: float) -> Setting:
    return Setting(replace(world.rules, costs=None, **rules), replica_hour)


def moves(decision: Decision) -> bool:
    return decision.replicas_from != decision.replicas_to


# A story, whose decision, the settings that change, and the count and reason that they give.
REPLAYS = [
    (crowded, moves, {"max_replicas": 3}, (3, "MaxReplicas")),
    (crowded, moves, {"slots": 16}, (2, "WithinObjective")),
    (late, moves, {"ttft": 5.0}, (2, "WithinObjective")),
    (quiet, moves, {"min_replicas": 5}, (5, "MinReplicas")),
    (asleep, moves, {"idle_after": 1800.0}, (1, "WithinObjective")),
    (full, lambda d: d.inputs["unplaceable"] > 0, {"min_replicas": 6}, (6, "MinReplicas")),
    (shared, moves, {"min_replicas": 5}, (5, "MinReplicas")),
    (blind, lambda d: True, {"min_replicas": 4}, (4, "MinReplicas")),
    (priced, lambda d: "by_price" in d.weighed and moves(d), {"min_replicas": 3}, (3, "")),
]


@pytest.mark.parametrize(
    ("story", "which", "changes", "outcome"), REPLAYS, ids=lambda v: getattr(v, "__name__", None)
)
def test_the_same_setting_decides_the_same_and_another_what_it_would(
    story: Callable[[], World],
    which: Callable[[Decision], bool],
    changes: dict[str, float],
    outcome: tuple[int, str],
) -> None:
    world = story()
    decision = recorded(world, which)
    before = setting(world, 0.8)
    same = replay(decision, before, before)
    assert (same.replicas_to, same.reason) == (decision.replicas_to, decision.reason)
    assert same.inputs == pytest.approx(decision.inputs)
    other = replay(decision, before, setting(world, 0.8, **changes))
    assert (other.replicas_to, other.reason) == (outcome[0], outcome[1] or other.reason)


def test_what_it_costs_has_the_clouds_part_where_both_sides_have_a_price() -> None:
    world = priced()
    decision = recorded(world, lambda d: "by_price" in d.weighed and moves(d))
    before, dearer = setting(world, 0.8), setting(world, 8.0)
    assert hourly(decision, before) == decision.weighed["decided_hourly"] > 0.8
    assert replay(decision, before, dearer).replicas_to == 1
    unpriced = replay(decision, before, setting(world))
    assert hourly(unpriced, setting(world)) is None
    assert hourly(unpriced, before) == pytest.approx(0.8 * unpriced.replicas_to)
