"""A line a second of what the cluster shows: replicas, the pending one, full or not."""

import threading
import time
from dataclasses import asdict, dataclass
from subprocess import TimeoutExpired
from typing import Any

from lab.kube import CommandFailed, Kube, condition, is_ready

INTERVAL = 1.0  # seconds


@dataclass(frozen=True)
class Sample:
    """One moment of the service; ``t`` in seconds since the epoch."""

    t: float
    desired: int
    ready: int
    pending: int  # pods that no node has room for
    pods: int  # without those that are leaving
    full: bool
    reason: str
    scaling: str  # ScalingActive's reason
    measured: str  # when a second replica was last decided on with Prometheus' numbers, or ""


class Watcher:
    """Samples one InferenceService in a thread until stopped."""

    def __init__(self, kube: Kube, namespace: str, name: str) -> None:
        self.kube, self.namespace, self.name = kube, namespace, name
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watcher":
        self.samples.append(self.look())
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(30)

    @property
    def now(self) -> Sample:
        """The newest sample."""
        return self.samples[-1]

    def look(self) -> Sample:
        """Read the service and its pods."""
        service = self.kube.get("infsvc", self.name, self.namespace) or {}
        labels = f"overspill.dev/service={self.name}"
        pods = [
            p
            for p in self.kube.list("pods", self.namespace, labels)
            if "deletionTimestamp" not in p["metadata"]
        ]
        status = service.get("status", {})
        capacity = status.get("capacity") or {}
        return Sample(
            t=time.time(),
            desired=status.get("desiredReplicas", 0),
            ready=sum(is_ready(p) for p in pods),
            pending=sum("nodeName" not in p["spec"] for p in pods),
            pods=len(pods),
            full=bool(capacity.get("full")),
            reason=capacity.get("message", ""),
            scaling=condition(service, "ScalingActive").get("reason", ""),
            measured=_measured(status.get("lastDecisions", [])),
        )

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL):
            try:
                self.samples.append(self.look())
            except (CommandFailed, TimeoutExpired):
                continue

    def rows(self) -> list[dict[str, object]]:
        """The samples as plain values."""
        return [asdict(s) for s in self.samples]


def _measured(decisions: list[dict[str, Any]]) -> str:
    rises = [d for d in decisions if (d["replicasFrom"], d["replicasTo"]) == (1, 2)]
    # What the gateways themselves told the operator is called gateway_arrivals_rate.
    return next((str(d["time"]) for d in rises if "arrivals_rate" in d.get("inputs", {})), "")
