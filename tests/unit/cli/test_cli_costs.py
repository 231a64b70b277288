"""`overspill costs`: says what status and metrics say, and what it has no record of."""

import csv
import io
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from cli_world import Command, World
from prometheus_client import CollectorRegistry

from overspill.api import crd, metrics
from overspill.api.budget import SpentStatus, Window
from overspill.api.service import InferenceService
from overspill.api.values import NANO
from overspill.autoscaler.meter import Meter
from overspill.cli.focus import COLUMNS
from overspill.cluster.kinds import CONFIG_MAP, INFERENCE_SERVICE
from overspill.controller.status import rounded_cost, two_digits
from overspill.ledger import economy
from overspill.ledger.prices import Rates
from overspill.ledger.treasury import RECORD, Pot, Share, Treasury
from overspill.ledger.windows import bounds

SYSTEM = "overspill-system"
SPEC = {
    "model": {"uri": "oci://registry.example/models/m:1"},
    "cost": {"gpuHour": "0.80"},
    "spillover": {"providers": [{"name": "openai", "namespace": "platform", "model": "gpt"}]},
}
USE = economy.Use(24, 19.2, 7.125, 4e6, 1e6, 2e6, 1.2345e6, 0.8, 0.31)
COST = economy.cost(USE, 0.8, Rates(1_750_000_000, 175_000_000, 14_000_000_000, 0))
OF_CHAT = "service/team-a/chat"
COLUMNS_OF_SERVICE = crd.COLUMNS[InferenceService]
SERIES = {
    "dollarsPerHour": (metrics.COST_RATE, {}),
    "dollarsPerMTok": (metrics.PER_MILLION, {"side": "all"}),
    "ownDollarsPerMTok": (metrics.PER_MILLION, {"side": "own"}),
    "cloudDollarsPerMTok": (metrics.PER_MILLION, {"side": "cloud"}),
    "savedDollars": (metrics.SAVED, {}),
    "breakEvenTokensPerSecond": (metrics.BREAK_EVEN, {}),
}


@pytest.fixture
def busy(world: World) -> World:
    """A service with costs, one without, and a ledger of three accounts."""
    shown = rounded_cost(COST)
    assert shown is not None
    status = {"cost": shown.to_dict()}
    world.put(INFERENCE_SERVICE, "chat", "team-a", spec=SPEC, status=status)
    world.put(INFERENCE_SERVICE, "idle", "team-a", spec=SPEC)
    world.put(CONFIG_MAP, "overspill-ledger", SYSTEM, data={RECORD: record()})
    return world


def record() -> str:
    """What the operator writes."""
    treasury, now = Treasury(), time.time()
    for account in ("provider/platform/openai", OF_CHAT, "key/key-ci"):
        for window, limit in ((Window.DAY, 60 * NANO), (Window.MONTH, 900 * NANO)):
            share = Share(allowed=5 * NANO, spent=1_234_567_890)
            pot = Pot(limit, closed=NANO, shares={"gateway-1": share})
            treasury._pots[account, window, bounds(window, now)[0]] = pot
    return treasury.record(now)


def column(name: str, service: dict[str, Any]) -> Any:
    """Return what `kubectl get` shows of a service."""
    (path,) = (c["jsonPath"] for c in COLUMNS_OF_SERVICE if c["name"] == name)
    for field in path.removeprefix(".").split("."):
        service = service[field]
    return service


def told(overspill: Command, *arguments: str) -> Any:
    return json.loads(overspill("costs", *arguments, "-o", "json").stdout)


def test_status_metrics_columns_and_command_agree(busy: World, overspill: Command) -> None:
    registry = CollectorRegistry()
    Meter(registry).show(lambda: [("team-a/chat", COST)])
    found = busy.objects[INFERENCE_SERVICE.path("team-a", "chat")]
    status = found["status"]["cost"]
    row, idle = told(overspill)
    service = dict(zip(metrics.SERVICE_LABELS, ("team-a", "chat"), strict=True))
    for field, (name, labels) in SERIES.items():
        exported = registry.get_sample_value(name, service | labels)
        assert exported is not None, field
        assert two_digits(exported) == status[field] == row[field], field
    assert column("$/h", found) == row["dollarsPerHour"]
    assert column("$/1M", found) == row["dollarsPerMTok"]
    assert row == {"service": "team-a/chat"} | status
    assert idle == {"service": "team-a/idle"} | dict.fromkeys(status)
    (first, _) = csv.DictReader(io.StringIO(overspill("costs", "-o", "csv").stdout))
    assert {name: float(first[name]) for name in status} == status
    table = overspill("costs").stdout.splitlines()
    assert [float(cell) for cell in table[1].split()[1:]] == [*status.values()]
    assert table[2].split() == ["team-a/idle", *["-"] * len(status)]


@pytest.mark.parametrize(
    ("by", "name"),
    [("provider", "platform/openai"), ("service", "team-a/chat"), ("key", "key-ci")],
)
def test_the_ledger_has_what_has_a_budget(
    busy: World, overspill: Command, by: str, name: str
) -> None:
    (row,) = told(overspill, "--by", by, "--since", "day")
    begin = row.pop("since")
    assert begin.endswith("T00:00:00Z")
    spent = {"window": "day", "spent": "2.23456789", "limit": "60", "left": "57.76543211"}
    assert row == {by: name} | spent
    assert told(overspill, "--by", by, "--since", "hour") == []
    if by != "service":
        assert [r["window"] for r in told(overspill, "--by", by)] == ["day", "month"]


def test_the_column_of_what_is_left_agrees_with_the_ledger(busy: World, overspill: Command) -> None:
    pots = {w: pot for a, w, pot in Treasury.read(record()).current(time.time()) if a == OF_CHAT}
    spent = {window: pot.spent for window, pot in pots.items()}
    limits = {window: pot.limit for window, pot in pots.items()}
    status = {"spent": SpentStatus.of(spent, limits).to_dict()}
    rows = [r for w in pots for r in told(overspill, "--by", "service", "--since", w)]
    assert len(rows) == 2
    least = min(Decimal(row["left"]) for row in rows)
    assert Decimal(column("Left", {"status": status})) == round(least, 2)
    for row in rows:
        shown = status["spent"][f"per{row['window'].title()}"]
        assert Decimal(shown) == round(Decimal(row["spent"]), 2)


def test_one_namespace_alone_is_shown(busy: World, overspill: Command) -> None:
    busy.put(INFERENCE_SERVICE, "chat", "team-b", spec=SPEC)
    assert [r["service"] for r in told(overspill, "-n", "team-b")] == ["team-b/chat"]
    assert [r["service"] for r in told(overspill)] == ["team-a/chat", "team-a/idle", "team-b/chat"]
    by_provider = ("--by", "provider", "--since", "day")
    assert len(told(overspill, *by_provider, "--namespace", "platform")) == 1
    assert told(overspill, *by_provider, "--namespace", "team-a") == []
    assert told(overspill, *by_provider, "--namespace", "plat") == []
    refused = overspill("costs", "--by", "key", "-n", "team-a")
    assert refused.returncode == 2
    assert "leave --namespace out" in refused.stderr


def test_what_is_not_recorded_is_said(busy: World, overspill: Command) -> None:
    for wrong in (("--by", "key", "--since", "24h"), ("--by", "provider", "-o", "focus")):
        refused = overspill("costs", *wrong)
        assert refused.returncode == 2
        assert "--since hour, day or month" in refused.stderr
    busy.put(CONFIG_MAP, "overspill-ledger", SYSTEM, data={RECORD: "{]"})
    broken = overspill("costs", "--by", "key")
    assert broken.returncode == 1
    assert "not a record of the ledger" in broken.stderr


# https://focus.finops.org/focus-specification/v1-0/: what must not be null
NOT_NULL = {
    "BilledCost", "BillingAccountId", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost", "EffectiveCost",
    "InvoiceIssuerName", "ListCost", "ProviderName", "PublisherName", "ServiceCategory",
    "ServiceName", "ChargeFrequency", "PricingCategory", "SkuPriceId", "SkuId",
}  # fmt: skip

CHOSEN = {
    "BillingCurrency": "USD", "ChargeCategory": "Usage", "ChargeClass": "",
    "ChargeFrequency": "Usage-Based", "PricingCategory": "Standard",
    "ServiceCategory": "AI and Machine Learning",
}  # fmt: skip


def test_focus_has_a_row_for_each_side(busy: World, overspill: Command) -> None:
    text = overspill("costs", "-o", "focus").stdout
    own, cloud = csv.DictReader(io.StringIO(text))
    assert tuple(own) == COLUMNS
    assert (own["BilledCost"], cloud["BilledCost"]) == ("19.0", "7.1")
    assert (own["ProviderName"], cloud["ProviderName"]) == ("own cluster", "platform/openai")
    for row in (own, cloud):
        assert {name: row[name] for name in CHOSEN} == CHOSEN
        for name in (n for n in COLUMNS if n.endswith(("Cost", "Price", "Quantity")) and row[n]):
            assert float(row[name]) >= 0
        assert {name for name in NOT_NULL if not row[name]} == set()
        assert json.loads(row["Tags"]) == {"model": "chat"}
        assert row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["ChargePeriodEnd"]
        assert row["ChargePeriodStart"] < row["BillingPeriodEnd"]
    assert float(own["PricingQuantity"]) * float(own["ListUnitPrice"]) == pytest.approx(19.2)
