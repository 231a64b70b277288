"""`overspill costs`: what is known of dollars, by service, provider or key.

There are two records, and no third: each service's status has the last 24 hours, own replicas and
cloud, to two significant digits; the ledger has the calendar windows of everything that has a
budget, to the nano-dollar. Longer histories are Prometheus', where the counters are.
"""

import time
from collections.abc import Iterable
from typing import Any

from overspill.api.base import InvalidObject
from overspill.api.budget import Window
from overspill.api.conditions import timestamp
from overspill.api.service import InferenceService
from overspill.api.status import CostStatus
from overspill.api.values import format_money
from overspill.cli import focus, show
from overspill.cli.errors import USAGE, CommandError
from overspill.cli.options import CostsOutput, Grouping, Since, Target, connected
from overspill.cluster import Cluster
from overspill.cluster.kinds import CONFIG_MAP, INFERENCE_SERVICE
from overspill.ledger.treasury import RECORD, BadRecord, Treasury
from overspill.ledger.windows import bounds

Row = dict[str, Any]
# Of a service's status, in the order in which they are shown.
FIGURES = tuple(CostStatus().model_dump(by_alias=True))
_TITLES = ("GPU-h", "own $", "cloud $", "$/h", "$/1M", "own $/1M", "cloud $/1M", "saved $", "even")


def run(
    target: Target, by: Grouping, since: Since | None, output: CostsOutput, namespace: str
) -> None:
    """Print costs.

    :param since: None: the last 24 hours of services, every window of others.
    :param namespace: of the services or providers to show, "" for all.
    :raises CommandError: when there is no record of what is asked for.
    """
    if namespace and by is Grouping.KEY:
        text = "keys are in no namespace of their services: leave --namespace out with --by key"
        raise CommandError(text, USAGE)
    of_status = by is Grouping.SERVICE and since in (None, Since.LAST_24H)
    if not of_status and (since is Since.LAST_24H or output is CostsOutput.FOCUS):
        raise CommandError(
            "the last 24 hours are known by service only: leave --by out, or ask for a calendar "
            "window with --since hour, day or month",
            USAGE,
        )
    if of_status:
        found = connected(target, lambda cluster: _services(cluster, namespace))
        rows = [_of_service(service) for service in found]
        if output is CostsOutput.FOCUS:
            show.csv_table(focus.COLUMNS, focus.charges(found, time.time()))
        else:
            _print(rows, output, ("service", *_TITLES))
        return
    windows = list(Window) if since is None else [Window(since)]
    treasury = connected(target, lambda cluster: _ledger(cluster, target))
    rows = list(_of_ledger(treasury, by, windows, time.time(), namespace))
    _print(rows, output, (by, "window", "since", "spent $", "limit $", "left $"))


def _print(rows: list[Row], output: CostsOutput, titles: tuple[str, ...]) -> None:
    if output is CostsOutput.JSON:
        show.as_json(rows)
    elif output is CostsOutput.CSV:
        show.csv_table(tuple(rows[0]) if rows else titles, [[*row.values()] for row in rows])
    else:
        show.table(titles, [[_cell(value) for value in row.values()] for row in rows])
        if not rows:
            show.note("nothing is recorded: no service, or no budget that anything was spent of")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if isinstance(value, float) else str(value)


async def _services(cluster: Cluster, namespace: str) -> list[InferenceService]:
    found = []
    for raw in (await cluster.list(INFERENCE_SERVICE, namespace)).items:
        try:
            found.append(InferenceService.parse(raw))
        except InvalidObject as error:
            show.note(f"{raw['metadata']['name']} is left out: {error}")
    return sorted(found, key=lambda service: service.key)


def _of_service(service: InferenceService) -> Row:
    cost = service.status.cost
    figures = cost.model_dump(by_alias=True) if cost else dict.fromkeys(FIGURES)
    return {"service": service.key} | figures


async def _ledger(cluster: Cluster, target: Target) -> Treasury:
    """Read the record of what was spent.

    :raises CommandError: when it is none.
    """
    live = await cluster.get(CONFIG_MAP, target.namespace, target.ledger)
    try:
        return Treasury.read((live.get("data") or {}).get(RECORD, ""))
    except BadRecord as error:
        name = f"ConfigMap {target.namespace}/{target.ledger}"
        raise CommandError(f"{name} is {error}; see `overspill check`") from error


def _of_ledger(
    treasury: Treasury, by: Grouping, windows: list[Window], now: float, namespace: str
) -> Iterable[Row]:
    """Yield what accounts of a kind have spent in the windows of this moment."""
    for account, window, pot in sorted(treasury.current(now), key=lambda found: found[:2]):
        kind, _, name = account.partition("/")
        if kind == by and window in windows and namespace in ("", name.partition("/")[0]):
            yield {
                by.value: name,
                "window": window.value,
                "since": timestamp(bounds(window, now)[0]),
                "spent": format_money(pot.spent),
                "limit": format_money(pot.limit),
                "left": format_money(max(0, pot.limit - pot.spent)),
            }
