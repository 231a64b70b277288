"""The operator outside of a pod: the rights that the chart gives it in a namespace, and a login."""

import json
from pathlib import Path
from typing import Any

import yaml

from lab.kube import ROOT, Kube

RELEASE = "overspill"
OPERATOR = f"{RELEASE}-operator"  # its service account
_RIGHTS = {"ServiceAccount", "Role", "RoleBinding", "Lease"}


def operator_rights(kube: Kube, namespace: str) -> list[dict[str, Any]]:
    """Return what the chart grants an operator that watches one namespace, which is its own."""
    rendered = kube.command(
        "helm", "template", RELEASE, str(ROOT / "charts/overspill"), "-n", namespace,
        "--set", f"watchNamespaces={{{namespace}}}",
    ).stdout  # fmt: skip
    return [o for o in yaml.safe_load_all(rendered) if o and o["kind"] in _RIGHTS]


def watches_all(kube: Kube) -> str:
    """Return the namespace of an operator that acts on the services of all, "" if there is none."""
    labels = "app.kubernetes.io/part-of=overspill,app.kubernetes.io/component=operator"
    found = kube.kubectl("get", "deployments", "-A", "-l", labels, "-o", "json")
    for deployment in json.loads(found)["items"]:
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        env = {e["name"]: e.get("value") for e in container["env"]}
        if not env.get("OVERSPILL_WATCH_NAMESPACES") and deployment["spec"]["replicas"]:
            return str(deployment["metadata"]["namespace"])
    return ""


def log_in(kube: Kube, account: str, namespace: str, path: Path) -> Path:
    """Write a kubeconfig with a service account's token, good for two hours; return its path.

    A token passes through a proxy, where the client certificate of an administrator ends.
    """
    token = kube.kubectl("create", "token", account, "-n", namespace, "--duration", "2h").strip()
    config = yaml.safe_load(Path(kube.kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path
