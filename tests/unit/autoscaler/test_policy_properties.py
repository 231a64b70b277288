"""What holds for the policy whatever it sees."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from scaling_world import RULES

from overspill.autoscaler.economics import Costs
from overspill.autoscaler.policy import PolicyState, decide
from overspill.autoscaler.signals import Demand, Replicas, Rules, Signals
from overspill.prometheus.samples import Missing

AMOUNTS = (0.0, 0.01, 0.1, 0.3, 0.9, 1.0, 2.0, 2.4, 3.2, 4.0, 7.0, 16.0, 45.5, 130.0, 500.0)
COSTS = st.builds(
    Costs,
    replica_hour=st.sampled_from([1e-9, 0.8, 500.0]),
    request=st.sampled_from([0.0, 1e-9, 1e-4, 0.01, 100.0]),
    boot=st.floats(0, 600),
)
amounts = st.sampled_from(AMOUNTS)
values = st.sampled_from((*AMOUNTS, *Missing))
signals = st.builds(Signals, **dict.fromkeys(Signals.__dataclass_fields__, values))
demands = st.none() | st.builds(
    Demand,
    arrivals_rate=amounts,
    in_flight=amounts,
    spilled_in_flight=amounts,
    queued=amounts,
    held=amounts,
    wait_p95=st.none() | amounts,
    complete=st.booleans(),
)
pods = st.integers(0, 30)
replicas = st.builds(
    Replicas,
    placed=pods,
    ready=pods,
    unplaceable=st.integers(0, 5),
    terminating=pods,
)


@st.composite
def rules(draw: st.DrawFn) -> Rules:
    low = draw(st.integers(0, 5))
    high = draw(st.integers(max(low, 1), 40))
    slots = draw(st.integers(1, 64))
    idle = draw(st.sampled_from([10.0, 600.0]))
    costs = draw(st.none() | COSTS)
    by_hand = draw(st.none() | st.integers(low, high))
    return replace(
        RULES,
        min_replicas=low,
        max_replicas=high,
        slots=slots,
        idle_after=idle,
        costs=costs,
        set_count=by_hand,
    )


looks = st.lists(st.tuples(st.floats(0, 400), replicas, signals, demands), min_size=1, max_size=8)


def play(rules, start, looks):
    """Yield (state before, look, decision) over a story."""
    now, state = 1_000_000.0, PolicyState.start(1_000_000.0, start, 0)
    for seconds, pods, seen, live in looks:
        now += seconds
        before = state
        decision, state = decide(now, state, rules, pods, seen, live)
        yield before, (now, pods, seen, live), decision


@given(rules(), pods, looks)
@settings(max_examples=200, deadline=None)
def test_the_count_stays_within_its_limits(rules, start, looks):
    for _, (_, pods, seen, _), decision in play(rules, start, looks):
        before, count = decision.replicas_from, decision.replicas_to
        assert rules.min_replicas <= count <= rules.max_replicas
        if pods.unplaceable and before:
            room = pods.placed + pods.terminating + 1
            assert count <= max(room, rules.min_replicas)
        if not seen.complete and not pods.unplaceable:
            assert count >= min(before, rules.max_replicas), "nothing falls blindly"
        step = max(before + 4, before * 2, rules.min_replicas)
        assert count <= step
        assert len(decision.message) <= 512


@given(rules(), pods, looks)
@settings(max_examples=30, deadline=None)
def test_the_same_arguments_give_the_same_answer_also_through_json(rules, start, looks):
    for before, (now, pods, seen, live), decision in play(rules, start, looks):
        again = PolicyState.from_dict(json.loads(json.dumps(before.to_dict())))
        assert decide(now, again, rules, pods, seen, live)[0] == decision
        json.dumps(decision.to_status().to_dict(), allow_nan=False)


@given(rules(), pods, looks, st.floats(0, 100))
@settings(max_examples=200, deadline=None)
def test_more_load_never_means_fewer_replicas(rules, start, looks, more):
    for before, (now, pods, seen, live), decision in play(rules, start, looks):
        if live is None:
            continue
        heavier = replace(live, in_flight=live.in_flight + more)
        count = decide(now, before, rules, pods, seen, heavier)[0].replicas_to
        assert count >= decision.replicas_to


@given(rules(), st.integers(1, 30), looks)
@settings(max_examples=30, deadline=None)
def test_the_history_is_short_and_in_order(rules, start, looks):
    rules = replace(rules, down_window=3600.0)
    for before, *_ in play(rules, start, looks):
        times = [t for t, _ in before.history]
        assert times == sorted(times)
        assert len(times) <= rules.max_replicas + len(looks) + 1
