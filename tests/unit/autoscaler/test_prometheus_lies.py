"""Prometheus is gone, empty, stale, or says anything at all: the gateways' own word still holds.

The count never falls below what the gateways say is being worked on, never to zero while there is
work, and never above its maximum; and no number, however absurd, keeps a decision from being made.
"""

import math
from dataclasses import fields, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from scaling_world import RULES, World, told

from overspill.autoscaler.signals import Demand, Signals
from overspill.prometheus.samples import Missing, parse

KEY = "team-a/chat"
LABELS = {"service_namespace": "team-a", "service_name": "chat"}
WORDS = ["NaN", "+Inf", "-Inf", "0", "-1", "1e-300", "0.5", "3", "7", "1e6", "1e300", "-1e300"]
texts = st.none() | st.sampled_from(WORDS)
QUICK = settings(max_examples=40, deadline=None)


def read(answers: dict[str, str | None]) -> Signals:
    """Signals as we read them from Prometheus' answers."""
    vectors = {
        name: parse([{"metric": LABELS, "value": [0, text]}]) if text else {}
        for name, text in answers.items()
    }
    return Signals.of(KEY, vectors)


@st.composite
def lies(draw: st.DrawFn) -> Signals:
    """Anything that Prometheus can answer."""
    return read({f.name: draw(texts) for f in fields(Signals)})


ABSURD = read({f.name: "1e300" for f in fields(Signals)})


@st.composite
def truths(draw: st.DrawFn) -> Demand:
    """What complete gateways say of a service that is at work."""
    load = draw(st.integers(1, 60))
    return told(float(load), arrivals_rate=draw(st.sampled_from([0.1, 1.0, 20.0])))


def needed(truth: Demand) -> int:
    """Replicas that the work needs, all of their slots in use."""
    return min(RULES.max_replicas, math.ceil(truth.in_flight / RULES.slots))


looks = st.lists(st.tuples(lies(), st.integers(1, 70)), min_size=1, max_size=3)


@given(start=st.integers(1, 10), truth=truths(), looks=looks)
@QUICK
def test_work_that_the_gateways_see_is_served_whatever_prometheus_says(
    start: int, truth: Demand, looks: list[tuple[Signals, int]]
) -> None:
    world = World(replicas=start, min_replicas=0)
    for signals, ticks in looks:
        before = world.count
        world.run(5 * ticks, signals, truth)
        counts = [d.replicas_to for d in world.decisions[-ticks:]]
        assert min(counts) >= max(1, min(before, needed(truth)))
        assert max(counts) <= RULES.max_replicas


@given(start=st.integers(1, 10), truth=truths(), lie=lies())
@QUICK
def test_a_load_that_grows_is_followed_whatever_prometheus_says(
    start: int, truth: Demand, lie: Signals
) -> None:
    world = World(replicas=start)
    world.run(300, lie, truth)
    assert world.count >= needed(truth)


@given(start=st.integers(0, 10), looks=looks)
@example(start=5, looks=[(ABSURD, 2)])
@QUICK
def test_without_the_gateways_any_number_still_leads_to_a_decision(
    start: int, looks: list[tuple[Signals, int]]
) -> None:
    world = World(replicas=start, min_replicas=0)
    for signals, ticks in looks:
        world.run(5 * ticks, signals)
    assert 0 <= world.count <= RULES.max_replicas


@given(start=st.integers(1, 10), lie=lies())
@QUICK
def test_a_prometheus_that_sees_no_gateway_takes_nothing_away(start: int, lie: Signals) -> None:
    silent = replace(lie, gateways=Missing.NO_DATA)
    assert World(replicas=start, min_replicas=0).run(800, silent) >= start
