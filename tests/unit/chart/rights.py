"""Who may do what, read from rendered manifests.

python tests/unit/chart/rights.py > tests/unit/chart/rights.golden.yaml
"""

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
INSTALL = ROOT / "manifests/install.yaml"
Object = dict[str, Any]


def objects(text: str) -> list[Object]:
    """The objects of a manifest."""
    return [o for o in yaml.safe_load_all(text) if o]


def matrix(manifest: list[Object]) -> dict[str, dict[str, list[str]]]:
    """Return service account → scope → rules, one line each, in a fixed order.

    The scope is ``cluster`` or the namespace in which a role is bound.
    """
    roles = {_key(o): o["rules"] for o in manifest if o["kind"] in ("Role", "ClusterRole")}
    accounts = [o["metadata"]["name"] for o in manifest if o["kind"] == "ServiceAccount"]
    result: dict[str, dict[str, list[str]]] = {name: {} for name in sorted(accounts)}
    for binding in manifest:
        if not binding["kind"].endswith("RoleBinding"):
            continue
        scope = binding["metadata"].get("namespace", "cluster")
        ref = binding["roleRef"]
        namespace = binding["metadata"].get("namespace", "") if ref["kind"] == "Role" else ""
        rules = roles[ref["kind"], namespace, ref["name"]]
        for subject in binding["subjects"]:
            found = result[subject["name"]].setdefault(scope, [])
            found += [line for rule in rules for line in lines(rule)]
            found.sort()
    return result


def _key(obj: Object) -> tuple[str, str, str]:
    metadata = obj["metadata"]
    return obj["kind"], metadata.get("namespace", ""), metadata["name"]


def lines(rule: Object) -> list[str]:
    """What one rule allows, one line for each resource."""
    only = f" named {', '.join(rule['resourceNames'])}" if rule.get("resourceNames") else ""
    group = rule["apiGroups"][0] or "core"
    return [f"{group}/{r}{only}: {', '.join(rule['verbs'])}" for r in rule["resources"]]


if __name__ == "__main__":
    yaml.safe_dump(matrix(objects(INSTALL.read_text())), sys.stdout, sort_keys=True, width=120)
