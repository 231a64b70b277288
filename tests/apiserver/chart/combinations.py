"""Combinations of the chart's values in which every two of them meet, and the rights that follow.

https://www.nist.gov/publications/combinatorial-software-testing (pairs find most faults)
"""

import itertools
from collections.abc import Iterator
from typing import Any

import yaml
from rights import ROOT

Values = dict[str, Any]
Rights = dict[str, dict[str, set[str]]]  # account → scope → rights

GOLDEN = yaml.safe_load((ROOT / "tests/unit/chart/rights.golden.yaml").read_text())
UNSCOPED = {"authentication.k8s.io/tokenreviews: create", "core/nodes: list"}

# The release's own namespace, two that are watched, one with providers.
OWN, A, B, PLATFORM = PLACES = ("own", "a", "b", "platform")
EVERYTHING = {name: {"enabled": True} for name in ("podMonitor", "rules", "dashboards")}
VALUES: dict[str, list[Any]] = {
    "watchNamespaces": [[], [A], [A, B], [OWN, A]],
    "operator.readNodes": [None, True, False],
    "gateway.providerSecrets": [
        [],
        [{"namespace": PLATFORM, "names": ["openai-key", "other-key"]}],
        [{"namespace": PLATFORM, "names": ["openai-key"]}, {"namespace": A, "names": ["mine"]}],
        [{"namespace": OWN, "names": ["openai-key"]}],
    ],
    "prometheus": [
        {},
        {"enabled": True, "recordingRules": True},
        {
            "url": "https://prometheus.monitoring:9090",
            "credentialsSecret": "prometheus-reader",
            "caConfigMap": "prometheus-ca",
        },
    ],
    "networkPolicy": [{}, {"enabled": False}, {"scrapeNamespaces": [A, "monitoring"]}],
    "gateway.service": [
        {},
        {"type": "NodePort"},
        {"type": "LoadBalancer", "annotations": {"example.com/a": "b"}},
    ],
    "gateway.replicas": [2, 0, 7],
    "gateway.httpsProxy": ["", "http://proxy.example.com:3128"],
    "operator.replicas": [1, 2],
    "image.pullSecrets": [[], ["pull"]],
    "operator.tolerations": [[], [{"operator": "Exists"}]],
    "gateway.nodeSelector": [{}, {"zone": "a"}],
    "monitoring": [{}, EVERYTHING],
}


def pairwise(values: dict[str, list[Any]]) -> Iterator[Values]:
    """Yield rows in which every two values of different names meet; the first are the defaults."""
    names = list(values)
    missing = {
        ((a, i), (b, j))
        for a, b in itertools.combinations(names, 2)
        for i, j in itertools.product(range(len(values[a])), range(len(values[b])))
    }
    row = dict.fromkeys(names, 0)
    while missing:
        missing -= set(itertools.combinations(row.items(), 2))
        yield {name: values[name][i] for name, i in row.items()}
        row = _next_row(values, missing)


def _next_row(
    values: dict[str, list[Any]], missing: set[tuple[tuple[str, int], tuple[str, int]]]
) -> dict[str, int]:
    """Return a row with a missing pair, and else with what makes most of them meet."""
    row = dict(min(missing, default=()))
    for name, choices in values.items():
        meets = [
            sum({((name, i), had), (had, (name, i))} & missing != set() for had in row.items())
            for i in range(len(choices))
        ]
        row.setdefault(name, meets.index(max(meets)))
    return {name: row[name] for name in values}


def expected(row: Values, release: str) -> Rights:
    """Return the rights: those of the golden matrix, and what the values add, move or leave out."""
    rights = {}
    watched = row["watchNamespaces"] or ["cluster"]
    for part in ("operator", "gateway"):
        golden = GOLDEN[f"overspill-{part}"]
        own = {line.replace("overspill-", f"{release}-") for line in golden["overspill-system"]}
        scopes = {"cluster": set(golden["cluster"]) & UNSCOPED, OWN: own}
        for scope in watched:
            scopes[scope] = scopes.get(scope, set()) | set(golden["cluster"]) - UNSCOPED
        rights[f"{release}-{part}"] = scopes
    reads_nodes = row["operator.readNodes"]
    if not (watched == ["cluster"] if reads_nodes is None else reads_nodes):
        rights[f"{release}-operator"]["cluster"] -= UNSCOPED
    for secrets in row["gateway.providerSecrets"]:
        names = ", ".join(secrets["names"])
        scope = rights[f"{release}-gateway"].setdefault(secrets["namespace"], set())
        scope.add(f"core/secrets named {names}: list, watch")
    if row["prometheus"].get("enabled"):
        rights[f"{release}-prometheus"] = {}
    return rights
