"""Every request: none is lost, boots and bills, spill by the rule, a queue known from theory."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from overspill.simulator.arrivals import arrivals
from overspill.simulator.discrete import Outcome, Provider, View, World, simulate
from overspill.simulator.engine import Engine, LatencyModel
from overspill.simulator.parameters import load
from overspill.simulator.scalers import CONTENDERS, Terms
from overspill.simulator.sizing import capacity, engine_for, initial_replicas, provider_for
from overspill.simulator.traces import Request, Trace, Window

GPU = load("gpu").model
FLAT = LatencyModel(alpha=0.1, beta=0.0, gamma=0.0)  # an answer of one token takes 100 ms
CLOUD = Provider(input_price=1e-6, output_price=1e-5)


class Script:
    """Wants what it is told, look by look, then the last for ever."""

    def __init__(self, *targets: int, interval: float = 10.0) -> None:
        self.targets, self.interval = list(targets), interval
        self.views: list[View] = []

    def target(self, view: View) -> int:
        self.views.append(view)
        return self.targets[min(len(self.views), len(self.targets)) - 1]


def world(model: LatencyModel = FLAT, slots: int = 1, provider: Provider | None = CLOUD) -> World:
    return World(Engine(model, slots, 1e9), provider)


def poisson(rate: float, count: int, answer: int = 1, seed: int = 0) -> list[Request]:
    generator, time, requests = random.Random(seed), 0.0, []
    for _ in range(count):
        time += generator.expovariate(rate)
        requests.append(Request(time, 1, answer))
    return requests


def test_a_queue_waits_as_theory_says() -> None:
    """M/D/1 by Pollaczek and Khinchine: a mean wait of ρ s / 2 (1 − ρ)."""
    patient = replace(world(provider=None), hold=1e6, queue_limit=10**6)
    done = simulate(patient, Script(1), poisson(7.0, 20_000), 1)
    assert sum(done.ttfts) / len(done.ttfts) == pytest.approx(0.1 + 0.7 * 0.1 / 0.6, rel=0.05)
    assert (done.spilled, done.refused) == (0, 0)


@settings(max_examples=8, deadline=None)
@given(
    rate=st.floats(1, 60),
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    cloud=st.booleans(),
    seed=st.integers(0, 9),
)
@example(rate=50.0, counts=[0], cloud=False, seed=0)  # waits that end in the same millisecond
def test_no_request_is_lost_or_counted_twice(
    rate: float, counts: list[int], cloud: bool, seed: int
) -> None:
    requests = poisson(rate, 800, answer=20, seed=seed)
    place = replace(world(GPU, slots=3, provider=CLOUD if cloud else None), boot=20.0, hold=5.0)
    done = simulate(place, Script(*counts), requests, 1, seed)
    assert done.requests == 800 == len(done.ttfts) + done.spilled + done.refused
    assert 0 <= done.attained <= min(done.ttft_attained, done.itl_attained)
    assert done.refused == 0 or not cloud
    assert done == simulate(place, Script(*counts), requests, 1, seed)


def test_what_would_wait_too_long_spills_before_it_waits() -> None:
    """One replica, 10 requests/s and a queue of one second: the eleventh in line goes."""
    burst = [Request(100.0, 1, 1)] * 15
    done = simulate(replace(world(), queue_wait=0.95), Script(1), [Request(0, 1, 1), *burst], 1)
    assert done.spilled > 0
    assert max(done.ttfts) <= 0.95 + 0.1 + 0.11
    assert done.cloud_cost == pytest.approx(done.spilled * 1.1e-5)


def test_limits_of_the_provider_hold() -> None:
    """Beyond them a request waits, and is refused in the end."""
    slow = Provider(0.0, 0.0, ttft=1000.0, spread=0.0, concurrency=3)
    done = simulate(replace(world(provider=slow), hold=5.0), Script(0), poisson(1.0, 200), 0)
    assert done.spilled == 3
    assert done.refused == 197
    few = replace(slow, concurrency=99, per_minute=2, ttft=0.1)
    done = simulate(replace(world(provider=few), hold=5.0), Script(0), poisson(1.0, 120), 0)
    assert done.spilled == pytest.approx(2 * 120 / 60, abs=2)


def test_replicas_are_billed_from_the_order_and_serve_after_a_boot() -> None:
    script = Script(2, 2, 2, 1)
    place = replace(world(provider=None), boot=25.0, hourly=3600.0, hold=1e9)
    done = simulate(place, script, [Request(float(t), 1, 1) for t in range(121)], 1)
    assert [(v.ready, v.pending) for v in script.views[:5]] == [
        (1, 0), (1, 1), (1, 1), (2, 0), (1, 0),
    ]  # fmt: skip
    assert done.replica_cost == pytest.approx(120 + 30)
    assert done.starts == 1


def test_pending_replicas_are_given_back_first() -> None:
    script = Script(3, 1)
    simulate(world(), script, [Request(float(t), 1, 1) for t in range(121)], 1)
    assert [(v.ready, v.pending) for v in script.views[:3]] == [(1, 0), (1, 2), (1, 0)]


def test_a_replica_drains_before_it_goes() -> None:
    long = Request(55.0, 1, 300)  # 30 s
    place = replace(world(provider=None), hourly=3600.0)
    done = simulate(place, Script(0), [long, Request(120.0, 1, 1)], 1)
    assert done.attained == 1
    assert done.replica_cost == pytest.approx(55 + 0.1 * 300, abs=0.2)


def made(trace: Trace, scale: float, seed: int = 0) -> tuple[Terms, list[Request]]:
    requests = arrivals(trace, scale, seed)
    engine = engine_for(GPU, requests, 0.1)
    rate = capacity(engine, requests)
    return Terms(World(engine, provider_for(requests, rate, 2.5, 3.0)), 3.0, rate), requests


STEPS = Trace(windows=(Window(0, 150, 8, 8), Window(150, 500, 24, 24)))


def test_a_full_replica_answers_its_capacity_at_its_price() -> None:
    terms, requests = made(Trace(windows=(Window(0, 200, 40, 40),)), 1.0)
    done = simulate(terms.world, Script(1), requests, 1)
    local = len(done.ttfts) / 200
    assert local == pytest.approx(terms.capacity, rel=0.1)
    per_request = done.cloud_cost / done.spilled
    assert per_request * terms.capacity * 3600 / 2.5 == pytest.approx(3.0, rel=0.05)
    assert done.itl_attained == done.requests
    assert initial_replicas(requests, terms.capacity) == pytest.approx(40 / terms.capacity, abs=1.3)


# SkyServe waits for 300 s before it follows, and boots for 120 s.
@pytest.mark.parametrize("name", sorted(CONTENDERS.keys() - {"skyserve"}))
def test_every_scaler_follows_a_step(name: str) -> None:
    terms, requests = made(STEPS, 1.0)
    done = _run(terms, name, requests)
    assert done.attained / done.requests > 0.95
    billed = [s.billed for s in done.samples]
    assert max(billed) <= 12
    assert name == "cloud" or max(billed) > 1
    costs = [s.cost for s in done.samples]
    assert costs == sorted(costs)


def _run(terms: Terms, name: str, requests: Sequence[Request]) -> Outcome:
    contender = CONTENDERS[name]
    scaler = contender.make(terms, contender.default)
    return simulate(terms.world, scaler, requests, initial_replicas(requests, terms.capacity))
