"""A field that somebody keeps changing back: set at once, then ever more seldom, then forgotten."""

from typing import Any

import pytest
import world

from overspill.api.names import AUTOSCALER_MANAGER, OPERATOR_MANAGER
from overspill.controller.catalog import Key
from overspill.controller.contest import (
    AT_ONCE,
    LONGEST_SECONDS,
    QUIET_SECONDS,
    Contests,
)
from overspill.controller.decide import Plan
from overspill.controller.drift import last_writer
from overspill.controller.facts import Facts

KEY = Key.service("team-a", "chat")
PATH = "Service spec.ports"


def service(value: int = 1, version: str = "7") -> world.Object:
    metadata = {"name": "chat-engine", "resourceVersion": version}
    return {"kind": "Service", "metadata": metadata, "spec": {"port": value}}


def plan(value: int = 1, version: str = "7") -> Plan:
    return Plan(apply=(service(value, version),), drifted=(PATH,))


def facts(judged: int = 1) -> Facts:
    entry = {"manager": "other", "operation": "Update", "time": "2026-01-01T00:00:00Z"}
    live = {**service(2), "metadata": {"name": "chat-engine", "managedFields": [entry]}}
    subject = world.service(status={"observedGeneration": judged})
    return world.facts(subject, children={"Service": live})


class Fight:
    """Somebody changes the field back the moment that we have set it."""

    def __init__(self) -> None:
        self.contests = Contests()
        self.writes: list[float] = []

    def run(self, until: int, start: int = 0, step: int = 1) -> None:
        for now in range(start, until, step):
            if self.contests.allowed(KEY, plan(version=str(now)), now) != Plan():
                self.contests.wrote(KEY, facts(), service(), PATH, now)
                self.writes.append(now)


def test_a_contested_field_is_set_ever_more_seldom() -> None:
    fight = Fight()
    fight.run(3600)
    gaps = [b - a for a, b in zip(fight.writes, fight.writes[1:], strict=False)]
    assert gaps[: AT_ONCE + 3] == [1, 1, 2, 4, 8, 16]
    assert max(gaps) == LONGEST_SECONDS
    assert len(fight.writes) < 25
    [(path, contest)] = fight.contests.open(KEY, 3600).items()
    assert (path, contest.rival) == (PATH, "other")


def test_it_is_looked_at_when_it_may_be_set_and_when_it_is_over() -> None:
    fight = Fight()
    assert fight.contests.again(KEY, 0) is None
    fight.run(AT_ONCE)  # the last at 2
    assert fight.contests.again(KEY, 2.5) == 1.5
    assert fight.contests.again(KEY, 100) == 2 + QUIET_SECONDS - 100
    assert fight.contests.again(KEY, 2 + QUIET_SECONDS) is None
    assert fight.contests.open(KEY, 2 + QUIET_SECONDS) == {}
    assert fight.contests._fields == {}


def test_after_a_quiet_time_it_is_set_at_once_again() -> None:
    fight = Fight()
    fight.run(60)
    begin = int(fight.writes[-1] + QUIET_SECONDS)
    before = len(fight.writes)
    fight.run(begin + AT_ONCE, start=begin)
    assert len(fight.writes) - before == AT_ONCE


@pytest.mark.parametrize(
    "other",
    [
        plan(value=2),  # we want something else now
        Plan(apply=(service(),), drifted=("Service spec.selector",)),
        Plan(scale_to=1),
    ],
)
def test_what_is_not_the_same_is_written_at_once(other: Plan) -> None:
    fight = Fight()
    fight.run(60)
    assert fight.contests.allowed(KEY, plan(), fight.writes[-1]) == Plan()
    assert fight.contests.allowed(KEY, other, fight.writes[-1]) == other
    elsewhere = Key.service("team-a", "other")
    assert fight.contests.allowed(elsewhere, plan(), fight.writes[-1]) == plan()


def test_the_first_writes_for_a_spec_are_no_contest() -> None:
    contests = Contests()
    for now in range(10):
        contests.wrote(KEY, facts(judged=0), service(), PATH, now)
    assert contests._fields == {}


def test_who_wrote_last() -> None:
    def entry(manager: str, time: str, **more: Any) -> world.Object:
        return {"manager": manager, "operation": "Update", "time": time, **more}

    fields = [
        entry("first", "2026-01-01T00:00:00Z"),
        entry("second", "2026-01-02T00:00:00Z"),
        entry("kube-controller-manager", "2026-01-03T00:00:00Z", subresource="status"),
        entry(OPERATOR_MANAGER, "2026-01-04T00:00:00Z"),
        entry(AUTOSCALER_MANAGER, "2026-01-05T00:00:00Z", subresource="scale"),
    ]
    assert last_writer({"metadata": {"managedFields": fields}}) == "second"
    assert last_writer({"metadata": {"managedFields": fields[3:]}}) == ""
    assert last_writer({"metadata": {}}) == ""
