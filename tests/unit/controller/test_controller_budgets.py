"""What objects say of their budgets."""

from typing import Any

import pytest
import world

from overspill.api.budget import SpentStatus, Window
from overspill.api.names import ConditionType as T
from overspill.autoscaler.gateways import ProviderReport
from overspill.controller import capacity, conditions, reconcile, status
from overspill.controller.decide import decide_status
from overspill.controller.facts import Budget, Facts, Pod
from overspill.controller.reasons import Reason

NOW = 1_800_000_000.0
LEFT = Budget({Window.DAY: 1_234_567_890})
SPENT = Budget({Window.HOUR: 1, Window.DAY: 59 * 10**9}, full=Window.DAY, ends=NOW + 3600)
CLOUD = "team-a/openai"
FULL = Pod("probe", lacks_capacity=Reason.UNSCHEDULABLE, message="1 Insufficient x")


def facts(own: bool = False, **how: Any) -> Facts:
    """A service that spills to one provider; ``own``: it has a budget."""
    service = world.spilling(**({"budget": {"perDay": "60"}} if own else {}))
    return world.facts(service, providers={CLOUD: world.USABLE}, **how)


def within(found: Facts) -> tuple[str, str]:
    verdict = conditions.judge(found, capacity.judge(found))[T.WITHIN_BUDGET]
    return verdict.status, verdict.reason


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (facts(), ("True", "NotConfigured")),
        (facts(own=True, budget=LEFT), ("True", "RoomLeft")),
        (facts(own=True, budget=SPENT), ("False", "BudgetSpent")),
        (facts(own=True), ("Unknown", "LedgerNotRead")),
        (facts(provider_budgets={CLOUD: LEFT}), ("True", "RoomLeft")),
        (facts(provider_budgets={CLOUD: SPENT}), ("False", "ProviderBudgetSpent")),
        (facts(provider_budgets={CLOUD: None}), ("Unknown", "LedgerNotRead")),
        (facts(own=True, budget=SPENT, provider_budgets={CLOUD: SPENT}), ("False", "BudgetSpent")),
    ],
)
def test_within_budget(found: Facts, expected: tuple[str, str]) -> None:
    assert within(found) == expected


def test_a_second_provider_with_room_is_enough() -> None:
    listed = [{"name": "openai", "model": "gpt"}, {"name": "other", "model": "gpt"}]
    service = world.spilling(providers=listed)
    providers = {CLOUD: world.USABLE, "team-a/other": world.USABLE}
    found = world.facts(service, providers=providers, provider_budgets={CLOUD: SPENT})
    assert within(found) == ("True", "RoomLeft")


def test_the_message_says_which_window_and_until_when() -> None:
    found = facts(own=True, budget=SPENT)
    message = conditions.judge(found, capacity.judge(found))[T.WITHIN_BUDGET].message
    assert "spillover.budget has no room for more in this day" in message
    assert "until 2027-01-15T09:00:00Z" in message


def test_a_full_cluster_without_money_is_not_ready() -> None:
    """Ready: a request that came now would be answered."""
    rich = facts(own=True, budget=LEFT, pods=(FULL,))
    poor = facts(own=True, budget=SPENT, pods=(FULL,))
    ready = [conditions.judge(f, capacity.judge(f))[T.READY] for f in (rich, poor)]
    assert [(v.status, v.reason) for v in ready] == [
        ("True", "SpillingOver"),
        ("False", "Unschedulable"),
    ]


def test_until_the_ledger_is_read_what_was_said_stands() -> None:
    def told(old: Any, budget: Budget | None) -> Any:
        service = world.spilling(budget={"perDay": "60"})
        if old is not None:
            service = service.model_copy(update={"status": old})
        found = world.facts(service, providers={CLOUD: world.USABLE}, budget=budget)
        return decide_status(found, capacity.judge(found), world.SETTINGS, NOW, 1e9)

    before = told(None, SPENT)
    assert before.spent == SpentStatus(per_hour="0", per_day="59", left="1")
    assert told(before, None) == before
    after = told(before, LEFT)
    assert after.spent == SpentStatus(per_day="1.23", left="58.77")
    assert status.wait(before, after, since=0.0) == 0.0, "a condition changed"
    more = after.model_copy(update={"spent": SpentStatus(per_day="1.24")})
    assert status.wait(after, more, since=10.0) == 20.0, "a number alone waits"


def test_a_provider_says_what_is_spent_and_when_it_is_all() -> None:
    provider = world.provider(budget={"perDay": "60"})
    report = ProviderReport(ready=True, reason="Ready")
    first = status.provider_status(provider, report, LEFT, NOW)
    assert [(c.type, c.status) for c in first.conditions] == [
        ("Ready", "True"),
        ("PricesCurrent", "False"),
        ("WithinBudget", "True"),
    ]
    known = provider.model_copy(update={"status": first})
    assert status.provider_status(known, report, None, NOW + 9) == first, "not read"
    spent = status.provider_status(known, report, SPENT, NOW + 9)
    assert [c.status for c in spent.conditions] == ["True", "False", "False"]
    assert status.provider_wait(first, spent, since=0.0) == 0.0
    more = first.model_copy(update={"spent": SpentStatus(per_day="1.24")})
    assert status.provider_wait(first, more, since=10.0) == 20.0
    assert status.provider_wait(first, first, since=1e9) is None
    free = world.provider(models=provider.to_dict()["spec"]["models"][:1])
    assert len(status.provider_status(free, report, None, NOW).conditions) == 1


def test_an_object_is_looked_at_again_when_its_window_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile.time, "time", lambda: NOW)
    assert reconcile._until_anew(SPENT) == 3601.0
    assert reconcile._until_anew(LEFT) is None
    assert reconcile._until_anew(None) is None
