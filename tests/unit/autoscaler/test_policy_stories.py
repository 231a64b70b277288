"""Little stories over time: what the policy does with a service, its pods and its load."""

import json
from collections import deque
from dataclasses import replace

import pytest
from scaling_world import CALM, World, busy, told

from overspill.autoscaler.demand import seconds
from overspill.autoscaler.policy import Decision, PolicyState
from overspill.autoscaler.signals import Replicas, Signals
from overspill.prometheus.samples import Missing

NOTHING = Signals()


def test_a_request_wakes_a_service_from_zero_at_once():
    world = World(replicas=0, min_replicas=0)
    assert world.run(60, CALM, told()) == 0
    assert world.reason == "Idle"
    assert world.tick(CALM, told(queued=1.0, held=1.0), seconds=0.1) == 1
    assert world.reason == "FromZero"


def test_a_request_that_a_provider_answers_meanwhile_wakes_too():
    world = World(replicas=0, min_replicas=0)
    assert world.tick(CALM, told(held=1.0)) == 1


def test_a_request_that_was_answered_before_a_stop_does_not_wake():
    """After a restart no gateway has spoken yet, and the rates remember a minute."""
    world = World(replicas=0, min_replicas=0)
    assert world.run(60, busy(0, rate=0.5)) == 0
    assert world.tick(replace(busy(0, rate=0.5), queued=1.0)) == 1


def test_from_zero_one_replica_boots_however_many_requests_wait():
    world = World(replicas=0, min_replicas=0, boot=120)
    for waiting in range(1, 24):
        world.tick(CALM, told(queued=10.0 * waiting, held=10.0 * waiting))
    assert world.moves() == [(0, 1, "FromZero")]


def test_load_must_last_before_a_replica_is_added():
    world = World()
    world.run(60, busy(2))
    assert world.tick(busy(6)) == 1
    assert world.run(10, busy(2)) == 1, "a blip adds nothing"
    assert world.run(15, busy(6)) == 2
    assert world.moves() == [(1, 2, "LoadAboveCapacity")]
    expected = "6 requests at a time, 4 slots per replica: replicas 1 → 2"
    assert world.decisions[-1].message == expected


def test_slow_first_tokens_add_one_replica_and_then_wait_for_its_boot():
    world = World(boot=30)
    world.run(120, busy(3))
    slow = busy(3, ttft_p95=3.1)
    assert world.run(10, slow) == 1
    assert world.run(30, slow) == 2
    assert world.moves() == [(1, 2, "LatencyAboveObjective")]
    assert "ttft p95 3.1 s > 2 s" in world.decisions[-1].message
    assert world.run(90, slow) == 2, "its boot, and the minute that the percentile looks back"
    assert world.run(60, slow) == 3, "still slow with both: another, one for each request"
    assert world.run(600, slow) == 3, "each request has a replica: more cannot help"


@pytest.mark.parametrize("signal", ["ttft_p95", "itl_p95", "queue_wait_p95"])
def test_each_objective_counts(signal):
    world = World()
    world.run(120, busy(3))
    world.run(30, busy(3, **{signal: 2.5}))
    assert world.moves() == [(1, 2, "LatencyAboveObjective")]


def test_a_missed_objective_is_never_called_kept():
    """Also while a window has yet to pass before the count changes."""
    world = World()
    world.run(120, busy(3))
    world.tick(busy(6, queue_wait_p95=3.0))
    assert (world.count, world.reason) == (1, "LatencyAboveObjective")


def test_a_tenth_above_the_objective_is_noise():
    world = World()
    world.run(300, busy(3, ttft_p95=2.19))
    assert world.moves() == []


def test_pods_that_never_start_are_not_added_to():
    """A growing queue while nothing becomes ready: the count follows the need, not the queue."""
    world = World(boot=10_000)
    world.started = []
    for step in range(60):
        signals = busy(4, rate=2.0, queued=5.0 * step, queue_wait_p95=5.0 * step)
        world.tick(signals)
    assert world.count <= 3, "4 requests at a time need 2 replicas; the backlog adds one"
    world = World(replicas=1, boot=10_000)
    world.started = []
    for step in range(60):
        world.tick(replace(busy(0, rate=2.0, queued=5.0 * step), residence=Missing.NO_DATA))
    assert world.count == 1, "nobody knows how long a request takes: no more on a queue alone"


def test_a_step_is_followed_in_bounded_steps():
    world = World(max_replicas=100)
    world.run(60, busy(2))
    world.run(15, busy(200))
    counts = [d.replicas_to for d in world.decisions if d.replicas_from != d.replicas_to]
    world.run(60, busy(200))
    counts = [d.replicas_to for d in world.decisions if d.replicas_from != d.replicas_to]
    assert counts == [5, 10, 20, 40, 63]


def test_falling_load_gives_replicas_back_after_the_window():
    world = World(replicas=4)
    world.run(300, busy(12))
    assert world.count == 4
    assert world.run(295, busy(2)) == 4
    assert world.run(10, busy(2)) == 1
    assert world.moves() == [(4, 1, "LoadBelowCapacity")]


def test_a_load_that_stopped_is_not_remembered_for_the_minute_of_the_rates():
    world = World(replicas=4)
    world.run(300, busy(12, rate=3.0), told(12.0, arrivals_rate=3.0))
    fading = replace(busy(0, rate=3.0), residence=4.0)
    assert world.run(300, fading, told()) == 4
    assert world.run(10, fading, told()) == 1


def test_a_fast_provider_does_not_hide_the_need():
    """What spilled is answered in no time: in the system is less than local replicas would have."""
    world = World(replicas=2)
    signals = replace(busy(8, rate=5.0), residence=4.0)
    world.run(15, signals, told(8.0, arrivals_rate=5.0))
    assert world.moves() == [(2, 6, "LoadAboveCapacity")], "5 a second take 4 s each"


def test_a_dip_in_the_window_costs_nothing():
    world = World(replicas=4)
    for _ in range(10):
        world.run(200, busy(2))
        world.run(20, busy(12))
    assert world.moves() == []


def test_load_between_the_two_thresholds_changes_nothing():
    world = World(replicas=2)
    world.run(1200, busy(3))  # one replica would be used to 75 %
    assert world.moves() == []


def test_nothing_falls_for_one_window_after_a_start():
    world = World(replicas=6)
    assert world.run(295, busy(1)) == 6
    assert world.run(10, busy(1)) == 1


def test_a_full_cluster_keeps_one_probe_and_drops_it_when_it_is_not_wanted():
    world = World(replicas=2, room=2)
    world.run(60, busy(6))
    world.run(60, busy(16))
    assert world.count == 3
    assert world.reason == "ClusterFullProbe"
    assert world.run(600, busy(16)) == 3
    assert world.run(15, busy(6)) == 2, "the probe goes long before the down window ends"
    assert world.reason == "LoadBelowCapacity"
    assert world.run(60, busy(6)) == 2, "and does not come back"


def test_capacity_that_comes_back_is_used():
    world = World(replicas=2, room=2)
    world.run(120, busy(16))
    assert world.count == 3
    world.room = 8
    assert world.run(60, busy(16)) == 5


def test_capacity_that_flaps_every_ten_seconds_moves_the_count_once():
    """Row 30 of the faults: ten minutes of room that comes and goes."""
    world = World(replicas=2, room=2)
    world.run(400, busy(6))
    for step in range(60):
        world.room = 2 if step % 2 else 5
        world.run(10, busy(16))
    assert len(world.moves()) <= 2, world.moves()
    world.room = 5
    assert world.run(60, busy(16)) == 5, "room that stays is used"


def test_a_count_that_waits_after_a_full_moment_says_so():
    world = World(replicas=2, room=2)
    world.run(60, busy(16))
    world.room = 8
    world.run(10, busy(16))
    assert (world.count, world.reason) == (3, "ClusterFullProbe")
    assert "was full a moment ago" in world.decisions[-1].message


def starving(seconds: float, rate: float, residence: float, ready: int, slots: int = 4):
    """Signals of ready replicas that are all busy while the queue grows, after so long."""
    working = min(ready * slots, rate * residence)
    queued = max(0.0, rate - working / residence) * seconds
    wait = queued / rate
    signals = busy(working, rate=rate, queued=queued, queue_wait_p95=wait, ttft_p95=wait)
    return replace(signals, residence=residence)


@pytest.mark.parametrize(("rate", "need"), [(2.0, 3), (4.0, 5), (10.0, 13)])
def test_replicas_that_never_get_ready_are_not_multiplied(rate, need):
    """Row 29 of the faults: for five minutes at most one replica more than the load needs."""
    world = World(replicas=1, max_replicas=100, boot=10_000)
    for step in range(60):  # five minutes
        world.tick(starving(step * 5.0, rate, residence=4.0, ready=1))
    assert need <= max(d.replicas_to for d in world.decisions) <= need + 1


def test_a_load_that_swings_holds_its_highest_need():
    world = World(replicas=1)
    for step in range(60):
        world.run(10, busy(12 if step % 4 < 2 else 1))
    assert world.count == 4
    assert len(world.moves()) == 1


def test_the_count_is_kept_for_a_window_after_prometheus_came_back():
    """What was called for while nothing might fall counts as the count that was held."""
    world = World(replicas=4)
    world.run(400, busy(12))
    world.run(900, NOTHING, told(1.0))
    assert world.run(290, busy(1), told(1.0)) == 4
    assert world.run(20, busy(1), told(1.0)) == 1
    world = World(replicas=4)
    world.run(400, busy(12))
    world.run(900, NOTHING)
    assert world.run(290, busy(1)) == 4
    assert world.run(20, busy(1)) == 1


def test_replicas_that_wait_for_the_room_of_terminating_ones_are_kept():
    """A rolling update on a full cluster takes nothing from the count."""
    world = World(replicas=2)
    world.run(400, busy(6))
    pods = replace(world.pods(), placed=0, ready=0, unplaceable=2, terminating=2)
    world.pods = lambda: pods  # type: ignore[method-assign]
    assert world.run(60, busy(6)) == 2


def test_prometheus_away_holds_and_the_gateways_may_raise():
    world = World(replicas=3)
    world.run(400, busy(8))
    assert world.run(900, NOTHING, told(1.0)) == 3
    assert world.reason == "HoldingNoData"
    assert world.run(30, NOTHING, told(12.0, arrivals_rate=1.0)) == 4


def test_both_away_holds_whatever_that_is():
    world = World(replicas=3)
    assert world.run(900, NOTHING) == 3
    assert world.reason == "HoldingNoData"
    assert World(replicas=0, min_replicas=0).run(900, NOTHING) == 0


def test_idle_goes_to_zero_after_its_time_and_not_before():
    world = World(replicas=2, min_replicas=0)
    world.run(60, busy(1))
    assert world.run(595, CALM, told()) == 1, "the down window gave one back"
    assert world.run(10, CALM, told()) == 0
    assert world.moves()[-1] == (1, 0, "Idle")


def test_advice_to_start_lasts_as_long_as_a_replica_would_idle():
    """Whoever sets the count may look every half a minute only, as KEDA does."""
    world = World(replicas=0, min_replicas=0, set_count=0)
    world.pods = lambda: Replicas(0)
    assert world.tick(CALM, told(arrivals_rate=0.1)) == 1
    assert world.run(590, CALM, told()) == 1
    assert world.run(20, CALM, told()) == 0


def test_advice_begins_at_what_is_set():
    world = World(replicas=1, set_count=5)
    world.pods = lambda: Replicas(5, 5, 5)
    assert world.run(400, busy(14.0)) == 5, "between the thresholds"
    assert world.run(400, busy(8.0)) == 3
    assert world.decisions[-1].replicas_from == 5
    assert world.decisions[-1].message.endswith("replicas advised: 3; mode is Manual, 5 set")


def test_idle_time_is_not_counted_while_nobody_looks():
    world = World(replicas=1, min_replicas=0)
    world.run(60, busy(1))
    world.run(580, CALM)
    world.run(60, NOTHING)
    assert world.run(590, CALM) == 1
    assert world.run(30, CALM) == 0


def test_one_request_in_an_hour_is_seen():
    """Between two looks a request came and went: the gateways' counter tells."""
    world = World(replicas=1, min_replicas=0)
    world.run(500, CALM, told())
    world.tick(CALM, told(arrivals_rate=0.1))
    assert world.run(590, CALM, told()) == 1


def test_not_a_number_is_not_a_breach_and_keeps_nothing_up():
    """The p95 of no requests is NaN: it must neither raise a count nor keep it."""
    nan = replace(CALM, ttft_p95=Missing.NOT_A_NUMBER, itl_p95=Missing.NOT_A_NUMBER)
    world = World(replicas=3, min_replicas=0)
    assert world.run(700, nan, told()) == 0
    assert [m[:2] for m in world.moves()] == [(3, 1), (1, 0)]


def test_no_data_for_one_service_is_not_zero():
    """Prometheus answers, but does not know the service (not scraped): the count is held."""
    world = World(replicas=3, min_replicas=0)
    assert world.run(3600, Signals()) == 3


def test_a_missing_gateway_makes_the_counts_lower_bounds():
    world = World(replicas=1, min_replicas=0)
    part = replace(told(), complete=False)
    assert world.run(3600, NOTHING, part) == 1, "the silent gateway may have requests"


def test_idle_time_is_not_counted_while_a_gateway_is_silent():
    world = World(replicas=1, min_replicas=0)
    world.run(900, NOTHING, replace(told(), complete=False))
    assert world.run(590, CALM, told()) == 1
    assert world.run(15, CALM, told()) == 0


def test_the_limits_of_the_user_win_at_once():
    world = World(replicas=2)
    world.run(60, busy(6))
    world.rules = replace(world.rules, min_replicas=4)
    assert world.tick(busy(6)) == 4
    assert world.reason == "MinReplicas"
    world.rules = replace(world.rules, min_replicas=1, max_replicas=1)
    assert world.tick(busy(6)) == 1
    assert world.reason == "MaxReplicas"


def test_spilled_work_counts_as_load():
    world = World(replicas=2)
    world.run(60, busy(6))
    world.run(30, busy(6, spilled_in_flight=6.0))
    assert world.moves() == [(2, 4, "LoadAboveCapacity")]


def test_the_engines_speak_when_no_gateway_does():
    engines = Signals(engine_running=8.0, engine_waiting=2.0)
    assert World(replicas=2).run(30, engines) == 4


@pytest.mark.parametrize(
    ("value", "text"), [(0.1312, "130 ms"), (0.0004, "0.4 ms"), (1.0, "1 s"), (123.4, "120 s")]
)
def test_times_in_messages_have_two_digits(value, text):
    assert seconds(value) == text


def test_the_state_survives_json():
    world = World(replicas=3)
    world.run(60, busy(20))
    raw = json.loads(json.dumps(world.state.to_dict()))
    assert PolicyState.from_dict(raw) == world.state


def test_the_history_stays_short():
    world = World(replicas=10, down_window=36_000)
    for step in range(2000):
        world.tick(busy(float(step * 7919 % 40)))
    assert len(world.state.history) < 20


def test_a_latency_that_wavers_does_not_fill_the_record():
    """Its two reasons are told once in ten minutes, and the last move stays in sight."""
    world = World()
    world.run(120, busy(3))
    world.run(30, busy(3, ttft_p95=3.0))
    for _ in range(60):
        world.run(20, busy(3, ttft_p95=1.0))
        world.run(10, busy(3, ttft_p95=2.3))
    told: deque[Decision] = deque(maxlen=10)
    for decision in world.decisions:
        if decision.is_news(told):
            told.appendleft(decision)
    assert len(told) < 10
    assert [(d.replicas_from, d.replicas_to) for d in told].count((1, 2)) == 1
    assert {d.reason for d in told} == {"WithinObjective", "LatencyAboveObjective"}


@pytest.mark.parametrize(
    ("told", "news"),
    [
        ([], True),
        ([(0, 2, "Idle")], True),
        ([(0, 2, "Load")], False),
        ([(-9999, 2, "Load")], False),
        ([(-9999, 2, "Idle"), (-9999, 2, "Load")], True),
        ([(-10, 2, "Idle"), (-20, 2, "Load")], False),
        ([(-10, 1, "Idle"), (-20, 2, "Load")], True),
    ],
)
def test_another_count_or_reason_is_news_unless_it_just_was(told, news):
    before = [Decision(1000.0 + t, n, n, reason, "", {}) for t, n, reason in told]
    assert Decision(1000.0, 2, 2, "Load", "", {}).is_news(before) is news


def swing(world: World, load: float, seconds: float) -> None:
    """A service that is late with more than two requests per replica, and spills when full."""
    looks: deque[float] = deque(maxlen=12)  # the minute that a percentile looks back
    for _ in range(int(seconds / 5)):
        pods = world.pods()
        looks.append(1.0 if pods.unplaceable or load <= 2 * pods.ready else 2.6)
        world.tick(busy(load, rate=load / 2, ttft_p95=max(looks)))


@pytest.mark.parametrize(("room", "load", "count"), [(100, 2.4, 2), (2, 6.0, 3)])
def test_a_count_that_missed_the_objective_is_not_tried_again_at_once(room, load, count):
    """The relief that a replica or a full cluster's spill brings is no reason to take it away."""
    world = World(room=room)
    world.run(100, busy(1))
    swing(world, load, 1700)
    assert world.count == count
    assert len(world.moves()) == count - 1, world.moves()
    assert f"; {count - 1} were too few" in world.decisions[-1].message
    world.run(400, busy(1))
    assert world.count == 1, "less load does not need it"
    assert PolicyState.from_dict(json.loads(json.dumps(world.state.to_dict()))) == world.state


def test_full_kv_caches_add_a_replica_where_requests_wait():
    """Long prompts: slots and latency look well, but the engine lets requests wait for room."""
    world = World(boot=30)
    world.run(120, busy(3))
    full = busy(3, kv_usage=0.95, engine_waiting=2.0)
    assert world.run(10, full) == 1, "the up window"
    assert world.run(30, full) == 2
    assert world.moves() == [(1, 2, "KVCacheFull")]
    assert "KV cache 95% used and 2 requests wait" in world.decisions[-1].message
    assert world.decisions[-1].inputs["kv_usage"] == 0.95
    assert world.run(60, full) == 2, "its boot, and time to have an effect"
    assert world.run(120, full) == 3
    assert world.run(900, full) == 3, "a replica for each request: more cannot help"
    assert world.run(600, busy(3, kv_usage=0.4)) == 3, "so few were too few under such a load"
    assert world.run(600, busy(1, kv_usage=0.1)) == 1


@pytest.mark.parametrize(
    "signals",
    [
        {"kv_usage": 0.95, "engine_waiting": 0.0},
        {"kv_usage": 0.9, "engine_waiting": 2.0},
        {"kv_usage": Missing.NO_DATA, "engine_waiting": 2.0},
        {"kv_usage": Missing.NOT_A_NUMBER, "engine_waiting": 2.0},
        {"kv_usage": 0.0, "engine_waiting": 2.0},
        {"kv_usage": 0.95, "engine_waiting": Missing.NO_DATA},
    ],
)
def test_nothing_is_added_for_a_cache_that_holds_nobody_up(signals):
    world = World()
    world.run(300, replace(busy(3), **signals))
    assert world.moves() == []


def test_a_cache_that_is_full_for_a_moment_adds_nothing():
    world = World()
    world.run(120, busy(3))
    for _ in range(20):
        world.run(5, busy(3, kv_usage=0.95, engine_waiting=2.0))
        world.run(15, busy(3, kv_usage=0.5))
    assert world.moves() == []


def test_a_missed_objective_is_forgotten_after_half_an_hour():
    world = World()
    world.run(100, busy(2.4))
    world.run(30, busy(2.4, ttft_p95=3.0))
    assert world.count == 2
    assert world.run(1750, busy(2.4, ttft_p95=1.0)) == 2
    assert world.run(360, busy(2.4, ttft_p95=1.0)) == 1


def test_a_quiet_service_blames_no_latency():
    world = World()
    world.run(300, CALM, told())
    assert world.decisions[-1].message.startswith("0 requests at a time, 4 slots per replica: ")
