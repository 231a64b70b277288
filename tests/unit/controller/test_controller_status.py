"""When a status is written, and which events it calls for."""

from typing import Any

import pytest
import world
from hypothesis import given
from hypothesis import strategies as st

from overspill.api.status import CostStatus, DecisionStatus, InferenceServiceStatus, TrafficStatus
from overspill.autoscaler.health import judge
from overspill.autoscaler.readings import Outage
from overspill.controller import announce, capacity, status
from overspill.controller.capacity import HOLD_SECONDS
from overspill.controller.decide import decide_status
from overspill.controller.facts import Pod, Scaling
from overspill.controller.reasons import Reason

NOW = 1_800_000_000.0
FULL = Pod("probe", lacks_capacity=Reason.UNSCHEDULABLE, message="1 Insufficient x")


def decision(second: int, to: int = 1, reason: str = "LoadAboveCapacity") -> DecisionStatus:
    time = f"2027-01-01T00:00:{second:02d}Z"
    return DecisionStatus(
        time=time, replicas_from=0, replicas_to=to, reason=reason, message="", inputs={}
    )


def written(
    old: Any = None, now: float = NOW, quiet: float = 1e9, **how: Any
) -> InferenceServiceStatus:
    service = world.service(status=old.to_dict() if old else None)
    facts = world.facts(service, **how)
    return decide_status(facts, capacity.judge(facts), world.SETTINGS, now, quiet)


def test_a_status_survives_its_way_through_the_api_server() -> None:
    traffic, cost = TrafficStatus(requests_per_second=1.234), CostStatus(gpu_hours=3.333)
    scaling = Scaling(1, decisions=(decision(1),), traffic=traffic, cost=cost, reason="Active")
    first = written(pods=(world.READY,), scaling=scaling)
    again = written(first, NOW + 60, pods=(world.READY,), scaling=scaling)
    assert again == first
    assert status.wait(first, again, since=1e9) is None


@pytest.mark.parametrize(
    "outage", [None, Outage(NOW - 900, "http://prometheus cannot be reached: ConnectionError")]
)
@pytest.mark.parametrize("complete", [True, False])
def test_a_restart_writes_nothing(outage: Outage | None, complete: bool) -> None:
    def told(old: Any, now: float, outage: Outage | None, complete: bool, age: float) -> Any:
        asked = complete or age > 0
        health = judge(
            outage=outage, asked=asked, complete=complete, known=False, age=age, replicas=1
        )
        scaling = Scaling(1, health.active, health.reason, health.message, health.asked)
        return written(old, now, pods=(world.READY,), scaling=scaling)

    before = told(None, NOW, outage, complete, age=3600)
    first = told(before, NOW + 1, None, False, age=0)  # nothing was asked yet
    outage = outage and Outage(NOW + 1, outage.message)
    then = told(before, NOW + 5, outage, complete, age=4)
    later = told(before, NOW + 100, outage, complete, age=99)
    assert [status.wait(before, new, since=1e9) for new in (first, then, later)] == [None] * 3


def test_a_long_message_of_somebody_else_is_cut() -> None:
    pod = Pod("probe", lacks_capacity=Reason.UNSCHEDULABLE, message="1 Insufficient x, " * 1000)
    status = written(pods=(pod,))
    assert max(len(c.message) for c in status.conditions) == 1024


def test_times_stay_while_the_status_stays() -> None:
    first = written(pods=(FULL,))
    later = written(first, NOW + 60, pods=(FULL,))
    assert later.capacity == first.capacity
    assert later.conditions == first.conditions
    healed = written(later, NOW + 90, pods=(world.READY,))
    assert healed.conditions[0].last_transition_time > first.conditions[0].last_transition_time
    assert healed.capacity is not None
    assert healed.capacity.full is False


@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_a_lack_that_comes_and_goes_is_told_once_in_a_while(lacks: list[bool]) -> None:
    """A look every 10 s: told at once, taken back when the last sign is 30 s old, not before."""
    told, last, now = None, None, 0.0
    for lack in lacks:
        last = now if lack else last
        quiet = 1e9 if last is None else now - last
        told = written(told, NOW + now, quiet, pods=(FULL if lack else world.READY,))
        wanted = quiet < HOLD_SECONDS
        condition = next(c for c in told.conditions if c.type == "CapacityAvailable")
        assert told.capacity is not None
        assert (told.capacity.full, condition.status == "False") == (wanted, wanted)
        if wanted:
            assert (told.capacity.reason, told.capacity.message) == (
                FULL.lacks_capacity,
                FULL.message,
            )
        now += 10


def test_replicas_are_told_as_they_are_while_a_lack_is_held() -> None:
    full = written(quiet=0, pods=(FULL,))
    held = written(full, NOW + 5, quiet=5, pods=(world.STARTING,))
    assert held.capacity == full.capacity
    reasons = {c.type: c.reason for c in held.conditions}
    assert (reasons["ReplicasReady"], reasons["CapacityAvailable"]) == ("Starting", "Unschedulable")


def scaled(**numbers: Any) -> InferenceServiceStatus:
    return written(pods=(world.READY,), scaling=Scaling(1, reason="Active", **numbers))


BASE = scaled(traffic=TrafficStatus(requests_per_second=1), cost=CostStatus(gpu_hours=1))


@pytest.mark.parametrize(
    ("new", "since", "expected"),
    [
        (BASE, 0.0, None),
        (written(pods=()), 0.0, 0.0),
        (written(desired=2, pods=(world.READY,)), 0.0, 0.0),
        (scaled(decisions=(decision(1),)), 0.0, 0.0),
        (scaled(traffic=TrafficStatus(requests_per_second=2)), 10.0, 20.0),
        (scaled(traffic=TrafficStatus(requests_per_second=2)), 40.0, 0.0),
        (BASE.model_copy(update={"cost": CostStatus(gpu_hours=2)}), 40.0, 3560.0),
        (BASE.model_copy(update={"cost": CostStatus(gpu_hours=2)}), 3600.0, 0.0),
    ],
)
def test_numbers_wait_and_changes_do_not(
    new: InferenceServiceStatus, since: float, expected: float | None
) -> None:
    assert status.wait(BASE, new, since) == expected


def test_a_message_alone_waits() -> None:
    bare = [c.model_copy(update={"message": "other"}) for c in BASE.conditions]
    assert status.wait(BASE, BASE.model_copy(update={"conditions": bare}), 0.0) == 30.0


@pytest.mark.parametrize(
    ("value", "expected"), [(0, 0), (1.24, 1.2), (0.0123, 0.012), (1260, 1300), (99.6, 100)]
)
def test_two_digits(value: float, expected: float) -> None:
    assert status.two_digits(value) == expected


@given(st.floats(min_value=0, max_value=1e12))
def test_two_digits_is_stable_and_near(value: float) -> None:
    rounded = status.two_digits(value)
    assert status.two_digits(rounded) == rounded
    assert abs(rounded - value) <= 0.051 * value


def test_decisions_of_an_operator_that_ended_stay() -> None:
    first = written(scaling=Scaling(1, decisions=(decision(2), decision(1))))
    scaling = Scaling(1, decisions=(decision(3),))
    seconds = [d.time[-3:-1] for d in written(first, scaling=scaling).last_decisions]
    assert seconds == ["03", "02", "01"]


def test_the_newest_ten_decisions_are_kept() -> None:
    many = tuple(decision(s) for s in range(30, 0, -1))
    kept = written(scaling=Scaling(1, decisions=many)).last_decisions
    assert [d.time for d in kept] == [d.time for d in many[:10]]


def test_events_tell_changes_once() -> None:
    empty = InferenceServiceStatus()
    starting, ready = written(pods=(world.STARTING,)), written(pods=(world.READY,))
    assert announce.changes(ready, ready) == []
    told = {text.split(" is ")[0] for _, _, text in announce.changes(starting, ready)}
    assert told == {"Ready", "ModelReady", "ReplicasReady"}
    # What is good from the start on is not worth an event.
    assert {reason for _, reason, _ in announce.changes(empty, ready)} == set()
    full = written(pods=(FULL,))
    [event] = [e for e in announce.changes(ready, full) if e[2].startswith("CapacityAvailable")]
    assert event == ("Warning", "Unschedulable", "CapacityAvailable is False: 1 Insufficient x")


def test_a_start_is_no_warning() -> None:
    events = announce.changes(InferenceServiceStatus(), written(pods=(world.STARTING,)))
    assert {type_ for type_, _, _ in events} == {"Normal"}


def test_a_scaling_decision_is_an_event_of_its_own() -> None:
    before = scaled(decisions=(decision(1),))
    after = scaled(decisions=(decision(2, 3), decision(1)))
    assert announce.changes(before, after) == [
        ("Normal", "Scaled", "0 → 3 replicas, LoadAboveCapacity: ")
    ]
