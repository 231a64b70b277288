"""Stories about money: what prices change, and what they do not outweigh."""

from dataclasses import replace
from itertools import pairwise

import pytest
from scaling_world import CALM, World, busy, told

from overspill.api.service import InferenceService
from overspill.autoscaler.economics import Costs
from overspill.autoscaler.loop import _turn
from overspill.autoscaler.policy import LOOK, Decision
from overspill.autoscaler.sharing import Grant
from overspill.autoscaler.signals import Demand, Signals


def costs(ratio: float) -> Costs:
    """A cloud so many times dearer than a busy replica of these stories, which does 0.85/s."""
    return Costs(replica_hour=0.8, request=ratio * 0.8 / 3600 / 0.85, boot=30.0)


DEAR, CHEAP = costs(3.0), costs(0.8)


def settled(paid: Costs | None, load: float, rate: float, replicas: int = 3) -> World:
    """A service after half an hour of a steady load."""
    world = World(replicas=replicas, costs=paid)
    world.run(1800, busy(load, rate), told(load, arrivals_rate=rate))
    return world


def test_a_replica_that_would_be_little_busy_is_not_started() -> None:
    """6.6 requests at a time on four slots each: a third replica would work a third of its time."""
    assert settled(None, 6.6, 2.0).count == 3
    world = settled(costs(2.0), 6.6, 2.0)
    assert world.count == 2
    assert (world.reason, world.decisions[-1].message) == (
        "CloudCheaper",
        "a replica costs $0.80/h; in the cloud, the work of replica 2 (74% busy) $1.59/h and of "
        "replica 3 (0% busy) $0.00/h: replicas stay at 2",
    )


@pytest.mark.parametrize(("paid", "count"), [(CHEAP, 1), (DEAR, 5)])
def test_price_decides_how_many_stay(paid: Costs, count: int) -> None:
    """Where the cloud is cheaper one replica stays: it is zero only without any request."""
    assert settled(paid, 18.0, 4.0, replicas=5).count == count


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
    world = World(replicas=2, min_replicas=0, costs=DEAR)
    world.run(300, busy(6.0, 2.0), told(6.0, arrivals_rate=2.0))
    world.run(1200, CALM, told())
    assert world.count == 0
    assert world.tick(CALM, told(queued=1.0, held=1.0), seconds=0.1) == 1


def test_limits_hold_whatever_it_costs() -> None:
    world = World(replicas=2, room=3, costs=costs(100.0), max_replicas=8)
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


def test_a_count_that_missed_the_objective_is_not_gone_back_to() -> None:
    """The cloud is cheaper, but what may not leave waits: one replica is too few for it."""
    world = settled(costs(0.4), 6.0, 3.0)
    assert world.count == 1
    world.decisions.clear()
    for _ in range(int(3600 / 5)):
        late = {"queue_wait_p95": 5.0} if world.pods().ready == 1 else {}
        world.tick(busy(6.0, 3.0, **late), told(6.0, arrivals_rate=3.0))
    moves = [(before, after) for before, after, _ in world.moves()]
    assert moves == [(1, 2), (2, 1), (1, 2)], "tried again after half an hour, and not before"
    assert "1 were too few under such a load" in world.decisions[-1].message


def test_what_was_there_at_the_beginning_stays_for_a_window() -> None:
    world = World(replicas=5, costs=CHEAP)
    world.state = settled(CHEAP, 18.0, 4.0, replicas=5).state
    world.now = world.state.history[-1][0]
    world.state = replace(world.state, replicas=5, since=world.now)
    before = world.run(295, busy(18.0, 4.0), told(18.0, arrivals_rate=4.0))
    assert (before, world.run(60, busy(18.0, 4.0), told(18.0, arrivals_rate=4.0))) == (5, 1)


def test_a_load_that_nobody_saw_is_no_regret() -> None:
    """After an hour without Prometheus the load is looked at anew."""
    world = settled(DEAR, 18.0, 4.0, replicas=5)
    world.run(3600, Signals(), told(1.0, arrivals_rate=0.1))
    counts = [world.tick(busy(0.5, 0.1), told(0.5, arrivals_rate=0.1)) for _ in range(2)]
    assert counts == [5, 5]
    assert "a load of 0.12 replicas is watched" in world.decisions[-1].message


def test_a_decision_tells_what_other_counts_would_cost() -> None:
    """Also after a way through the status, in which an operator finds it that starts again."""
    world = settled(costs(2.0), 6.6, 2.0)
    told = world.decisions[-1].to_status().weighed
    assert (told.by_demand, told.by_price) == (3, 2)
    assert told.replica_hourly == 0.8
    assert told.one_more_hourly == pytest.approx(told.decided_hourly + 0.8, rel=0.01), "idle"
    cloud = 2.0 * 3600 * told.request_dollars
    assert told.all_cloud_hourly == pytest.approx(cloud, rel=0.05)
    assert told.decided_hourly < told.one_fewer_hourly < told.all_cloud_hourly
    service = {
        "metadata": {"name": "a", "namespace": "b"},
        "spec": {"model": {"uri": "oci://m/n"}},
        "status": {"lastDecisions": [world.decisions[-1].to_status().to_dict()]},
    }
    [again] = map(Decision.from_status, InferenceService.parse(service).status.last_decisions)
    assert again.to_status() == world.decisions[-1].to_status()
    without = settled(None, 6.6, 2.0).decisions[-1].to_status().weighed
    assert (without.by_demand, without.by_price, without.decided_hourly) == (3, None, None)


def test_a_grant_bounds_the_count_and_not_what_is_wanted() -> None:
    world = settled(DEAR, 18.0, 4.0, replicas=5)
    want = world.decisions[-1].want
    assert want is not None
    assert (world.count, want.replicas, want.late) == (5, 5, False)
    assert len(want.savings) > 5
    assert want.savings[0] == pytest.approx(0.8 * 2, rel=0.05), "it is busy all of the time"

    world.grant = Grant(3, probe=False, why="cluster full: 3 of 5 wanted replicas granted; x")
    assert world.run(300, busy(18.0, 4.0), told(18.0, arrivals_rate=4.0)) == 3
    last = world.decisions[-1]
    wants = {d.want.replicas for d in world.decisions[-20:] if d.want}
    assert wants == {5}, "between two looks at prices as well"
    assert (last.reason, last.inputs["granted"]) == ("ClusterShared", 3)
    assert "; cluster full: 3 of 5 wanted replicas granted; x: replicas stay at 3" in last.message

    world.grant, world.room = replace(world.grant, probe=True), 3
    assert world.run(60, busy(18.0, 4.0), told(18.0, arrivals_rate=4.0)) == 4
    last = world.decisions[-1]
    assert last.reason == "ClusterFullProbe"
    assert last.message.endswith(
        "; the cluster has room for 3, one more stays Pending to see when it has more; cluster "
        "full: 3 of 5 wanted replicas granted; x: replicas stay at 4"
    )


def test_a_grant_of_nothing_stops_the_last_replica_and_the_first_one() -> None:
    world = World(replicas=1, min_replicas=0)
    world.grant = Grant(0, probe=False, why="cluster full")
    assert world.run(60, busy(2.0), told(2.0, arrivals_rate=1.0)) == 0
    waiting = told(queued=1.0, held=1.0)
    assert world.tick(CALM, waiting) == 0
    want = world.decisions[-1].want
    assert want is not None
    assert (world.reason, want.replicas, want.late) == ("ClusterShared", 1, True)
    world.rules = replace(world.rules, min_replicas=1)
    assert world.tick(CALM, waiting) == 1, "the user's minimum wins"


def test_what_a_first_replica_would_save_is_known_while_a_full_pool_grants_none() -> None:
    world = settled(DEAR, 6.6, 2.0)
    world.rules = replace(world.rules, min_replicas=0)
    world.grant = Grant(0, probe=False, why="cluster full")
    spills = replace(CALM, arrivals_rate=2.0, spilled_in_flight=6.6, spilled_rate=2.0)
    told_so = told(spilled_in_flight=6.6, arrivals_rate=2.0)
    assert world.run(120, spills, told_so) == 0
    world.grant, world.room = None, 0
    assert world.run(60, spills, told_so) == 1, "it waits for the place that somebody gives"
    world.room = 1
    world.run(20, spills, told_so)
    wants = [decision.want for decision in world.decisions[-16:]]
    assert [want.savings[0] if want else 0.0 for want in wants] == pytest.approx(
        [0.8 * 2] * 16, rel=0.05
    ), "else it could never win it back, or not keep it"


def claims(world: World, signals: Signals, live: Demand) -> bool:
    """Decide once; whether requests need another replica than those that have a place."""
    world.tick(signals, live)
    want = world.decisions[-1].want
    return want is not None and want.late


def test_what_requests_need_is_claimed_until_a_replica_has_a_place() -> None:
    """Else a full pool would take back, with the next look, what it has just granted."""
    world, waiting = World(replicas=0, room=0, min_replicas=0), told(queued=1.0, held=1.0)
    assert all(claims(world, CALM, waiting) for _ in range(12))
    assert all(d.want and d.want.first for d in world.decisions)
    assert not claims(world, CALM, told()), "nobody waits any more"
    world.room = 1
    world.run(60, CALM, waiting)
    assert not claims(world, busy(1.0), told(1.0))

    world, late, well = World(replicas=1, room=1), {"queue_wait_p95": 1.3}, {"queue_wait_p95": 1.0}
    world.run(120, busy(3.0, **well), told(3.0))
    assert not claims(world, busy(3.0, **well), told(3.0))
    wavers = (late, late, late, well, well, well) * 4
    assert all(claims(world, busy(3.0, **p95), told(3.0)) for p95 in wavers)
    world.room = 2
    assert world.run(60, busy(3.0, **well), told(3.0)) == 2
    assert not claims(world, busy(3.0, **well), told(3.0))


def looks(world: World, seconds: float, signals: Signals) -> list[float]:
    """Pass every 5 s; return the times between looks at prices."""
    times: list[float] = []
    for _ in range(int(seconds / 5)):
        world.tick(signals, told(6.0, arrivals_rate=2.0))
        seen = world.state.economics
        if seen and seen.outlook.time not in times[-1:]:
            times.append(seen.outlook.time)
    return [later - earlier for earlier, later in pairwise(times)]


@pytest.mark.parametrize(("turn", "first"), [(0.0, 10.0), (0.1, 15.0), (5.0, 15.0), (9.9, 20.0)])
def test_services_take_turns_with_their_looks_at_prices(turn: float, first: float) -> None:
    """So that no pass looks for all of them: from the first on, and again after an outage."""
    world = World(replicas=3, costs=DEAR)
    world.state = replace(world.state, turn=turn)
    assert looks(world, 300, busy(6.0, 2.0))[:4] == [first, 10.0, 10.0, 10.0]
    world.run(90, Signals(), told(6.0, arrivals_rate=2.0))
    assert looks(world, 60, busy(6.0, 2.0))[:3] == [first, 10.0, 10.0]


def test_turns_are_spread_over_the_passes() -> None:
    turns = [_turn(f"team-{n % 20}/service-{n}") for n in range(1000)]
    assert 0.0 <= min(turns) <= max(turns) < LOOK
    assert 450 < sum(turn < LOOK / 2 for turn in turns) < 550
