"""The dollars of both sides, from the gateway's own metrics page."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from overspill.api import metrics as names
from overspill.api.names import DESTINATION_LOCAL
from overspill.api.provider import Price
from overspill.api.values import NANO
from overspill.cli.errors import CommandError
from overspill.cli.trial import objects
from overspill.gateway.plane import Plane
from overspill.ledger.prices import Rates, Usage, cost

RATES = Rates.of(Price.model_validate(objects.PRICE))


@dataclass
class Side:
    """What one destination has answered. Tokens are whole, dollars what a provider charged."""

    answers: int = 0
    dollars: float = 0.0
    tokens: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  # by kind

    @property
    def at_cloud_price(self) -> float:
        """US dollars that the same tokens cost in the cloud."""
        read = self.tokens["input"] + self.tokens["cached"]
        usage = Usage(read, self.tokens["output"], cached=self.tokens["cached"])
        return cost(RATES, usage) / NANO


@dataclass
class Reading:
    """One look.

    :param own: US dollars of this machine since it serves, idle or not.
    :param spent: US dollars charged to the budget, or set aside; 0 without one.
    :param refused: times that a request found no room in the budget.
    """

    own: float
    here: Side
    cloud: Side
    waiting: int = 0
    spent: float = 0.0
    refused: int = 0

    def line(self, budget: str) -> str:
        """Return it for people.

        :param budget: US dollars a day, "" without one.
        """
        limit = f" · budget ${self.spent:.4f} of ${budget}" if budget else ""
        waiting = f" · {self.waiting} wait" if self.waiting else ""
        return (
            f"{self.here.answers} here ${self.own:.4f} · "
            f"{self.cloud.answers} cloud ${self.cloud.dollars:.4f}{limit}{waiting}"
        )


class Meter:
    """Reads the page of one gateway; time counts from now."""

    def __init__(self, plane: Plane) -> None:
        self._plane, self._since = plane, time.monotonic()

    @property
    def seconds(self) -> float:
        """Since this machine serves."""
        return time.monotonic() - self._since

    async def followed(self, budget: str, seconds: float) -> None:
        """Wait until the gateway has read that the service has a budget.

        :param budget: US dollars a day.
        :raises CommandError: when it has not in so many seconds.
        """
        key = f"{objects.NAMESPACE}/{objects.SERVICE}"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    found = self._plane.state.services[key].resource.spec.spillover.budget
                    if found is not None and found.per_day == budget:
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise CommandError("the gateway did not read its objects again") from None

    async def read(self) -> Reading:
        """Return how things stand."""
        page = (await self._plane.metrics.render()).decode()
        reading = Reading(self.seconds / 3600 * float(objects.GPU_HOUR), Side(), Side())
        for name, labels, value in _samples(page):
            here = labels.get("destination") == DESTINATION_LOCAL
            side = reading.here if here else reading.cloud
            if name == names.REQUESTS and labels["code"] == "200":
                side.answers += int(value)
            elif name == names.TOKENS:
                side.tokens[labels["kind"]] += int(value)
            elif name == names.COST:
                side.dollars += value
            elif name == names.QUEUED:
                reading.waiting += int(value)
            elif name == names.BUDGET_CHARGED:
                reading.spent += value
            elif name == names.FAILED_ATTEMPTS and labels["reason"] == "BudgetSpent":
                reading.refused += int(value)
        return reading


def _samples(page: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
