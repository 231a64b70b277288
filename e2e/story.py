"""One story: a namespace, a key, and the words in which the stories are told."""

import time
from dataclasses import dataclass, field
from typing import Any

from lab import platform
from lab.kube import CommandFailed, Kube, condition, eventually, is_ready
from lab.load import Client, Load, Sent, failures

ENGINE_LABELS = "overspill.dev/service={name}"


@dataclass
class Story:
    """A namespace of its own on the installed platform."""

    kube: Kube
    namespace: str
    key: str = ""
    fillers: list[str] = field(default_factory=list)

    @classmethod
    def begin(cls, kube: Kube, namespace: str) -> "Story":
        """Create the namespace and a key for its services."""
        kube.kubectl(
            "delete", "namespace", namespace, "--ignore-not-found", "--timeout=180s", timeout=200
        )
        eventually("both GPUs are free", lambda: free_gpus(kube) == 2, timeout=180)
        kube.apply(platform.namespace(namespace))
        return cls(kube, namespace, platform.create_key(kube, namespace, namespace))

    def end(self) -> None:
        """Remove the key, the pods, and (soon) the namespace, for which the next need not wait."""
        platform.overspill(self.kube, "keys", "revoke", self.namespace, check=False)
        # Nobody asks any more: no need to wait for drains.
        self.kube.kubectl("delete", "infsvc", "--all", "-n", self.namespace, check=False)
        self.kube.kubectl(
            "delete", "pods", "--all", "-n", self.namespace, "--grace-period=1", timeout=200
        )
        self.kube.kubectl("delete", "namespace", self.namespace, "--wait=false")

    def describe(self) -> str:
        """What the namespace looks like, for the report of a failed story."""
        parts = []
        for args in (
            ("get", "infsvc,deploy,pods,endpointslices", "-o", "wide"),
            ("get", "infsvc", "-o", "yaml"),
            ("get", "events", "--sort-by=.lastTimestamp"),
        ):
            parts.append(self.kube.kubectl(*args, "-n", self.namespace, check=False))
        for part in ("operator", "gateway"):
            logs = ("logs", f"deployment/overspill-{part}", "--tail=400")
            lines = self.kube.kubectl(*logs, "-n", platform.NAMESPACE, check=False).splitlines()
            parts += [x[:400] for x in lines if '"status":200' not in x][-40:]
        return "\n".join(parts)

    def apply(self, name: str, **spec: Any) -> None:
        """Apply an InferenceService of the small model; ``spec`` is laid over the lab's."""
        spec.setdefault("rollout", {"drain": "20s"})
        self.kube.apply(platform.service(name, spec), namespace=self.namespace)

    def service(self, name: str) -> dict[str, Any]:
        """The InferenceService as it is now."""
        return self.kube.get("infsvc", name, self.namespace) or {}

    def status(self, name: str) -> dict[str, Any]:
        """Its status."""
        return dict(self.service(name).get("status") or {})

    def steps(self, name: str) -> list[tuple[int, int]]:
        """Its recorded decisions as counts before and after, the newest first."""
        decisions = self.status(name).get("lastDecisions", [])
        return [(d["replicasFrom"], d["replicasTo"]) for d in decisions]

    def condition(self, name: str, type_: str) -> dict[str, Any]:
        """One of its conditions."""
        return condition(self.service(name), type_)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The service's pods, those that leave too."""
        return self.kube.list("pods", self.namespace, ENGINE_LABELS.format(name=name))

    def ready(self, name: str) -> int:
        """Replicas that answer."""
        return sum(is_ready(p) for p in self.pods(name))

    def pending(self, name: str) -> int:
        """Replicas that no node has taken."""
        return sum(
            "nodeName" not in p["spec"] and "deletionTimestamp" not in p["metadata"]
            for p in self.pods(name)
        )

    def counts(self, name: str, seconds: float) -> set[int]:
        """Watch which counts its status wants over so many seconds."""
        seen, until = set(), time.monotonic() + seconds
        while time.monotonic() < until:
            seen.add(int(self.status(name)["desiredReplicas"]))
            time.sleep(1)
        return seen

    def wait_ready(self, name: str, count: int, timeout: float = 240) -> None:
        """Wait until exactly that many replicas answer and no other pod is left."""

        def settled() -> bool:
            pods = self.pods(name)
            return len(pods) == count and sum(is_ready(p) for p in pods) == count

        eventually(f"{name} has {count} replicas, all ready", settled, timeout)

    def wait_condition(self, name: str, type_: str, status: str, timeout: float = 120) -> str:
        """Wait for a condition's status; return its reason."""

        def reason() -> str:
            found = self.condition(name, type_)
            return str(found["reason"]) if found.get("status") == status else ""

        return eventually(f"{name} shows {type_}={status}", reason, timeout)

    def client(self, name: str, **options: Any) -> Client:
        """A client of one service."""
        return platform.client(self.key, name, **options)

    def load(self, name: str, **options: Any) -> Load:
        """A closed loop of requests to one service."""
        return Load(self.client(name, **options))

    def occupy_gpu(self, count: int = 1) -> None:
        """Let somebody else's pods take GPUs."""
        for _ in range(count):
            name = f"occupant-{len(self.fillers)}"
            self.kube.apply(_occupant(name), namespace=self.namespace)
            self.fillers.append(name)
        self.kube.kubectl(
            "wait", "pod", "-l", "app=occupant", "--for=condition=Ready",
            "-n", self.namespace, "--timeout=60s",
        )  # fmt: skip

    def release_gpu(self) -> None:
        """Let one of those pods go."""
        self.kube.delete("pod", self.fillers.pop(), self.namespace, "--grace-period=1")


def free_gpus(kube: Kube) -> int:
    """GPUs of the node that no pod holds; pods that leave hold theirs."""
    try:
        text = kube.kubectl(
            "get", "pods", "-A", "--field-selector=status.phase!=Succeeded,status.phase!=Failed",
            "-o", 'jsonpath={range .items[?(@.spec.nodeName)]}{range .spec.containers[*]}'
            '{.resources.requests.nvidia\\.com/gpu}{"\\n"}{end}{end}',
        )  # fmt: skip
    except CommandFailed:
        return -1
    return 2 - sum(int(line) for line in text.split())


def restricted_pod(name: str, command: list[str]) -> dict[str, Any]:
    """A pod of the engine image that a restricted namespace admits, running something else."""
    container = {
        "name": "main",
        "image": platform.images()["engine-cpu"],
        "imagePullPolicy": "IfNotPresent",
        "command": command,
        "resources": {"requests": {"cpu": "1m", "memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": security,
        "containers": [container],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def _occupant(name: str) -> dict[str, Any]:
    pod = restricted_pod(name, ["python3", "-c", "import signal; signal.pause()"])
    pod["metadata"]["labels"] = {"app": "occupant"}
    pod["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/gpu": "1"}
    return pod


def assert_no_failure(sent: list[Sent], at_least: int = 1) -> None:
    """Every request was answered completely, and there were enough to mean something."""
    assert len(sent) >= at_least, f"only {len(sent)} requests were sent"
    assert not failures(sent), failures(sent)[:5]
