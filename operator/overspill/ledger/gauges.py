"""What whoever keeps a treasury shows of it on ``/metrics``."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from overspill.api import metrics as names
from overspill.api.values import NANO
from overspill.ledger.treasury import Treasury


def gauges(treasury: Treasury, now: float, writable: bool | None) -> Iterator[Metric]:
    """Yield budgets and what is charged to them, in dollars.

    :param now: seconds since the epoch; the windows that it is in are shown.
    :param writable: whether money can be given out; None: others say so.
    """
    labels = ("account", "window")
    budget = GaugeMetricFamily(
        names.BUDGET, "Limit of providers' dollars in this window.", labels=labels
    )
    charged = GaugeMetricFamily(
        names.BUDGET_CHARGED, "Dollars spent, or granted to a gateway.", labels=labels
    )
    for account, window, pot in treasury.current(now):
        budget.add_metric((account, window), pot.limit / NANO)
        charged.add_metric((account, window), pot.charged / NANO)
    able = GaugeMetricFamily(
        names.LEDGER_WRITABLE, "0 while the ledger cannot be written and nothing spills.", labels=()
    )
    if writable is not None:
        able.add_metric((), float(writable))
    yield from (budget, charged, able)
