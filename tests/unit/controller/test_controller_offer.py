"""Whether replicas are weighed against the cloud, and at which prices."""

from typing import Any

import pytest
import world

from demo import main as demo
from lab import platform
from lab.load import Client
from overspill.api.budget import Window
from overspill.api.names import SpillReason
from overspill.api.provider import InferenceProvider, Price
from overspill.api.service import InferenceService
from overspill.autoscaler.economics import Costs, EconomicsState, choose
from overspill.autoscaler.offers import Offer, costs
from overspill.controller.facts import Budget, Facts, Pod, ProviderFacts
from overspill.controller.offer import DEFAULT_BOOT, offer
from overspill.controller.reasons import Reason
from overspill.ledger.prices import Rates

OPENAI, OTHER = "team-a/openai", "team-a/other"
SPENT = Budget({Window.DAY: 1}, full=Window.DAY, ends=9e9)


def rates(read: str, made: str) -> Rates:
    return Rates.of(Price(input_per_m_tok=read, output_per_m_tok=made))


RATES, FREE = rates("1", "2"), rates("0", "0")  # of the world's provider; of none
CHEAP = {"inputPerMTok": "0.5", "outputPerMTok": "0.5"}
CHEAPER = world.provider(models=[{"name": "gpt", "price": CHEAP}])
PROBE = Pod("probe", lacks_capacity=Reason.UNSCHEDULABLE, message="1 Insufficient x")
REFUSED = ProviderFacts(world.provider(), reported=True, ready=False, reason="KeyRefused")
STARTING = ProviderFacts(world.provider())  # no gateway spoke of it yet
BOTH = [{"name": "openai", "model": "gpt"}, {"name": "other", "model": "gpt"}]


def service(
    *when: str,
    hour: str = "0.80",
    status: Any = None,
    count: int = 2,
    scaling: Any = None,
    **spillover: Any,
) -> InferenceService:
    """A service that spills, on so many GPUs a replica."""
    listed = {"providers": BOTH[:1], **spillover, **({"when": list(when)} if when else {})}
    resources = {"accelerator": {"count": count}} if count else {}
    spec = {"spillover": listed, "cost": {"gpuHour": hour}, "resources": resources}
    spec["scaling"] = scaling or {}
    return world.service(status, **spec)


def facts(subject: InferenceService, **more: Any) -> Facts:
    other = ProviderFacts(CHEAPER, reported=True, ready=True)
    return world.facts(subject, **{"providers": {OPENAI: world.USABLE, OTHER: other}, **more})


NOTHING: dict[str, Facts] = {
    "no gpuHour": facts(service(hour="0")),
    "mode Manual": facts(service(scaling={"mode": "Manual", "replicas": 1})),
    "no accelerator": facts(service(count=0)),
    "no provider": facts(service(providers=[])),
    "dataPolicy Never": facts(service(dataPolicy="Never")),
    "ClusterFull only": facts(service("ClusterFull")),
    "full, and may not spill then": facts(service("ObjectiveAtRisk"), pods=(world.READY, PROBE)),
    "no price": facts(service(providers=[{"name": "openai", "model": "free"}])),
    "refused key": facts(service(), providers={OPENAI: REFUSED}),
    "not spoken of": facts(service(), providers={OPENAI: STARTING}),
    "no such provider": facts(service(), providers={OPENAI: ProviderFacts(None)}),
    "budget spent": facts(service(budget={"perDay": "60"}), budget=SPENT),
    "provider's budget spent": facts(service(), provider_budgets={OPENAI: SPENT}),
}


@pytest.mark.parametrize("name", NOTHING)
def test_without_a_choice_the_objective_alone_decides(name: str) -> None:
    assert offer(NOTHING[name]) is None


def ready(boot: float | None) -> Pod:
    return Pod("r", placed=True, ready=True, boot=boot)


CHEAP_RATES = rates("0.5", "0.5")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (facts(service()), Offer(1.6, (RATES,), DEFAULT_BOOT)),
        (facts(service(), pods=(ready(None), ready(95.0), ready(40.0))), Offer(1.6, (RATES,), 40)),
        (facts(service(providers=BOTH)), Offer(1.6, (RATES,), DEFAULT_BOOT)),
        (
            facts(service(providers=BOTH, strategy="Cheapest")),
            Offer(1.6, (RATES, CHEAP_RATES), DEFAULT_BOOT),
        ),
        (
            facts(service(providers=BOTH), provider_budgets={OPENAI: SPENT}),
            Offer(1.6, (CHEAP_RATES,), DEFAULT_BOOT),
        ),
        (facts(service(), pods=(PROBE,)), Offer(1.6, (RATES,), DEFAULT_BOOT)),
    ],
)
def test_prices_of_what_would_be_used(found: Facts, expected: Offer) -> None:
    assert offer(found) == expected


def test_what_was_said_of_a_provider_stands_until_a_gateway_speaks() -> None:
    """An operator that starts again does not fall back to the objective for some seconds."""
    told = {"type": "SpilloverReady", "status": "True", "reason": "ProvidersReady"}
    subject = service(status={"conditions": [{**told, "observedGeneration": 1}]})
    assert offer(facts(subject, providers={OPENAI: STARTING})) is not None


@pytest.mark.parametrize(
    ("asked", "read", "made", "expected"),
    [
        ((RATES,), 1000.0, 500.0, 0.002),
        ((RATES, CHEAP_RATES), 1000.0, 500.0, 0.00075),
        ((RATES,), None, 500.0, None),
        ((RATES,), 1000.0, None, None),
        ((FREE,), 1000.0, 500.0, None),
    ],
)
def test_a_usual_request_at_the_providers_prices(
    asked: Any, read: float | None, made: float | None, expected: float | None
) -> None:
    found = costs(Offer(1.6, asked, 40.0), {"prompt_tokens": read, "completion_tokens": made})
    assert found == (expected and Costs(1.6, pytest.approx(expected), 40.0))


def test_a_busy_replica_against_the_same_work_in_the_cloud() -> None:
    assert Costs(1.6, 0.002, 40.0).prices(0.5).ratio == pytest.approx(0.5 * 3600 * 0.002 / 1.6)


def test_the_demos_replicas_follow_its_objective_and_would_pay_as_well() -> None:
    """It spills when the cluster is full only. Its engine makes 39 tokens/s on 400m of CPU."""
    spec = demo.SPEC | {"spillover": platform.spillover(demo.WHEN)}
    raw = platform.service(demo.NAME, spec)
    raw["metadata"]["namespace"] = demo.NAMESPACE
    subject = InferenceService.parse(raw)
    cloud = InferenceProvider.parse(platform.stand_in(["*"]))
    usable = {cloud.key: ProviderFacts(cloud, reported=True, ready=True)}
    assert offer(world.facts(subject, providers=usable)) is None
    subject.spec.spillover.when.append(SpillReason.OBJECTIVE_AT_RISK)
    assert offer(world.facts(subject, providers=usable)) is not None

    hour = float(subject.spec.cost.gpu_hour)
    price = {name: float(dollars) for name, dollars in platform.PRICE.items()}
    made = Client.max_tokens
    request = (demo.PROMPT_TOKENS * price["inputPerMTok"] + made * price["outputPerMTok"]) / 1e6
    prices = Costs(hour, request, 5.0).prices(39 / made)
    assert 2 < prices.ratio < 3
    state, replicas = EconomicsState.start(0.0, 1.5), 1
    for second in range(10, 120, 10):
        choice, state = choose(float(second), state, 1.5, replicas, prices)
        replicas = choice.replicas
    assert replicas == 2, "half a replica's work is dearer in the cloud"
