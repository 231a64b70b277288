"""The operator as a process of this machine, with the very rights that the chart gives it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from lab.kube import Kube, eventually
from overspill.cluster import kinds

ROOT = Path(__file__).resolve().parents[2]
RELEASE = "overspill"
NOWHERE = {"resources": {"accelerator": {"resource": "example.com/none"}, "cpu": "10m"}}
Object = dict[str, Any]


@dataclass
class World:
    """One namespace with the operator's rights in it."""

    kube: Kube
    namespace: str
    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def user(self) -> str:
        """Who the operator is, in the audit log."""
        return f"system:serviceaccount:{self.namespace}:{RELEASE}-operator"

    def start(self, identity: str = "one", **env: str) -> "Operator":
        """Start an operator; the test's end stops it."""
        operator = Operator(self, identity, env)
        self.processes.append(operator.process)
        return operator

    def apply(self, name: str = "chat", **spec: Any) -> None:
        """Apply a service whose pods no node takes."""
        model = {"uri": "oci://registry.example/models/none:1"}
        self.apply_object({"model": model, **NOWHERE, **spec}, name)

    def apply_object(self, spec: Object, name: str, kind: str = "InferenceService") -> None:
        metadata = {"name": name, "namespace": self.namespace}
        obj = {"apiVersion": "overspill.dev/v1alpha1", "kind": kind, "metadata": metadata}
        self.kube.kubectl("apply", "-f", "-", stdin=json.dumps({**obj, "spec": spec}))

    def get(self, kind: str, name: str = "chat-engine") -> Object | None:
        return self.kube.get(kind, name, self.namespace)

    def condition(self, type_: str, name: str = "chat") -> tuple[str, str, str]:
        """Status, reason and message of a service's condition."""
        service = self.get("infsvc", name) or {}
        found = {c["type"]: c for c in service.get("status", {}).get("conditions", [])}
        condition = found.get(type_, {})
        return tuple(condition.get(k, "") for k in ("status", "reason", "message"))  # type: ignore[return-value]

    def settled(self, name: str = "chat") -> Object:
        """Wait until the count belongs to the autoscaler alone; return the Deployment."""

        def owner() -> Object | None:
            deployment = self.kube.kubectl(
                "get", "deployment", f"{name}-engine", "-n", self.namespace,
                "-o", "json", "--show-managed-fields", "--ignore-not-found",
            )  # fmt: skip
            parsed: Object = json.loads(deployment or "{}")
            owners = [
                entry["manager"]
                for entry in parsed.get("metadata", {}).get("managedFields", [])
                if "f:replicas" in entry.get("fieldsV1", {}).get("f:spec", {})
            ]
            return parsed if owners == ["overspill-autoscaler"] else None

        return self.eventually(f"{name} settles", owner)

    def eventually(self, what: str, probe: Callable[[], Any], timeout: float = 30) -> Any:
        return eventually(what, probe, timeout, 0.2)


class Operator:
    """One operator process."""

    def __init__(self, world: World, identity: str, env: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        self.log = world.folder / f"{identity}-{time.monotonic_ns()}.log"
        settings = {
            "KUBECONFIG": str(world.folder / "kubeconfig"),
            "OVERSPILL_NAMESPACE": world.namespace,
            "OVERSPILL_WATCH_NAMESPACES": world.namespace,
            "OVERSPILL_ENGINE_IMAGE": "registry.example/engine:1",
            "OVERSPILL_ENGINE_GPU_IMAGE": "registry.example/engine-gpu:1",
            "OVERSPILL_METRICS_PORT": str(self.port),
            "OVERSPILL_IDENTITY": identity,
            **env,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from overspill.controller.main import run; run()"],
                env=os.environ | settings,
                stdout=log,
                stderr=log,
            )
        eventually("the operator is ready", self._ready, 30, 0.1)

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    @property
    def leads(self) -> bool:
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return b"\noverspill_leader 1.0" in answer.read()

    @property
    def reconciles(self) -> float:
        """Reconciles of services so far."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        counts = re.findall(
            r'^overspill_reconciles_total\{kind="InferenceService".*\} (\S+)', text, re.M
        )
        return sum(map(float, counts))

    def stop(self) -> None:
        """End it as the kubelet does."""
        self.process.terminate()
        assert self.process.wait(20) == 0, self.log.read_text()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)


CHILDREN = {
    kind.kind: kind.plural
    for kind in (
        kinds.SERVICE_ACCOUNT, kinds.NETWORK_POLICY, kinds.SERVICE, kinds.PDB, kinds.DEPLOYMENT,
    )
}  # fmt: skip
