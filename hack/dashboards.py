"""The chart's two Grafana dashboards, from the metric names of ``overspill.api.metrics``.

`make generate` writes them to ``charts/overspill/files/dashboards/``. The JSON is Grafana's own:
https://grafana.com/docs/grafana/latest/visualizations/dashboards/build-dashboards/view-dashboard-json-model/
"""

import json
from dataclasses import dataclass
from typing import Any

from overspill.api import metrics as m

COLUMNS = 24  # of Grafana's grid
HEIGHT = 8  # of a panel, in grid rows
SPILLED = 'destination=~".+/.+"'
SERVICE = "service_namespace, service_name"
NAME = "{{service_namespace}}/{{service_name}}"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """One panel: its queries by legend, and a unit of Grafana's list."""

    title: str
    unit: str
    queries: dict[str, str]  # legend → PromQL
    kind: str = "timeseries"
    description: str = ""


def _chosen(metric: str, *more: str) -> str:
    """Series of the services that the reader chose."""
    matchers = ('service_namespace=~"$namespace"', 'service_name=~"$service"', *more)
    return f"{metric}{{{', '.join(matchers)}}}"


def _sum(by: str, inner: str) -> str:
    return f"sum by ({by}) ({inner})"


def _rate(by: str, metric: str, *more: str) -> str:
    return _sum(by, f"rate({_chosen(metric, *more)}[$__rate_interval])")


def _in_range(by: str, metric: str, *more: str) -> str:
    return _sum(by, f"increase({_chosen(metric, *more)}[$__range])")


def _quantile(share: float, metric: str, *by: str) -> str:
    return f"histogram_quantile({share}, {_rate(', '.join(('le', *by)), f'{metric}_bucket')})"


def _of_operator(by: str, metric: str) -> str:
    return _sum(by, f"rate({metric}[$__rate_interval])")


REQUESTS = [
    Panel(
        "Requests by destination", "reqps", {"{{destination}}": _rate("destination", m.REQUESTS)}
    ),
    Panel(
        "Answers by status",
        "reqps",
        {"{{code}}": _rate("code", m.REQUESTS)},
        description="499: the client left before the answer ended.",
    ),
    Panel(
        "Within the objective",
        "percentunit",
        {NAME: f"{_rate(SERVICE, m.WITHIN_OBJECTIVE)} / {_rate(SERVICE, m.ARRIVALS)}"},
    ),
]
LATENCY = [
    Panel(
        "Time to first token, p95",
        "s",
        {"{{destination}}": _quantile(0.95, m.TTFT, "destination")},
    ),
    Panel(
        "Between two tokens, p95", "s", {"{{destination}}": _quantile(0.95, m.ITL, "destination")}
    ),
    Panel(
        "Wait for a replica",
        "s",
        {f"p{round(100 * share)}": _quantile(share, m.QUEUE_WAIT) for share in (0.5, 0.95, 0.99)},
    ),
]
OVERFLOW = [
    Panel("Spilled, by reason", "reqps", {"{{reason}}": _rate("reason", m.REQUESTS, SPILLED)}),
    Panel(
        "Share that spills",
        "percentunit",
        {NAME: f"{_rate(SERVICE, m.REQUESTS, SPILLED)} / {_rate(SERVICE, m.REQUESTS)}"},
    ),
    Panel(
        "Waiting and under way",
        "short",
        {
            "waiting": f"sum({_chosen(m.QUEUED)})",
            "at {{destination}}": _sum("destination", _chosen(m.IN_FLIGHT)),
        },
    ),
]
REPLICAS = [
    Panel(
        "Replicas",
        "short",
        {
            f"wanted {NAME}": f"max by ({SERVICE}) ({_chosen(m.DESIRED_REPLICAS)})",
            f"ready {NAME}": f"max by ({SERVICE}) ({_chosen(m.READY_REPLICAS)})",
        },
    ),
    Panel(
        "Decisions",
        "short",
        {"{{reason}}": _sum("reason", f"increase({_chosen(m.DECISIONS)}[$__rate_interval])")},
    ),
    Panel(
        "Scaled with all signals",
        "bool_yes_no",
        {NAME: f"max by ({SERVICE}) ({_chosen(m.SCALING_ACTIVE)})"},
    ),
]
OPERATOR = [
    Panel(
        "Acting operators, objects that wait",
        "short",
        {"acting": f"sum({m.LEADER})", "waiting": f"sum({m.DIRTY_KEYS})"},
    ),
    Panel("Reconciles", "ops", {"{{kind}} {{result}}": _of_operator("kind, result", m.RECONCILES)}),
    Panel(
        "Writes to the API server",
        "ops",
        {"{{verb}} {{kind}}": _of_operator("kind, verb", m.WRITES)},
    ),
]
TOTALS = [
    Panel(
        "Providers, in the range shown",
        "currencyUSD",
        {"dollars": f"sum(increase({_chosen(m.COST, SPILLED)}[$__range]))"},
        kind="stat",
    ),
    Panel(
        "Accelerators, in the range shown",
        "currencyUSD",
        {"dollars": f"sum(increase({_chosen(m.GPU_COST)}[$__range]))"},
        kind="stat",
        description="Accelerator hours of placed replicas, at their services' cost.gpuHour.",
    ),
    Panel(
        "Requests that spilled, in the range shown",
        "percentunit",
        {
            "share": f"sum(increase({_chosen(m.REQUESTS, SPILLED)}[$__range]))"
            f" / sum(increase({_chosen(m.REQUESTS)}[$__range]))"
        },
        kind="stat",
    ),
]
SPEND = [
    Panel(
        "Providers, dollars an hour",
        "currencyUSD",
        {NAME: f"{_rate(SERVICE, m.COST, SPILLED)} * 3600"},
    ),
    Panel(
        "Accelerators, dollars an hour",
        "currencyUSD",
        {NAME: f"{_rate(SERVICE, m.GPU_COST)} * 3600"},
    ),
    Panel(
        "Dollars by provider",
        "currencyUSD",
        {"{{destination}}": _in_range("destination", m.COST, SPILLED)},
        kind="bargauge",
    ),
]
TOKENS = [
    Panel(
        "Tokens by destination",
        "short",
        {"{{destination}} {{kind}}": _rate("destination, kind", m.TOKENS)},
        description="Tokens a second; input are those that were not cached.",
    ),
    Panel(
        "Providers, dollars a million tokens",
        "currencyUSD",
        {
            "{{destination}}": f"{_rate('destination', m.COST, SPILLED)} * 1e6"
            f" / {_rate('destination', m.TOKENS, SPILLED)}"
        },
    ),
    Panel(
        "Own accelerators, dollars a million tokens",
        "currencyUSD",
        {
            NAME: f"{_rate(SERVICE, m.GPU_COST)} * 1e6 / "
            + _rate(SERVICE, m.TOKENS, 'destination="local"')
        },
    ),
]
BOARDS = {
    "operations": {
        "Requests": REQUESTS,
        "Latency": LATENCY,
        "Overflow": OVERFLOW,
        "Replicas": REPLICAS,
        "Operator": OPERATOR,
    },
    "cost": {"Totals": TOTALS, "Spend": SPEND, "Tokens": TOKENS},
}


def boards() -> dict[str, str]:
    """Return the dashboards' JSON by name."""
    return {name: json.dumps(_board(name), indent=1) + "\n" for name in BOARDS}


def _board(name: str) -> dict[str, Any]:
    return {
        "uid": f"overspill-{name}",
        "title": f"Overspill / {name.capitalize()}",
        "tags": ["overspill"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h" if name == "operations" else "now-24h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": _panels(BOARDS[name]),
    }


def _variables() -> list[dict[str, Any]]:
    """Where to ask, and for which services."""
    services = (
        f'label_values({m.DESIRED_REPLICAS}{{service_namespace=~"$namespace"}}, service_name)'
    )
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"},
        _choice("namespace", f"label_values({m.DESIRED_REPLICAS}, service_namespace)"),
        _choice("service", services),
    ]


def _choice(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "query",
        "label": name.capitalize(),
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,  # when the time range changes
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panels(rows: dict[str, list[Panel]]) -> list[dict[str, Any]]:
    """Lay the rows out one below the other."""
    laid: list[dict[str, Any]] = []
    y = 0
    for title, panels in rows.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        laid.append({"id": len(laid) + 1, "type": "row", "title": title, "gridPos": place})
        width = COLUMNS // len(panels)
        for index, panel in enumerate(panels):
            place = {"x": index * width, "y": y + 1, "w": width, "h": HEIGHT}
            laid.append({"id": len(laid) + 1, "gridPos": place, **_panel(panel)})
        y += 1 + HEIGHT
    return laid


def _panel(panel: Panel) -> dict[str, Any]:
    instant = panel.kind != "timeseries"
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": expression,
            "legendFormat": legend,
            "instant": instant,
            "range": not instant,
        }
        for index, (legend, expression) in enumerate(panel.queries.items())
    ]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": targets,
    }
