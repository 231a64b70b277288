"""PromQL, one query per signal for all services.

* Two jobs that scrape one pod, or a Prometheus pair behind one address, double every series.
  The inner ``max by (…, instance)`` folds the copies before anything is summed over pods.
* A gauge of a pod that is gone is marked stale at once. A gauge of a target that is no longer
  scraped would live on for five minutes, so its age is checked.
* Engines call one thing by different names. ``or`` takes the first name that a service has; the
  names of a user's own engine count in its namespace only, or one team's could hide another's.
* ``rate`` handles counter resets. A window must hold two scrapes: scrape every 30 s or faster.

Each of these reads the series of all pods. Where Prometheus has our recording rules, the answers
are there as series of their own, one per service.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from overspill.api import metrics

MIX_WINDOW = 3600  # seconds over which a usual request is known
WINDOW = 60  # seconds of the rate windows, and the greatest age of a gauge
SIGNALS_EVERY, SUMS_EVERY = 5, 30  # seconds between two evaluations of a recording rule
MISSED = 4  # of these, after which what was recorded last is too old
_SERVICE = ", ".join(metrics.SERVICE_LABELS)
_LOCAL = '{destination="local"}'
_SPILLED = '{destination=~".+/.+"}'  # a provider; a refused request went nowhere


def _sum(inner: str, *labels: str) -> str:
    """Sum over pods, each counted once; ``labels`` tell the series of one pod apart."""
    unique = ", ".join((_SERVICE, "instance", *labels))
    return f"sum by ({_SERVICE}) (max by ({unique}) ({inner}))"


def _rate(metric: str, selector: str = "", *labels: str, window: int = WINDOW) -> str:
    return _sum(f"rate({metric}{selector}[{window}s])", *labels)


def _fresh(metric: str, selector: str = "", age: int = WINDOW) -> str:
    return f"{metric}{selector} and (time() - timestamp({metric}{selector}) < {age})"


def _gauge(metric: str, selector: str = "", *labels: str) -> str:
    return _sum(_fresh(metric, selector), *labels)


def _mean(metric: str, selector: str = "", *labels: str) -> str:
    """Mean over pods, each counted once."""
    unique = ", ".join((_SERVICE, "instance", *labels))
    return f"avg by ({_SERVICE}) (max by ({unique}) ({_fresh(metric, selector)}))"


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


# The grammar of names: https://prometheus.io/docs/concepts/data_model/ and a namespace's.
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True, order=True)
class OwnMetrics:
    """What the engine of a user's own calls its gauges, "" where it has none.

    One series per pod, of requests computed, requests waiting, and the KV cache's use (0 to 1).
    """

    namespace: str
    running: str = ""
    waiting: str = ""
    kv_usage: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no name: it would become part of a query.

        :raises ValueError: for such a name.
        """
        if not _NAMESPACE.fullmatch(self.namespace):
            raise ValueError(f"{self.namespace!r} is no namespace")
        for name in filter(None, (self.running, self.waiting, self.kv_usage)):
            if not _METRIC_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no metric name")


def _own(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return each name once, with a selector of the namespaces that use it.

    :param pairs: (namespace, metric name).
    """
    used: dict[str, set[str]] = {}
    for namespace, name in pairs:
        if name:
            used.setdefault(name, set()).add(namespace)
    label = metrics.SERVICE_LABELS[0]
    return [(n, f'{{{label}=~"{"|".join(sorted(used[n]))}"}}') for n in sorted(used)]


def _either(llamacpp: str, vllm: str) -> str:
    return f"{_gauge(llamacpp)} or {_gauge(vllm, '', 'engine')}"


# What the gateways say.
GATEWAYS = {
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
}
# What the engines that are ours say.
_ENGINES = {
    "engine_running": _either(metrics.LLAMACPP_RUNNING, metrics.VLLM_RUNNING),
    "engine_waiting": _either(metrics.LLAMACPP_WAITING, metrics.VLLM_WAITING),
    "kv_usage": f"{_mean(metrics.VLLM_KV_USAGE, '', 'engine')} or "
    f"{_mean(metrics.VLLM_KV_USAGE_OLD, '', 'engine')}",
}
SIGNALS = GATEWAYS | _ENGINES
_ANSWERED = '{code="200"}'


def _each(kinds: str) -> str:
    """Mean tokens of a request of the last hour, wherever it was answered."""
    tokens = _rate(metrics.TOKENS, f'{{kind=~"{kinds}"}}', "destination", "kind", window=MIX_WINDOW)
    labels = ("destination", "reason")
    return f"{tokens} / {_rate(metrics.REQUESTS, _ANSWERED, *labels, window=MIX_WINDOW)}"


# What a usual request is.
MIX = {"prompt_tokens": _each("input|cached"), "completion_tokens": _each("output")}


def _own_tokens(kind: str) -> str:
    return _sum(f'increase({metrics.TOKENS}{{destination="local", kind="{kind}"}}[24h])')


# Named as the fields of ``economy.Use``.
COSTS = {
    "gpu_hours": _sum(f"increase({metrics.GPU_SECONDS}[24h])") + " / 3600",
    "gpu_dollars": _sum(f"increase({metrics.GPU_COST}[24h])"),
    "spilled_dollars": _sum(f"increase({metrics.COST}{_SPILLED}[24h])", "destination"),
    **{f"own_{kind}": _own_tokens(kind) for kind in ("input", "cached", "output")},
    "spilled_tokens": _sum(f"increase({metrics.TOKENS}{_SPILLED}[24h])", "destination", "kind"),
    "gpu_dollars_hour": _sum(f"increase({metrics.GPU_COST}[1h])"),
    "spilled_dollars_hour": _sum(f"increase({metrics.COST}{_SPILLED}[1h])", "destination"),
}


def _record(name: str) -> str:
    """Return the name of a recorded series.

    https://prometheus.io/docs/practices/rules/: level, metric, operations.
    """
    return f"service:overspill_{name}:all"


def _recorded(names: Iterable[str], every: int) -> dict[str, str]:
    """Return the query of each recorded series; the copies of a Prometheus pair are folded."""
    fresh = {name: _fresh(_record(name), age=MISSED * every) for name in names}
    return {name: f"max by ({_SERVICE}) ({series})" for name, series in fresh.items()}


SUMS = COSTS | MIX
RECORDED_SIGNALS = _recorded(SIGNALS, SIGNALS_EVERY)
RECORDED_SUMS = _recorded(SUMS, SUMS_EVERY)


@lru_cache(maxsize=8)
def signals(own: frozenset[OwnMetrics] = frozenset(), *, recorded: bool = False) -> dict[str, str]:
    """Return the query of each signal, for all services at once.

    :param own: metric names of engines that are not ours. No recording rule knows them, so they
        are read from their pods in any case.
    :param recorded: ask for what the recording rules made; it is absent where it is too old.
    """
    others = {
        "engine_running": [_gauge(*n) for n in _own((o.namespace, o.running) for o in own)],
        "engine_waiting": [_gauge(*n) for n in _own((o.namespace, o.waiting) for o in own)],
        "kv_usage": [_mean(*n) for n in _own((o.namespace, o.kv_usage) for o in own)],
    }
    ours = RECORDED_SIGNALS if recorded else SIGNALS
    return ours | {signal: " or ".join((ours[signal], *more)) for signal, more in others.items()}


def recording_rules() -> dict[str, Any]:
    """Return the rules that record every query, as a file of Prometheus.

    https://prometheus.io/docs/prometheus/latest/configuration/recording_rules/
    """
    groups = (("signals", SIGNALS, SIGNALS_EVERY), ("sums", SUMS, SUMS_EVERY))
    return {
        "groups": [
            {
                "name": f"overspill-{name}",
                "interval": f"{every}s",
                "rules": [{"record": _record(n), "expr": q} for n, q in queries.items()],
            }
            for name, queries, every in groups
        ]
    }
