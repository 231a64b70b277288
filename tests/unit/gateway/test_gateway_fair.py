"""Fairness between keys, and a Retry-After that is true: the queue on a virtual clock."""

import itertools
import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_world import Clients, key

from overspill.api.keys import ClientKey
from overspill.gateway.balance import Replica
from overspill.gateway.fair import FairQueue

SECONDS = 200.0


def poisson(rate: float, rng: random.Random, end: float = SECONDS) -> list[float]:
    times, now = [], 0.0
    while (now := now + rng.expovariate(rate)) < end:
        times.append(now)
    return times


def exponential(mean: float, rng: random.Random) -> Iterator[float]:
    while True:
        yield rng.expovariate(1 / mean)


def p95(waits: list[float]) -> float:
    return sorted(waits)[int(len(waits) * 0.95)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("slots", "even", "keys", "load"),
    [(8, False, 1, 0.25), (16, False, 4, 0.5), (1, True, 1, 0.2)],
)
def test_a_flood_costs_a_quiet_key_at_most_one_mean_service_time(
    seed: int, slots: int, even: bool, keys: int, load: float
) -> None:
    mean, capacity = 2.0, slots / 2.0
    share = capacity / (keys + 1)
    times = [(key(f"quiet{n}"), load * share) for n in range(keys)]
    waits, end = [], 150 / (load * share)
    for flood in (0.0, 10 * share):
        rng = random.Random(seed)
        world = Clients(slots)
        for whose, rate in [*times, (key("flood"), flood)]:
            lengths = itertools.repeat(mean) if even else exponential(mean, rng)
            world.add(whose, poisson(rate, rng, end) if rate else (), lengths)
        world.run()
        waits.append(p95([c.wait for c in world.clients if c.key.id == "quiet0"]))
    assert waits[1] <= waits[0] + mean


def served(world: Clients, whose: ClientKey) -> float:
    return sum(c.seconds for c in world.clients if c.key == whose and c.ended is not None)


@pytest.mark.parametrize(
    ("heavy", "lengths"), [(1, (2.0, 2.0)), (3, (2.0, 2.0)), (1, (8.0, 1.0)), (2, (1.0, 4.0))]
)
def test_keys_that_always_wait_get_slot_time_by_weight(
    heavy: int, lengths: tuple[float, float]
) -> None:
    rng = random.Random(1)
    world = Clients(slots=8)
    keys = key("heavy", weight=heavy), key("light")
    for whose, mean in zip(keys, lengths, strict=True):
        world.add(whose, poisson(16 / mean, rng), exponential(mean, rng))
    world.run(until=SECONDS)
    assert served(world, keys[0]) / served(world, keys[1]) == pytest.approx(heavy, rel=0.1)


def test_a_higher_priority_waits_for_slots_only() -> None:
    rng = random.Random(2)
    world = Clients(slots=8)
    urgent, other = key("urgent", priority=1), key("other", weight=100)
    world.add(urgent, poisson(2, rng), exponential(1.0, rng))
    world.add(other, poisson(16, rng), exponential(1.0, rng))
    world.run()
    assert p95([c.wait for c in world.clients if c.key == urgent]) < 1.0
    assert all(c.started is not None for c in world.clients)


LOADS = [
    # what, requests/s by key over 8 requests/s of capacity, for how long
    ("a burst", {"a": (400.0, 1.0)}),
    ("bursts of many keys", {f"k{n}": (50.0, 1.0) for n in range(8)}),
    ("a burst over steady load", {"a": (200.0, 1.0), "b": (4.0, 300.0)}),
    ("overload for a minute", {"a": (8.0, 60.0), "b": (3.0, 60.0)}),
    ("three times the capacity", {"a": (12.0, 15.0), "b": (12.0, 15.0)}),
]


@pytest.mark.parametrize(("what", "loads"), LOADS, ids=[load[0] for load in LOADS])
def test_who_waits_as_long_as_told_gets_in(
    what: str, loads: dict[str, tuple[float, float]]
) -> None:
    rng = random.Random(3)
    world = Clients(slots=8, limit=100)
    for name, (rate, seconds) in loads.items():
        world.add(key(name), poisson(rate, rng, end=seconds), exponential(1.0, rng))
    world.run()
    turned_away = [c for c in world.clients if c.refused]
    assert len(turned_away) > 50
    assert sum(c.started is not None for c in turned_away) >= 0.9 * len(turned_away)


class Place:
    avoid = None

    def __init__(self, whose: ClientKey) -> None:
        self.key = whose


def test_a_second_turn_is_paid_for_as_the_first_was() -> None:
    """Else who is refused at once by two replicas would be owed what it never used."""
    queue, (a, b) = FairQueue(cost=1.0), (key("a"), key("b"))
    first, *later = [Place(whose) for whose in (a, a, a, b, b)]
    for place in (first, *later):
        queue.add(place)  # type: ignore[arg-type]
    again = Place(a)
    replica = Replica(("10.0.0.1", 8000), 1)
    assert queue.pop([replica]) is first
    queue.charge(a, 0.0 - 1.0)
    queue.add(again, first=True)  # type: ignore[arg-type]
    assert queue.pop([replica]) is again
    queue.charge(a, 0.0 - 1.0)
    assert [queue.pop([replica]).key for _ in range(3)] == [a, b, a]


KEYS = [key("a"), key("b", weight=2), key("c", weight=4), key("d", priority=1)]
steps = st.lists(st.one_of(st.sampled_from(KEYS), st.just(None)), max_size=60)


@given(steps)
def test_the_place_in_the_queue_is_the_number_of_those_who_are_served_before(
    taken: list[ClientKey | None],
) -> None:
    queue = FairQueue(cost=1.0)
    for step in taken:
        if step is not None:
            queue.add(Place(step))  # type: ignore[arg-type]
        elif queue:
            queue.pop([])
    places = {id(waiter): queue.ahead(waiter) for waiter in queue}
    last = queue.last()
    order = [queue.pop([]) for _ in range(len(queue))]
    assert [places[id(waiter)] for waiter in order] == list(range(len(order)))
    assert last is (order[-1] if order else None)
    with pytest.raises(IndexError):
        queue.pop([])


@given(steps, st.sampled_from(KEYS))
def test_a_newcomer_is_told_its_place(taken: list[ClientKey | None], whose: ClientKey) -> None:
    queue = FairQueue(cost=1.0)
    for step in taken:
        if step is not None:
            queue.add(Place(step))  # type: ignore[arg-type]
        elif queue:
            queue.pop([])
    expected, last = queue.ahead_of_next(whose), queue.last()
    is_last = not (last and queue.comes_before(whose, last))
    newcomer = Place(whose)
    queue.add(newcomer)  # type: ignore[arg-type]
    assert queue.ahead(newcomer) == expected  # type: ignore[arg-type]
    assert is_last or queue.last() is not newcomer
