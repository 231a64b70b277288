"""A namespace with the operator's rights in it, as the chart gives them."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from operator_world import RELEASE, ROOT, World

from lab.kube import Kube


@pytest.fixture(scope="session", autouse=True)
def _alone(kubeconfig: str) -> None:
    """Another operator that watches all namespaces would act on the tests' services too."""
    labels = "app.kubernetes.io/part-of=overspill,app.kubernetes.io/component=operator"
    found = Kube(kubeconfig).kubectl("get", "deployments", "-A", "-l", labels, "-o", "json")
    for deployment in json.loads(found)["items"]:
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        env = {e["name"]: e.get("value") for e in container["env"]}
        if not env.get("OVERSPILL_WATCH_NAMESPACES") and deployment["spec"]["replicas"]:
            where = deployment["metadata"]["namespace"]
            pytest.fail(f"an operator in {where} watches all namespaces; uninstall it first")


@pytest.fixture
def world(kubeconfig: str, namespace: str, tmp_path: Path) -> Iterator[World]:
    """A namespace, a kubeconfig of the operator's service account, and no operator yet."""
    kube = Kube(kubeconfig)
    rendered = kube.command(
        "helm", "template", RELEASE, str(ROOT / "charts/overspill"), "-n", namespace,
        "--set", f"watchNamespaces={{{namespace}}}",
    ).stdout  # fmt: skip
    wanted = {"ServiceAccount", "Role", "RoleBinding", "Lease"}
    rights = [o for o in yaml.safe_load_all(rendered) if o and o["kind"] in wanted]
    kube.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(rights))
    account = f"{RELEASE}-operator"
    token = kube.kubectl("create", "token", account, "-n", namespace, "--duration", "1h").strip()
    config = yaml.safe_load(Path(kubeconfig).read_text())
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    path.chmod(0o600)
    made = World(kube, namespace, tmp_path)
    yield made
    for process in made.processes:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)
