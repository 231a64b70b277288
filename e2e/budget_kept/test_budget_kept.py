"""A budget and three gateways, of which one is killed again and again: rows 1 to 4.

The provider is the paced engine, which counts the tokens that it made: its bill is theirs.
"""

import secrets
from typing import Any

from e2e import data_path
from e2e.data_path import LONG
from e2e.story import Story
from lab import platform
from lab.kube import eventually, is_ready

NAME = "paid"
PRICE = {"inputPerMTok": "5", "outputPerMTok": "50"}
TOKENS = 10  # of an answer: $0.0005
WORST = 0.00125  # dollars that one may cost at most: TOKENS, and 150 bytes of a prompt
BUDGET, KILLS = (1.0, 10) if LONG else (0.3, 3)
BETWEEN = 0.7 * BUDGET / KILLS  # dollars of the bill from one kill to the next
LOOPS = 6
OPERATOR_PODS = "app.kubernetes.io/component=operator"


def bill(story: Story) -> float:
    """Dollars that the provider would ask for."""
    pod = story.kube.get("pod", NAME, platform.CLOUD) or {}
    counted = data_path.metrics(pod, 8000)
    return (
        counted["paced_prompt_tokens_total"] * float(PRICE["inputPerMTok"])
        + counted["paced_tokens_total"] * float(PRICE["outputPerMTok"])
    ) / 1e6


def kill_a_gateway(story: Story, number: int) -> None:
    """SIGKILL the gateway that has run longest, and let another pod take its place at once."""

    def oldest() -> dict[str, Any]:
        ready = [pod for pod in data_path.gateway_pods(story.kube) if is_ready(pod)]
        started = sorted(ready, key=lambda pod: str(pod["status"]["startTime"]))
        return started[0] if len(started) == 3 else {}

    victim = eventually(f"three gateways before kill {number}", oldest, timeout=60)
    data_path.kill(victim, "gateway")
    story.kube.delete(
        "pod", victim["metadata"]["name"], platform.NAMESPACE, "--force", "--grace-period=0"
    )


def settled_bill(story: Story) -> float:
    """The bill when it has not grown for five seconds."""
    seen: list[float] = []

    def settled() -> bool:
        seen.append(bill(story))
        return len(seen) > 10 and seen[-1] == seen[-11]

    eventually("the bill does not grow any more", settled, timeout=60)
    return seen[-1]


def charged(story: Story, name: str) -> float:
    """Dollars that the ledger has charged to the service this month, what gateways hold too."""
    (pod,) = story.kube.list("pods", platform.NAMESPACE, OPERATOR_PODS)
    series = data_path.metrics(pod, 9090)
    account = f'{{account="service/{story.namespace}/{name}",window="month"}}'
    return series[f"overspill_budget_charged_dollars{account}"]


def test_a_dollar_lasts_for_a_dollar(story: Story) -> None:
    name = f"chat-{secrets.token_hex(3)}"  # what was spent by this name before stays spent
    data_path.paced_server(story, NAME, rate=50)
    models = [{"name": platform.CLOUD_MODEL, "price": PRICE}]
    with data_path.provider(story, NAME, models=models), data_path.gateways(story.kube, 3):
        spillover = platform.spillover(
            ["MaxReplicas", "ObjectiveAtRisk"], budget={"perMonth": str(BUDGET)}
        )
        spillover["providers"][0]["name"] = NAME
        scaling = {"minReplicas": 1, "maxReplicas": 1, "objective": {"queueWait": {"p95": "100ms"}}}
        data_path.paced(
            story, name, replicas=1, slots=1, rate=5, scaling=scaling, spillover=spillover
        )
        data_path.reach_each_gateway(story, name)
        with story.load(name, max_tokens=TOKENS).running(LOOPS) as load:
            for number in range(1, KILLS + 1):
                eventually(
                    f"${number * BETWEEN:.2f} are spent",
                    lambda number=number: bill(story) >= number * BETWEEN,  # type: ignore[misc]
                    timeout=60,
                )
                kill_a_gateway(story, number)
            story.wait_condition(name, "WithinBudget", "False", timeout=120)
            spent = settled_bill(story)
        spilled = [s for s in load.sent if s.destination == NAME and not s.failed]
        known = charged(story, name)
    data_path.record(
        f"budget of ${BUDGET:.2f}, three gateways, {KILLS} of them killed: the bill is "
        f"${spent:.4f}, the ledger has charged ${known:.4f}; {len(spilled)} requests answered by "
        f"the provider, the dearest could cost ${WORST}"
    )
    assert 0.9 * BUDGET <= spent <= BUDGET
    assert spent <= known <= BUDGET
