"""PromQL, one query per signal for all services.

* Two jobs that scrape one pod, or a Prometheus pair behind one address, double every series.
  The inner ``max by (…, instance)`` folds the copies before anything is summed over pods.
* A gauge of a pod that is gone is marked stale at once. A gauge of a target that is no longer
  scraped would live on for five minutes, so its age is checked.
* ``rate`` handles counter resets. A window must hold two scrapes: scrape every 30 s or faster.
"""

from overspill.api import metrics

WINDOW = 60  # seconds of the rate windows, and the greatest age of a gauge
_SERVICE = ", ".join(metrics.SERVICE_LABELS)
_LOCAL = '{destination="local"}'
_SPILLED = '{destination=~".+/.+"}'  # a provider; a refused request went nowhere


def _sum(inner: str, *labels: str) -> str:
    """Sum over pods, each counted once; ``labels`` tell the series of one pod apart."""
    unique = ", ".join((_SERVICE, "instance", *labels))
    return f"sum by ({_SERVICE}) (max by ({unique}) ({inner}))"


def _rate(metric: str, selector: str = "", *labels: str) -> str:
    return _sum(f"rate({metric}{selector}[{WINDOW}s])", *labels)


def _gauge(metric: str, selector: str = "", *labels: str) -> str:
    fresh = f"{metric}{selector} and (time() - timestamp({metric}{selector}) < {WINDOW})"
    return _sum(fresh, *labels)


def _p95(metric: str, selector: str = "", *labels: str) -> str:
    rate = f"rate({metric}_bucket{selector}[{WINDOW}s])"
    unique = ", ".join((_SERVICE, "instance", "le", *labels))
    buckets = f"sum by ({_SERVICE}, le) (max by ({unique}) ({rate}))"
    return f"histogram_quantile(0.95, {buckets})"


def _residence() -> str:
    """Mean seconds that a request spends in a replica, by Little's law: W = L / λ.

    https://en.wikipedia.org/wiki/Little%27s_law. Waiting in the gateway is not part of it.
    """
    mean = _sum(f"avg_over_time({metrics.IN_FLIGHT}{_LOCAL}[{WINDOW}s])")
    return f"{mean} / {_rate(metrics.REQUESTS, _LOCAL, 'reason', 'code')}"


SIGNALS = {
    "gateways": _gauge(metrics.READY_REPLICAS),
    "arrivals_rate": _rate(metrics.ARRIVALS),
    "in_flight": _gauge(metrics.IN_FLIGHT, _LOCAL),
    "spilled_in_flight": _gauge(metrics.IN_FLIGHT, _SPILLED, "destination"),
    "queued": _gauge(metrics.QUEUED),
    "ttft_p95": _p95(metrics.TTFT, _LOCAL),
    "itl_p95": _p95(metrics.ITL, _LOCAL),
    "queue_wait_p95": _p95(metrics.QUEUE_WAIT),
    "local_rate": _rate(metrics.REQUESTS, _LOCAL, "reason", "code"),
    "spilled_rate": _rate(metrics.REQUESTS, _SPILLED, "destination", "reason", "code"),
    "within_objective_rate": _rate(metrics.WITHIN_OBJECTIVE),
    "residence": _residence(),
    "engine_running": _gauge(metrics.LLAMACPP_RUNNING),
    "engine_waiting": _gauge(metrics.LLAMACPP_WAITING),
}

COSTS = {
    "gpu_hours": _sum(f"increase({metrics.GPU_SECONDS}[24h])") + " / 3600",
    "spilled_dollars": _sum(f"increase({metrics.COST}{_SPILLED}[24h])", "destination"),
}
