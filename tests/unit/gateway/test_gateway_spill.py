"""Stay, wait, spill or refuse: one table for the decision, one property over all facts."""

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queue_world import BUSY

from overspill.api.names import SpillReason
from overspill.api.service import SpillStrategy
from overspill.gateway.spill import (
    SOMEBODY_SECONDS,
    Boot,
    Facts,
    Hold,
    Local,
    Refuse,
    Spill,
    decide,
    drain_seconds,
    expected_wait,
    reason_to_spill,
)

NONE_READY = {"slots": 0, "free": 0}
AT_RISK = SpillReason.OBJECTIVE_AT_RISK
ONLY_MAX = frozenset({SpillReason.MAX_REPLICAS})


def facts(**changes: object) -> Facts:
    return dataclasses.replace(BUSY, **changes)  # type: ignore[arg-type]


DECISIONS = [
    # what, facts, decision
    ("next in line", facts(), Hold(0.5)),
    ("next in line, though the cluster is full", facts(full=True), Hold(0.5)),
    ("too many ahead", facts(ahead=2), Spill("p/a", SpillReason.OBJECTIVE_AT_RISK, 1.5)),
    ("full", facts(ahead=2, full=True), Spill("p/a", SpillReason.CLUSTER_FULL, 1.5)),
    ("a cap that is not listed", facts(ahead=2, at_max=True), Hold(1.5)),
    (
        "a cap that is listed",
        facts(ahead=2, at_max=True, when=ONLY_MAX),
        Spill("p/a", SpillReason.MAX_REPLICAS, 1.5),
    ),
    (
        "set to zero",
        facts(**NONE_READY, stopped=True),
        Spill("p/a", SpillReason.COLD_START, math.inf),
    ),
    ("set to zero, and one still serves", facts(stopped=True), Hold(0.5)),
    ("reason not listed", facts(ahead=2, full=True, when=ONLY_MAX), Hold(1.5)),
    ("policy", facts(ahead=2, full=True, may_leave=False), Hold(1.5)),
    ("no provider", facts(ahead=2, full=True, providers=()), Hold(1.5)),
    (
        "waited for the objective",
        facts(waited=1.0, full=True),
        Spill("p/a", SpillReason.CLUSTER_FULL, 1.5),
    ),
    (
        "starting",
        facts(**NONE_READY, starting=True, broken=True),
        Spill("p/a", SpillReason.COLD_START, math.inf),
    ),
    ("from zero", facts(**NONE_READY), Spill("p/a", SpillReason.COLD_START, math.inf)),
    (
        "lost",
        facts(**NONE_READY, broken=True, full=True),
        Spill("p/a", SpillReason.REPLICAS_UNAVAILABLE, math.inf),
    ),
    (
        "full and none placed",
        facts(**NONE_READY, full=True),
        Spill("p/a", SpillReason.CLUSTER_FULL, math.inf),
    ),
    (
        "a model that cannot be loaded, while the cloud may answer",
        facts(**NONE_READY, starting=True, model_fault="ClaimNotFound"),
        Spill("p/a", SpillReason.COLD_START, math.inf),
    ),
    ("held from zero", facts(**NONE_READY, providers=()), Hold(math.inf)),
    ("a slot is free", facts(free=1), Local(0.0)),
    ("the queue drains in time", facts(ahead=1, full=True), Hold(1.0)),
    (
        "the cheapest",
        facts(ahead=2, strategy=SpillStrategy.CHEAPEST),
        Spill("p/b", SpillReason.OBJECTIVE_AT_RISK, 1.5),
    ),
    ("a boot in time", facts(ahead=4, boots=(Boot(0.8, 4),)), Hold(0.8)),
    ("a boot too late", facts(ahead=4, boots=(Boot(1.2, 4),)), Spill("p/a", AT_RISK, 1.2)),
    (
        "a boot too small",
        facts(ahead=8, boots=(Boot(0.8, 1),)),
        Spill("p/a", AT_RISK, pytest.approx(3.36)),
    ),
    ("the first boot, in time", facts(**NONE_READY, boots=(Boot(0.5, 4),)), Hold(0.5)),
    (
        "the first boot, too late",
        facts(**NONE_READY, starting=True, boots=(Boot(40.0, 4),)),
        Spill("p/a", SpillReason.COLD_START, 40.0),
    ),
    (
        "a long first boot is waited for",
        facts(**NONE_READY, boots=(Boot(400.0, 4),), providers=()),
        Hold(400.0),
    ),
]


@pytest.mark.parametrize(("what", "given_facts", "decision"), DECISIONS, ids=lambda v: str(v)[:30])
def test_decisions(what: str, given_facts: Facts, decision: object) -> None:
    assert decide(given_facts) == decision


REFUSALS = [
    # what, facts, status, code, retry_after
    ("queue full", facts(room=False, providers=()), 429, "queue_full", 0.75),
    ("a line", facts(room=False, line=10.0, providers=()), 429, "queue_full", 7.5),
    (
        "queue full, never",
        facts(room=False, full=True, may_leave=False),
        429,
        "queue_full",
        0.75,
    ),
    ("hopeless", facts(ahead=400, providers=()), 429, "overloaded", 80.5),
    ("waited, saturated", facts(waited=120, providers=()), 429, "overloaded", 0.75),
    (
        "waited, none ready",
        facts(**NONE_READY, waited=120, providers=()),
        503,
        "no_replica_ready",
        math.inf,
    ),
    ("set to zero", facts(**NONE_READY, stopped=True, providers=()), 503, "scaled_to_zero", 30.0),
]


@pytest.mark.parametrize(("what", "given_facts", "status", "code", "after"), REFUSALS)
def test_refusals(what: str, given_facts: Facts, status: int, code: str, after: float) -> None:
    decision = decide(given_facts)
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.code, decision.retry_after) == (status, code, after)
    assert decision.message


NO_MODEL = facts(**NONE_READY, model_fault="ClaimNotFound")


@pytest.mark.parametrize(
    "changes",
    [
        {"may_leave": False},
        {"providers": ()},
        {"when": ONLY_MAX},
        {"providers": (), "waited": 3.0},
        {"providers": (), "room": False},
    ],
)
def test_a_model_that_cannot_be_loaded_is_not_waited_for(changes: dict[str, object]) -> None:
    decision = decide(dataclasses.replace(NO_MODEL, **changes))  # type: ignore[arg-type]
    assert isinstance(decision, Refuse)
    assert (decision.status, decision.code) == (503, "model_not_ready")
    assert "ClaimNotFound" in decision.message
    assert decision.retry_after == SOMEBODY_SECONDS


def test_what_finds_no_place_spills() -> None:
    reason = SpillReason.OBJECTIVE_AT_RISK
    assert decide(facts(room=False)) == Spill("p/a", reason, math.inf)


def test_free_slots_shorten_the_wait() -> None:
    assert expected_wait(facts(ahead=2, free=3)) == 0
    assert expected_wait(facts(ahead=5, free=3)) == pytest.approx(1.5)


@given(
    st.integers(1, 50),
    st.integers(0, 8),
    st.floats(0.1, 10),
    st.lists(st.builds(Boot, ready_in=st.floats(0, 30), slots=st.integers(1, 8)), max_size=4),
)
def test_boots_only_shorten_the_wait_and_those_ahead_only_lengthen_it(
    turns: int, slots: int, mean: float, boots: list[Boot]
) -> None:
    wait = drain_seconds(turns, slots, mean, boots)
    assert wait <= drain_seconds(turns, slots, mean, boots[1:]) + 1e-9
    assert wait <= drain_seconds(turns + 1, slots, mean, boots) + 1e-9
    assert wait == drain_seconds(turns, slots, mean, boots[::-1])
    assert math.isfinite(wait) == bool(slots or boots)


all_facts = st.builds(
    Facts,
    slots=st.integers(0, 8),
    free=st.integers(0, 8),
    ahead=st.integers(0, 200),
    mean_service=st.floats(0.01, 100),
    boots=st.lists(
        st.builds(Boot, ready_in=st.floats(0, 300), slots=st.integers(1, 8)), max_size=3
    ).map(tuple),
    waited=st.floats(0, 200),
    objective=st.floats(0.1, 10),
    room=st.booleans(),
    queue_length=st.integers(0, 200),
    line=st.floats(1, 1000),
    hold_limit=st.floats(1, 120),
    starting=st.booleans(),
    broken=st.booleans(),
    full=st.booleans(),
    at_max=st.booleans(),
    stopped=st.booleans(),
    model_fault=st.sampled_from(["", "ClaimNotFound"]),
    when=st.frozensets(st.sampled_from(list(SpillReason))),
    may_leave=st.booleans(),
    providers=st.lists(st.sampled_from(BUSY.providers), unique=True).map(tuple),
    strategy=st.sampled_from(SpillStrategy),
)


@given(all_facts)
def test_nothing_leaves_against_the_policy_and_nobody_waits_beyond_the_limit(f: Facts) -> None:
    decision = decide(f)
    if isinstance(decision, Spill):
        assert f.may_leave
        assert decision.provider in {candidate.provider for candidate in f.providers}
        assert decision.reason in f.when
        assert decision.reason is reason_to_spill(f)
        assert decision.expected > f.objective
    elif isinstance(decision, Hold | Local):
        assert f.waited < f.hold_limit
        assert f.room
        assert isinstance(decision, Local) == (f.free > f.ahead and f.slots > 0)
    else:
        assert decision.status in (429, 503)
