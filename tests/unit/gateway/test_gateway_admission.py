"""The queue: bounded, first in first out for one key, no slot lost or given twice."""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from overspill.api.keys import ClientKey
from overspill.gateway.admission import REFUSALS, Admission
from overspill.gateway.balance import SUSPECT_SECONDS, Replica, best, free
from overspill.gateway.prefix import Blocks
from overspill.gateway.promises import KEPT_SECONDS

KEY, OTHER = (ClientKey(name, "", "team-a", ("*/*",)) for name in ("ci", "other"))
FIRST = replace(OTHER, id="first", priority=1)
A, B = ("10.0.0.1", 8000), ("10.0.0.2", 8000)


class Place:
    """A waiting request that writes down what it was told."""

    blocks: Blocks = ()

    def __init__(self, key: ClientKey = KEY, avoid: Replica | None = None) -> None:
        self.key, self.avoid = key, avoid
        self.displaced = False
        self.replica: Replica | None = None
        self.rechecks = 0

    def grant(self, replica: Replica) -> None:
        self.replica = replica

    def recheck(self) -> None:
        self.rechecks += 1

    def displace(self) -> None:
        self.displaced = True


def admission(*addresses: tuple[str, int], slots: int = 1) -> Admission:
    made = Admission(limit=10)
    made.set_replicas(dict.fromkeys(addresses, slots), now=0.0)
    return made


def test_slots_are_taken_in_turn_and_those_who_wait_longest_get_them_back() -> None:
    queue = admission(A, B)
    first, second = queue.acquire(0.0), queue.acquire(0.0)
    assert first
    assert second
    assert {first.address, second.address} == {A, B}
    assert queue.acquire(0.0) is None
    early, late = Place(), Place()
    queue.enqueue(early)
    queue.enqueue(late)
    queue.release(second, 1.0, service_seconds=1.0)
    assert early.replica is second
    assert late.replica is None
    assert queue.acquire(1.0) is None, "nobody overtakes the queue"


def test_a_new_replica_serves_the_queue() -> None:
    queue = admission()
    places = [Place() for _ in range(3)]
    for place in places:
        queue.enqueue(place)
    queue.set_replicas({A: 2}, now=0.0)
    assert [p.replica is not None for p in places] == [True, True, False]


def test_who_had_a_turn_comes_first_again() -> None:
    queue = admission()
    places = [Place(), Place()]
    queue.enqueue(places[0])
    queue.enqueue(places[1], first=True)
    assert queue.waiting.ahead(places[0]) == 1
    queue.set_replicas({A: 1}, now=0.0)
    assert places[1].replica is not None
    assert queue.waiting.ahead(places[0]) == 0


def test_a_full_queue_refuses_the_last_one_not_the_next_key() -> None:
    queue = admission()
    flood = [Place() for _ in range(queue.limit)]
    for place in flood:
        queue.enqueue(place)
    assert not queue.room(KEY, 0.0)
    assert queue.room(OTHER, 0.0)
    quiet = Place(OTHER)
    queue.enqueue(quiet)
    assert [p.displaced for p in flood] == [False] * (queue.limit - 1) + [True]
    assert queue.waiting.ahead(quiet) == 1
    assert len(queue.waiting) == queue.limit


def test_a_place_is_kept_for_whom_was_promised_one() -> None:
    queue = admission()
    for _ in range(queue.limit - 1):
        queue.enqueue(Place())
    queue.promises.make(OTHER, due=5.0)
    assert queue.room(KEY, 4.9 - KEPT_SECONDS)
    assert not queue.room(KEY, 5.0)
    assert not queue.promises.redeem(OTHER, 4.9), "too early"
    assert queue.promises.redeem(OTHER, 5.0)
    assert queue.room(KEY, 5.0)
    queue.promises.make(OTHER, due=6.0)
    assert queue.room(KEY, 6.0 + KEPT_SECONDS), "nobody waits for those who do not come"
    assert not queue.promises


def test_a_suspect_is_left_out_for_a_moment() -> None:
    queue = admission(A)
    replica = queue.acquire(0.0)
    assert replica
    queue.suspect(replica, 0.0)
    waiting = Place()
    queue.enqueue(waiting)
    queue.release(replica, 0.0)
    assert waiting.replica is None
    assert queue.slots(0.5) == (0, 0)
    queue.grant_free(SUSPECT_SECONDS + 0.01)
    assert waiting.replica is replica


def test_who_was_refused_by_a_replica_waits_for_another_and_lets_others_have_it() -> None:
    queue = admission(A, B)
    sick, other = queue.acquire(0.0), queue.acquire(0.0)
    assert sick
    assert other
    refused, next_one = Place(avoid=sick), Place()
    queue.enqueue(refused, first=True)
    queue.enqueue(next_one)
    queue.release(sick, 1.0)
    assert (refused.replica, next_one.replica) == (None, sick)
    queue.release(other, 1.0)
    assert refused.replica is other


def test_one_that_refuses_several_in_a_row_is_left_out_unless_it_is_the_only_one() -> None:
    queue = admission(A, B)
    sick, other = queue.replicas.values()
    assert [queue.has_refused(sick, 0.0) for _ in range(REFUSALS)] == [False, False, True]
    assert queue.slots(0.0) == (1, 1)
    assert not any(queue.has_refused(other, 0.0) for _ in range(2 * REFUSALS))
    assert queue.has_refused(sick, SUSPECT_SECONDS), "it has answered nothing since"


def test_a_replica_that_left_still_takes_its_slots_back() -> None:
    queue = admission(A)
    replica = queue.acquire(0.0)
    assert replica
    queue.set_replicas({B: 1}, now=0.0)
    queue.release(replica, 0.0)
    assert queue.slots(0.0) == (1, 1)


def test_a_replica_that_comes_back_has_not_forgotten_its_work() -> None:
    queue = admission(A)
    replica = queue.acquire(0.0)
    assert replica
    queue.set_replicas({}, now=0.0)  # its readiness probe was late
    queue.set_replicas({B: 1}, now=0.0)
    queue.set_replicas({A: 1}, now=0.0)
    assert queue.acquire(0.0) is None
    queue.release(replica, 0.0)
    assert queue.acquire(0.0) is replica


def test_a_replica_that_ended_its_work_elsewhere_is_forgotten() -> None:
    queue = admission(A)
    replica = queue.acquire(0.0)
    assert replica
    queue.set_replicas({}, now=0.0)
    queue.release(replica, 0.0)
    queue.set_replicas({A: 1}, now=0.0)
    assert queue.acquire(0.0) is not replica


def test_mean_service_time_follows_the_requests() -> None:
    queue = admission(A)
    means, now = [], 0.0
    for seconds in [8.0, 4.0, 6.0] + [3.0] * 300:
        replica = queue.acquire(now)
        assert replica
        now += seconds
        queue.release(replica, now, service_seconds=seconds)
        means.append(queue.mean_service_seconds)
    assert 4.0 < means[2] < 8.0
    assert abs(means[-1] - 3.0) < 0.01


def test_long_requests_count_before_they_end() -> None:
    queue = admission(A, slots=8)
    running = [queue.acquire(0.0) for _ in range(8)]
    assert running[0]
    queue.release(running[0], 2.0, service_seconds=2.0)
    assert queue.mean_service_seconds > 8.0, "eight slots worked for two seconds, and one ended"


def test_least_load_wins_over_turn() -> None:
    busy, idle = Replica(A, 4, load=2, used=1), Replica(B, 4, load=1, used=9)
    assert best(free([busy, idle], 0.0)) is idle
    assert free([], 0.0) == []


class Queue(RuleBasedStateMachine):
    """Any order of arrivals, ends, leavings and changed replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = admission(A, slots=2)
        self.queue.limit = 4
        self.running: list[Replica] = []
        self.waiting: list[Place] = []

    @rule(key=st.sampled_from([KEY, OTHER, FIRST]))
    def arrive(self, key: ClientKey) -> None:
        replica = self.queue.acquire(0.0)
        if replica:
            self.running.append(replica)
        elif self.queue.room(key, 0.0):
            place = Place(key)
            self.queue.enqueue(place)
            self.waiting.append(place)

    @rule(index=st.integers(0, 5))
    def end(self, index: int) -> None:
        if self.running:
            self.queue.release(self.running.pop(index % len(self.running)), 0.0, 1.0)

    @rule(index=st.integers(0, 5))
    def leave(self, index: int) -> None:
        if self.waiting:
            self.queue.leave(self.waiting.pop(index % len(self.waiting)))

    @rule(addresses=st.sets(st.sampled_from([A, B])), slots=st.integers(1, 3))
    def change(self, addresses: set[tuple[str, int]], slots: int) -> None:
        self.queue.set_replicas(dict.fromkeys(addresses, slots), 0.0)

    @invariant()
    def granted_are_running(self) -> None:
        for key in (KEY, OTHER, FIRST):
            granted = [p.replica is not None for p in self.waiting if p.key is key]
            assert granted == sorted(granted, reverse=True), "first in, first out"
        self.running += [p.replica for p in self.waiting if p.replica]
        assert not any(p.replica and p.displaced for p in self.waiting)
        self.waiting = [p for p in self.waiting if not p.replica and not p.displaced]
        assert len(self.waiting) == len(self.queue.waiting) <= self.queue.limit
        for replica in self.queue.replicas.values():
            assert replica.load == sum(r is replica for r in self.running)
        if self.waiting:
            assert all(r.load >= r.slots for r in self.queue.replicas.values())


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=50, stateful_step_count=40)
